//! An open port: what its queues share, what it counts, and how it closes.

use super::counted::Counted;
use super::eal::Environment;
use super::ethdev;
use super::gate::Gate;
use super::line::Line;
use super::packet::Sockets;
use crate::{Port, PortCounters, PortState};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// An open port. Its queues share it; it closes with the last of them.
pub struct DpdkPort {
    pub(super) id: u16,
    driver: String,
    pub(super) line: Arc<Line>,
    /// Of a driver that works in EAL's interrupt thread; it also watches the link.
    pub(super) gate: Option<Arc<Gate>>,
    /// Of an af_packet port; else none.
    pub(super) sockets: Sockets,
    /// After `gate` in order of dropping.
    _environment: Arc<Environment>,
}

impl DpdkPort {
    pub(super) fn new(
        id: u16,
        driver: String,
        line: Arc<Line>,
        gate: Option<Arc<Gate>>,
        sockets: Sockets,
        environment: Arc<Environment>,
    ) -> Arc<DpdkPort> {
        Arc::new(DpdkPort { id, driver, line, gate, sockets, _environment: environment })
    }

    /// Everything the driver counts, under the driver's own names.
    pub fn xstats(&self) -> Vec<(String, u64)> {
        // SAFETY: a null pointer with no room: only counts.
        let count = unsafe { dpdk_sys::mdpdk_port_xstats(self.id, std::ptr::null_mut(), 0) };
        let mut raw = vec![dpdk_sys::mdpdk_xstat::default(); count.max(0) as usize];
        // SAFETY: `raw` has room for as many entries as told.
        let count = unsafe { dpdk_sys::mdpdk_port_xstats(self.id, raw.as_mut_ptr(), raw.len() as u32) };
        raw.truncate(count.max(0) as usize);
        raw.iter().map(|x| (ethdev::name(&x.name), x.value)).collect()
    }

    /// Whether frames can pass, as far as anybody knows.
    pub fn is_up(&self) -> bool {
        self.line.is_up()
    }
}

impl Port for DpdkPort {
    fn driver(&self) -> &str {
        &self.driver
    }

    fn counters(&self) -> PortCounters {
        let mut raw = dpdk_sys::mdpdk_stats::default();
        // SAFETY: `raw` is writable; the port is open.
        let answered = unsafe { dpdk_sys::mdpdk_port_stats(self.id, &mut raw) } == 0;
        let mut counters =
            if answered { Counted::by(&self.driver).of(&raw) } else { PortCounters::default() };
        // What the kernel counts for af_packet's sockets, and the driver too since 25.03: whoever reads the count clears it, so both add up.
        if let Some(kernels) = self.sockets.missed() {
            counters.rx_missed = Some(counters.rx_missed.unwrap_or(0) + kernels);
        }
        if self.gate.is_some() {
            let watched = |count: &std::sync::atomic::AtomicU64| Some(count.load(Ordering::Relaxed));
            counters.link_ups = watched(&self.line.ups);
            counters.link_downs = watched(&self.line.downs);
            counters.link_refused = watched(&self.line.refused);
        }
        counters
    }

    fn state(&self) -> PortState {
        if self.line.is_up() { PortState::Up } else { PortState::LinkDown }
    }
}

impl Drop for DpdkPort {
    fn drop(&mut self) {
        let id = self.id;
        match &self.gate {
            // SAFETY: no queue of the port is left.
            None => unsafe {
                dpdk_sys::mdpdk_port_stop(id);
                dpdk_sys::mdpdk_port_close(id);
            },
            // memif leaves its listener registered with EAL when it is closed, so it is only stopped: the peer sees
            // the link end, and the memory goes with the process.
            Some(gate) => {
                gate.forget_port(id);
                // SAFETY: no queue of the port is left, and no callback of the driver runs meanwhile.
                gate.run(move || unsafe {
                    dpdk_sys::mdpdk_port_stop(id);
                });
            }
        }
    }
}
