// What a program does to a process beside calling the library: signals, time limits, cancelled threads, fork. Two hosts on a
// simulated network in this process; an echo on the far one. Prints "ok" or says what was wrong.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  // g++ does
#endif
#include "machnet.h"
#include "machnet_host.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define IP_A 0x0a000001u
#define IP_B 0x0a000002u
#define NOBODY 0x0a000063u
#define ECHO 7000
#define UNREAD 7001

static machnet_channel *ch, *far_end;
static machnet_conn conn, unread;
static volatile sig_atomic_t signals, inside, signals_inside;

static void check(int good, const char *what, int64_t value) {
  if (!good) {
    char text[MACHNET_ERROR_TEXT_MAX] = "";
    if (ch != NULL) machnet_error_text(ch, text, sizeof text);
    fprintf(stderr, "process: %s: %lld (%s) %s\n", what, (long long)value, machnet_strerror((int)value), text);
    exit(1);
  }
}

static machnet_channel *attach(machnet_host_net *net, int host) {
  machnet_channel *made = NULL;
  int fd = machnet_host_connect(net, host), rc;
  check(machnet_attach_fd(fd, NULL, &made) == 0, "attach", fd);
  while ((rc = machnet_attach_step(made)) == MACHNET_EAGAIN) usleep(100);
  check(rc == 0, "attach", rc);
  return made;
}

static void *serve(void *argument) {
  uint32_t listener = *(uint32_t *)argument;
  static unsigned char buffer[1 << 20];
  machnet_conn from = 0;
  int rc = machnet_accept(far_end, listener, &from, NULL, 0);
  check(rc == 0, "accept", rc);
  for (;;) {
    int64_t got = machnet_recv(far_end, from, buffer, sizeof buffer, MACHNET_RECV_MESSAGE, NULL);
    if (got < 0) return NULL;
    rc = machnet_send(far_end, from, buffer, (size_t)got, 0);
    check(rc == 0, "send at the echo", rc);
  }
}

static int64_t receive(int timeout_ms) {
  char buffer[64];
  return machnet_recv_timeout(ch, conn, buffer, sizeof buffer, MACHNET_RECV_MESSAGE, NULL, timeout_ms);
}

static void echo_works(const char *when) {
  int rc = machnet_send(ch, conn, "hello", 5, 0);
  check(rc == 0, when, rc);
  int64_t got = receive(10000);
  check(got == 5, when, got);
}

static void on_signal(int number) {
  (void)number;
  signals++;
  signals_inside += inside;
}

static void handle(int flags) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = on_signal;
  action.sa_flags = flags;
  sigaction(SIGALRM, &action, NULL);
}

// SIGALRM in `first` microseconds, then every `next`.
static void alarms(long first, long next) {
  struct itimerval timer = {{next / 1000000, next % 1000000}, {first / 1000000, first % 1000000}};
  setitimer(ITIMER_REAL, &timer, NULL);
}

static void a_signal_ends_whatever_waits(void) {
  handle(0);
  alarms(5000, 5000);
  char buffer[64];
  int64_t got = machnet_recv(ch, conn, buffer, sizeof buffer, MACHNET_RECV_MESSAGE, NULL);
  check(got == MACHNET_EINTR, "receive under signals", got);
  uint32_t listener = 0;
  check(machnet_listen(ch, 4, 0, &listener, NULL) == 0, "listen under signals", 0);
  machnet_conn none = 0;
  int rc = machnet_accept(ch, listener, &none, NULL, 0);
  check(rc == MACHNET_EINTR, "accept under signals", rc);
  rc = machnet_wait(ch, -1);
  check(rc == MACHNET_EINTR, "wait under signals", rc);
  // More often than this channel has room for connections: each is called off.
  for (int i = 0; i < 20; i++) {
    rc = machnet_connect(ch, NOBODY, 1, 60000, &none);
    check(rc == MACHNET_EINTR, "connect under signals", rc);
  }
  machnet_event event;
  check(machnet_poll(ch, &event, 1) == 0, "an event of a dial that was called off", 0);

  // A sidecar that does not answer.
  struct sockaddr_un address = {AF_UNIX, ""};
  snprintf(address.sun_path, sizeof address.sun_path, "/tmp/machnet-process-%d.sock", (int)getpid());
  int deaf = socket(AF_UNIX, SOCK_SEQPACKET, 0);
  check(bind(deaf, (struct sockaddr *)&address, sizeof address) == 0 && listen(deaf, 1) == 0, "a deaf sidecar", errno);
  machnet_channel *never = NULL;
  rc = machnet_attach(address.sun_path, NULL, &never);
  check(rc == MACHNET_EINTR, "attach under signals", rc);
  machnet_detach(never);
  close(deaf);
  unlink(address.sun_path);

  // A peer that does not read: what was accepted was, and the message that waited was not begun.
  unsigned long sent = 0;
  while ((rc = machnet_send(ch, unread, &sent, sizeof sent, 0)) == 0) sent++;
  check(rc == MACHNET_EINTR && sent > 0, "send under signals", rc);
  alarms(0, 0);
}

