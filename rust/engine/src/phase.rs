//! When the flows of an engine, and those to it, hold back together so that each sees its path without a queue
//! (`rust/flow/src/congestion`). All packets carry the phase; a change of it is the sign.

use machnet_wire::Nanos;

/// The phase of one engine.
#[derive(Debug)]
pub(crate) struct Phase {
    phase: bool,
    next: Nanos,
    interval: Nanos,
}

impl Phase {
    pub fn new(now: Nanos) -> Self {
        Self { phase: false, next: now, interval: SHORTEST / 2 }
    }

    /// The phase now.
    #[inline]
    pub fn now(&self) -> bool {
        self.phase
    }

    /// A flow has begun, and perhaps taken a queue for a part of its path.
    pub fn newcomer(&mut self, now: Nanos) {
        self.interval = SHORTEST / 2;
        self.next = self.next.min(now + SHORTEST);
    }

    /// Changes the phase when it is time for that: soon after newcomers, and ever more rarely without. Who is alone
    /// has nobody to hold back with.
    #[inline]
    pub fn turn(&mut self, now: Nanos, flows: usize) {
        if now < self.next {
            return;
        }
        self.interval = (self.interval * 2).min(LONGEST);
        self.next = now + self.interval;
        self.phase ^= flows > 1;
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
        let mut phase = Phase::new(Nanos::ZERO);
        let mut changes = Vec::new();
        for ms in 0..3_000 {
            if ms == 2_000 {
                phase.newcomer(Nanos::millis(ms));
            }
            let before = phase.now();
            phase.turn(Nanos::millis(ms), 2);
            if phase.now() != before {
                changes.push(ms);
            }
        }
        assert_eq!(changes, [0, 10, 30, 70, 150, 310, 630, 1270, 2010, 2020, 2040, 2080, 2160, 2320, 2640]);
    }

    #[test]
    fn who_is_alone_keeps_its_phase() {
        let mut phase = Phase::new(Nanos::ZERO);
        (0..1_000).for_each(|ms| phase.turn(Nanos::millis(ms), 1));
        assert!(!phase.now());
    }
}
