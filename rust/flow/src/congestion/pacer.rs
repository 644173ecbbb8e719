//! When the next unit may go where a window alone would send in bursts: the generic cell rate algorithm (ITU-T I.371),
//! which needs no timer of its own; the flow's deadlines are kept by the engine's timing wheel (Carousel, SIGCOMM 2017).

use machnet_wire::Nanos;

/// A rate, as the time between two units, and how far it may be exceeded for a moment.
#[derive(Debug, Clone, Hash)]
pub(super) struct Pacer {
    /// `ZERO`: not paced.
    interval: Nanos,
    /// Units that may go at once.
    burst: u32,
    /// When the next unit is due at exactly the rate.
    due: Nanos,
}

impl Pacer {
    pub fn new() -> Self {
        Pacer { interval: Nanos::ZERO, burst: 0, due: Nanos::ZERO }
    }

    /// From now on one unit each `interval`, up to `burst` of them early. What went before at a slower rate does not
    /// hold up what goes at this one.
    pub fn set(&mut self, now: Nanos, interval: Nanos, burst: u32) {
        self.interval = interval;
        self.burst = burst;
        self.due = self.due.min(now + interval * (u64::from(burst) + 1));
    }

    /// No limit from now on.
    pub fn stop(&mut self) {
        self.interval = Nanos::ZERO;
    }

    /// When the next unit may go: in the past, or to be waited for.
    #[inline]
    pub fn ready_at(&self) -> Nanos {
        if self.interval == Nanos::ZERO {
            Nanos::ZERO
        } else {
            self.due - self.interval * u64::from(self.burst)
        }
    }

    /// A unit goes. One that did not wait for its turn (a probe) puts the next off by as much as one that did, and not by
    /// a turn for each of its kind: a row of units that the peer refused would silence the flow for as long as they are many.
    #[inline]
    pub fn sent(&mut self, now: Nanos) {
        if self.interval > Nanos::ZERO {
            self.due =
                (self.due.max(now) + self.interval).min(now + self.interval * (u64::from(self.burst) + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_then_a_unit_each_interval() {
        let mut pacer = Pacer::new();
        let mut now = Nanos::millis(1);
        pacer.set(now, Nanos::micros(10), 3);
        let mut at_once = 0;
        while pacer.ready_at() <= now {
            pacer.sent(now);
            at_once += 1;
        }
        assert_eq!(at_once, 4, "the burst, and the one that is due");
        for _ in 0..100 {
            let next = pacer.ready_at();
            assert_eq!(next - now, Nanos::micros(10));
            now = next;
            pacer.sent(now);
        }
        assert!(pacer.ready_at() > now);
        pacer.stop();
        assert!(pacer.ready_at() <= now, "no limit any more");
    }

    #[test]
    fn units_that_do_not_wait_for_their_turn_do_not_add_up() {
        let mut pacer = Pacer::new();
        let (mut now, interval) = (Nanos::secs(1), Nanos::millis(500));
        for burst in [0, 3] {
            pacer.set(now, interval, burst);
            for _ in 0..50 {
                pacer.sent(now);
                now += Nanos::millis(1);
            }
            assert!(
                pacer.ready_at() <= now + interval,
                "burst {burst}: {:?} from now",
                pacer.ready_at() - now
            );
        }
    }

    #[test]
    fn a_faster_rate_counts_at_once() {
        let mut pacer = Pacer::new();
        let now = Nanos::secs(1);
        pacer.set(now, Nanos::millis(10), 0);
        pacer.sent(now);
        assert_eq!(pacer.ready_at() - now, Nanos::millis(10));
        pacer.set(now, Nanos::micros(2), 8);
        assert!(pacer.ready_at() - now <= Nanos::micros(2));
    }
}
