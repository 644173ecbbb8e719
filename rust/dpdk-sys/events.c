/* Implements events.h, which says what each function does. */
#include "events.h"

#include <errno.h>

#include <rte_dev.h>
#include <rte_ethdev.h>
#include <rte_timer.h>

static int negative(int ret) { return ret > 0 ? -ret : ret < 0 ? ret : -EIO; }

/* What a port's callback needs: one for each port, reused when its number is. */
static struct watch {
    mdpdk_event_fn fn;
    void *arg;
} watches[RTE_MAX_ETHPORTS];

static const struct {
    enum rte_eth_event_type theirs;
    int ours;
} events[] = {
    { RTE_ETH_EVENT_INTR_RESET, MDPDK_EVENT_RESET },
    { RTE_ETH_EVENT_INTR_RMV, MDPDK_EVENT_REMOVED },
    { RTE_ETH_EVENT_ERR_RECOVERING, MDPDK_EVENT_RECOVERING },
    { RTE_ETH_EVENT_RECOVERY_SUCCESS, MDPDK_EVENT_RECOVERED },
    { RTE_ETH_EVENT_RECOVERY_FAILED, MDPDK_EVENT_RECOVERY_FAILED },
};
enum { EVENTS = sizeof(events) / sizeof(events[0]) };

static int on_event(uint16_t port, enum rte_eth_event_type type, void *arg, void *ret_param)
{
    const struct watch *watch = arg;
    (void)port;
    (void)ret_param;
    for (int i = 0; i < EVENTS; i++)
        if (events[i].theirs == type)
            watch->fn(events[i].ours, watch->arg);
    return 0;
}

int mdpdk_events_watch(uint16_t port, mdpdk_event_fn fn, void *arg)
{
    if (port >= RTE_MAX_ETHPORTS)
        return -EINVAL;
    watches[port] = (struct watch){ .fn = fn, .arg = arg };
    for (int i = 0; i < EVENTS; i++) {
        int ret = rte_eth_dev_callback_register(port, events[i].theirs, on_event, &watches[port]);
        if (ret != 0)
            return negative(ret);
    }
    return 0;
}

void mdpdk_events_forget(uint16_t port)
{
    for (int i = 0; i < EVENTS; i++)
        while (rte_eth_dev_callback_unregister(port, events[i].theirs, on_event, &watches[port]) == -EAGAIN)
            rte_pause();
}

static struct {
    mdpdk_hotplug_fn fn;
    void *arg;
} hotplug;

static void on_device(const char *device, enum rte_dev_event_type type, void *arg)
{
    (void)arg;
    if (type == RTE_DEV_EVENT_ADD || type == RTE_DEV_EVENT_REMOVE)
        hotplug.fn(device, type == RTE_DEV_EVENT_ADD, hotplug.arg);
}

int mdpdk_hotplug_watch(mdpdk_hotplug_fn fn, void *arg)
{
    hotplug.fn = fn;
    hotplug.arg = arg;
    int ret = rte_dev_event_callback_register(NULL, on_device, NULL);
    if (ret == 0)
        ret = rte_dev_hotplug_handle_enable();
    if (ret == 0)
        ret = rte_dev_event_monitor_start();
    return ret == 0 ? 0 : negative(ret);
}

static void expired(struct rte_timer *timer) { timer->f(timer, timer->arg); }

void mdpdk_timers_run(void)
{
    /* Drivers leave a timer with the core that started the port, or with any: all are looked at, an empty one is one load. */
    static unsigned int cores[RTE_MAX_LCORE];
    if (rte_lcore_id() == LCORE_ID_ANY)
        return;
    for (unsigned int i = 0; i < RTE_MAX_LCORE; i++)
        cores[i] = i;
    /* The first table is the one that rte_timer's plain functions use; refused as long as no driver has made it. */
    (void)rte_timer_alt_manage(0, cores, RTE_MAX_LCORE, expired);
}

int mdpdk_port_reset(uint16_t port)
{
    int ret = rte_eth_dev_reset(port);
    return ret == 0 ? 0 : negative(ret);
}

int mdpdk_port_stats_reset(uint16_t port)
{
    int ret = rte_eth_stats_reset(port);
    return ret == 0 ? 0 : negative(ret);
}

int mdpdk_port_is_removed(uint16_t port) { return rte_eth_dev_is_removed(port); }

int mdpdk_port_remove(uint16_t port)
{
    struct rte_eth_dev_info info;
    /* Asked before the port is closed: its number leads nowhere afterwards. */
    int known = rte_eth_dev_info_get(port, &info);
    struct rte_device *device = known == 0 ? (struct rte_device *)(uintptr_t)info.device : NULL;
    int ret = rte_eth_dev_close(port);
    if (device != NULL && rte_dev_is_probed(device)) {
        int removed = rte_dev_remove(device);
        ret = ret != 0 ? ret : removed;
    }
    return ret == 0 ? 0 : negative(ret);
}
