// Both static archives in one program: two hosts on a simulated network with faults, an echo between their applications
// over the blocking calls, and what an application sees when its host dies; then the calls that never block, in virtual
// time, and what may befall hosts and links. Prints "ok" or says what was wrong.
#include "machnet.h"
#include "machnet_host.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

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

// Attaches, to this engine or to any; `virtually` runs the hosts meanwhile.
static machnet_channel *attach_to(machnet_host_net *net, int host, int engine, int virtually) {
  machnet_channel *ch = NULL;
  int fd = machnet_host_connect(net, host);
  check(fd >= 0, "connect to a host", fd);
  machnet_options options = {engine, 0};
  int rc = machnet_attach_fd(fd, &options, &ch);
  check(rc == 0, "attach", rc);
  while ((rc = machnet_attach_step(ch)) == MACHNET_EAGAIN) {
    if (virtually) machnet_host_step(net, 1000);
  }
  check(rc == 0, "attach", rc);
  return ch;
}

static machnet_channel *attach(machnet_host_net *net, int host, int virtually) { return attach_to(net, host, MACHNET_ANY_ENGINE, virtually); }

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

// Runs the hosts until an event of this kind comes, for at most a second of virtual time.
static machnet_event await_event(machnet_host_net *net, machnet_channel *ch, uint32_t kind) {
  machnet_event event;
  for (int i = 0; i < 100000; i++) {
    while (machnet_poll(ch, &event, 1) == 1) {
      if (event.kind == kind) return event;
    }
    check(machnet_host_step(net, 10000) == 0, "step", 0);
  }
  check(0, "no event of this kind within a second", (int64_t)kind);
  return event;
}

static void virtual_time(void) {
  machnet_host_net *net = machnet_host_new(3, NULL);
  check(net != NULL, "make a network", 0);
  machnet_host_plan a = {IP_A, 1, 9000, 64, 8}, b = {IP_B, 4, 1500, 0, 0};
  check(machnet_host_add(net, &a) == 0 && machnet_host_add(net, &b) == 1, "add hosts", 0);
  machnet_channel *near = attach(net, 0, 1), *far = attach(net, 1, 1);
  machnet_info_t info;
  machnet_info(near, &info);
  check(info.ip == IP_A && info.mtu == 9000 && info.units == 64 && info.conns == 8, "the plan of a host", info.units);

  uint32_t listener = 0, dial = 0;
  int rc = machnet_listen_begin(far, 0, PORT, 4, 0, &listener);
  check(rc == 0, "listen", rc);
  check(await_event(net, far, MACHNET_EVENT_LISTENING).id == listener, "the listener's id", 0);
  machnet_dial_t request = {IP_B, PORT, 0, 0};
  rc = machnet_dial_begin(near, &request, &dial);
  check(rc == 0, "dial", rc);
  machnet_event out = await_event(net, near, MACHNET_EVENT_CONNECTED);
  check(out.id == dial && out.remote_ip == IP_B && out.remote_port == PORT, "the dial's ends", out.remote_port);
  // The acceptor hears of the connection with the first message at the latest.
  check(machnet_send_some(near, out.conn, "hello", 5, 0) == 5, "send", 0);
  machnet_event in = await_event(net, far, MACHNET_EVENT_ACCEPTED);
  check(in.id == listener && in.remote_ip == IP_A, "the acceptor's ends", in.remote_ip);
  rc = machnet_accepted(far, in.conn);
  check(rc == 0, "take the connection", rc);
  char buffer[16];
  int64_t got = 0;
  for (int i = 0; i < 1000; i++) {
    got = machnet_recv_some(far, in.conn, buffer, sizeof buffer, MACHNET_RECV_MESSAGE, NULL);
    if (got != MACHNET_EAGAIN) break;
    machnet_host_step(net, 10000);
  }
  check(got == 5 && memcmp(buffer, "hello", 5) == 0, "receive", got);
  rc = machnet_reset(near, out.conn);
  check(rc == 0, "reset", rc);
  check(await_event(net, far, MACHNET_EVENT_CLOSED).code == MACHNET_ERESET, "the reset's code", 0);
  machnet_detach(near);
  machnet_detach(far);
  machnet_host_free(net);
}

