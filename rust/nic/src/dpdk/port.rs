//! An open port: what its queues share, what it counts, and how it closes.

use super::bell::Bells;
use super::counted::Counted;
use super::eal::Environment;
use super::ethdev;
use super::gate::Gate;
use super::keeper::{Event, Keeper};
use super::packet::Sockets;
use super::seat::Seat;
use crate::{Port, PortCounters, PortState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// An open port. Its queues share it; it closes with the last of them.
pub struct DpdkPort {
    driver: String,
    pub(super) seat: Arc<Seat>,
    /// Of a driver that works in EAL's interrupt thread; it also watches the link.
    pub(super) gate: Option<Arc<Gate>>,
    /// Of all others: who starts the device again, and watches its link.
    keeper: Option<Keeper>,
    /// Of an af_packet port; else none.
    pub(super) sockets: Sockets,
    /// Of a memif whose queues may sleep.
    pub(super) bells: Option<Arc<Bells>>,
    /// After `gate` in order of dropping.
    _environment: Arc<Environment>,
}

/// Who watches over a port.
pub(super) enum Watch {
    Gate(Arc<Gate>),
    Keeper(Keeper),
}

impl DpdkPort {
    pub(super) fn new(
        driver: String,
        seat: Arc<Seat>,
        watch: Watch,
        sockets: Sockets,
        bells: Option<Arc<Bells>>,
        environment: Arc<Environment>,
    ) -> Arc<DpdkPort> {
        let (gate, keeper) = match watch {
            Watch::Gate(gate) => (Some(gate), None),
            Watch::Keeper(keeper) => (None, Some(keeper)),
        };
        Arc::new(DpdkPort { driver, seat, gate, keeper, sockets, bells, _environment: environment })
    }

    /// Everything the driver counts, under the driver's own names; nothing while the device is being started again.
    pub fn xstats(&self) -> Vec<(String, u64)> {
        self.seat.ask(xstats).unwrap_or_default()
    }

    /// Free buffers of a queue's pool.
    pub fn free_buffers(&self, queue: u16) -> u32 {
        // SAFETY: a pool that is in its seat is there.
        self.seat.ask(|_| unsafe { dpdk_sys::mdpdk_pool_available(self.seat.pool(queue)) }).unwrap_or(0)
    }

    /// Has the port behave as if the device had asked to be started again.
    pub fn reset(&self) {
        self.say(Event::Reset);
    }

    /// Has the port behave as if the device had been taken away; it is opened again as soon as it is found.
    pub fn remove(&self) {
        self.say(Event::Removed);
    }

    fn say(&self, event: Event) {
        if let Some(keeper) = &self.keeper {
            keeper.events().say(event);
        }
    }

    /// Whether frames can pass, as far as anybody knows.
    pub fn is_up(&self) -> bool {
        self.state() == PortState::Up
    }
}

impl Port for DpdkPort {
    fn driver(&self) -> &str {
        &self.driver
    }

    fn counters(&self) -> PortCounters {
        let mut counters =
            self.seat.stats().map_or_else(PortCounters::default, |raw| Counted::by(&self.driver).of(&raw));
        // What the kernel counts for af_packet's sockets, and the driver too since 25.03: whoever reads the count clears it, so both add up.
        if let Some(kernels) = self.sockets.missed() {
            counters.rx_missed = Some(counters.rx_missed.unwrap_or(0) + kernels);
        }
        let line = &self.seat.line;
        if self.gate.is_some() {
            let watched = |count: &AtomicU64| Some(count.load(Ordering::Relaxed));
            counters.link_ups = watched(&line.ups);
            counters.link_downs = watched(&line.downs);
            counters.link_refused = watched(&line.refused);
        }
        if let Some(keeper) = &self.keeper {
            let counts = keeper.status().counts;
            counters.link_ups = Some(counts.link_ups);
            counters.link_downs = Some(counts.link_downs);
            counters.resets = Some(counts.resets);
            counters.removals = Some(counts.removals);
            counters.returns = Some(counts.returns);
        }
        counters
    }

    fn state(&self) -> PortState {
        match &self.keeper {
            Some(keeper) => keeper.status().state,
            None if self.seat.line.is_up() => PortState::Up,
            None => PortState::LinkDown,
        }
    }
}

impl Drop for DpdkPort {
    fn drop(&mut self) {
        // No queue of the port is left.
        if let Some(keeper) = &self.keeper {
            keeper.end();
        }
        // memif leaves its listener registered with EAL when it is closed, so it is only stopped: the peer sees
        // the link end, and the memory goes with the process.
        if let Some(gate) = &self.gate {
            let id = self.seat.id();
            gate.forget_port(id);
            // SAFETY: no callback of the driver runs meanwhile.
            gate.run(move || unsafe {
                dpdk_sys::mdpdk_port_stop(id);
            });
        }
    }
}

fn xstats(id: u16) -> Vec<(String, u64)> {
    // SAFETY: a null pointer with no room: only counts.
    let count = unsafe { dpdk_sys::mdpdk_port_xstats(id, std::ptr::null_mut(), 0) };
    let mut raw = vec![dpdk_sys::mdpdk_xstat::default(); count.max(0) as usize];
    // SAFETY: `raw` has room for as many entries as told.
    let count = unsafe { dpdk_sys::mdpdk_port_xstats(id, raw.as_mut_ptr(), raw.len() as u32) };
    raw.truncate(count.max(0) as usize);
    raw.iter().map(|x| (ethdev::name(&x.name), x.value)).collect()
}
