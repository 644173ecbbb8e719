//! Where a port is at the moment: a device that was taken away comes back under another number, at times with other buffers. Queues look here
//! when they come back into bursts; only the port's [keeper](super::keeper) changes it, while they are out of them.

use super::line::Line;
use dpdk_sys::mdpdk_stats;
use std::ffi::c_void;
use std::sync::atomic::{AtomicPtr, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the queues of a port, the port and its keeper share.
pub(super) struct Seat {
    id: AtomicU16,
    pub line: Arc<Line>,
    pools: Vec<PoolSeat>,
    /// Held by whoever makes the driver do something other than bursts. Its counters are not read meanwhile.
    device: Mutex<()>,
    tally: Mutex<Tally>,
}

/// A queue's pool of buffers.
struct PoolSeat {
    /// That it is to use.
    current: AtomicPtr<c_void>,
    /// That it uses.
    adopted: AtomicPtr<c_void>,
}

/// The driver's counters, which begin at zero whenever it begins.
#[derive(Default)]
struct Tally {
    before: mdpdk_stats,
    now: mdpdk_stats,
    answered: bool,
}

impl Seat {
    /// A port's, with the pools of its queues in their order.
    pub(super) fn new(id: u16, line: Arc<Line>, pools: &[*mut c_void]) -> Arc<Seat> {
        let pools = pools
            .iter()
            .map(|&pool| PoolSeat { current: AtomicPtr::new(pool), adopted: AtomicPtr::new(pool) });
        Arc::new(Seat {
            id: AtomicU16::new(id),
            line,
            pools: pools.collect(),
            device: Mutex::default(),
            tally: Mutex::default(),
        })
    }

    /// The port's number.
    pub(super) fn id(&self) -> u16 {
        self.id.load(Ordering::Relaxed)
    }

    /// Moves the port to another number. The queues are parked.
    pub(super) fn set_id(&self, id: u16) {
        self.id.store(id, Ordering::Relaxed);
    }

    /// The pool that a queue is to use.
    pub(super) fn pool(&self, queue: u16) -> *mut c_void {
        self.pools[usize::from(queue)].current.load(Ordering::Relaxed)
    }

    /// Gives a queue another pool. It is parked.
    pub(super) fn set_pool(&self, queue: u16, pool: *mut c_void) {
        self.pools[usize::from(queue)].current.store(pool, Ordering::Relaxed);
    }

    /// A queue has given back all that it held of other pools.
    pub(super) fn adopted(&self, queue: u16, pool: *mut c_void) {
        self.pools[usize::from(queue)].adopted.store(pool, Ordering::Release);
    }

    /// Whether a queue uses the pool that it is to use.
    pub(super) fn has_adopted(&self, queue: u16) -> bool {
        let PoolSeat { current, adopted } = &self.pools[usize::from(queue)];
        current.load(Ordering::Relaxed) == adopted.load(Ordering::Acquire)
    }

    /// Until this is dropped nobody asks the driver for counters.
    pub(super) fn device(&self) -> MutexGuard<'_, ()> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs this with the port's number unless the driver is busy with something else.
    pub(super) fn ask<T>(&self, ask: impl FnOnce(u16) -> T) -> Option<T> {
        let _free = self.device.try_lock().ok()?;
        Some(ask(self.id()))
    }

    /// What the driver has counted since the port was first opened; `None` if it never answered. While it is being started again, or is gone,
    /// what it had counted by then.
    pub(super) fn stats(&self) -> Option<mdpdk_stats> {
        self.ask(|id| self.read(id));
        let tally = self.tally();
        tally.answered.then(|| sum(&tally.before, &tally.now))
    }

    /// Reads the counters. The caller holds [`Seat::device`], and the port is open.
    pub(super) fn read(&self, id: u16) {
        let mut raw = mdpdk_stats::default();
        // SAFETY: `raw` is writable; a port that is not open is refused.
        if unsafe { dpdk_sys::mdpdk_port_stats(id, &mut raw) } == 0 {
            self.tally().take(raw);
        }
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tally {
    /// Takes a new reading. One that has gone back is of a driver that began anew.
    fn take(&mut self, raw: mdpdk_stats) {
        let fields = |s: &mdpdk_stats| [s.rx_frames, s.tx_frames, s.rx_bytes, s.tx_bytes];
        if fields(&raw).iter().zip(fields(&self.now)).any(|(new, old)| *new < old) {
            self.before = sum(&self.before, &self.now);
        }
        self.now = raw;
        self.answered = true;
    }
}

fn sum(a: &mdpdk_stats, b: &mdpdk_stats) -> mdpdk_stats {
    mdpdk_stats {
        rx_frames: a.rx_frames + b.rx_frames,
        tx_frames: a.tx_frames + b.tx_frames,
        rx_bytes: a.rx_bytes + b.rx_bytes,
        tx_bytes: a.tx_bytes + b.tx_bytes,
        rx_missed: a.rx_missed + b.rx_missed,
        rx_errors: a.rx_errors + b.rx_errors,
        tx_errors: a.tx_errors + b.tx_errors,
        rx_no_buffer: a.rx_no_buffer + b.rx_no_buffer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_go_on_where_a_driver_begins_anew() {
        let mut tally = Tally::default();
        let reading = |rx_frames| mdpdk_stats { rx_frames, ..Default::default() };
        for (raw, total) in [(5, 5), (9, 9), (0, 9), (3, 12), (3, 12), (1, 13)] {
            tally.take(reading(raw));
            assert_eq!(sum(&tally.before, &tally.now).rx_frames, total, "after {raw}");
        }
    }
}