// A sender detaches and has closed nothing; its reader looks 300 ms later, and has room for less than was sent.
static void leaving(void) {
  enum { MESSAGES = 10, SIZE = 30000 };
  machnet_host_net *net = machnet_host_new(5, NULL);
  check(net != NULL, "make a network", 0);
  machnet_host_plan a = {IP_A, 1, 0, 0, 0}, b = {IP_B, 1, 0, 64, 2};
  check(machnet_host_add(net, &a) == 0 && machnet_host_add(net, &b) == 1, "add hosts", 0);
  machnet_channel *near = attach(net, 0, 1), *far = attach(net, 1, 1);
  uint32_t listener = 0, dial = 0;
  check(machnet_listen_begin(far, 0, PORT, 4, 0, &listener) == 0, "listen", 0);
  await_event(net, far, MACHNET_EVENT_LISTENING);
  machnet_dial_t request = {IP_B, PORT, 0, 0};
  check(machnet_dial_begin(near, &request, &dial) == 0, "dial", 0);
  machnet_conn out = await_event(net, near, MACHNET_EVENT_CONNECTED).conn;
  machnet_conn in = await_event(net, far, MACHNET_EVENT_ACCEPTED).conn;
  static unsigned char message[SIZE], got[SIZE];
  for (int n = 0; n < MESSAGES; n++) {
    memset(message, n + 1, SIZE);
    int64_t sent = machnet_send_some(near, out, message, SIZE, 0);
    check(sent == SIZE, "send all of a message", sent);
  }
  machnet_detach(near);
  machnet_host_step(net, 300000000);
  int64_t rc = MACHNET_EAGAIN, bytes = 0;
  for (int i = 0; i < 100000 && (rc > 0 || rc == MACHNET_EAGAIN); i++) {
    rc = machnet_recv_some(far, in, got, SIZE, MACHNET_RECV_STREAM, NULL);
    for (int64_t k = 0; k < rc; k++) check(got[k] == (bytes + k) / SIZE + 1, "a byte differs", bytes + k);
    bytes += rc > 0 ? rc : 0;
    if (rc == MACHNET_EAGAIN) machnet_host_step(net, 1000);
  }
  check(bytes == MESSAGES * SIZE, "bytes that arrived", bytes);
  check(rc == MACHNET_ERESET, "the end behind them", rc);
  check(machnet_host_counter(net, 0, "linger_resets") == 0, "nothing was given up", 0);
  machnet_detach(far);
  machnet_host_free(net);
}

// More requests than the sidecar has taken: what begins something is told to come back, and hears when; what ends something is never
// refused. And a limit is told with its value.
static void requests(void) {
  enum { MOST = 1000 };
  static uint32_t listeners[MOST];
  machnet_host_net *net = machnet_host_new(5, NULL);
  check(net != NULL, "make a network", 0);
  machnet_host_plan a = {IP_A, 1, 0, 64, 2}, b = {IP_B, 1, 0, 0, 0};
  check(machnet_host_add(net, &a) == 0 && machnet_host_add(net, &b) == 1, "add hosts", 0);
  machnet_channel *ch = attach(net, 0, 1);
  int have = 0, rc;
  for (; have < MOST; have++) {
    rc = machnet_listen_begin(ch, 0, (uint16_t)(PORT + have), 1, 0, &listeners[have]);
    if (rc == MACHNET_EAGAIN) break;
    check(rc == 0, "listen", rc);
  }
  check(have < MOST, "the ring of requests has no end", have);
  for (int i = 0; i < have; i++) {
    rc = machnet_unlisten(ch, listeners[i]);
    check(rc == 0, "end a listener without room for that", rc);
  }
  check(machnet_wait(ch, 0) == 0, "room, though nothing was taken", 0);
  machnet_host_step(net, 10000);
  check(machnet_wait(ch, 0) == 1, "no room, though something was taken", 0);
  for (int i = 0; i < have; i++) await_event(net, ch, MACHNET_EVENT_UNLISTENED);
  for (int i = 0; i < have; i++) {
    rc = machnet_listen_begin(ch, 0, (uint16_t)(PORT + i), 1, 0, &listeners[i]);
    check(rc == 0, "listen again", rc);
    check(await_event(net, ch, MACHNET_EVENT_LISTENING).id == listeners[i], "a port that was given back", i);
  }
  machnet_dial_t nobody = {IP_B + 1, PORT, 0, 0};
  for (int i = 0; i < 3; i++) check(machnet_dial_begin(ch, &nobody, NULL) == 0, "dial", i);
  machnet_event full = await_event(net, ch, MACHNET_EVENT_CONNECT_FAILED);
  char text[MACHNET_ERROR_TEXT_MAX];
  size_t len = machnet_event_text(&full, text, sizeof text);
  check(full.code == MACHNET_EFULL_CONNS && full.limit == 2, "the third of two connections", full.code);
  check(len == strlen(text) && strstr(text, "this process has 2 connections") != NULL, text, (int64_t)len);
  machnet_detach(ch);
  machnet_host_free(net);
}

