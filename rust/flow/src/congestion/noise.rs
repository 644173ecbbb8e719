//! Whether a delay is a queue or noise: threads that wait for their core, middleboxes that pass frames on at intervals, radio and
//! hypervisors. A queue stands: no packet of a round trip escapes it. Noise comes and goes: some packets meet it, and others right
//! beside them do not. So how far delays are spread over a few acknowledgements says how noisy the path is, and where it is noisy
//! only a delay that stands for a round trip is congestion.

use machnet_wire::Nanos;

/// How far delays are spread, and since when they are long without a break.
#[derive(Debug, Clone, Hash)]
pub(super) struct Noise {
    /// The least of the delays now looked at, what the others exceed it by is in `sum`.
    least: Nanos,
    sum: Nanos,
    samples: u32,
    /// Mean excess of delays over the least beside them, smoothed; nanoseconds.
    spread: u32,
    /// The least of the long delays since the last one that was not long.
    standing: Nanos,
    /// When the first of these came.
    since: Nanos,
    in_row: u8,
}

impl Noise {
    pub fn new() -> Self {
        Noise {
            least: Nanos::MAX,
            sum: Nanos::ZERO,
            samples: 0,
            spread: 0,
            standing: Nanos::MAX,
            since: Nanos::ZERO,
            in_row: 0,
        }
    }

    /// One more delay, of all that was acknowledged at a time.
    #[inline]
    pub fn sample(&mut self, delay: Nanos) {
        self.least = self.least.min(delay);
        self.sum = self.sum.saturating_add(delay);
        self.samples += 1;
        if self.samples == SAMPLES {
            let spread = (self.sum.0 - self.least.0 * u64::from(SAMPLES)) / u64::from(SAMPLES);
            let spread = spread.min(SPREAD_MAX);
            // Four of these make the mean: as fast as a path can become noisy, and slower than one pause.
            self.spread = self.spread - self.spread / 4 + (spread / 4) as u32;
            (self.least, self.sum, self.samples) = (Nanos::MAX, Nanos::ZERO, 0);
        }
    }

    /// How much longer than the base delay a delay may be for the noise alone. Never more than `max(1 ms, base)`, so that
    /// flows that take each other's queues for noise do not push each other up without end.
    #[inline]
    pub fn allowed(&self, base: Nanos) -> Nanos {
        Nanos((u64::from(self.spread) * SPREADS).saturating_sub(BURSTS)).min(base.max(ALLOWED_MAX))
    }

    /// A delay was not long.
    #[inline]
    pub fn short(&mut self) {
        self.in_row = 0;
    }

    /// A delay was long. Gives what the delay is at least, once it has stood for long enough to be a queue: at once where the path
    /// is clean, else for a round trip and some acknowledgements.
    #[inline]
    pub fn long(&mut self, now: Nanos, delay: Nanos, clean: bool, round_trip: Nanos) -> Option<Nanos> {
        if clean || self.in_row == 0 {
            (self.since, self.standing) = (now, Nanos::MAX);
        }
        self.in_row = self.in_row.saturating_add(1);
        self.standing = self.standing.min(delay);
        let stands = clean || self.in_row >= IN_ROW && now - self.since >= round_trip;
        stands.then_some(self.standing)
    }

    /// Whether the delay was long more than once since it was last short.
    #[inline]
    pub fn is_long(&self) -> bool {
        self.in_row > 1
    }

    /// What was long was answered: it has to stand anew.
    pub fn answered(&mut self) {
        self.in_row = 0;
    }
}

/// Delays whose spread is taken together.
const SAMPLES: u32 = 16;
/// So many spreads above the least of the delays is where nearly all of them are: two where they are spread evenly, three where frames
/// that are delayed at random keep their order.
const SPREADS: u64 = 3;
/// What bursts of other flows and the engines' own rounds spread delays by is no noise, nanoseconds.
const BURSTS: u64 = 25_000;
const SPREAD_MAX: u64 = 1_000_000_000;
const ALLOWED_MAX: Nanos = Nanos::millis(1);
/// Long delays in a row that are no accident.
const IN_ROW: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Nanos = Nanos::micros(30);
    const RTT: Nanos = Nanos::micros(300);

    fn after(delays: impl IntoIterator<Item = u64>) -> Noise {
        let mut noise = Noise::new();
        delays.into_iter().for_each(|us| noise.sample(Nanos::micros(us)));
        noise
    }

    #[test]
    fn delays_that_differ_are_noise_and_a_long_one_that_is_steady_is_not() {
        assert_eq!(after([900; 160]).allowed(BASE), Nanos::ZERO);
        // Evenly between 30 and 330 us: the mean is 150 us above the least.
        let allowed = after((0..320).map(|i| 30 + i * 97 % 301)).allowed(BASE);
        assert!((Nanos::micros(350)..Nanos::micros(450)).contains(&allowed), "{allowed:?}");
        assert_eq!(after((0..320).map(|i| 30 + i % 16)).allowed(BASE), Nanos::ZERO, "bursts of others");
    }

    #[test]
    fn however_noisy_a_path_is_no_more_than_a_millisecond_or_the_base_delay_is_allowed() {
        let noise = after((0..320).map(|i| i % 2 * 500_000));
        assert_eq!(noise.allowed(BASE), Nanos::millis(1));
        assert_eq!(noise.allowed(Nanos::millis(20)), Nanos::millis(20));
        let mut noise = noise;
        (0..16 * 40).for_each(|_| noise.sample(BASE));
        assert!(noise.allowed(BASE) < Nanos::micros(50), "it is forgotten when it is over");
    }

    #[test]
    fn on_a_noisy_path_only_what_stands_for_a_round_trip_is_a_queue() {
        let mut noise = Noise::new();
        let us = Nanos::micros;
        assert_eq!(noise.long(us(0), us(500), true, RTT), Some(us(500)), "at once on a clean one");
        noise.answered();
        for (at, delay) in [(0, 500), (100, 400), (200, 700), (299, 600)] {
            assert_eq!(noise.long(us(at), us(delay), false, RTT), None);
        }
        assert_eq!(noise.long(us(300), us(900), false, RTT), Some(us(400)), "the least of them");
        noise.short();
        for at in [1000, 1200, 1400] {
            assert_eq!(noise.long(us(at), us(500), false, RTT), None, "one was short");
        }
        assert!(noise.is_long());
    }

    #[test]
    fn what_was_answered_has_to_stand_anew() {
        let mut noise = Noise::new();
        let us = Nanos::micros;
        let stood = [0, 100, 200, 300].map(|at| noise.long(us(at), us(400), false, RTT));
        assert_eq!(stood, [None, None, None, Some(us(400))]);
        noise.answered();
        for (at, long) in [(400, false), (500, true), (600, true), (699, true)] {
            assert_eq!(noise.long(us(at), us(600), false, RTT), None);
            assert_eq!(noise.is_long(), long, "one alone is an accident");
        }
        assert_eq!(noise.long(us(700), us(700), false, RTT), Some(us(600)), "what was before counts no more");
    }
}
