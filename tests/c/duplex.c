// One thread for each direction of one channel: one sends COUNT messages of SIZE bytes while the other receives as many and
// compares them. The other end is the same program, or anything that echoes.
//
//   duplex server IP PORT COUNT SIZE    serves one connection
//   duplex client IP PORT COUNT SIZE
//
// Prints how many messages went each way. Ends itself with these counts and status 3 when nothing has moved for ten seconds.
#define _POSIX_C_SOURCE 200809L
#include "machnet.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct direction {
  machnet_channel *ch;
  machnet_conn conn;
  unsigned long count;
  size_t size;
};

// Written by one thread each, read by the watching one.
static unsigned long sent, received, ended;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void add(unsigned long *counter) {
  pthread_mutex_lock(&lock);
  ++*counter;
  pthread_mutex_unlock(&lock);
}

static void check(int good, machnet_channel *ch, const char *what, int64_t value) {
  char text[MACHNET_ERROR_TEXT_MAX] = "";
  if (good) return;
  if (ch != NULL) machnet_error_text(ch, text, sizeof text);
  fprintf(stderr, "duplex: %s: %lld (%s) %s\n", what, (long long)value, machnet_strerror((int)value), text);
  exit(1);
}

static void fill(unsigned char *to, size_t size, unsigned long message) {
  for (size_t k = 0; k < size; k++) to[k] = (unsigned char)(message * 31 + k * 7 + (k >> 8));
}

static void *send_all(void *argument) {
  struct direction *d = (struct direction *)argument;
  unsigned char *message = (unsigned char *)malloc(d->size + 1);
  for (unsigned long i = 0; i < d->count; i++) {
    fill(message, d->size, i);
    int rc = machnet_send(d->ch, d->conn, message, d->size, 0);
    check(rc == 0, d->ch, "send", rc);
    add(&sent);
  }
  int rc;
  do rc = machnet_finish(d->ch, d->conn);
  while (rc == MACHNET_EAGAIN || rc == MACHNET_EBUSY);
  check(rc == 0, d->ch, "finish", rc);
  free(message);
  add(&ended);
  return NULL;
}

static void *receive_all(void *argument) {
  struct direction *d = (struct direction *)argument;
  unsigned char *message = (unsigned char *)malloc(d->size + 1), *want = (unsigned char *)malloc(d->size + 1);
  for (unsigned long i = 0; i < d->count; i++) {
    int64_t got = machnet_recv(d->ch, d->conn, message, d->size, MACHNET_RECV_MESSAGE, NULL);
    check(got >= 0, d->ch, "receive", got);
    fill(want, d->size, i);
    check((size_t)got == d->size && memcmp(message, want, d->size) == 0, NULL, "a message differs from what was sent", got);
    add(&received);
  }
  int64_t got = machnet_recv(d->ch, d->conn, message, d->size, MACHNET_RECV_MESSAGE, NULL);
  check(got == MACHNET_EEOF, d->ch, "receive at the end", got);
  free(message);
  free(want);
  add(&ended);
  return NULL;
}

// Whether a ring has something that nobody has taken.
static int waits(const machnet_ring_view *ring) {
  uint32_t head = *(const volatile uint32_t *)ring->head;
  return *(const volatile uint32_t *)(ring->slots + (size_t)(head & ring->mask) * ring->stride) == head + 1;
}

// Until both directions have ended; ends the process when they stand still.
static void watch(machnet_channel *ch) {
  unsigned long before = 0, quiet = 0;
  for (;;) {
    pthread_mutex_lock(&lock);
    unsigned long to = sent, from = received, over = ended;
    pthread_mutex_unlock(&lock);
    if (over == 2) return;
    quiet = to + from == before ? quiet + 1 : 0;
    before = to + from;
    if (quiet > 1000) {
      machnet_wait_view_t view;
      machnet_wait_view(ch, &view);
      printf("stuck with %lu sent, %lu received; deliveries wait: %d, completions wait: %d\n", to, from, waits(&view.deliver),
             waits(&view.complete));
      fflush(stdout);
      _exit(3);
    }
    struct timespec while_it_moves = {0, 10000000};
    nanosleep(&while_it_moves, NULL);
  }
}

int main(int argc, char **argv) {
  int serving = argc == 6 && strcmp(argv[1], "server") == 0;
  struct in_addr address;
  if ((!serving && (argc != 6 || strcmp(argv[1], "client") != 0)) || inet_pton(AF_INET, argv[2], &address) != 1) {
    fprintf(stderr, "usage: duplex server|client IP PORT COUNT SIZE\n");
    return 2;
  }
  uint32_t ip = ntohl(address.s_addr);
  uint16_t port = (uint16_t)strtoul(argv[3], NULL, 10);
  struct direction d = {NULL, 0, strtoul(argv[4], NULL, 10), strtoul(argv[5], NULL, 10)};
  int rc = machnet_attach(NULL, NULL, &d.ch);
  check(rc == 0, d.ch, "attach", rc);
  if (serving) {
    uint32_t listener = 0;
    rc = machnet_bind(d.ch, ip, port);
    check(rc == 0, d.ch, "bind", rc);
    rc = machnet_listen(d.ch, 4, 0, &listener, &port);
    check(rc == 0, d.ch, "listen", rc);
    printf("listening on port %u\n", (unsigned)port);
    fflush(stdout);
    rc = machnet_accept(d.ch, listener, &d.conn, NULL, 0);
    check(rc == 0, d.ch, "accept", rc);
  } else {
    rc = machnet_connect(d.ch, ip, port, 0, &d.conn);
    check(rc == 0, d.ch, "connect", rc);
  }
  pthread_t out, in;
  check(pthread_create(&out, NULL, send_all, &d) == 0, NULL, "make a thread", 0);
  check(pthread_create(&in, NULL, receive_all, &d) == 0, NULL, "make a thread", 0);
  watch(d.ch);
  pthread_join(out, NULL);
  pthread_join(in, NULL);
  printf("%lu sent, %lu received\n", sent, received);
  machnet_close(d.ch, d.conn);
  machnet_detach(d.ch);
  return 0;
}
