//! One window of Swift (Kumar et al., SIGCOMM 2020, algorithm 1): additive increase while a signal is under its target,
//! multiplicative decrease by how far it is above, at most once a round trip. The signal is a delay for the fabric, the
//! fill of the peer's receive ring for the endpoint.
//!
//! Beyond the paper: a new window doubles each round trip until the signal first exceeds its target.

use machnet_wire::Nanos;

use crate::REACH;

/// 1 unit of a window.
pub(super) const ONE: u64 = 1 << 16;
/// The least window that delay can bring about: a unit in ten round trips (the paper's `fs_min_cwnd`).
pub(super) const LEAST: u64 = ONE / 10;
/// The least window that loss can bring about. Of two units the second proves the first one lost.
pub(super) const LEAST_BY_LOSS: u64 = 2 * ONE;

/// A window in 1/[`ONE`] units.
#[derive(Debug, Clone, Hash)]
pub(super) struct Window {
    units: u32,
    /// Below it the window doubles each round trip.
    threshold: u32,
    /// Of two cuts within one round trip the second would answer the same congestion.
    cut_again_at: Nanos,
}

impl Window {
    pub fn new(first: u32) -> Self {
        Window { units: first.clamp(1, REACH) * ONE as u32, threshold: u32::MAX, cut_again_at: Nanos::ZERO }
    }

    #[inline]
    pub fn units(&self) -> u64 {
        self.units.into()
    }

    /// Whether it still doubles.
    #[inline]
    pub fn is_starting(&self) -> bool {
        self.units < self.threshold
    }

    /// `acked` units arrived and the signal was under its target. `eager`: by up to a half a round trip, not by a unit.
    #[inline]
    pub fn grow(&mut self, acked: u32, eager: bool) {
        let acked = u64::from(acked) * ONE;
        let units = self.units();
        let more = if self.is_starting() || units < ONE {
            acked
        } else if eager {
            (acked / 2).max(acked * ONE / units)
        } else {
            acked * ONE / units
        };
        self.units = (units + more).min(u64::from(REACH) * ONE) as u32;
    }

    /// The signal was at `value`, above `target`.
    pub fn cut(&mut self, now: Nanos, value: u64, target: u64, rtt: Nanos) -> bool {
        if now < self.cut_again_at {
            return false;
        }
        let units = self.units();
        let by = units * (value - target) / value.max(1) * BETA.0 / BETA.1;
        self.units = (units - by.min(units / 2)).max(LEAST) as u32;
        self.threshold = self.units;
        self.cut_again_at = now + rtt;
        true
    }

    /// It doubles no more: a signal was above its target.
    #[inline]
    pub fn meets_congestion(&mut self) {
        self.threshold = self.threshold.min(self.units);
    }

    /// It need not have been cut: as large again as it was.
    pub fn widen(&mut self, units: u32) {
        self.units = self.units.max(units);
    }

    /// Units were lost: the largest cut, once a round trip.
    pub fn halve(&mut self, now: Nanos, rtt: Nanos) {
        if now >= self.cut_again_at {
            self.units = self.units.min((self.units / 2).max(LEAST_BY_LOSS as u32));
            self.threshold = self.units;
            self.cut_again_at = now + rtt;
        }
    }

    /// Nothing is known of the path any more: one unit at a time, and back to half of what there was.
    pub fn collapse(&mut self, now: Nanos) {
        self.threshold = (self.units / 2).max(LEAST_BY_LOSS as u32);
        self.units = self.units.min(ONE as u32);
        self.cut_again_at = now;
    }

    /// As it was before a collapse that was needless.
    pub fn restore(&mut self, before: &Window) {
        self.units = self.units.max(before.units);
        self.threshold = self.threshold.max(before.threshold);
    }

    /// The path is another one: looks anew how much it bears.
    pub fn start_anew(&mut self) {
        self.threshold = u32::MAX;
    }
}

/// How much longer than the base delay a round trip of a flow with this window may take: the target, less the base.
///
/// The paper's constant is 25 us and a share for each hop; overlays hide the hops, so half the base delay stands in for them. The
/// smaller the window the higher the target, or many flows could never share a link fairly (the paper's section 3.5,
/// with `fs_range` = 100 us, `fs_min_cwnd` = 0.1, `fs_max_cwnd` = 100).
#[inline]
pub(super) fn allowed_queueing(base: Nanos, units: u64) -> Nanos {
    base_queueing(base)
        + Nanos((SCALE_ALPHA * 256 / units.isqrt()).saturating_sub(SCALE_BETA).min(SCALE_RANGE))
}

/// The same without regard to the window: what flows with large windows allow.
#[inline]
pub(super) fn base_queueing(base: Nanos) -> Nanos {
    (base / 2).max(QUEUEING)
}

/// The paper's beta, 0.8.
const BETA: (u64, u64) = (4, 5);
const QUEUEING: Nanos = Nanos::micros(25);
/// alpha = range / (1 / sqrt(min) - 1 / sqrt(max)), and -beta = alpha / sqrt(max), nanoseconds.
const SCALE_RANGE: u64 = 100_000;
const SCALE_ALPHA: u64 = 32_655;
const SCALE_BETA: u64 = 3_266;

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Nanos = Nanos::micros(30);

    #[test]
    fn a_new_window_doubles_until_the_first_cut_then_grows_by_one_a_round_trip() {
        let mut window = Window::new(8);
        window.grow(8, false);
        assert_eq!(window.units(), 16 * ONE);
        window.cut(Nanos::micros(100), 150, 100, RTT);
        // 0.8 * (150 - 100) / 150 of it goes.
        assert_eq!(window.units() * 1000 / ONE, 11_733);
        window.grow(12, false);
        assert_eq!(window.units() * 100 / ONE, 1_275);
    }

    #[test]
    fn a_cut_is_at_most_a_half_and_once_a_round_trip() {
        let mut window = Window::new(8);
        for us in [100, 110, 129] {
            window.cut(Nanos::micros(us), 1_000_000, 1, RTT);
        }
        assert_eq!(window.units(), 4 * ONE);
        window.cut(Nanos::micros(130), 1_000_000, 1, RTT);
        assert_eq!(window.units(), 2 * ONE);
    }

    #[test]
    fn delay_brings_it_below_one_unit_and_loss_does_not() {
        let mut window = Window::new(8);
        for round in 0..100u64 {
            window.halve(RTT * round, RTT);
        }
        assert_eq!(window.units(), LEAST_BY_LOSS);
        for round in 100..200u64 {
            window.cut(RTT * round, 2, 1, RTT);
        }
        assert_eq!(window.units(), LEAST);
        window.halve(RTT * 200, RTT);
        assert_eq!(window.units(), LEAST);
        window.grow(1, false);
        assert_eq!(window.units(), ONE + LEAST);
    }

    #[test]
    fn small_windows_have_high_targets() {
        let base = Nanos::micros(30);
        let us = |units: u64| allowed_queueing(base, units).0 / 1000;
        // 25 us, and at most 100 us beside it.
        assert_eq!([us(LEAST), us(ONE), us(4 * ONE), us(100 * ONE), us(1024 * ONE)], [125, 54, 38, 25, 25]);
        assert_eq!(
            allowed_queueing(Nanos::micros(200), 200 * ONE),
            Nanos::micros(100),
            "half the base delay"
        );
    }
}
