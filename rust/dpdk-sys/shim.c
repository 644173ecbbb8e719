/* Implements shim.h, which says what each function does. */
#define _GNU_SOURCE
#include "shim.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_bus_vdev.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_interrupts.h>
#include <rte_ip.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_prefetch.h>
#include <rte_udp.h>
#include <rte_version.h>

enum { BURST_MAX = 32, MEMPOOL_CACHE = 64 };

/* Some of DPDK's functions return an error number as it is, some negated, and some only -1. */
static int negative(int ret) { return ret > 0 ? -ret : ret < 0 ? ret : -EIO; }
static int from_errno(void) { return negative(rte_errno); }

/* --- environment --- */

const char *mdpdk_version(void) { return rte_version(); }
const char *mdpdk_driver_folder(void) { return RTE_EAL_PMD_PATH; }

static mdpdk_log_fn log_sink;

static ssize_t log_write(void *cookie, const char *text, size_t len)
{
    (void)cookie;
    log_sink(rte_log_cur_msg_loglevel(), text, len);
    return (ssize_t)len;
}

int mdpdk_log_to(mdpdk_log_fn sink)
{
    cookie_io_functions_t io = { .write = log_write };
    FILE *stream = fopencookie(NULL, "w", io);
    if (stream == NULL)
        return -errno;
    log_sink = sink;
    return rte_openlog_stream(stream);
}

void mdpdk_log_level(uint32_t level) { rte_log_set_global_level(level); }

int mdpdk_eal_init(int argc, char **argv)
{
    int ret = rte_eal_init(argc, argv);
    return ret < 0 ? from_errno() : 0;
}

const char *mdpdk_runtime_dir(void) { return rte_eal_get_runtime_dir(); }
int mdpdk_eal_cleanup(void) { return rte_eal_cleanup(); }
int mdpdk_has_hugepages(void) { return rte_eal_has_hugepages(); }

int mdpdk_thread_register(void)
{
    if (rte_lcore_id() != LCORE_ID_ANY)
        return 0;
    return rte_thread_register() < 0 ? from_errno() : 0;
}

void mdpdk_thread_unregister(void) { rte_thread_unregister(); }

/* --- EAL's interrupt thread --- */

void *mdpdk_intr_watch(int fd, mdpdk_intr_fn fn, void *arg)
{
    struct rte_intr_handle *handle = rte_intr_instance_alloc(RTE_INTR_INSTANCE_F_PRIVATE);
    if (handle == NULL)
        return NULL;
    if (rte_intr_fd_set(handle, fd) != 0 || rte_intr_type_set(handle, RTE_INTR_HANDLE_EXT) != 0 ||
        rte_intr_callback_register(handle, fn, arg) != 0) {
        rte_intr_instance_free(handle);
        return NULL;
    }
    return handle;
}

int mdpdk_intr_unwatch(void *watch, mdpdk_intr_fn fn, void *arg)
{
    int ret = rte_intr_callback_unregister(watch, fn, arg);
    if (ret < 0)
        return ret;
    rte_intr_instance_free(watch);
    return 0;
}

/* --- devices and ports --- */

int mdpdk_probe(const char *devargs)
{
    int ret = rte_dev_probe(devargs);
    return ret == 0 ? 0 : negative(ret);
}

int mdpdk_vdev_init(const char *name, const char *args)
{
    int ret = rte_vdev_init(name, args);
    return ret == 0 ? 0 : negative(ret);
}

int mdpdk_port_by_name(const char *name)
{
    uint16_t port;
    int ret = rte_eth_dev_get_port_by_name(name, &port);
    return ret == 0 ? port : negative(ret);
}

int mdpdk_port_next(int after)
{
    uint16_t port = rte_eth_find_next_owned_by((uint16_t)(after + 1), RTE_ETH_DEV_NO_OWNER);
    return port < RTE_MAX_ETHPORTS ? port : -1;
}