// A server with a listener on each of two engines: they share a port, and each gets a part of the callers.
static void sharing(void) {
  enum { CALLERS = 60 };
  machnet_host_net *net = machnet_host_new(9, NULL);
  check(net != NULL, "make a network", 0);
  machnet_host_plan a = {IP_A, 2, 0, 0, 0}, b = {IP_B, 2, 0, 0, 0};
  check(machnet_host_add(net, &a) == 0 && machnet_host_add(net, &b) == 1, "add hosts", 0);
  machnet_channel *near = attach(net, 0, 1), *far[2] = {attach_to(net, 1, 0, 1), attach_to(net, 1, 1, 1)};
  for (int i = 0; i < 2; i++) {
    int rc = machnet_listen_begin(far[i], 0, PORT, CALLERS, MACHNET_REUSEPORT, NULL);
    check(rc == 0, "listen", rc);
    await_event(net, far[i], MACHNET_EVENT_LISTENING);
  }
  check(machnet_listen_begin(far[1], 0, PORT, 1, 7, NULL) == MACHNET_EINVAL, "flags that there are not", 7);
  check(machnet_listen_begin(far[1], 0, PORT, 1, 0, NULL) == 0, "listen alone", 0);
  machnet_event taken = await_event(net, far[1], MACHNET_EVENT_LISTEN_FAILED);
  char text[MACHNET_ERROR_TEXT_MAX];
  machnet_event_text(&taken, text, sizeof text);
  check(taken.code == MACHNET_EINUSE && strstr(text, "MACHNET_REUSEPORT") != NULL, text, taken.code);
  machnet_dial_t request = {IP_B, PORT, 0, 0};
  for (int i = 0; i < CALLERS; i++) check(machnet_dial_begin(near, &request, NULL) == 0, "dial", i);
  for (int i = 0; i < CALLERS; i++) await_event(net, near, MACHNET_EVENT_CONNECTED);
  machnet_host_step(net, 10000000);
  int accepted[2] = {0, 0};
  machnet_event event;
  for (int i = 0; i < 2; i++) {
    while (machnet_poll(far[i], &event, 1) == 1) accepted[i] += event.kind == MACHNET_EVENT_ACCEPTED;
  }
  check(accepted[0] + accepted[1] == CALLERS, "accepted", accepted[0] + accepted[1]);
  check(accepted[0] > CALLERS / 5 && accepted[1] > CALLERS / 5, "accepted by the first", accepted[0]);
  machnet_detach(near);
  for (int i = 0; i < 2; i++) machnet_detach(far[i]);
  machnet_host_free(net);
}

// A host is cut off in one direction, dies and starts anew; and a socket of the caller's own is served.
static void lives(void) {
  machnet_host_net *net = machnet_host_new(11, NULL);
  check(net != NULL, "make a network", 0);
  machnet_host_plan a = {IP_A, 1, 0, 0, 0}, b = {IP_B, 2, 0, 0, 0};
  check(machnet_host_add(net, &a) == 0 && machnet_host_add(net, &b) == 1, "add hosts", 0);
  machnet_channel *near = attach(net, 0, 1);
  machnet_dial_t request = {IP_B, PORT, 0, 50};
  for (int life = 0; life < 3; life++) {
    int ends[2], rc = socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends);
    check(rc == 0, "socketpair", rc);
    check(machnet_host_serve(net, 1, ends[1]) == 0, "serve a socket", life);
    check(close(ends[1]) == 0, "it is the caller's as before", life);
    machnet_channel *far = NULL;
    check(machnet_attach_fd(ends[0], NULL, &far) == 0, "attach by it", life);
    while ((rc = machnet_attach_step(far)) == MACHNET_EAGAIN) machnet_host_step(net, 1000);
    check(rc == 0, "attach by it", rc);
    check(machnet_listen_begin(far, 0, PORT, 4, 0, NULL) == 0, "listen", life);
    await_event(net, far, MACHNET_EVENT_LISTENING);
    machnet_host_link cut = {1, 0, 0, 0, 10000, 0, 0};
    for (int way = 0; way < 2; way++) {
      check(machnet_host_set_link(net, way, 1 - way, &cut) == 0, "cut one way", way);
      check(machnet_dial_begin(near, &request, NULL) == 0, "dial", way);
      machnet_event failed = await_event(net, near, MACHNET_EVENT_CONNECT_FAILED);
      check(failed.code == MACHNET_ETIMEDOUT || failed.code == MACHNET_EUNREACHABLE, "a dial through a cut link", failed.code);
      check(machnet_host_set_link(net, way, 1 - way, NULL) == 0, "mend it", way);
    }
    machnet_dial_t patient = {IP_B, PORT, 0, 0};
    check(machnet_dial_begin(near, &patient, NULL) == 0, "dial", life);
    await_event(net, near, MACHNET_EVENT_CONNECTED);
    check(machnet_host_restart(net, 1) == 0, "restart", life);
    machnet_event event;
    while ((rc = machnet_wait(far, 1000)) > 0 && (rc = machnet_poll(far, &event, 1)) >= 0) {
    }
    check(rc == MACHNET_ENETDOWN, "an application of the host that was", rc);
    machnet_detach(far);
    check(machnet_host_counter(net, 1, "rx_frames") == 0, "a host that starts knows nothing", life);
  }
  check(machnet_host_restart(net, 2) == -1, "restart a host that is not", 2);
  check(machnet_host_set_link(net, 0, 0, NULL) == -1, "a link to itself", 0);
  check(machnet_host_set_link(net, 0, 2, NULL) == -1, "a link to a host that is not", 2);
  check(machnet_host_serve(net, 1, -1) == -1, "serve no socket", -1);
  check(machnet_host_kill(net, 1) == 0, "kill", 1);
  check(machnet_host_serve(net, 1, 0) == -1, "serve at a dead host", 1);
  machnet_detach(near);
  machnet_host_free(net);
}

