//! When the flows of an engine, and those to it, hold back together so that each sees its path without a queue
//! (`rust/flow/src/congestion`). All packets carry a bit of the drain epoch; when it changes, a drain begins.

use machnet_wire::Nanos;

/// The drain epoch of one engine.
#[derive(Debug)]
pub(crate) struct DrainEpoch {
    bit: bool,
    next: Nanos,
    interval: Nanos,
}

impl DrainEpoch {
    pub fn new(now: Nanos) -> Self {
        Self { bit: false, next: now, interval: SHORTEST / 2 }
    }

    /// The bit that packets carry now.
    #[inline]
    pub fn bit(&self) -> bool {
        self.bit
    }

    /// A flow has begun, and perhaps taken a queue for a part of its path.
    pub fn newcomer(&mut self, now: Nanos) {
        self.interval = SHORTEST / 2;
        self.next = self.next.min(now + SHORTEST);
    }

    /// Begins the next epoch when it is time for that: soon after newcomers, and ever more rarely without. A flow that is
    /// alone has nobody to hold back with.
    #[inline]
    pub fn turn(&mut self, now: Nanos, flows: usize) {
        if now < self.next {
            return;
        }
        self.interval = (self.interval * 2).min(LONGEST);
        self.next = now + self.interval;
        self.bit ^= flows > 1;
    }
}

/// A drain costs a congested flow three round trips: 1 to 2 % of this.
const SHORTEST: Nanos = Nanos::millis(10);
const LONGEST: Nanos = Nanos::secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_changes_soon_after_newcomers_and_rarely_without() {
        let mut epoch = DrainEpoch::new(Nanos::ZERO);
        let mut changes = Vec::new();
        for ms in 0..3_000 {
            if ms == 2_000 {
                epoch.newcomer(Nanos::millis(ms));
            }
            let before = epoch.bit();
            epoch.turn(Nanos::millis(ms), 2);
            if epoch.bit() != before {
                changes.push(ms);
            }
        }
        assert_eq!(changes, [0, 10, 30, 70, 150, 310, 630, 1270, 2010, 2020, 2040, 2080, 2160, 2320, 2640]);
    }

    #[test]
    fn a_flow_that_is_alone_has_no_drains() {
        let mut epoch = DrainEpoch::new(Nanos::ZERO);
        (0..1_000).for_each(|ms| epoch.turn(Nanos::millis(ms), 1));
        assert!(!epoch.bit());
    }
}
