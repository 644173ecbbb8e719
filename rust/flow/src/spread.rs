//! How a large promise is used on a long path: not in one burst, but spread over the round trip that it is for.
//!
//! A receive ring must hold what comes while nobody looks at it. What was promised to a peer whose round trip is shorter than that may
//! all come meanwhile; of what was promised to one far away only a part can, if it is sent at an even rate. So both ends keep to one
//! rule: of a promise of `n` units at most [`BURST`] go at once, and the others at 5/4 of `n` in a round trip, where a sender that was
//! late may make good for [`SLACK`]. The receiver counts as much of a promise against its ring as that lets through while the ring goes
//! unattended ([`Arriving`]), the sender keeps to the rate ([`Spread`]), and where a round trip is not longer than [`SHORT`] nothing
//! changes for either.

use machnet_wire::Nanos;

/// Units of a promise that may go at once, whatever the rate.
const BURST: u32 = 8;
/// For so long a sender that was late makes good for it.
const SLACK: Nanos = Nanos::millis(1);
/// Round trips up to this one are short: what was promised may come at once.
pub(crate) const SHORT: Nanos = Nanos::millis(1);
/// A promise is used up in 4/5 of a round trip, so that the rate never is what limits.
const GAIN: (u64, u64) = (5, 4);

/// Which part of a promise may arrive while a receive ring goes unattended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arriving {
    /// In 1/65536, beside [`BURST`]; 0: all of it.
    part: u16,
}

impl Arriving {
    /// All of it.
    pub const ALL: Arriving = Arriving { part: 0 };

    /// Within `unattended`, of a promise to a peer whose round trip is `round`; zero: not known.
    pub fn within(unattended: Nanos, round: Nanos) -> Arriving {
        if round <= SHORT {
            return Arriving::ALL;
        }
        let part = (unattended + SLACK).0.saturating_mul(GAIN.0 << 16) / (round.0 * GAIN.1);
        Arriving { part: u16::try_from(part + 1).unwrap_or(0) }
    }

    /// How many units that are, of `promised`.
    #[inline]
    pub fn of(self, promised: u32) -> u32 {
        if self.part == 0 {
            return promised;
        }
        let even = ((u64::from(promised) * u64::from(self.part)) >> 16) as u32 + 1;
        promised.min(BURST + even)
    }

    /// The largest promise of which no more than `units` arrive; at most 2^20.
    #[inline]
    pub fn promise(self, units: u32) -> u32 {
        if self.part == 0 || units <= BURST {
            return units;
        }
        let even = (u64::from(units - BURST) << 16).saturating_sub(1) / u64::from(self.part);
        units.max(even.min(1 << 20) as u32)
    }
}

/// The sender's side: when the next unit may go. The generic cell rate algorithm (ITU-T I.371).
#[derive(Debug, Clone, Hash)]
pub(crate) struct Spread {
    /// When the next unit is due at exactly the rate.
    due: Nanos,
}

impl Spread {
    pub fn new() -> Self {
        Spread { due: Nanos::ZERO }
    }

    /// Time from unit to unit of a promise of so many; zero: they may go at once. `round`: the path's own round trip.
    #[inline]
    fn interval(promised: u32, round: Nanos) -> Nanos {
        if round <= SHORT || promised <= BURST {
            return Nanos::ZERO;
        }
        Nanos(round.0 * GAIN.1 / (GAIN.0 * u64::from(promised)))
    }

    /// When the next unit may go: in the past, or to be waited for.
    #[inline]
    pub fn ready_at(&self, promised: u32, round: Nanos) -> Nanos {
        match Spread::interval(promised, round) {
            Nanos::ZERO => Nanos::ZERO,
            interval => self.due - (SLACK + interval * u64::from(BURST)),
        }
    }

    /// A unit goes.
    #[inline]
    pub fn sent(&mut self, now: Nanos, promised: u32, round: Nanos) {
        let interval = Spread::interval(promised, round);
        if interval > Nanos::ZERO {
            // A promise that was small once does not hold up what goes under a large one.
            let most = now + SLACK + interval * (u64::from(BURST) + 1);
            self.due = (self.due.max(now) + interval).min(most);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_sender_lets_go_is_what_the_receiver_reckons_with() {
        for (promised, round) in [(192, 3), (500, 20), (2000, 20), (9000, 100), (16_384, 200), (64, 50)] {
            let round = Nanos::millis(round);
            let (mut spread, mut now, mut went) = (Spread::new(), Nanos::secs(1), alloc::vec::Vec::new());
            // Idle, then as fast as it may, with a pause in between.
            while now < Nanos::secs(2) {
                if went.len() == 1000 {
                    now += Nanos::millis(30);
                }
                while spread.ready_at(promised, round) <= now {
                    spread.sent(now, promised, round);
                    went.push(now);
                }
                now = spread.ready_at(promised, round);
            }
            for unattended in [Nanos::millis(1), Nanos::millis(4), Nanos::micros(200)] {
                let most = Arriving::within(unattended, round).of(promised);
                let seen = (0..went.len())
                    .map(|i| went[i..].iter().take_while(|at| **at < went[i] + unattended).count())
                    .max();
                // Within a round trip the promise itself bounds it.
                let seen = seen.unwrap_or(0).min(promised as usize) as u32;
                assert!(seen <= most, "{promised} in {round:?}: {seen} in {unattended:?}, reckoned {most}");
                assert!(
                    seen + 3 >= most,
                    "{promised} in {round:?}: {seen} in {unattended:?}, reckoned {most}"
                );
            }
            // And it is no limit: all of it goes within a round trip.
            let rate = went.len() as u64 * round.0 / Nanos::secs(1).0;
            assert!(rate >= u64::from(promised), "{rate} of {promised}");
        }
    }

    #[test]
    fn the_largest_promise_is_the_largest() {
        for round in [0, 1000, 1001, 2400, 2600, 20_000, 100_000, 10_000_000] {
            let arriving = Arriving::within(Nanos::millis(1), Nanos::micros(round));
            for units in 0..1000 {
                let promise = arriving.promise(units);
                assert!(arriving.of(promise) <= units, "{units} at {round} us: {promise}");
                let more = arriving.of(promise + 1) > units || promise == 1 << 20;
                assert!(more, "{units} at {round} us: {promise}");
            }
        }
    }

    #[test]
    fn on_a_short_path_all_may_come_at_once() {
        let short = Arriving::within(Nanos::millis(4), Nanos::millis(1));
        assert_eq!((short.of(192), short.promise(192)), (192, 192));
        assert_eq!(Spread::new().ready_at(256, Nanos::millis(1)), Nanos::ZERO);
        // A ring that nobody looks at for as long as a round trip takes.
        assert_eq!(Arriving::within(Nanos::millis(50), Nanos::millis(20)).of(192), 192);
    }

    #[test]
    fn what_went_regardless_of_the_rate_holds_nothing_up_for_longer_than_one_unit_does() {
        let (mut spread, now, round) = (Spread::new(), Nanos::secs(1), Nanos::millis(20));
        (0..100).for_each(|_| spread.sent(now, 9, round));
        assert_eq!(spread.ready_at(9, round), now + Spread::interval(9, round));
    }
}
