// Whole Machnet hosts inside a test process, on a simulated network. Written by cbindgen from rust/machnet-core;
// `make header` writes it anew. Applications attach with machnet.h over the socket that machnet_host_connect gives.

#ifndef MACHNET_HOST_H
#define MACHNET_HOST_H

#include <stddef.h>
#include <stdint.h>

// A network of hosts. Its functions may be called from any thread, machnet_host_free alone at the end.
typedef struct machnet_host_net machnet_host_net;

// How the links between hosts treat packets. Probabilities per packet are 0.0 to 1.0.
typedef struct machnet_host_link {
  // Lost.
  double loss;
  // Arriving twice.
  double duplication;
  // Held back, so that later ones overtake it.
  double reorder;
  // With bits flipped.
  double corruption;
  // Nanoseconds from departure to arrival.
  uint64_t delay_ns;
  // Up to so many nanoseconds longer.
  uint64_t jitter_ns;
  // Bits per second; 0: no limit.
  uint64_t rate;
} machnet_host_link;

// A host.
typedef struct machnet_host_plan {
  // IPv4 address, first byte on top; every host has its own.
  uint32_t ip;
  // Engines, 1 to 128; each has a NIC queue.
  uint32_t engines;
  // Bytes of an IP packet; 0: 1500.
  uint32_t mtu;
  // Units under way per direction of a channel, a power of two; 0: the usual 1024.
  uint32_t units;
  // Connections of a channel; 0: the usual 256.
  uint32_t conns;
} machnet_host_plan;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Link-time witness of this API.
void machnet_host_abi_2(void);

// A network without hosts, standing still at time 0. `seed` decides every fault; `link` null: 10 us and faultless.
// Null when the system refuses.
struct machnet_host_net *machnet_host_new(uint64_t seed,
                                          const struct machnet_host_link *link);

// Ends the thread if there is one, and all hosts as by machnet_host_kill. Null is allowed.
void machnet_host_free(struct machnet_host_net *net);

// Adds a host; returns its number, from 0, or -1 where the plan is out of bounds or its address taken.
int machnet_host_add(struct machnet_host_net *net, const struct machnet_host_plan *plan);

// Starts a thread that runs the hosts in real time. 0, or -1 if one runs already or none is to be had.
int machnet_host_start(struct machnet_host_net *net);

// Without a thread: runs the hosts for so many nanoseconds of virtual time, and returns. 0, or -1 if a thread runs.
int machnet_host_step(struct machnet_host_net *net,
                      uint64_t nanoseconds);

// Attaches whatever speaks over this connected SOCK_SEQPACKET socket, whose other end may be another process's. The host works on a
// copy: the caller closes its own. 0, or -1 when the host is not there (any more), or this is no descriptor.
int machnet_host_serve(struct machnet_host_net *net,
                       int host,
                       int socket);

// A connected socket for machnet_attach_fd, which owns it from then on; -1 when the host is not there (any more).
int machnet_host_connect(struct machnet_host_net *net,
                         int host);

// The host dies as a process does: its applications find their channels down, its peers hear nothing more. 0, or -1 when
// there is no such host.
int machnet_host_kill(struct machnet_host_net *net,
                      int host);

// A host starts anew under its address and with its plan, as a process does after another has died: it knows nothing of what was. If
// it lives, it dies first. 0, or -1 when there is no such host, or the system refuses a descriptor; then it is dead.
int machnet_host_restart(struct machnet_host_net *net,
                         int host);

// Changes how all links treat packets from now on; null: 10 us and faultless. 0, or -1.
int machnet_host_set_links(struct machnet_host_net *net, const struct machnet_host_link *link);

// Changes how the link from one host to another treats packets from now on, in this direction alone; null: 10 us and faultless. 0, or
// -1 when there are no two such hosts.
int machnet_host_set_link(struct machnet_host_net *net,
                          int from,
                          int to,
                          const struct machnet_host_link *link);

// A counter of a host, summed over its engines; -1 when there is no such host or counter.
int64_t machnet_host_counter(struct machnet_host_net *net, int host, const char *name);

// Copies the last packets and their fates, a line each, with a final zero, as far as they fit; returns the length of all of them
// without it.
size_t machnet_host_trace(struct machnet_host_net *net,
                          char *buf,
                          size_t cap);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* MACHNET_HOST_H */
