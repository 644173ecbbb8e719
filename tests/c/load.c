// The echo of `machnet bench go` in C: what a Go program is measured against. It obeys the orders that the bench's own workers obey, one line of
// JSON each on standard input, and answers in lines of JSON (cmd/machnet/orders.go). It ends with its input.
//
//   load serve SOCKET IP PORT           returns every message
//   load drive SOCKET IP PORT           sends the next message when one has come back, and measures
//
// One connection, one thread, the blocking calls. A frame is laid out as cmd/internal/load says.
#define _POSIX_C_SOURCE 200809L
#include "machnet.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MIN_SIZE = 8, MAX_SIZE = 64 << 10, MAX_INFLIGHT = 4096, EXACT = 2048, BUCKETS = 40 * 1024 };

// Says what was attempted and what came back, as an answer that the bench shows, and ends the program.
static void die(const machnet_channel *ch, const char *what, int64_t code) {
  char text[MACHNET_ERROR_TEXT_MAX] = "";
  if (ch != NULL) machnet_error_text(ch, text, sizeof text);
  for (char *c = text; *c != 0; c++) {
    if (*c == '"' || *c == '\\') *c = '\'';
  }
  printf("{\"error\":\"%s: %s\"}\n", what, text[0] != 0 ? text : machnet_strerror((int)code));
  fflush(stdout);
  exit(1);
}

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

// Latencies in three significant digits: exact below 2048 ns, then 1024 buckets for each doubling.
static uint64_t counts[BUCKETS];

static void record(uint64_t ns) {
  unsigned shift = 0;
  while (ns >> shift >= EXACT) shift++;
  size_t at = (size_t)shift * 1024 + (size_t)(ns >> shift);
  counts[at < BUCKETS ? at : BUCKETS - 1]++;
}

static uint64_t value(size_t at) {
  if (at < EXACT) return at;
  unsigned shift = (unsigned)(at / 1024 - 1);
  return (uint64_t)(at - (size_t)shift * 1024) << shift;
}

// The number of a field in an order; the bench writes each once, without spaces.
static uint64_t field(const char *order, const char *name) {
  char key[32];
  snprintf(key, sizeof key, "\"%s\":", name);
  const char *at = strstr(order, key);
  if (at == NULL) die(NULL, name, MACHNET_EINVAL);
  return strtoull(at + strlen(key), NULL, 10);
}

static void serve(machnet_channel *ch, machnet_conn conn, unsigned char *buffer) {
  for (;;) {
    int64_t got = machnet_recv(ch, conn, buffer, MAX_SIZE, MACHNET_RECV_MESSAGE, NULL);
    if (got == MACHNET_EEOF) break;
    if (got < 0) die(ch, "receive", got);
    int sent = machnet_send(ch, conn, buffer, (size_t)got, 0);
    if (sent != 0) die(ch, "send", sent);
  }
  machnet_close(ch, conn);
}

static void server(machnet_channel *ch, const char *ip_text, uint32_t ip, uint16_t port) {
  uint32_t listener = 0;
  uint16_t at = 0;
  int rc = machnet_bind(ch, ip, port);
  if (rc != 0) die(ch, "bind", rc);
  rc = machnet_listen(ch, 16, 0, &listener, &at);
  if (rc != 0) die(ch, "listen", rc);
  static unsigned char buffer[MAX_SIZE];
  printf("{\"addr\":\"%s:%u\"}\n", ip_text, (unsigned)at);
  fflush(stdout);
  for (;;) {
    machnet_conn conn = 0;
    rc = machnet_accept(ch, listener, &conn, NULL, 0);
    if (rc != 0) die(ch, "accept", rc);
    serve(ch, conn, buffer);
  }
}