// A signal that comes once a call waits is not missed, whatever the call does at that moment. One that comes before it waits
// is, as with recv(2): so a few are.
static void no_signal_falls_between_look_and_sleep(void) {
  handle(0);
  int missed = 0;
  signals_inside = 0;
  for (int i = 0; i < 200; i++) {
    sig_atomic_t before = signals_inside;
    alarms(30 + i % 60, 0);
    inside = 1;
    int64_t got = receive(100);
    inside = 0;
    check(got == MACHNET_EINTR || got == MACHNET_EAGAIN, "receive with a signal under way", got);
    missed += got == MACHNET_EAGAIN && signals_inside > before;
    alarms(0, 0);
  }
  check(signals_inside > 20, "signals that met a call", signals_inside);
  check(missed <= 10, "signals missed by a call that waited", missed);
}

static void *send_later(void *argument) {
  (void)argument;
  while (signals < 5) usleep(1000);
  int rc = machnet_send(ch, conn, "later", 5, 0);
  check(rc == 0, "send beside a receive", rc);
  return NULL;
}

static void a_call_goes_on_after_a_handler_that_wants_it(void) {
  handle(SA_RESTART);
  signals = 0;
  pthread_t thread;
  sigset_t alarm_set, before;
  sigemptyset(&alarm_set);
  sigaddset(&alarm_set, SIGALRM);
  pthread_sigmask(SIG_BLOCK, &alarm_set, &before);  // for the new thread: the signals are to meet this one
  pthread_create(&thread, NULL, send_later, NULL);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  alarms(5000, 5000);
  int64_t got = receive(-1);
  alarms(0, 0);
  check(got == 5 && signals >= 5, "receive under signals with SA_RESTART", got);
  pthread_join(thread, NULL);
}

static void time_limits_and_sentences(void) {
  char text[MACHNET_ERROR_TEXT_MAX] = "";
  int64_t got = receive(20);
  check(got == MACHNET_EAGAIN && machnet_error_text(ch, text, sizeof text) == 0, "a time limit", got);
  echo_works("after a time limit");
  got = machnet_recv(ch, conn, text, 1, 77, NULL);
  check(got == MACHNET_EINVAL, "flags", got);
  check(machnet_error_text(ch, text, sizeof text) > 0 && strcmp(text, "receive: invalid argument") == 0, text, 0);
  echo_works("after a failure");
  check(machnet_error_text(ch, text, sizeof text) == 0 && text[0] == 0, "a sentence after a success", 0);
  got = machnet_recv(ch, conn, text, 1, MACHNET_DONTWAIT, NULL);
  check(got == MACHNET_EAGAIN && machnet_error_text(ch, text, sizeof text) == 0, "a sentence about waiting", got);
}

static volatile int64_t returned;

static void *receive_until_cancelled(void *argument) {
  (void)argument;
  returned = receive(-1);
  for (;;) pthread_testcancel();
  return NULL;
}

static void *send_until_cancelled(void *argument) {
  (void)argument;
  returned = machnet_send(ch, unread, "x", 1, 0);
  for (;;) pthread_testcancel();
  return NULL;
}

static void *send_to_the_end(void *argument) {
  (void)argument;
  do returned = machnet_send(ch, unread, "x", 1, 0);
  while (returned == 0);
  return NULL;
}

// Until the kernel says that the thread sleeps in a call.
static void await_sleep(pid_t thread) {
  char path[64], state = 0;
  snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)thread);
  for (int i = 0; i < 10000 && state != 'S'; i++) {
    FILE *stat = fopen(path, "r");
    if (stat != NULL && fscanf(stat, "%*d (%*[^)]) %c", &state) != 1) state = 0;
    if (stat != NULL) fclose(stat);
    usleep(1000);
  }
  check(state == 'S', "a thread does not fall asleep", state);
}

static pid_t newest_thread(pthread_t thread) {
  pid_t id = 0;
  for (int i = 0; i < 10000 && id == 0; i++) {
    // The thread's kernel id is what its CPU clock names.
    clockid_t clock;
    check(pthread_getcpuclockid(thread, &clock) == 0, "a thread's clock", 0);
    id = ~(clock >> 3);
  }
  return id;
}

static void a_cancelled_thread_leaves_its_direction(void) {
  pthread_t thread;
  void *ended = NULL;
  returned = 0;
  pthread_create(&thread, NULL, receive_until_cancelled, NULL);
  await_sleep(newest_thread(thread));
  pthread_cancel(thread);
  int rc = machnet_send(ch, conn, "late", 4, 0);
  check(rc == 0, "send beside a cancelled receive", rc);
  pthread_join(thread, &ended);
  check(ended == PTHREAD_CANCELED && returned == 4, "a cancelled receive", returned);
  echo_works("after a thread was cancelled in its receive");

  // One that sends to a peer that does not read, and is got out by a signal.
  handle(0);
  returned = 0;
  pthread_create(&thread, NULL, send_until_cancelled, NULL);
  await_sleep(newest_thread(thread));
  pthread_cancel(thread);
  pthread_kill(thread, SIGALRM);
  pthread_join(thread, &ended);
  check(ended == PTHREAD_CANCELED && returned == MACHNET_EINTR, "a cancelled send", returned);
  echo_works("after a thread was cancelled in its send");
}

