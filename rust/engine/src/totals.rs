//! The flows' own counters, summed into what other threads read: those of flows that are gone, and once in a while those alive.

use machnet_flow::Stats;
use machnet_wire::Nanos;

/// What has been summed so far.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    gone: Sums,
    /// The sums that are being made.
    sums: Sums,
    /// While they are: the first place of the table that is not in them.
    next: Option<usize>,
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
    /// Keeps what the flow at a place of the table counted, which ends now.
    pub fn retire(&mut self, place: usize, stats: &Stats) {
        self.gone.add(stats);
        if self.next.is_some_and(|next| place >= next) {
            // Or the sums would be less than the last ones.
            self.sums.add(stats);
        }
        self.stale = true;
    }

    /// When the sums have to be made next; none while nothing happens.
    pub fn due(&self) -> Option<Nanos> {
        self.stale.then(|| self.collected + EVERY)
    }

    /// Whether sums are being made: a step of that is due in each round.
    #[inline]
    pub fn is_summing(&self) -> bool {
        self.next.is_some()
    }

    /// At the end of a round: whether sums are to be made. At most once a second.
    #[inline]
    pub fn is_due(&mut self, worked: bool, now: Nanos) -> bool {
        self.stale |= worked;
        self.is_summing() || self.due().is_some_and(|due| due <= now)
    }

    /// One step of it; `stats` are the counters of what is at a place, if something is, and there are `places`. The sums, if that
    /// was the last one: a walk over ten thousand flows takes a millisecond, and would hold up everybody's packets.
    #[cold]
    pub fn step(
        &mut self,
        now: Nanos,
        places: usize,
        stats: impl Fn(usize) -> Option<Stats>,
    ) -> Option<[Option<u64>; Stats::TABLE.len()]> {
        let first = self.next.unwrap_or_else(|| {
            self.sums = self.gone;
            self.stale = false;
            0
        });
        let end = places.min(first + STEP);
        (first..end).filter_map(stats).for_each(|stats| self.sums.add(&stats));
        self.next = (end < places).then_some(end);
        if self.next.is_some() {
            return None;
        }
        self.collected = now;
        Some(self.sums.0.map(Some))
    }
}

/// Places that are looked at in one round: about as much work as a burst of packets.
const STEP: usize = 64;
const EVERY: Nanos = Nanos::secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(units_sent: u64) -> Stats {
        Stats { units_sent, ..Stats::default() }
    }

    #[test]
    fn sums_never_shrink_though_flows_end_while_they_are_made() {
        let mut totals = Totals::default();
        let mut table: Vec<_> = (0..STEP * 3).map(|n| Some(stats(n as u64))).collect();
        let at = Stats::TABLE.iter().position(|d| d.name == "units_sent").expect("declared");
        let all = (STEP * 3 * (STEP * 3 - 1) / 2) as u64;
        // One each of those that are in the sums by then, and of those that are not.
        for (turn, gone) in [(1, 7), (2, STEP * 2 + 7)] {
            let now = EVERY * turn;
            assert!(totals.is_due(true, now) && totals.step(now, table.len(), |n| table[n]).is_none());
            totals.retire(gone, &table[gone].take().expect("there"));
            assert!(totals.is_summing() && totals.step(now, table.len(), |n| table[n]).is_none());
            let sums = totals.step(now, table.len(), |n| table[n]).expect("the last step");
            assert_eq!((sums[at], totals.is_summing()), (Some(all), false), "after {gone}");
        }
    }
}
