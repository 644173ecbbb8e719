// An echo server and client in C, to prove machnet.h from C (and C++) and as an example of the blocking calls.
//
//   echo server IP PORT                 serves for ever
//   echo client IP PORT COUNT SIZE      COUNT round trips of SIZE bytes; prints their times
//
// The sidecar is the one of $MACHNET_SOCKET, or /var/run/machnet/machnet.sock.
#define _POSIX_C_SOURCE 200809L
#include "machnet.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

// Says what was attempted and what came back, and ends the program.
static void die(const machnet_channel *ch, const char *what, int64_t code) {
  char text[MACHNET_ERROR_TEXT_MAX] = "";
  if (ch != NULL) machnet_error_text(ch, text, sizeof text);
  if (text[0] != 0) {
    fprintf(stderr, "echo: %s\n", text);  // names what was attempted
  } else {
    fprintf(stderr, "echo: %s: %s\n", what, machnet_strerror((int)code));
  }
  exit(1);
}

static unsigned long number(const char *text, unsigned long most, const char *what) {
  char *end = NULL;
  unsigned long value = strtoul(text, &end, 10);
  if (text[0] == 0 || *end != 0 || value > most) {
    fprintf(stderr, "echo: %s is \"%s\"; a number from 0 to %lu is wanted\n", what, text, most);
    exit(2);
  }
  return value;
}

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

// Serves one connection at a time until its peer has finished.
static void serve(machnet_channel *ch, machnet_conn conn, unsigned char *buffer) {
  for (;;) {
    machnet_recv_info info;
    int64_t got = machnet_recv(ch, conn, buffer, MACHNET_MAX_MESSAGE, MACHNET_RECV_MESSAGE, &info);
    if (got < 0) {
      if (got == MACHNET_ENETDOWN) die(ch, "receive", got);
      if (got != MACHNET_EEOF) fprintf(stderr, "echo: a connection ended: %s\n", machnet_strerror((int)got));
      break;
    }
    int sent = machnet_send(ch, conn, buffer, (size_t)got, 0);
    if (sent == MACHNET_ENETDOWN) die(ch, "send", sent);
    if (sent != 0) break;
  }
  machnet_close(ch, conn);
}

static void server(machnet_channel *ch, uint32_t ip, uint16_t port) {
  uint32_t listener = 0;
  uint16_t at = 0;
  int rc = machnet_bind(ch, ip, port);
  if (rc != 0) die(ch, "bind", rc);
  rc = machnet_listen(ch, 16, 0, &listener, &at);
  if (rc != 0) die(ch, "listen", rc);
  printf("listening on port %u\n", (unsigned)at);
  fflush(stdout);
  unsigned char *buffer = (unsigned char *)malloc(MACHNET_MAX_MESSAGE);
  if (buffer == NULL) die(NULL, "allocate", MACHNET_ENOBUFS);
  for (;;) {
    machnet_conn conn = 0;
    rc = machnet_accept(ch, listener, &conn, NULL, 0);
    if (rc != 0) die(ch, "accept", rc);
    serve(ch, conn, buffer);
  }
}

static int smaller(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return x < y ? -1 : x > y;
}

static int client(machnet_channel *ch, uint32_t ip, uint16_t port, size_t count, size_t size) {
  machnet_conn conn = 0;
  int rc = machnet_connect(ch, ip, port, 0, &conn);
  if (rc != 0) die(ch, "connect", rc);
  unsigned char *out = (unsigned char *)malloc(size + 1), *in = (unsigned char *)malloc(size + 1);
  uint64_t *took = (uint64_t *)malloc((count + 1) * sizeof *took);
  if (out == NULL || in == NULL || took == NULL) die(NULL, "allocate", MACHNET_ENOBUFS);
  for (size_t i = 0; i < count; i++) {
    for (size_t k = 0; k < size; k++) out[k] = (unsigned char)(i * 31 + k * 7 + (k >> 8));
    uint64_t begun = now_ns();
    rc = machnet_send(ch, conn, out, size, 0);
    if (rc != 0) die(ch, "send", rc);
    int64_t got = machnet_recv(ch, conn, in, size, MACHNET_RECV_MESSAGE, NULL);
    took[i] = now_ns() - begun;
    if (got < 0) die(ch, "receive", got);
    if ((size_t)got != size || memcmp(in, out, size) != 0) {
      fprintf(stderr, "echo: answer %lu differs from what was sent (%ld of %lu bytes)\n", (unsigned long)i, (long)got,
              (unsigned long)size);
      return 1;
    }
  }
  machnet_close(ch, conn);
  qsort(took, count, sizeof *took, smaller);
  if (count > 0) {
    printf("%lu round trips of %lu bytes: p50 %.1f us, p99 %.1f us, max %.1f us\n", (unsigned long)count,
           (unsigned long)size, (double)took[count / 2] / 1e3, (double)took[count * 99 / 100] / 1e3,
           (double)took[count - 1] / 1e3);
  }
  free(out);
  free(in);
  free(took);
  return 0;
}

int main(int argc, char **argv) {
  int serving = argc == 4 && strcmp(argv[1], "server") == 0;
  int calling = argc == 6 && strcmp(argv[1], "client") == 0;
  if (!serving && !calling) {
    fprintf(stderr, "usage: echo server IP PORT | echo client IP PORT COUNT SIZE\n");
    return 2;
  }
  struct in_addr address;
  if (inet_pton(AF_INET, argv[2], &address) != 1) {
    fprintf(stderr, "echo: \"%s\" is no IPv4 address\n", argv[2]);
    return 2;
  }
  uint32_t ip = ntohl(address.s_addr);
  uint16_t port = (uint16_t)number(argv[3], 65535, "PORT");
  size_t count = calling ? number(argv[4], 100000000, "COUNT") : 0;
  size_t size = calling ? number(argv[5], MACHNET_MAX_MESSAGE, "SIZE") : 0;

  int rc = machnet_init();
  if (rc != 0) die(NULL, "init", rc);
  machnet_channel *ch = NULL;
  rc = machnet_attach(NULL, NULL, &ch);
  if (rc != 0) die(ch, "attach", rc);
  if (serving) server(ch, ip, port);
  int status = client(ch, ip, port, count, size);
  machnet_detach(ch);
  return status;
}
