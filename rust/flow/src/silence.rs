//! How long the peer has been silent: when it is asked whether it lives, and when it is given up.
//!
//! Silence is counted while the peer owes an answer: from the first time that the timer fires and finds something out that the peer has
//! to answer, or from a retransmission timeout; and anew from each sign of life, on whatever connection. It is counted in
//! steps, one for each time that the timer fires: a stall of ours is one step, however long it was.

use machnet_wire::Nanos;

use crate::Config;
use crate::timers::{Timer, Timers};

/// What a look at the clock told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// Nothing.
    Nothing,
    /// One step of the peer's silence has passed.
    Step,
    /// It has been silent for too long.
    Dead,
}

/// What is known of the peer's silence.
#[derive(Debug, Clone, Hash)]
pub(crate) struct Silence {
    last_heard: Nanos,
    /// A PING is to be sent.
    ping_due: bool,
    /// A PING waits for its answer.
    ping_out: bool,
    /// The next PING asks again, for want of an answer.
    again: bool,
    /// A PING that was due at the last check had not gone out since the one before: what was not asked says nothing of the path.
    unsent: bool,
    /// How long the peer has owed an answer and said nothing; `Nanos::MAX` when it owed none at the last check.
    waited: Nanos,
    /// When the peer's silence was last checked.
    checked_at: Nanos,
    /// After how many milliseconds of silence the peer of an idle connection is asked; 0: as all are, `NEVER`.
    own: u32,
}

impl Silence {
    pub fn new(now: Nanos) -> Self {
        Silence {
            last_heard: now,
            ping_due: false,
            ping_out: false,
            again: false,
            unsent: false,
            waited: Nanos::MAX,
            checked_at: now,
            own: 0,
        }
    }

    /// After how much silence the peer of an idle connection is asked whether it lives.
    fn keep_alive_after(&self, config: &Config) -> Nanos {
        match self.own {
            0 => config.keep_alive,
            NEVER => Nanos::MAX,
            ms => Nanos::millis(ms.into()),
        }
    }

    /// Asks the peer of an idle connection after so much silence, a millisecond at least; `None`: as all are asked, `Nanos::MAX`: never.
    pub fn keep_alive(
        &mut self,
        now: Nanos,
        after: Option<Nanos>,
        tag: u32,
        config: &Config,
        timers: &mut Timers,
    ) {
        self.own =
            after.map_or(0, |after| u32::try_from(after.0 / Nanos::millis(1).0).unwrap_or(NEVER).max(1));
        // While a question is out, or something is owed, its steps go on.
        if self.waited == Nanos::MAX {
            timers.set(Timer::Silence, self.idle_until(tag, config).max(now));
        }
    }

    /// Until when the peer may be silent before it is asked. `tag`: the connection's, by which those differ that fell silent together.
    fn idle_until(&self, tag: u32, config: &Config) -> Nanos {
        self.last_heard + spread(self.keep_alive_after(config), tag)
    }

    /// The peer has said something that it alone can say.
    #[inline]
    pub fn on_packet(&mut self, now: Nanos) {
        self.last_heard = now;
        self.ping_out = false;
        self.again = false;
    }

    /// The connection is open.
    pub fn begin(&mut self, now: Nanos, tag: u32, config: &Config, timers: &mut Timers) {
        self.last_heard = now;
        self.checked_at = now;
        timers.set(Timer::Silence, self.idle_until(tag, config));
    }

    /// The timer fires at every step from now on, unless it does so already.
    pub fn watch(&mut self, now: Nanos, config: &Config, timers: &mut Timers) {
        let next = now + step(config);
        if timers.get(Timer::Silence) > next {
            timers.set(Timer::Silence, next);
            self.begin_waiting(now);
        }
    }

    /// A question is out; the peer's silence counts from here.
    fn begin_waiting(&mut self, now: Nanos) {
        self.waited = Nanos::ZERO;
        self.checked_at = now;
    }

    /// Asks the peer whether it still knows of the connection, unless a PING that asks is out.
    pub fn ask(&mut self) {
        if !self.ping_out {
            self.ping_due = true;
        }
    }

    /// Whether the peer is asked whether it lives: a PING is to be sent, or waits for its answer.
    pub fn is_asking(&self) -> bool {
        self.ping_due || self.ping_out
    }

    /// Whether a PING is to be sent. It goes out now.
    #[inline]
    pub fn take_ping(&mut self) -> bool {
        let due = self.ping_due;
        if due {
            self.ping_due = false;
            self.ping_out = true;
        }
        due
    }

