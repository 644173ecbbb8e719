//! The flows' own counters, summed into what other threads read: those of flows that are gone, and once in a while those alive.

use machnet_flow::Stats;
use machnet_wire::Nanos;

/// What has been summed so far.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    gone: Sums,
    collected: Nanos,
    /// Something happened since.
    stale: bool,
}

/// A sum for each counter of the table, in its order.
#[derive(Debug, Clone, Copy, Default)]
struct Sums([u64; Stats::TABLE.len()]);

impl Sums {
    fn add(&mut self, stats: &Stats) {
        for (sum, value) in self.0.iter_mut().zip(stats.values()) {
            *sum += value.unwrap_or(0); // a flow counts all of its counters
        }
    }
}

impl Totals {
    /// Keeps what a flow counted that ends now.
    pub fn retire(&mut self, stats: &Stats) {
        self.gone.add(stats);
        self.stale = true;
    }

    /// When the sums have to be made next; none while nothing happens.
    pub fn due(&self) -> Option<Nanos> {
        self.stale.then(|| self.collected + EVERY)
    }

    /// At the end of a round: whether the sums are to be made now. At most once a second: a walk over ten thousand flows costs a
    /// millisecond.
    #[inline]
    pub fn is_due(&mut self, worked: bool, now: Nanos) -> bool {
        self.stale |= worked;
        self.due().is_some_and(|due| due <= now)
    }

    /// Makes the sums; `each` shows the counters of every flow alive.
    #[cold]
    pub fn collect(
        &mut self,
        now: Nanos,
        each: impl FnOnce(&mut dyn FnMut(&Stats)),
    ) -> [Option<u64>; Stats::TABLE.len()] {
        let mut sums = self.gone;
        each(&mut |stats| sums.add(stats));
        self.stale = false;
        self.collected = now;
        sums.0.map(Some)
    }
}

const EVERY: Nanos = Nanos::secs(1);