static void a_child_cannot_use_the_channel_and_does_not_harm_it(void) {
  int here = machnet_socket(ch);
  check(here >= 0, "the socket", here);
  for (int detaches = 0; detaches < 2; detaches++) {
    pid_t child = fork();
    if (child == 0) {
      char buffer[64];
      uint32_t listener = 0;
      machnet_conn made = 0;
      machnet_event event;
      machnet_dial_t dial = {IP_B, ECHO, 0, 0};
      machnet_wait_view_t view;
      int codes[] = {
          machnet_send(ch, conn, "child", 5, 0),
          (int)machnet_send_some(ch, conn, "child", 5, 0),
          (int)machnet_recv(ch, conn, buffer, sizeof buffer, MACHNET_RECV_MESSAGE, NULL),
          (int)machnet_recv_timeout(ch, conn, buffer, sizeof buffer, MACHNET_RECV_MESSAGE, NULL, 1),
          (int)machnet_recv_some(ch, conn, buffer, sizeof buffer, MACHNET_RECV_MESSAGE, NULL),
          machnet_connect(ch, IP_B, ECHO, 0, &made),
          machnet_accept(ch, 1, &made, NULL, 0),
          machnet_listen(ch, 1, 0, &listener, NULL),
          machnet_bind(ch, 0, 1),
          machnet_wait(ch, 1),
          machnet_poll(ch, &event, 1),
          machnet_poll_tx(ch, &event, 1),
          machnet_dial_begin(ch, &dial, &listener),
          machnet_dial_cancel(ch, 1),
          machnet_listen_begin(ch, 0, 0, 1, 0, &listener),
          machnet_unlisten(ch, 1),
          machnet_accepted(ch, conn),
          (int)machnet_sendv(ch, conn, NULL, 0, 0, 0),
          machnet_abort(ch, conn),
          machnet_finish(ch, conn),
          machnet_close(ch, conn),
          machnet_reset(ch, conn),
          machnet_check(ch),
          machnet_drain(ch),
          machnet_attach_step(ch),
          machnet_wait_view(ch, &view),
      };
      for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        if (codes[i] != MACHNET_EFORK) _exit(100 + (int)i);
      }
      if (machnet_socket(ch) != -1 || machnet_doorbell(ch) != -1 || machnet_arm(ch) != 0) _exit(2);
      if (detaches) machnet_detach(ch);
      _exit(0);
    }
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
    check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a child's calls", WEXITSTATUS(status));
    echo_works("after a child");
  }
}

// Nobody receives on this channel, so the sender itself has to see what came in, asleep for tokens as it is.
static void a_sender_hears_of_the_end_though_nobody_receives(machnet_host_net *net) {
  pthread_t thread;
  returned = 0;
  pthread_create(&thread, NULL, send_to_the_end, NULL);
  await_sleep(newest_thread(thread));
  check(machnet_host_kill(net, 1) == 0, "kill the other host", 0);
  pthread_join(thread, NULL);
  check(returned == MACHNET_ETIMEDOUT || returned == MACHNET_ERESET, "a send to a host that is gone", returned);
}

int main(void) {
  machnet_host_net *net = machnet_host_new(11, NULL);
  machnet_host_plan a = {IP_A, 1, 0, 64, 8}, b = {IP_B, 1, 0, 64, 8};
  check(net != NULL && machnet_host_add(net, &a) == 0 && machnet_host_add(net, &b) == 1, "make hosts", 0);
  check(machnet_host_start(net) == 0, "start", 0);
  far_end = attach(net, 1);
  uint32_t listeners[2] = {0, 0};
  for (int i = 0; i < 2; i++) {
    check(machnet_bind(far_end, 0, (uint16_t)(ECHO + i)) == 0, "bind", i);
    check(machnet_listen(far_end, 4, 0, &listeners[i], NULL) == 0, "listen", i);
  }
  pthread_t thread;
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, &before);  // signals are this thread's
  pthread_create(&thread, NULL, serve, &listeners[0]);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  ch = attach(net, 0);
  int rc = machnet_connect(ch, IP_B, ECHO, 0, &conn);
  check(rc == 0, "connect", rc);
  rc = machnet_connect(ch, IP_B, UNREAD, 0, &unread);
  check(rc == 0, "connect", rc);
  echo_works("at first");

  a_signal_ends_whatever_waits();
  no_signal_falls_between_look_and_sleep();
  a_call_goes_on_after_a_handler_that_wants_it();
  time_limits_and_sentences();
  a_cancelled_thread_leaves_its_direction();
  a_child_cannot_use_the_channel_and_does_not_harm_it();

  a_sender_hears_of_the_end_though_nobody_receives(net);

  machnet_detach(ch);
  pthread_join(thread, NULL);
  machnet_detach(far_end);
  machnet_host_free(net);
  puts("ok");
  return 0;
}