    /// Whether the PING that goes out asks again.
    pub fn asks_again(&self) -> bool {
        self.again
    }

    /// Checks since the question that was not answered; 0 while it waits for room to be sent.
    pub fn checks(&self, config: &Config) -> u32 {
        if self.waited == Nanos::MAX || self.unsent { 0 } else { (self.waited.0 / step(config).0) as u32 }
    }

    /// The flow is over.
    pub fn end(&mut self) {
        self.ping_due = false;
    }

    /// The timer fired. `owes`: something is out, beside a PING, that the peer has to answer; `heard`: when it last spoke on
    /// whatever connection.
    pub fn on_timer(
        &mut self,
        now: Nanos,
        tag: u32,
        owes: bool,
        heard: impl FnOnce() -> Nanos,
        config: &Config,
        timers: &mut Timers,
    ) -> Look {
        let step = step(config);
        self.unsent = self.ping_due;
        match self.waited {
            _ if !(owes || self.ping_out) => {
                let idle_until = self.idle_until(tag, config);
                if now < idle_until {
                    self.waited = Nanos::MAX;
                    timers.set(Timer::Silence, idle_until);
                    return Look::Nothing;
                }
                self.ping_due = true;
                self.ping_out = true;
                self.begin_waiting(now);
                // One that is asked more often than its silence is counted is asked again as soon as it has answered and been silent.
                timers.set(Timer::Silence, now + step.min(self.keep_alive_after(config)));
                return Look::Nothing;
            }
            Nanos::MAX => self.begin_waiting(now),
            _ if now < self.checked_at + step => {
                timers.set(Timer::Silence, self.checked_at + step);
                return Look::Nothing;
            }
            waited => {
                let heard = self.last_heard.max(heard());
                let waited = if heard > self.checked_at { Nanos::ZERO } else { waited + step };
                self.waited = waited;
                self.checked_at = now;
                if waited >= config.dead_after {
                    return Look::Dead;
                }
                self.ping_due |= self.ping_out;
                self.again = self.ping_out && !self.unsent;
            }
        }
        timers.set(Timer::Silence, now + step);
        Look::Step
    }

    /// Whether so many steps are longer than a connection may go without progress.
    pub fn is_stuck(steps: u16, config: &Config) -> bool {
        step(config) * u64::from(steps) >= config.no_progress.max(config.dead_after)
    }
}

fn step(config: &Config) -> Nanos {
    (config.dead_after / STEPS).max(Nanos::millis(1))
}

/// A time of the last quarter of a period that depends on the connection. Connections that were all heard at one moment, as after a stall,
/// would ask at one moment for ever, and ten thousand questions overrun a receive ring.
fn spread(period: Nanos, tag: u32) -> Nanos {
    if period == Nanos::MAX {
        return period;
    }
    // Tags are random, but for what names their engine.
    let part = u64::from(tag.wrapping_mul(0x9e37_79b9) >> 16);
    period - (period / 4 / (1 << 16)) * part
}

/// Stands for never.
const NEVER: u32 = u32::MAX;
/// Steps in which the peer's silence is counted; as many PINGs may be lost.
const STEPS: u64 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_that_fell_silent_together_ask_over_a_quarter_of_the_period() {
        let period = Nanos::secs(1);
        let mut times: alloc::vec::Vec<_> = (0..10_000u64)
            .map(|n| spread(period, (n.wrapping_mul(0x5851_f42d_4c95_7f2d) >> 32) as u32))
            .collect();
        times.sort();
        assert!(times[0] >= Nanos::millis(750) && times[9_999] <= period);
        let most = times.windows(100).map(|of| of[99] - of[0]).min();
        assert!(most > Some(Nanos::millis(1)), "100 of 10 000 within {most:?}");
        assert_eq!(spread(Nanos::MAX, 7), Nanos::MAX, "never");
    }

    #[test]
    fn a_question_that_finds_no_room_to_be_sent_is_none_that_was_not_answered() {
        let config = Config::default();
        let (mut silence, mut timers) = (Silence::new(Nanos::ZERO), Timers::new());
        let mut now = config.keep_alive;
        let mut check = |silence: &mut Silence| {
            assert_ne!(silence.on_timer(now, 0, false, || Nanos::ZERO, &config, &mut timers), Look::Dead);
            now += step(&config);
            silence.checks(&config)
        };
        assert_eq!([(); 4].map(|()| check(&mut silence)), [0; 4]);
        assert!(silence.take_ping());
        assert!(check(&mut silence) > 0);
    }
}
