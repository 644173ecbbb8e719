//! Round-trip time and the timeouts that follow from it.

use machnet_wire::Nanos;

use crate::Config;

/// Estimates of the round-trip time, the peer's own delay taken out. RFC 6298, gains 1/8 and 1/4.
#[derive(Debug, Clone)]
pub(crate) struct Rtt {
    /// `None` until the first sample.
    smoothed: Option<Nanos>,
    variation: Nanos,
    /// Least sample of this window and of the one before: a minimum that forgets.
    least: Nanos,
    least_before: Nanos,
    window_ends: Nanos,
}

impl Rtt {
    pub fn new() -> Self {
        Rtt {
            smoothed: None,
            variation: Nanos::ZERO,
            least: Nanos::MAX,
            least_before: Nanos::MAX,
            window_ends: Nanos::ZERO,
        }
    }

    #[inline]
    pub fn sample(&mut self, now: Nanos, rtt: Nanos) {
        match self.smoothed {
            None => {
                self.smoothed = Some(rtt);
                self.variation = rtt / 2;
            }
            Some(smoothed) => {
                let off = if rtt > smoothed { rtt - smoothed } else { smoothed - rtt };
                self.variation = Nanos(self.variation.0 - self.variation.0 / 4 + off.0 / 4);
                self.smoothed = Some(Nanos(smoothed.0 - smoothed.0 / 8 + rtt.0 / 8));
            }
        }
        if now >= self.window_ends {
            self.least_before = self.least;
            self.least = Nanos::MAX;
            self.window_ends = now + WINDOW;
        }
        self.least = self.least.min(rtt);
    }

    #[inline]
    pub fn smoothed(&self) -> Option<Nanos> {
        self.smoothed
    }

    /// The smoothed time, or zero before the first sample.
    #[inline]
    pub fn or_zero(&self) -> Nanos {
        self.smoothed.unwrap_or(Nanos::ZERO)
    }

    /// Least of the last 5 to 10 s, zero before the first sample.
    #[inline]
    pub fn least(&self) -> Nanos {
        match self.least.min(self.least_before) {
            Nanos::MAX => Nanos::ZERO,
            least => least,
        }
    }

    /// Retransmission timeout, not backed off. RFC 6298 section 2 with a finer grain, and the peer's ack delay added.
    pub fn timeout(&self, config: &Config) -> Nanos {
        match self.smoothed {
            None => config.syn_retry,
            Some(smoothed) => (smoothed + (self.variation * 4).max(GRAIN) + config.ack_delay)
                .max(config.rto_min)
                .min(config.rto_max),
        }
    }

    /// Tail-loss probe's timeout. RFC 8985 section 7.2.
    pub fn probe_timeout(&self, config: &Config) -> Nanos {
        (self.or_zero() * 2 + config.ack_delay).max(config.pto_min)
    }
}

const WINDOW: Nanos = Nanos::secs(5);
/// Least distance of the timeout from the smoothed time: a poll round of a busy peer.
const GRAIN: Nanos = Nanos::micros(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_follow_the_samples_between_their_bounds() {
        let config = Config::default();
        let mut rtt = Rtt::new();
        assert_eq!((rtt.timeout(&config), rtt.least()), (config.syn_retry, Nanos::ZERO));
        rtt.sample(Nanos(1), Nanos::micros(30));
        assert_eq!(rtt.timeout(&config), config.rto_min);
        assert_eq!(rtt.probe_timeout(&config), config.pto_min);
        let mut slow = Rtt::new();
        slow.sample(Nanos(1), Nanos::millis(4));
        assert_eq!(slow.timeout(&config), Nanos::millis(12) + config.ack_delay);
        for i in 0..100 {
            slow.sample(Nanos(i), Nanos::millis(4));
        }
        assert!(slow.timeout(&config) < Nanos::millis(5));
        slow.sample(Nanos(200), Nanos::secs(3));
        assert_eq!(slow.timeout(&config), config.rto_max);
    }

    #[test]
    fn the_minimum_forgets_what_is_ten_seconds_old() {
        let mut rtt = Rtt::new();
        rtt.sample(Nanos::ZERO, Nanos::micros(10));
        rtt.sample(Nanos::secs(6), Nanos::micros(30));
        assert_eq!(rtt.least(), Nanos::micros(10));
        rtt.sample(Nanos::secs(12), Nanos::micros(40));
        assert_eq!(rtt.least(), Nanos::micros(30));
    }
}
