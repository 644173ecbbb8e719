// The two ends of a connection whose sender goes away, for tests/e2e/leaving_test.go.
//
//   leaving send IP PORT HOW     sends MESSAGES messages of SIZE bytes, prints "sent", and is gone: by exit, detach, finish (half
//                                close), close, or, with wait, when it is killed
//   leaving read IP PORT         accepts a connection and prints "accepted"; at a line on standard input it reads all there is, and
//                                prints the number of bytes, how many of them are right, and how it ended
//
// The sidecar is the one of $MACHNET_SOCKET.
#define _POSIX_C_SOURCE 200809L
#include "machnet.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MESSAGES = 10, SIZE = 30000 };

// The byte at a place of the stream.
static unsigned char byte_at(size_t at) { return (unsigned char)(((uint32_t)at * 2654435761u) >> 13); }

static void need(int64_t code, const char *what) {
  if (code >= 0) return;
  fprintf(stderr, "leaving: %s: %s\n", what, machnet_strerror((int)code));
  exit(1);
}

static void say(const char *what) {
  puts(what);
  fflush(stdout);
}

static int send_and_leave(machnet_channel *ch, uint32_t ip, uint16_t port, const char *how) {
  machnet_conn conn = 0;
  need(machnet_connect(ch, ip, port, 0, &conn), "connect");
  static unsigned char message[SIZE];
  for (size_t n = 0; n < MESSAGES; n++) {
    for (size_t i = 0; i < SIZE; i++) message[i] = byte_at(n * SIZE + i);
    need(machnet_send(ch, conn, message, SIZE, 0), "send");
  }
  if (strcmp(how, "finish") == 0) need(machnet_finish(ch, conn), "finish");
  if (strcmp(how, "close") == 0) need(machnet_close(ch, conn), "close");
  say("sent");
  if (strcmp(how, "wait") == 0) pause();
  if (strcmp(how, "detach") == 0) {
    machnet_detach(ch);
    say("detached");
    pause();  // the process lives on, without the channel
  }
  _exit(0);
}

static int read_all(machnet_channel *ch, uint32_t ip, uint16_t port) {
  uint32_t listener = 0;
  machnet_conn conn = 0;
  need(machnet_bind(ch, ip, port), "bind");
  need(machnet_listen(ch, 1, 0, &listener, &port), "listen");
  printf("port %u\n", (unsigned)port);
  fflush(stdout);
  need(machnet_accept(ch, listener, &conn, NULL, 0), "accept");
  say("accepted");
  getchar();
  static unsigned char buffer[7001];
  size_t bytes = 0, right = 0;
  int64_t got;
  while ((got = machnet_recv(ch, conn, buffer, sizeof buffer, MACHNET_RECV_STREAM, NULL)) > 0) {
    for (size_t i = 0; i < (size_t)got; i++) right += buffer[i] == byte_at(bytes + i);
    bytes += (size_t)got;
  }
  const char *end = got == 0 ? "end" : got == MACHNET_ERESET ? "reset" : machnet_strerror((int)got);
  printf("%zu %zu %s\n", bytes, right, end);
  machnet_detach(ch);
  return 0;
}

int main(int argc, char **argv) {
  int sending = argc == 5 && strcmp(argv[1], "send") == 0;
  struct in_addr address;
  if ((!sending && !(argc == 4 && strcmp(argv[1], "read") == 0)) || inet_pton(AF_INET, argv[2], &address) != 1) {
    fprintf(stderr, "usage: leaving send IP PORT exit|detach|finish|close|wait | leaving read IP PORT\n");
    return 2;
  }
  uint32_t ip = ntohl(address.s_addr);
  uint16_t port = (uint16_t)atoi(argv[3]);
  machnet_channel *ch = NULL;
  need(machnet_init(), "init");
  need(machnet_attach(NULL, NULL, &ch), "attach");
  return sending ? send_and_leave(ch, ip, port, argv[4]) : read_all(ch, ip, port);
}