int mdpdk_port_info_get(uint16_t port, mdpdk_port_info *out)
{
    struct rte_eth_dev_info info;
    struct rte_ether_addr mac;
    char name[RTE_ETH_NAME_MAX_LEN];
    int ret = rte_eth_dev_info_get(port, &info);
    if (ret != 0)
        return negative(ret);
    memset(out, 0, sizeof(*out));
    snprintf(out->driver, sizeof(out->driver), "%s", info.driver_name != NULL ? info.driver_name : "");
    if (rte_eth_dev_get_name_by_port(port, name) == 0)
        snprintf(out->device, sizeof(out->device), "%s", name);
    if (rte_eth_macaddr_get(port, &mac) == 0)
        memcpy(out->mac, mac.addr_bytes, sizeof(out->mac));
    out->max_rx_queues = info.max_rx_queues;
    out->max_tx_queues = info.max_tx_queues;
    out->max_rx_desc = info.rx_desc_lim.nb_max;
    out->max_tx_desc = info.tx_desc_lim.nb_max;
    out->min_rx_desc = info.rx_desc_lim.nb_min;
    out->min_tx_desc = info.tx_desc_lim.nb_min;
    out->max_mtu = info.max_mtu;
    out->max_frame = info.max_rx_pktlen;
    out->numa_node = rte_eth_dev_socket_id(port);
    out->tx_udp_checksum = (info.tx_offload_capa & RTE_ETH_TX_OFFLOAD_UDP_CKSUM) != 0;
    out->rx_udp_checksum = (info.rx_offload_capa & RTE_ETH_RX_OFFLOAD_UDP_CKSUM) != 0 &&
                           (info.rx_offload_capa & RTE_ETH_RX_OFFLOAD_IPV4_CKSUM) != 0;
    out->rss = info.flow_type_rss_offloads != 0;
    out->rss_udp = (info.flow_type_rss_offloads & RTE_ETH_RSS_NONFRAG_IPV4_UDP) != 0;
    out->rss_table = info.reta_size;
    return 0;
}

int mdpdk_port_configure(uint16_t port, const mdpdk_port_config *config)
{
    struct rte_eth_dev_info info;
    struct rte_eth_conf conf;
    int ret = rte_eth_dev_info_get(port, &info);
    if (ret != 0)
        return negative(ret);
    memset(&conf, 0, sizeof(conf));
    conf.rxmode.mtu = config->mtu;
    if (config->rx_queues > 1 && info.flow_type_rss_offloads != 0) {
        /* The driver's own key: Machnet treats RSS as opaque. */
        conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
        conf.rx_adv_conf.rss_conf.rss_hf =
            (RTE_ETH_RSS_IPV4 | RTE_ETH_RSS_NONFRAG_IPV4_UDP | RTE_ETH_RSS_NONFRAG_IPV4_OTHER) & info.flow_type_rss_offloads;
    }
    if (config->rx_checksum)
        conf.rxmode.offloads |= (RTE_ETH_RX_OFFLOAD_IPV4_CKSUM | RTE_ETH_RX_OFFLOAD_UDP_CKSUM) & info.rx_offload_capa;
    if (config->tx_checksum)
        conf.txmode.offloads |= RTE_ETH_TX_OFFLOAD_UDP_CKSUM & info.tx_offload_capa;
    /* One pool per queue and never a second reference: the driver may free a whole burst at once. */
    conf.txmode.offloads |= RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE & info.tx_offload_capa;
    conf.intr_conf.rxq = config->interrupts;
    /* Without it mlx4, mlx5 and others keep to themselves that their device has gone. */
    conf.intr_conf.rmv = (*info.dev_flags & RTE_ETH_DEV_INTR_RMV) != 0;
    ret = rte_eth_dev_configure(port, config->rx_queues, config->tx_queues, &conf);
    return ret == 0 ? 0 : negative(ret);
}

int mdpdk_port_descriptors(uint16_t port, uint16_t *rx, uint16_t *tx)
{
    int ret = rte_eth_dev_adjust_nb_rx_tx_desc(port, rx, tx);
    return ret == 0 ? 0 : negative(ret);
}

int mdpdk_rx_queue(uint16_t port, uint16_t queue, uint16_t descriptors, void *pool)
{
    int ret = rte_eth_rx_queue_setup(port, queue, descriptors, (unsigned int)rte_eth_dev_socket_id(port), NULL, pool);
    return ret == 0 ? 0 : negative(ret);
}

int mdpdk_tx_queue(uint16_t port, uint16_t queue, uint16_t descriptors)
{
    int ret = rte_eth_tx_queue_setup(port, queue, descriptors, (unsigned int)rte_eth_dev_socket_id(port), NULL);
    return ret == 0 ? 0 : negative(ret);
}

