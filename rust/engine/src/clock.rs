//! The time of an engine, as its thread gives it, and what the times of its rounds tell.

use machnet_flow::Arriving;
use machnet_wire::Nanos;

/// When the engine runs, when it ran, and when it did not.
#[derive(Debug)]
pub(crate) struct Clock {
    /// The time of this half of the round. It never goes back.
    pub now: Nanos,
    /// When the receive ring was last looked at.
    looked: Nanos,
    /// The time between that look and the one before. A packet taken in this round may have lain in the ring for as long.
    pub gap: Nanos,
    /// How often the engine did not run when it should have.
    pub stalls: u32,
    /// The longest that the receive ring went unattended for that, and when.
    away: (Nanos, Nanos),
}

impl Clock {
    pub fn new(now: Nanos) -> Self {
        Self { now, looked: now, gap: Nanos::ZERO, stalls: 0, away: (Nanos::ZERO, now) }
    }

    /// Whether a round that begins `now` comes so long after the last one that it may be a stall.
    #[inline]
    pub fn is_late(&self, now: Nanos) -> bool {
        now - self.now > STALL
    }

    /// A round begins, and the receive ring is looked at. True: it had been `due` for so long that the engine did not run when it
    /// should have; no `due`, no stall.
    #[inline]
    pub fn begin_round(&mut self, now: Nanos, due: Option<Nanos>) -> bool {
        self.gap = now - self.looked;
        self.looked = now;
        self.advance(now);
        let stalled = due.is_some_and(|due| now - due > STALL);
        self.stalls = self.stalls.wrapping_add(u32::from(stalled));
        if let (true, Some(due)) = (stalled, due) {
            // The last look may have been long before the engine was away, and it was away before it wanted to look.
            let away = self.gap.min((now - due) * 2).min(AWAY_MAX);
            if away >= self.unattended() {
                self.away = (away, self.now);
            }
        }
        stalled
    }

    /// For how long the receive ring may go unattended: as long as it did, half of that a second later, a quarter after two, and so on.
    fn unattended(&self) -> Nanos {
        let (longest, at) = self.away;
        let ago = (self.now - at).0 / Nanos::secs(1).0;
        Nanos(longest.0.checked_shr(ago as u32).unwrap_or(0)).max(STALL)
    }

    /// Which part of what is promised to a peer may come meanwhile, whose round trip is `round`.
    #[inline]
    pub fn arriving(&self, round: Nanos) -> Arriving {
        if round <= STALL { Arriving::ALL } else { Arriving::within(self.unattended(), round) }
    }

    /// It is later in the same round.
    #[inline]
    pub fn advance(&mut self, now: Nanos) {
        self.now = now.max(self.now);
    }

    /// The receive ring was empty until `now`, though no round ran.
    pub fn looked(&mut self, now: Nanos) {
        self.advance(now);
        self.looked = self.now;
    }
}

/// A round this much later than it should have been is a stall of ours: no silence of peers', and no round trip.
const STALL: Nanos = Nanos::millis(1);
/// The longest stall that is remembered as such: a machine that slept will not do so again at once.
const AWAY_MAX: Nanos = Nanos::millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_that_was_not_due_is_no_stall_however_late_it_is() {
        let mut clock = Clock::new(Nanos::ZERO);
        let [ten, twenty, thirty] = [10, 20, 30].map(Nanos::millis);
        assert!(clock.is_late(ten) && !clock.begin_round(ten, None));
        assert!(!clock.begin_round(twenty, Some(Nanos::millis(19))));
        assert!(clock.begin_round(thirty, Some(twenty)));
        assert_eq!((clock.stalls, clock.gap, clock.now), (1, ten, thirty));
        assert!(!clock.is_late(Nanos::millis(31)));
    }

    #[test]
    fn a_ring_that_was_empty_meanwhile_leaves_no_gap() {
        let mut clock = Clock::new(Nanos::ZERO);
        clock.looked(Nanos::millis(4));
        clock.begin_round(Nanos::millis(5), None);
        assert_eq!(clock.gap, Nanos::millis(1));
        clock.advance(Nanos::millis(3));
        assert_eq!(clock.now, Nanos::millis(5), "time never goes back");
    }

    #[test]
    fn a_stall_is_reckoned_with_until_it_is_long_ago() {
        let mut clock = Clock::new(Nanos::ZERO);
        let far = Nanos::millis(100);
        let calm = Arriving::within(STALL, far);
        assert_eq!((clock.arriving(far), clock.arriving(STALL)), (calm, Arriving::ALL));
        for (ms, due) in [(10, 2), (13, 11), (50, 47)] {
            clock.begin_round(Nanos::millis(ms), Some(Nanos::millis(due)));
        }
        // Of the three the longest; before the last one nothing was due for long.
        assert_eq!(clock.arriving(far), Arriving::within(Nanos::millis(10), far));
        clock.begin_round(Nanos::millis(1100), None);
        assert_eq!(clock.arriving(far), Arriving::within(Nanos::millis(5), far));
        clock.begin_round(Nanos::secs(100), None);
        assert_eq!(clock.arriving(far), calm);
    }
}
