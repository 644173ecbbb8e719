/* What Machnet needs of DPDK, in plain C types.
 *
 * DPDK's hot functions are static inlines and its structures change between releases; both stay behind this header, so
 * bindgen reads this file alone (a second, not twenty) and the Rust side survives a new DPDK. Everything that touches
 * packets works on bursts. Functions return 0 or a non-negative result, else -errno. */
#ifndef MACHNET_DPDK_SHIM_H
#define MACHNET_DPDK_SHIM_H

#include <stddef.h>
#include <stdint.h>

/* One frame: `data` points at its first byte, inside the mbuf. */
typedef struct mdpdk_frame {
    void *mbuf;
    uint8_t *data;
    uint32_t len;   /* received: frame length; to transmit: set by the caller; allocated: room */
    uint32_t flags; /* MDPDK_RX_* or MDPDK_TX_* */
} mdpdk_frame;

enum { MDPDK_RX_UNKNOWN = 0, MDPDK_RX_GOOD = 1, MDPDK_RX_BAD = 2 }; /* verdict on IP and UDP checksums */
enum { MDPDK_TX_PLAIN = 0, MDPDK_TX_UDP4 = 1 };                      /* the NIC fills in the UDP checksum */

/* What a port is and offers. */
typedef struct mdpdk_port_info {
    char driver[64];
    char device[64];
    uint8_t mac[6];
    uint16_t max_rx_queues;
    uint16_t max_tx_queues;
    uint16_t max_rx_desc;
    uint16_t max_tx_desc;
    uint16_t min_rx_desc;
    uint16_t min_tx_desc;
    uint16_t max_mtu;
    uint32_t max_frame; /* with Ethernet's header and trailer */
    int32_t numa_node;
    uint8_t tx_udp_checksum;
    uint8_t rx_udp_checksum;
    uint8_t rss; /* whether there is a hash */
    /* Whether it can cover UDP ports; entries of the indirection table, 0 where the driver shows none. */
    uint8_t rss_udp;
    uint16_t rss_table;
} mdpdk_port_info;

typedef struct mdpdk_port_config {
    uint16_t rx_queues;
    uint16_t tx_queues;
    uint16_t mtu;         /* bytes of IP packet */
    uint8_t tx_checksum;  /* ask for it; only where offered */
    uint8_t rx_checksum;
    uint8_t interrupts;   /* ask for receive interrupts */
} mdpdk_port_config;

typedef struct mdpdk_stats {
    uint64_t rx_frames, tx_frames, rx_bytes, tx_bytes;
    uint64_t rx_missed, rx_errors, tx_errors, rx_no_buffer;
} mdpdk_stats;

typedef struct mdpdk_xstat {
    char name[64];
    uint64_t value;
} mdpdk_xstat;

/* One line, or part of one, of DPDK's log. `level`: 1 emergency .. 4 error, 5 warning, 6 notice, 7 info, 8 debug. */
typedef void (*mdpdk_log_fn)(int level, const char *text, size_t len);
typedef void (*mdpdk_intr_fn)(void *arg);

/* --- environment --- */
const char *mdpdk_version(void);          /* these two may be called before EAL is started */
const char *mdpdk_driver_folder(void);    /* where its drivers' plugins are, as it was built */
int mdpdk_log_to(mdpdk_log_fn sink);      /* before mdpdk_eal_init; instead of stderr and syslog */
void mdpdk_log_level(uint32_t level);
int mdpdk_eal_init(int argc, char **argv);
int mdpdk_eal_cleanup(void);
const char *mdpdk_runtime_dir(void);      /* of this process; empty before EAL has made it */
int mdpdk_has_hugepages(void);            /* 1 when EAL runs on them */
int mdpdk_thread_register(void);          /* gives the calling thread a mempool cache */
void mdpdk_thread_unregister(void);

/* --- EAL's interrupt thread --- */
void *mdpdk_intr_watch(int fd, mdpdk_intr_fn fn, void *arg); /* calls fn in that thread while fd is readable; NULL on failure */
int mdpdk_intr_unwatch(void *watch, mdpdk_intr_fn fn, void *arg); /* -EAGAIN while fn runs */

/* --- devices and ports --- */
int mdpdk_probe(const char *devargs);
int mdpdk_vdev_init(const char *name, const char *args); /* by the bus itself: since 24.11 a probe takes at most 127 bytes of name and arguments */
int mdpdk_port_by_name(const char *name);
int mdpdk_port_next(int after);           /* the first port number above `after` (-1: from the start), else -1 */
int mdpdk_port_info_get(uint16_t port, mdpdk_port_info *out);
int mdpdk_port_configure(uint16_t port, const mdpdk_port_config *config);
int mdpdk_port_descriptors(uint16_t port, uint16_t *rx, uint16_t *tx); /* rounds to what the driver takes */
int mdpdk_rx_queue(uint16_t port, uint16_t queue, uint16_t descriptors, void *pool);
int mdpdk_tx_queue(uint16_t port, uint16_t queue, uint16_t descriptors);
int mdpdk_port_set_mac(uint16_t port, const uint8_t mac[6]);
int mdpdk_port_start(uint16_t port);
int mdpdk_port_stop(uint16_t port);
int mdpdk_port_close(uint16_t port);
int mdpdk_port_link_up(uint16_t port);    /* 1 up, 0 down */
int mdpdk_port_stats(uint16_t port, mdpdk_stats *out);
int mdpdk_port_xstats(uint16_t port, mdpdk_xstat *out, uint32_t cap); /* how many there are; fills at most cap */

/* --- receive interrupts --- */
/* Bytes of a cache line, as the drivers of this DPDK lay out what they share. */
uint16_t mdpdk_cache_line(void);

int mdpdk_rx_intr_fd(uint16_t port, uint16_t queue);
int mdpdk_rx_intr_enable(uint16_t port, uint16_t queue);
int mdpdk_rx_intr_disable(uint16_t port, uint16_t queue);

/* --- packet buffers and bursts --- */
void *mdpdk_pool_new(const char *name, uint32_t buffers, uint16_t frame_room, int numa_node); /* NULL: see mdpdk_errno */
void mdpdk_pool_free(void *pool);
uint32_t mdpdk_pool_available(const void *pool);
int mdpdk_errno(void);
/* Takes n buffers, all or none. */
int mdpdk_alloc(void *pool, mdpdk_frame *out, uint16_t n);
void mdpdk_free(const mdpdk_frame *frames, uint16_t n);
/* Receives at most n frames, each in one piece; `*refused` counts those in pieces too large to join. */
uint16_t mdpdk_rx(uint16_t port, uint16_t queue, mdpdk_frame *out, uint16_t n, uint32_t *refused);
/* Hands frames to the driver; returns how many it took, the others stay the caller's. */
uint16_t mdpdk_tx(uint16_t port, uint16_t queue, mdpdk_frame *frames, uint16_t n);
int mdpdk_rx_waiting(uint16_t port, uint16_t queue); /* frames in the ring, -ENOTSUP where the driver cannot tell */

#include "events.h"

#endif
