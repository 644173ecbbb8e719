//! Whether a channel is polled, and what is known of its doorbell.

use machnet_wire::Nanos;

use crate::random::RateLimit;

/// Of one channel: whether it is polled, and whether its doorbell is believed.
pub(crate) struct Watch {
    /// It is polled in every round.
    pub polled: bool,
    /// When there was last something to do for it.
    pub worked: Nanos,
    /// How many rings for nothing are taken for races.
    races: RateLimit,
    /// How long its doorbell is muted; zero if it is not.
    muted_for: Nanos,
    muted_until: Nanos,
}

impl Watch {
    pub fn new(now: Nanos) -> Self {
        let races = RateLimit::new(RACES, now);
        Self { polled: true, worked: now, races, muted_for: Nanos::ZERO, muted_until: Nanos::ZERO }
    }

    /// The doorbell has rung for nothing: for how long it is to be muted, longer each time. `None`: that may happen now and then.
    pub fn rang_for_nothing(&mut self, now: Nanos) -> Option<Nanos> {
        if !self.is_muted() && self.races.allow(now) {
            return None;
        }
        Some((self.muted_for * 2).clamp(MUTED, MUTED_LONGEST))
    }

    /// The doorbell is out of the set for this time.
    pub fn mute(&mut self, time: Nanos, now: Nanos) {
        self.muted_for = time;
        self.muted_until = now.saturating_add(time);
    }

    /// It is in the set again.
    pub fn unmute(&mut self) {
        self.muted_for = Nanos::ZERO;
    }

    pub fn is_muted(&self) -> bool {
        self.muted_for != Nanos::ZERO
    }

    /// When it has been muted for its time.
    pub fn muted_until(&self) -> Nanos {
        self.muted_until
    }
}

/// So many rings for nothing a second are taken for races; a tenth of them may come at once.
const RACES: u32 = 1000;
/// How long a doorbell is muted that rings for nothing more often: at first, and at most.
const MUTED: Nanos = Nanos::millis(1);
pub(crate) const MUTED_LONGEST: Nanos = Nanos::millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doorbell_that_keeps_ringing_for_nothing_is_muted_for_longer_each_time() {
        let mut now = Nanos::ZERO;
        let mut watch = Watch::new(now);
        let forgiven = (0..RACES).take_while(|_| watch.rang_for_nothing(now).is_none()).count();
        assert_eq!(forgiven, 100, "a tenth of a second's worth");
        let mut times = Vec::new();
        for _ in 0..6 {
            let time = watch.rang_for_nothing(now).expect("no races any more");
            watch.mute(time, now);
            now = watch.muted_until();
            times.push(time);
        }
        assert_eq!(times, [1, 2, 4, 8, 10, 10].map(Nanos::millis));
        watch.unmute();
        assert_eq!(watch.rang_for_nothing(now), None, "it was silent meanwhile, and may err again");
    }
}