int main(void) {
  machnet_host_link link = {0.01, 0.01, 0.01, 0.001, 10000, 2000, 0};
  machnet_host_net *net = machnet_host_new(7, &link);
  check(net != NULL, "make a network", 0);
  machnet_host_plan a = {IP_A, 2, 0, 0, 0}, b = {IP_B, 1, 0, 0, 0};
  check(machnet_host_add(net, &a) == 0 && machnet_host_add(net, &b) == 1, "add hosts", 0);
  check(machnet_host_add(net, &a) == -1, "an address twice", 0);
  check(machnet_host_start(net) == 0, "start", 0);
  check(machnet_host_step(net, 1) == -1, "virtual time beside real time", 0);

  struct server server = {attach(net, 1, 0), 0};
  int rc = machnet_bind(server.ch, IP_B, PORT);
  check(rc == 0, "bind", rc);
  rc = machnet_listen(server.ch, 8, 0, &server.listener, NULL);
  check(rc == 0, "listen", rc);
  pthread_t thread;
  check(pthread_create(&thread, NULL, serve, &server) == 0, "make a thread", 0);

  machnet_channel *ch = attach(net, 0, 0);
  machnet_conn conn = 0;
  rc = machnet_connect(ch, IP_B, PORT + 1, 0, &conn);
  check(rc == MACHNET_EREFUSED, "connect where nobody listens", rc);
  rc = machnet_connect(ch, IP_B, PORT, 0, &conn);
  check(rc == 0, "connect", rc);
  unsigned char *out = (unsigned char *)malloc(LARGEST), *in = (unsigned char *)malloc(LARGEST);
  uint64_t sum = 0;
  size_t sizes[] = {0, 1, 64, 96, 97, 1424, 1425, 30000, LARGEST};
  for (size_t round = 0; round < 200; round++) {
    size_t size = sizes[round < 9 ? round : round % 7];
    for (size_t i = 0; i < size; i++) out[i] = (unsigned char)(i * 7 + (i >> 8) + round);
    rc = machnet_send(ch, conn, out, size, 0);
    check(rc == 0, "send", rc);
    int64_t got = machnet_recv(ch, conn, in, LARGEST, MACHNET_RECV_MESSAGE, NULL);
    check(got == (int64_t)size && memcmp(in, out, size) == 0, "the answer differs", got);
    sum += size;
  }
  machnet_stats_t told;
  rc = machnet_stats(ch, conn, &told, 10000);
  check(rc == 0, "ask about a connection", rc);
  check(told.bytes_sent == sum && told.bytes_received == sum, "the bytes of a connection", (int64_t)told.bytes_sent);
  check(told.srtt_ns >= 20000 && told.retransmitted > 0, "what a path with losses does", (int64_t)told.srtt_ns);
  check(told.stage == MACHNET_STAGE_OPEN && told.reason == 0, "how far it is", told.stage);
  check(machnet_keepalive(ch, conn, 20) == 0 && machnet_keepalive(ch, conn, 5) == MACHNET_EINVAL, "a keep-alive", 0);
  check(machnet_unacked(ch, conn) >= 0, "what is not acknowledged", 0);
  machnet_close(ch, conn);
  check(machnet_stats(ch, conn, &told, 10000) == MACHNET_ECLOSED, "ask about a connection that is closed", 0);
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
  virtual_time();
  leaving();
  requests();
  sharing();
  lives();
  puts("ok");
  return 0;
}
