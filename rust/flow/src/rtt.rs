//! Round-trip time and the timeouts that follow from it.

use machnet_wire::Nanos;

use crate::Config;

/// Estimates of the round-trip time, the peer's own delay taken out. RFC 6298, gains 1/8 and 1/4.
#[derive(Debug, Clone, Hash)]
pub(crate) struct Rtt {
    /// Zero until the first sample.
    smoothed: Nanos,
    variation: Nanos,
    /// The least sample: the path's own delay, as far as this end can tell. `Nanos::MAX` until the first sample.
    least: Nanos,
}

impl Rtt {
    pub fn new() -> Self {
        Rtt { smoothed: Nanos::ZERO, variation: Nanos::ZERO, least: Nanos::MAX }
    }

    #[inline]
    pub fn sample(&mut self, rtt: Nanos) {
        let smoothed = self.smoothed;
        if self.least == Nanos::MAX {
            self.smoothed = rtt;
            self.variation = rtt / 2;
        } else {
            let off = if rtt > smoothed { rtt - smoothed } else { smoothed - rtt };
            self.variation = Nanos(self.variation.0 - self.variation.0 / 4 + off.0 / 4);
            self.smoothed = Nanos(smoothed.0 - smoothed.0 / 8 + rtt.0 / 8);
        }
        self.least = self.least.min(rtt);
    }

    /// The path has become longer: its own delay is this now.
    pub fn rebase(&mut self, least: Nanos) {
        self.least = least;
    }

    #[inline]
    pub fn smoothed(&self) -> Option<Nanos> {
        (self.least != Nanos::MAX).then_some(self.smoothed)
    }

    /// The smoothed time, or zero before the first sample.
    #[inline]
    pub fn or_zero(&self) -> Nanos {
        self.smoothed
    }

    /// Mean deviation, zero before the first sample.
    pub fn variation(&self) -> Nanos {
        self.variation
    }

    /// The path's own delay, zero before the first sample.
    #[inline]
    pub fn least(&self) -> Nanos {
        match self.least {
            Nanos::MAX => Nanos::ZERO,
            least => least,
        }
    }

    /// Retransmission timeout, not backed off. RFC 6298 section 2 with a finer grain, and the peer's ack delay added.
    pub fn timeout(&self, config: &Config) -> Nanos {
        match self.smoothed() {
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
        rtt.sample(Nanos::micros(30));
        assert_eq!(rtt.timeout(&config), config.rto_min);
        assert_eq!(rtt.probe_timeout(&config), config.pto_min);
        let mut slow = Rtt::new();
        slow.sample(Nanos::millis(4));
        assert_eq!(slow.timeout(&config), Nanos::millis(12) + config.ack_delay);
        for _ in 0..100 {
            slow.sample(Nanos::millis(4));
        }
        assert!(slow.timeout(&config) < Nanos::millis(5));
        slow.sample(Nanos::secs(3));
        assert_eq!((slow.timeout(&config), slow.least()), (config.rto_max, Nanos::millis(4)));
    }
}
