/* What a device tells between packets, and what is done to one that has to be started again, in plain C types. Results as in shim.h. */
#ifndef MACHNET_DPDK_EVENTS_H
#define MACHNET_DPDK_EVENTS_H

#include <stdint.h>

/* What a driver says of its port. */
enum {
    MDPDK_EVENT_RESET = 1,      /* the device wants to be started again */
    MDPDK_EVENT_REMOVED,        /* it is no longer there */
    MDPDK_EVENT_RECOVERING,     /* the driver mends an error by itself; no packets meanwhile */
    MDPDK_EVENT_RECOVERED,      /* it has; the port works as before */
    MDPDK_EVENT_RECOVERY_FAILED /* it has not; the port is of no use until it is opened anew */
};

/* Called in any of the process's threads, those inside the driver's functions included. */
typedef void (*mdpdk_event_fn)(int event, void *arg);
/* A device of the machine has come (1) or gone (0); its name is the bus's, such as a PCI address. Called in EAL's interrupt thread. */
typedef void (*mdpdk_hotplug_fn)(const char *device, int came, void *arg);

int mdpdk_events_watch(uint16_t port, mdpdk_event_fn fn, void *arg);
void mdpdk_events_forget(uint16_t port);   /* returns when none runs */
int mdpdk_hotplug_watch(mdpdk_hotplug_fn fn, void *arg); /* also keeps the process alive that touches a device which has gone; once */
void mdpdk_timers_run(void);               /* what drivers have left to rte_timer and is due; the thread is registered */

int mdpdk_port_reset(uint16_t port);       /* stops it, and has the driver begin anew; -ENOTSUP where it cannot: then stop is enough */
int mdpdk_port_stats_reset(uint16_t port);
int mdpdk_port_is_removed(uint16_t port);  /* 1: the driver sees that the device has gone; 0 also where it cannot tell */
int mdpdk_port_remove(uint16_t port);      /* closes it and gives the device back to its bus */

#endif
