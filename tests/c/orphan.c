// A process that is killed while a child of it still holds its descriptors:
//
//   orphan IP PORT     connects, sends "hello", prints the child's process id and waits to be killed; the child waits for ever
#define _POSIX_C_SOURCE 200809L
#include "machnet.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void check(int rc, const char *what) {
  if (rc == 0) return;
  fprintf(stderr, "orphan: %s: %s\n", what, machnet_strerror(rc));
  exit(1);
}

int main(int argc, char **argv) {
  machnet_channel *ch = NULL;
  machnet_conn conn = 0;
  struct in_addr address;
  if (argc != 3 || inet_pton(AF_INET, argv[1], &address) != 1) return 2;
  check(machnet_attach(NULL, NULL, &ch), "attach");
  check(machnet_connect(ch, ntohl(address.s_addr), (uint16_t)atoi(argv[2]), 0, &conn), "connect");
  pid_t child = fork();
  if (child == 0) {
    for (;;) pause();
  }
  check(machnet_send(ch, conn, "hello", 5, 0), "send");
  printf("child %d\n", (int)child);
  fflush(stdout);
  for (;;) pause();
}