int mdpdk_port_set_mac(uint16_t port, const uint8_t mac[6])
{
    struct rte_ether_addr addr;
    memcpy(addr.addr_bytes, mac, sizeof(addr.addr_bytes));
    int ret = rte_eth_dev_default_mac_addr_set(port, &addr);
    return ret == 0 ? 0 : negative(ret);
}

int mdpdk_port_start(uint16_t port)
{
    int ret = rte_eth_dev_start(port);
    return ret == 0 ? 0 : negative(ret);
}

int mdpdk_port_stop(uint16_t port)
{
    int ret = rte_eth_dev_stop(port);
    return ret == 0 ? 0 : negative(ret);
}

int mdpdk_port_close(uint16_t port)
{
    int ret = rte_eth_dev_close(port);
    return ret == 0 ? 0 : negative(ret);
}

int mdpdk_port_link_up(uint16_t port)
{
    struct rte_eth_link link;
    memset(&link, 0, sizeof(link));
    int ret = rte_eth_link_get_nowait(port, &link);
    return ret == 0 ? link.link_status == RTE_ETH_LINK_UP : negative(ret);
}

int mdpdk_port_stats(uint16_t port, mdpdk_stats *out)
{
    struct rte_eth_stats stats;
    int ret = rte_eth_stats_get(port, &stats);
    if (ret != 0)
        return negative(ret);
    *out = (mdpdk_stats){ .rx_frames = stats.ipackets, .tx_frames = stats.opackets, .rx_bytes = stats.ibytes,
                          .tx_bytes = stats.obytes, .rx_missed = stats.imissed, .rx_errors = stats.ierrors,
                          .tx_errors = stats.oerrors, .rx_no_buffer = stats.rx_nombuf };
    return 0;
}

int mdpdk_port_xstats(uint16_t port, mdpdk_xstat *out, uint32_t cap)
{
    int count = rte_eth_xstats_get_names(port, NULL, 0);
    if (count <= 0)
        return count;
    struct rte_eth_xstat_name *names = calloc((size_t)count, sizeof(*names));
    struct rte_eth_xstat *values = calloc((size_t)count, sizeof(*values));
    int ret = -ENOMEM;
    if (names != NULL && values != NULL) {
        ret = rte_eth_xstats_get_names(port, names, (unsigned int)count);
        if (ret == count)
            ret = rte_eth_xstats_get(port, values, (unsigned int)count);
        if (ret > count)
            ret = -EAGAIN;
        for (int i = 0; i < ret && (uint32_t)i < cap; i++) {
            uint64_t id = values[i].id;
            snprintf(out[i].name, sizeof(out[i].name), "%s", id < (uint64_t)count ? names[id].name : "");
            out[i].value = values[i].value;
        }
    }
    free(names);
    free(values);
    return ret;
}

/* --- receive interrupts --- */

uint16_t mdpdk_cache_line(void) { return RTE_CACHE_LINE_SIZE; }

int mdpdk_rx_intr_fd(uint16_t port, uint16_t queue) { return rte_eth_dev_rx_intr_ctl_q_get_fd(port, queue); }

int mdpdk_rx_intr_enable(uint16_t port, uint16_t queue)
{
    int ret = rte_eth_dev_rx_intr_enable(port, queue);
    return ret == 0 ? 0 : negative(ret);
}

int mdpdk_rx_intr_disable(uint16_t port, uint16_t queue)
{
    int ret = rte_eth_dev_rx_intr_disable(port, queue);
    return ret == 0 ? 0 : negative(ret);
}

/* --- packet buffers and bursts --- */

void *mdpdk_pool_new(const char *name, uint32_t buffers, uint16_t frame_room, int numa_node)
{
    return rte_pktmbuf_pool_create(name, buffers, MEMPOOL_CACHE, 0, (uint16_t)(frame_room + RTE_PKTMBUF_HEADROOM), numa_node);
}

void mdpdk_pool_free(void *pool) { rte_mempool_free(pool); }
uint32_t mdpdk_pool_available(const void *pool) { return rte_mempool_avail_count(pool); }
int mdpdk_errno(void) { return rte_errno; }

int mdpdk_alloc(void *pool, mdpdk_frame *out, uint16_t n)
{
    struct rte_mbuf *bufs[BURST_MAX];
    if (n > BURST_MAX)
        n = BURST_MAX;
    int ret = rte_pktmbuf_alloc_bulk(pool, bufs, n);
    if (ret != 0)
        return negative(ret);
    for (uint16_t i = 0; i < n; i++)
        out[i] = (mdpdk_frame){ .mbuf = bufs[i], .data = rte_pktmbuf_mtod(bufs[i], uint8_t *), .len = rte_pktmbuf_tailroom(bufs[i]) };
    return n;
}