// One run: the measurement begins when the warm-up is over and as many echoes have come back as are in flight.
static void run(machnet_channel *ch, machnet_conn conn, size_t size, size_t inflight, uint64_t warmup, uint64_t duration) {
  static unsigned char out[MAX_SIZE], in[MAX_SIZE];
  static uint64_t sent[MAX_INFLIGHT];
  uint32_t x = (uint32_t)size;
  for (size_t i = 0; i < size; i++) {
    x = x * 1664525u + 1013904223u;
    out[i] = (unsigned char)(x >> 24);
  }
  for (size_t i = 0; i < 4; i++) out[i] = (unsigned char)(size >> (8 * i));
  memset(out + 4, 0, 4);
  memset(counts, 0, sizeof counts);
  uint64_t begin = now_ns(), until = 0, messages = 0, all = 0;
  size_t outstanding = 0, next = 0;
  for (; outstanding < inflight; outstanding++) {
    sent[next++] = now_ns();
    int rc = machnet_send(ch, conn, out, size, 0);
    if (rc != 0) die(ch, "send", rc);
  }
  for (size_t place = 0; outstanding > 0; place = (place + 1) % inflight) {  // echoes come back in order
    int64_t got = machnet_recv(ch, conn, in, sizeof in, MACHNET_RECV_MESSAGE, NULL);
    uint64_t now = now_ns();
    if (got < 0) die(ch, "receive", got);
    if ((size_t)got != size || memcmp(in, out, 5) != 0 || in[size - 1] != out[size - 1]) die(NULL, "the echo differs from what was sent", MACHNET_EINVAL);
    all++;
    if (until == 0) {
      if (now - begin >= warmup && all >= inflight) until = now + duration;
    } else if (now <= until) {
      messages++;
      record(now - sent[place]);
    }
    if (until != 0 && now >= until) {
      outstanding--;
      continue;
    }
    sent[place] = now;
    int rc = machnet_send(ch, conn, out, size, 0);
    if (rc != 0) die(ch, "send", rc);
  }
  printf("{\"result\":{\"Messages\":%llu,\"All\":%llu,\"Lost\":0,\"Seconds\":%.9f,\"Buckets\":[", (unsigned long long)messages,
         (unsigned long long)all, (double)duration / 1e9);
  const char *comma = "";
  for (size_t i = 0; i < BUCKETS; i++) {
    if (counts[i] == 0) continue;
    printf("%s[%llu,%llu]", comma, (unsigned long long)value(i), (unsigned long long)counts[i]);
    comma = ",";
  }
  printf("]}}\n");
  fflush(stdout);
}

static void client(machnet_channel *ch, uint32_t ip, uint16_t port) {
  machnet_conn conn = 0;
  int rc = machnet_connect(ch, ip, port, 0, &conn);
  if (rc != 0) die(ch, "connect", rc);
  printf("{\"ready\":true}\n");
  fflush(stdout);
  char order[1024];
  while (fgets(order, sizeof order, stdin) != NULL) {
    uint64_t size = field(order, "Size"), inflight = field(order, "Inflight");
    if (size < MIN_SIZE || size > MAX_SIZE || inflight < 1 || inflight > MAX_INFLIGHT) die(NULL, "size or messages in flight", MACHNET_EINVAL);
    run(ch, conn, (size_t)size, (size_t)inflight, field(order, "Warmup"), field(order, "Duration"));
  }
  machnet_close(ch, conn);
}

int main(int argc, char **argv) {
  struct in_addr address;
  if (argc != 5 || (strcmp(argv[1], "serve") != 0 && strcmp(argv[1], "drive") != 0) || inet_pton(AF_INET, argv[3], &address) != 1) {
    fprintf(stderr, "usage: load serve|drive SOCKET IP PORT\n");
    return 2;
  }
  uint32_t ip = ntohl(address.s_addr);
  uint16_t port = (uint16_t)strtoul(argv[4], NULL, 10);
  int rc = machnet_init();
  if (rc != 0) die(NULL, "init", rc);
  machnet_channel *ch = NULL;
  rc = machnet_attach(argv[2], NULL, &ch);
  if (rc != 0) die(ch, "attach", rc);
  if (strcmp(argv[1], "serve") == 0) {
    server(ch, argv[3], ip, port);
  } else {
    client(ch, ip, port);
  }
  machnet_detach(ch);
  return 0;
}
