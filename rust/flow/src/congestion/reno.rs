//! Slow start and additive increase, multiplicative decrease: RFC 5681 with the gentler cut of RFC 9438 section 4.6,
//! at most once a round trip, counted in units.

use machnet_wire::Nanos;

use super::{Ack, Control};
use crate::REACH;

#[derive(Debug, Clone)]
pub(crate) struct Reno {
    /// Window in 1/`ONE` units.
    window: u64,
    threshold: u64,
    /// Of two cuts within one round trip the second answers the same congestion.
    cut_again_at: Nanos,
    before_timeout: Option<(u64, u64)>,
}

impl Reno {
    pub fn new(first: u32) -> Self {
        Reno {
            window: u64::from(first.clamp(1, REACH)) * ONE,
            threshold: u64::MAX,
            cut_again_at: Nanos::ZERO,
            before_timeout: None,
        }
    }
}

impl Control for Reno {
    #[inline]
    fn window(&self) -> u32 {
        (self.window / ONE) as u32
    }

    #[inline]
    fn on_ack(&mut self, ack: &Ack) {
        // A window that was not used says nothing about what the path bears (RFC 7661).
        if u64::from(ack.in_flight) * ONE * 2 < self.window {
            return;
        }
        let acked = u64::from(ack.acked) * ONE;
        let more = if self.window < self.threshold { acked } else { acked * ONE / self.window };
        self.window = (self.window + more).min(u64::from(REACH) * ONE);
    }

    fn on_loss(&mut self, now: Nanos, _lost: u32, smoothed: Nanos) {
        if now < self.cut_again_at {
            return;
        }
        self.cut_again_at = now + smoothed;
        self.window = (self.window * 7 / 10).max(LEAST);
        self.threshold = self.window;
    }

    fn on_timeout(&mut self, now: Nanos) {
        if self.before_timeout.is_none() {
            self.before_timeout = Some((self.window, self.threshold));
        }
        self.threshold = (self.window / 2).max(LEAST);
        self.window = LEAST;
        self.cut_again_at = now;
    }

    fn undo_timeout(&mut self) {
        if let Some((window, threshold)) = self.before_timeout.take() {
            self.window = self.window.max(window);
            self.threshold = self.threshold.max(threshold);
        }
    }

    fn confirm_timeout(&mut self) {
        self.before_timeout = None;
    }
}

const ONE: u64 = 1 << 16;
/// Two units, so that a peer that acknowledges every other one need not be waited for.
const LEAST: u64 = 2 * ONE;

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(acked: u32, in_flight: u32) -> Ack {
        Ack { acked, in_flight }
    }

    #[test]
    fn the_window_doubles_a_round_then_is_cut_once_a_round_and_grows_by_one() {
        let mut reno = Reno::new(8);
        reno.on_ack(&ack(8, 8));
        assert_eq!(reno.window(), 16);
        reno.on_loss(Nanos::micros(100), 3, Nanos::micros(30));
        reno.on_loss(Nanos::micros(120), 3, Nanos::micros(30));
        assert_eq!(reno.window(), 11);
        reno.on_ack(&ack(11, 11));
        assert_eq!(reno.window(), 12);
        reno.on_loss(Nanos::micros(131), 1, Nanos::micros(30));
        assert_eq!(reno.window(), 8);
    }

    #[test]
    fn an_unused_window_does_not_grow() {
        let mut reno = Reno::new(8);
        for _ in 0..100 {
            reno.on_ack(&ack(1, 1));
        }
        assert_eq!(reno.window(), 8);
    }

    #[test]
    fn a_needless_timeout_is_undone_however_often_it_backed_off() {
        let mut reno = Reno::new(40);
        reno.on_timeout(Nanos::millis(1));
        reno.on_timeout(Nanos::millis(3));
        assert_eq!(reno.window(), 2);
        reno.undo_timeout();
        assert_eq!(reno.window(), 40);
        reno.on_timeout(Nanos::millis(9));
        reno.confirm_timeout();
        reno.undo_timeout();
        assert_eq!(reno.window(), 2);
    }
}