void mdpdk_free(const mdpdk_frame *frames, uint16_t n)
{
    struct rte_mbuf *bufs[BURST_MAX];
    for (uint16_t i = 0; i < n;) {
        uint16_t part = 0;
        while (part < BURST_MAX && i < n)
            bufs[part++] = frames[i++].mbuf;
        rte_pktmbuf_free_bulk(bufs, part);
    }
}

static uint32_t checksum_verdict(uint64_t ol_flags)
{
    uint64_t ip = ol_flags & RTE_MBUF_F_RX_IP_CKSUM_MASK, l4 = ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK;
    if (ip == RTE_MBUF_F_RX_IP_CKSUM_BAD || l4 == RTE_MBUF_F_RX_L4_CKSUM_BAD)
        return MDPDK_RX_BAD;
    if (ip == RTE_MBUF_F_RX_IP_CKSUM_GOOD && l4 == RTE_MBUF_F_RX_L4_CKSUM_GOOD)
        return MDPDK_RX_GOOD;
    return MDPDK_RX_UNKNOWN;
}

uint16_t mdpdk_rx(uint16_t port, uint16_t queue, mdpdk_frame *out, uint16_t n, uint32_t *refused)
{
    struct rte_mbuf *bufs[BURST_MAX];
    if (n > BURST_MAX)
        n = BURST_MAX;
    uint16_t got = rte_eth_rx_burst(port, queue, bufs, n), kept = 0;
    for (uint16_t i = 0; i < got; i++)
        rte_prefetch0(rte_pktmbuf_mtod(bufs[i], void *));
    for (uint16_t i = 0; i < got; i++) {
        struct rte_mbuf *m = bufs[i];
        if (unlikely(m->nb_segs > 1) && rte_pktmbuf_linearize(m) != 0) {
            rte_pktmbuf_free(m);
            ++*refused;
            continue;
        }
        out[kept++] = (mdpdk_frame){ .mbuf = m, .data = rte_pktmbuf_mtod(m, uint8_t *), .len = m->data_len,
                                     .flags = checksum_verdict(m->ol_flags) };
    }
    return kept;
}

/* The NIC wants the pseudo header's sum where the checksum will stand. */
static void ask_udp4(struct rte_mbuf *m)
{
    struct rte_ipv4_hdr *ip = rte_pktmbuf_mtod_offset(m, struct rte_ipv4_hdr *, sizeof(struct rte_ether_hdr));
    m->l2_len = sizeof(struct rte_ether_hdr);
    m->l3_len = rte_ipv4_hdr_len(ip);
    m->l4_len = sizeof(struct rte_udp_hdr);
    m->ol_flags |= RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_UDP_CKSUM;
    struct rte_udp_hdr *udp = (struct rte_udp_hdr *)((uint8_t *)ip + m->l3_len);
    udp->dgram_cksum = rte_ipv4_phdr_cksum(ip, m->ol_flags);
}

uint16_t mdpdk_tx(uint16_t port, uint16_t queue, mdpdk_frame *frames, uint16_t n)
{
    struct rte_mbuf *bufs[BURST_MAX];
    int offloads = 0;
    if (n > BURST_MAX)
        n = BURST_MAX;
    for (uint16_t i = 0; i < n; i++) {
        struct rte_mbuf *m = frames[i].mbuf;
        m->data_len = (uint16_t)frames[i].len;
        m->pkt_len = frames[i].len;
        /* Once only: a frame that the driver did not take comes again. */
        if (frames[i].flags == MDPDK_TX_UDP4 && (m->ol_flags & RTE_MBUF_F_TX_UDP_CKSUM) == 0)
            ask_udp4(m);
        offloads |= frames[i].flags == MDPDK_TX_UDP4;
        bufs[i] = m;
    }
    if (offloads)
        n = rte_eth_tx_prepare(port, queue, bufs, n);
    return rte_eth_tx_burst(port, queue, bufs, n);
}

int mdpdk_rx_waiting(uint16_t port, uint16_t queue) { return rte_eth_rx_queue_count(port, queue); }
