//! Whether losses are congestion. Without delay they are no sign of it as long as they are few: clouds lose at random, and one loss
//! in a window of 48 is 2 % already. Beyond that they are put to the test: a policer loses less when less is sent, a noisy path as
//! much as before.

use machnet_wire::Nanos;

/// What losses say, beside those that are forgiven.
#[derive(Debug, Clone, Hash)]
pub(super) struct Losses {
    /// Losses beyond those that are forgiven, in 1/`forgiven` losses: a one-sided CUSUM (Page, 1954).
    excess: u32,
    /// One loss in so many units is forgiven.
    forgiven: u32,
    /// Units that arrived, and that were lost, since `excess` was last zero.
    arrived: u32,
    lost: u32,
    /// Units that arrived since the last verdict or the last time that few were lost.
    watched: u32,
    watched_lost: u32,
    /// What the last verdict was made of.
    tried: Option<Trial>,
}

/// Half the window, to see whether losses become fewer.
#[derive(Debug, Clone, Copy, Hash)]
struct Trial {
    /// The window before, in the caller's measure.
    window: u32,
    /// Losses of 65536 units then.
    rate: u32,
    /// How long it is of interest.
    until: Nanos,
}

/// What too many losses are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Congestion, for all that is known.
    Congestion,
    /// As many as when the window was this, twice as large: the path loses at random, and the smaller window is not needed.
    Random(u32),
}

impl Losses {
    pub fn new() -> Self {
        Losses {
            excess: 0,
            forgiven: FORGIVEN,
            arrived: 0,
            lost: 0,
            watched: 0,
            watched_lost: 0,
            tried: None,
        }
    }

    /// Whether the window may grow by leaps: there are no losses beyond those that are forgiven, and none made it smaller not long ago.
    #[inline]
    pub fn are_few(&self, now: Nanos) -> bool {
        self.excess == 0 && self.tried.is_none_or(|tried| now > tried.until)
    }

    /// So many units arrived.
    #[inline]
    pub fn arrived(&mut self, units: u32) {
        if self.excess > 0 {
            self.arrived = self.arrived.saturating_add(units);
            self.excess = self.excess.saturating_sub(units);
            if self.excess == 0 {
                (self.arrived, self.lost) = (0, 0);
            }
        }
        if self.forgiven != FORGIVEN {
            self.reconsider(units);
        }
    }

    /// A path that loses little again is held to that again.
    #[cold]
    fn reconsider(&mut self, units: u32) {
        self.watched += units;
        if self.watched >= WATCHED {
            if self.watched_lost * FORGIVEN < self.watched {
                self.forgiven = FORGIVEN;
            }
            (self.watched, self.watched_lost) = (0, 0);
        }
    }

    /// So many were lost, while the window was `window` and a round trip took this long.
    pub fn lost(&mut self, now: Nanos, units: u32, window: u32, round_trip: Nanos) -> Option<Verdict> {
        self.excess = self.excess.saturating_add(units.saturating_mul(self.forgiven));
        self.lost = self.lost.saturating_add(units);
        self.watched_lost = self.watched_lost.saturating_add(units);
        if self.excess <= TOLERATED * self.forgiven {
            return None;
        }
        let all = u64::from(self.arrived) + u64::from(self.lost);
        let rate = (u64::from(self.lost) * 65_536 / all) as u32;
        self.forget();
        if let Some(before) = self.tried.take()
            && window <= before.window / 4 * 3
            && (before.rate / 3 * 2..=RANDOM_MOST).contains(&rate)
        {
            self.forgiven = (65_536 / (rate + rate / 2 + 1)).clamp(FORGIVEN_MOST, FORGIVEN);
            (self.watched, self.watched_lost) = (0, 0);
            return Some(Verdict::Random(before.window));
        }
        self.tried = Some(Trial { window, rate, until: now + round_trip * TRIED });
        Some(Verdict::Congestion)
    }

    /// `units` that had been found lost had arrived after all.
    pub fn needless(&mut self, units: u32) {
        self.excess = self.excess.saturating_sub(units.saturating_mul(self.forgiven));
        self.lost = self.lost.saturating_sub(units);
        self.watched_lost = self.watched_lost.saturating_sub(units);
    }

    /// What was lost so far has been answered.
    pub fn forget(&mut self) {
        (self.excess, self.arrived, self.lost) = (0, 0, 0);
    }
}

