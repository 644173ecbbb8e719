// Both static archives in one program: two hosts on a simulated network with faults, an echo between their applications
// over the blocking calls, and what an application sees when its host dies. Prints "ok" or says what was wrong.
#include "machnet.h"
#include "machnet_host.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IP_A 0x0a000001u
#define IP_B 0x0a000002u
#define PORT 7000
#define LARGEST 300000

static void check(int good, const char *what, int64_t value) {
  if (!good) {
    fprintf(stderr, "hosts: %s: %lld (%s)\n", what, (long long)value, machnet_strerror((int)value));
    exit(1);
  }
}

static machnet_channel *attach(machnet_host_net *net, int host) {
  machnet_channel *ch = NULL;
  int fd = machnet_host_connect(net, host);
  check(fd >= 0, "connect to a host", fd);
  int rc = machnet_attach_fd(fd, NULL, &ch);
  check(rc == 0, "attach", rc);
  while ((rc = machnet_attach_step(ch)) == MACHNET_EAGAIN) {
  }
  check(rc == 0, "attach", rc);
  return ch;
}

struct server {
  machnet_channel *ch;
  uint32_t listener;
};

// Echoes the messages of one connection until its end; then waits for a second one until its host dies.
static void *serve(void *argument) {
  struct server *server = (struct server *)argument;
  unsigned char *buffer = (unsigned char *)malloc(LARGEST);
  machnet_conn conn = 0;
  int rc = machnet_accept(server->ch, server->listener, &conn, NULL, 0);
  check(rc == 0, "accept", rc);
  for (;;) {
    int64_t got = machnet_recv(server->ch, conn, buffer, LARGEST, MACHNET_RECV_MESSAGE, NULL);
    if (got == MACHNET_EEOF) break;
    check(got >= 0, "receive at the server", got);
    rc = machnet_send(server->ch, conn, buffer, (size_t)got, 0);
    check(rc == 0, "send at the server", rc);
  }
  machnet_close(server->ch, conn);
  rc = machnet_accept(server->ch, server->listener, &conn, NULL, 0);
  check(rc == MACHNET_ENETDOWN, "accept on a host that dies", rc);
  free(buffer);
  return NULL;
}

int main(void) {
  machnet_host_link link = {0.01, 0.01, 0.01, 0.001, 10000, 2000, 0};
  machnet_host_net *net = machnet_host_new(7, &link);
  check(net != NULL, "make a network", 0);
  machnet_host_plan a = {IP_A, 2, 0, 0, 0}, b = {IP_B, 1, 0, 0, 0};
  check(machnet_host_add(net, &a) == 0 && machnet_host_add(net, &b) == 1, "add hosts", 0);
  check(machnet_host_add(net, &a) == -1, "an address twice", 0);
  check(machnet_host_start(net) == 0, "start", 0);

  struct server server = {attach(net, 1), 0};
  int rc = machnet_bind(server.ch, IP_B, PORT);
  check(rc == 0, "bind", rc);
  rc = machnet_listen(server.ch, 8, &server.listener, NULL);
  check(rc == 0, "listen", rc);
  pthread_t thread;
  check(pthread_create(&thread, NULL, serve, &server) == 0, "make a thread", 0);

  machnet_channel *ch = attach(net, 0);
  machnet_conn conn = 0;
  rc = machnet_connect(ch, IP_B, PORT + 1, 0, &conn);
  check(rc == MACHNET_EREFUSED, "connect where nobody listens", rc);
  rc = machnet_connect(ch, IP_B, PORT, 0, &conn);
  check(rc == 0, "connect", rc);
  unsigned char *out = (unsigned char *)malloc(LARGEST), *in = (unsigned char *)malloc(LARGEST);
  size_t sizes[] = {0, 1, 64, 96, 97, 1424, 1425, 30000, LARGEST};
  for (size_t round = 0; round < 200; round++) {
    size_t size = sizes[round < 9 ? round : round % 7];
    for (size_t i = 0; i < size; i++) out[i] = (unsigned char)(i * 7 + (i >> 8) + round);
    rc = machnet_send(ch, conn, out, size, 0);
    check(rc == 0, "send", rc);
    int64_t got = machnet_recv(ch, conn, in, LARGEST, MACHNET_RECV_MESSAGE, NULL);
    check(got == (int64_t)size && memcmp(in, out, size) == 0, "the answer differs", got);
  }
  machnet_close(ch, conn);
  check(machnet_host_counter(net, 0, "rx_frames") > 0, "a counter", 0);
  check(machnet_host_counter(net, 0, "no such counter") == -1, "a counter that is not", 0);
  struct machnet_wait_view_t view;
  check(machnet_wait_view(ch, &view) == 0, "wait view", 0);
  machnet_wait(ch, 50);
  check(machnet_host_kill(net, 1) == 0, "kill", 0);
  pthread_join(thread, NULL);
  machnet_detach(server.ch);
  machnet_detach(ch);
  machnet_host_free(net);
  free(out);
  free(in);
  puts("ok");
  return 0;
}