/// One loss in so many units is forgiven: 2 %.
const FORGIVEN: u32 = 50;
/// And one in so many at most, on a path that was found to lose at random.
const FORGIVEN_MOST: u32 = 10;
/// More losses than this, of 65536 units, are never taken for random ones: 12 %.
const RANDOM_MOST: u32 = 7864;
/// Round trips for which a window that lost too much is remembered.
const TRIED: u64 = 64;
/// Losses beyond the forgiven ones that together are a sign of congestion. At 1 % of random loss this happens once in
/// millions of units, at 5 % after about 250.
const TOLERATED: u32 = 8;
/// Units after which a path that lost at random is looked at again.
const WATCHED: u32 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Nanos = Nanos::micros(100);

    /// Loses one unit in `every(window)` until there is a verdict, or 100 000 units went.
    fn until_verdict(
        losses: &mut Losses,
        now: &mut Nanos,
        window: u32,
        every: impl Fn(u32) -> u32,
    ) -> Option<Verdict> {
        let every = every(window);
        (0..100_000 / every).find_map(|_| {
            *now += Nanos(u64::from(every) * 1000);
            losses.arrived(every - 1);
            losses.lost(*now, 1, window, RTT)
        })
    }

    #[test]
    fn few_losses_are_forgiven_and_more_are_congestion() {
        for (every, verdict) in [(100, None), (51, None), (20, Some(Verdict::Congestion))] {
            let (mut losses, mut now) = (Losses::new(), Nanos::ZERO);
            assert_eq!(until_verdict(&mut losses, &mut now, 100, |_| every), verdict, "one in {every}");
        }
    }

    #[test]
    fn losses_that_half_a_window_does_not_make_fewer_are_random() {
        let (mut losses, mut now) = (Losses::new(), Nanos::ZERO);
        let one_in_20 = |_| 20;
        assert_eq!(until_verdict(&mut losses, &mut now, 100, one_in_20), Some(Verdict::Congestion));
        assert_eq!(until_verdict(&mut losses, &mut now, 50, one_in_20), Some(Verdict::Random(100)));
        assert_eq!(
            until_verdict(&mut losses, &mut now, 100, one_in_20),
            None,
            "they are forgiven from now on"
        );
        assert_eq!(until_verdict(&mut losses, &mut now, 100, |_| 8), Some(Verdict::Congestion), "not more");
        // A path that loses one in a hundred again is held to one in fifty again.
        let (mut losses, mut now) = (Losses::new(), Nanos::ZERO);
        until_verdict(&mut losses, &mut now, 100, one_in_20);
        until_verdict(&mut losses, &mut now, 50, one_in_20);
        assert_eq!(until_verdict(&mut losses, &mut now, 100, |_| 100), None);
        assert_eq!(until_verdict(&mut losses, &mut now, 100, one_in_20), Some(Verdict::Congestion));
    }

    #[test]
    fn a_policer_is_respected() {
        // It passes 80 units of a round trip: beyond that it loses what is too much.
        let policer = |window: u32| if window > 80 { window / (window - 80) } else { 1_000 };
        let (mut losses, mut now) = (Losses::new(), Nanos::ZERO);
        for _ in 0..20 {
            assert_eq!(until_verdict(&mut losses, &mut now, 85, policer), Some(Verdict::Congestion));
            assert_eq!(until_verdict(&mut losses, &mut now, 43, policer), None);
        }
        assert_eq!(until_verdict(&mut losses, &mut now, 400, policer), Some(Verdict::Congestion));
        assert_eq!(
            until_verdict(&mut losses, &mut now, 200, policer),
            Some(Verdict::Congestion),
            "far too many"
        );
    }

    #[test]
    fn after_too_many_losses_there_are_no_leaps_for_a_while() {
        let (mut losses, mut now) = (Losses::new(), Nanos::ZERO);
        assert!(losses.are_few(now));
        until_verdict(&mut losses, &mut now, 100, |_| 20);
        assert!(!losses.are_few(now) && losses.are_few(now + RTT * 65));
        losses.lost(now, 1, 50, RTT);
        assert!(!losses.are_few(now + RTT * 65));
    }

    #[test]
    fn what_had_arrived_after_all_is_no_loss() {
        let mut losses = Losses::new();
        for i in 0..1000 {
            losses.arrived(9);
            assert_eq!(losses.lost(Nanos::micros(i), 1, 100, RTT), None);
            losses.needless(1);
        }
        assert!(losses.are_few(Nanos::millis(1)));
    }

    #[test]
    fn only_a_much_smaller_window_that_loses_as_much_says_that_losses_are_random() {
        for (window, every, what) in [(80, 20, "it is not much smaller"), (50, 45, "they have become fewer")]
        {
            let (mut losses, mut now) = (Losses::new(), Nanos::ZERO);
            assert_eq!(until_verdict(&mut losses, &mut now, 100, |_| 20), Some(Verdict::Congestion));
            assert_eq!(
                until_verdict(&mut losses, &mut now, window, |_| every),
                Some(Verdict::Congestion),
                "{what}"
            );
        }
    }
}
