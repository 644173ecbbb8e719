//! What an engine's thread does between rounds, as a state machine that never reads a clock: the thread calls
//! [`Idle::after`] and does what it says. The figures behind the policies are in docs/performance.md.

use machnet_wire::Nanos;

/// How a thread waits for work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// Never waits: for a core of its own.
    Spin,
    /// Gives the core away between rounds and never sleeps: always ready on shared cores.
    Yield,
    /// Stays ready while work comes, sleeps when none does.
    #[default]
    Adaptive,
}

/// The policy and its times. `Default` holds what docs/performance.md measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// How the thread waits.
    pub policy: Policy,
    /// Other threads run on this core: wait by yielding. On a core of its own a pause is cheaper.
    pub shared_core: bool,
    /// How long after the last work the thread stays ready.
    pub linger: Nanos,
    /// The longest time that it stays ready where the NIC has no interrupt and work comes in gaps longer than `linger`. Without
    /// this, one late answer would make all later ones late: each side naps while the other's answer waits, and so answers late
    /// itself.
    pub linger_longest: Nanos,
    /// The first nap where the NIC has no interrupt. Each nap after which there is no work doubles the next.
    pub nap_first: Nanos,
    /// The longest nap while work was seen not long ago.
    pub nap_longest: Nanos,
    /// The longest nap after long silence, where naps last 1/32 of the time without work. A thousand wake-ups a second cost
    /// 2.5 % of a core of a busy virtual machine, and after a third of a second of silence a delay of 10 ms hurts nobody.
    pub nap_idle: Nanos,
    /// The longest sleep where the NIC has an interrupt: one whose device was started again or taken away meanwhile wakes nobody any more.
    pub look: Nanos,
    /// Two yields longer than this, no further apart than this, mean that a processor hog shares the core: a thread that uses up its
    /// time slice at every yield. One long yield alone may be a thread of the kernel, or the hypervisor.
    pub hog: Nanos,
    /// How long the thread does not yield after it has found a hog: twice as long each time that the hog is still there
    /// afterwards, up to `hog_memory_longest`. Not for ever: beside threads that yield, not to yield is the most expensive way to wait.
    pub hog_memory: Nanos,
    /// The longest time without yields because of a hog.
    pub hog_memory_longest: Nanos,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            policy: Policy::Adaptive,
            shared_core: true,
            linger: Nanos::micros(50),
            linger_longest: Nanos::micros(300),
            nap_first: Nanos::micros(50),
            nap_longest: Nanos::millis(1),
            nap_idle: Nanos::millis(10),
            look: Nanos::millis(100),
            hog: Nanos::millis(2),
            hog_memory: Nanos::millis(8),
            hog_memory_longest: Nanos::millis(128),
        }
    }
}

/// What the thread does before the next round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The next round at once.
    Again,
    /// A CPU pause, then the next round.
    Pause,
    /// `sched_yield`, and tell [`Idle::yielded`] how long it took.
    Yield,
    /// Arm everything, then sleep on the descriptors until the engine's next deadline.
    Sleep {
        /// The longest sleep, after which the NIC's queue must be looked at.
        longest: Nanos,
    },
}

/// What is known between rounds: when there was work, and whether a hog shares the core.
#[derive(Debug)]
pub struct Idle {
    config: Config,
    interrupts: bool,
    /// When there was work last.
    worked: Nanos,
    /// How long the thread now stays ready after work.
    linger: Nanos,
    /// Rounds with work since the core was last given away.
    in_a_row: u32,
    /// A hog was found, and until then the thread does not yield.
    hogged_until: Nanos,
    /// How long that was for the last hog.
    hog_memory: Nanos,
    /// When the last long yield ended, or the time without yields after it.
    suspected: Option<Nanos>,
    /// The next nap.
    nap: Nanos,
}

impl Idle {
    /// A thread that has just begun. `interrupts`: whether the NIC can wake a sleeper.
    pub fn new(config: Config, interrupts: bool, now: Nanos) -> Self {
        Self {
            config,
            interrupts,
            worked: now,
            linger: config.linger,
            in_a_row: 0,
            hogged_until: Nanos::ZERO,
            hog_memory: config.hog_memory,
            suspected: None,
            nap: config.nap_first,
        }
    }

    /// What to do after a round that found `work` things to do and began at `now`.
    #[inline]
    pub fn after(&mut self, work: usize, now: Nanos) -> Action {
        if work > 0 {
            self.learn(now - self.worked);
            self.worked = now;
            self.nap = self.config.nap_first;
        }
        match self.config.policy {
            Policy::Spin => return if work > 0 { Action::Again } else { Action::Pause },
            Policy::Yield => return self.ready(work, now),
            Policy::Adaptive => {}
        }
        let linger = if self.hogged(now) { self.config.linger } else { self.linger };
        if now - self.worked <= linger {
            return self.ready(work, now);
        }
        if self.interrupts {
            return Action::Sleep { longest: self.config.look };
        }
        let nap = self.nap.max(((now - self.worked) / 32).min(self.config.nap_idle));
        self.nap = (self.nap * 2).min(self.config.nap_longest);
        Action::Sleep { longest: nap }
    }

    /// A yield ended at `now` and took this long. After two long ones the thread pauses for a while instead of yielding.
    #[inline]
    pub fn yielded(&mut self, now: Nanos, took: Nanos) {
        if took > self.config.hog {
            let began_soon_after = |at: Nanos| now - took <= at + self.config.hog;
            if self.suspected.is_some_and(began_soon_after) {
                let known = self.hogged_until > Nanos::ZERO && began_soon_after(self.hogged_until);
                let longer = (self.hog_memory * 2).min(self.config.hog_memory_longest);
                self.hog_memory = if known { longer } else { self.config.hog_memory };
                self.hogged_until = now.saturating_add(self.hog_memory);
            }
            self.suspected = Some(self.hogged_until.max(now));
            // Work may have come while the hog ran: stay ready for as long as after work.
            self.worked = now;
        }
    }

    /// Whether a hog was found not long ago, so that the thread does not yield.
    pub fn hogged(&self, now: Nanos) -> bool {
        now < self.hogged_until
    }

    /// Work came after a gap of this length: adapts how long the thread stays ready after work.
    #[inline]
    fn learn(&mut self, gap: Nanos) {
        let Config { linger, linger_longest, .. } = self.config;
        if self.interrupts || gap > linger_longest {
            self.linger = linger;
            return;
        }
        let wanted = if gap > linger { (gap * 2).min(linger_longest) } else { linger };
        self.linger = (self.linger - self.linger / 16).max(wanted);
    }

    /// The thread stays ready. A round that found work is likely followed by another, and a yield costs as much as a burst of
    /// packets; but applications that share the core must run before their peers wait for them. So it yields after some rounds.
    #[inline]
    fn ready(&mut self, work: usize, now: Nanos) -> Action {
        if work > 0 && self.in_a_row < ROUNDS {
            self.in_a_row += 1;
            return Action::Again;
        }
        self.in_a_row = 0;
        if self.config.shared_core && !self.hogged(now) { Action::Yield } else { Action::Pause }
    }
}

/// Most rounds with work before the core is given away: 128 packets of 1500 bytes in bursts of 16, some 50 us.
const ROUNDS: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn idle(policy: Policy, interrupts: bool) -> Idle {
        Idle::new(Config { policy, ..Config::default() }, interrupts, Nanos::ZERO)
    }

    /// What it does after a round, and after an empty one at once behind that where it found work.
    fn then(idle: &mut Idle, work: usize, now: Nanos) -> Action {
        match idle.after(work, now) {
            Action::Again => idle.after(0, now),
            other => other,
        }
    }

    #[test]
    fn adaptive_stays_ready_for_50_us_and_then_sleeps() {
        let mut idle = idle(Policy::Adaptive, true);
        assert_eq!(then(&mut idle, 1, Nanos::micros(10)), Action::Yield);
        assert_eq!(idle.after(0, Nanos::micros(60)), Action::Yield);
        assert_eq!(idle.after(0, Nanos::micros(61)), Action::Sleep { longest: Nanos::millis(100) });
    }

    #[test]
    fn naps_grow_to_a_millisecond_where_nothing_can_wake_us_and_shrink_with_work() {
        let mut idle = idle(Policy::Adaptive, false);
        let mut naps = Vec::new();
        for i in 0..7 {
            match idle.after(0, Nanos::micros(100 + i)) {
                Action::Sleep { longest: nap } => naps.push(nap.0 / 1000),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(naps, [50, 100, 200, 400, 800, 1000, 1000]);
        assert_eq!(then(&mut idle, 3, Nanos::millis(9)), Action::Yield);
        assert_eq!(idle.after(0, Nanos::millis(10)), Action::Sleep { longest: Nanos::micros(50) });
    }

    #[test]
    fn after_long_silence_naps_last_a_32nd_of_it_and_10_ms_at_most() {
        let mut idle = idle(Policy::Adaptive, false);
        for (silence, nap) in [(1, 50), (3, 100), (64, 2000), (256, 8000), (3000, 10_000)] {
            let expected = Action::Sleep { longest: Nanos::micros(nap) };
            assert_eq!(idle.after(0, Nanos::millis(silence)), expected, "after {silence} ms");
        }
    }

    #[test]
    fn where_naps_would_span_the_gaps_between_work_the_thread_stays_ready_and_forgets_when_they_close() {
        let mut idle = idle(Policy::Adaptive, false);
        let ready = |idle: &mut Idle, us| idle.after(0, Nanos::micros(us)) == Action::Yield;
        idle.after(1, Nanos::micros(1000));
        assert!(!ready(&mut idle, 1051), "50 us at first");
        idle.after(1, Nanos::micros(1120)); // an answer after 120 us, found by a nap
        assert!(ready(&mut idle, 1359) && !ready(&mut idle, 1361), "then twice the gap");
        let mut now = 1420;
        idle.after(1, Nanos::micros(now));
        assert!(ready(&mut idle, now + 300) && !ready(&mut idle, now + 301), "300 us at most");
        for _ in 0..40 {
            now += 10;
            idle.after(1, Nanos::micros(now));
        }
        assert!(ready(&mut idle, now + 50) && !ready(&mut idle, now + 51), "quick answers need no patience");
        idle.after(1, Nanos::micros(now + 200));
        idle.yielded(Nanos::micros(now + 200), Nanos::millis(3));
        idle.yielded(Nanos::micros(now + 200), Nanos::millis(3));
        let at = Nanos::micros(now + 251);
        assert!(matches!(idle.after(0, at), Action::Sleep { .. }), "beside a hog 50 us at most");
        idle.after(1, Nanos::micros(now + 1200));
        assert!(!ready(&mut idle, now + 1251), "rare work is not worth it");
    }

    #[test]
    fn two_long_yields_mean_pausing_for_a_while_and_50_us_at_most_each_time() {
        let mut idle = idle(Policy::Adaptive, true);
        assert_eq!(then(&mut idle, 1, Nanos::micros(1)), Action::Yield);
        idle.yielded(Nanos::millis(4), Nanos::millis(4) - Nanos::micros(1));
        assert_eq!(idle.after(0, Nanos::millis(4)), Action::Yield, "it may have been somebody who came by");
        idle.yielded(Nanos::millis(8), Nanos::millis(4));
        assert_eq!(idle.after(0, Nanos::millis(8)), Action::Pause);
        assert_eq!(idle.after(0, Nanos::millis(8) + Nanos::micros(50)), Action::Pause);
        assert_eq!(
            idle.after(0, Nanos::millis(8) + Nanos::micros(51)),
            Action::Sleep { longest: Nanos::millis(100) }
        );
        // One that is still there after the while is believed at once, and for longer.
        let mut now = Nanos::millis(8);
        for memory in [8, 16, 32, 64, 128, 128] {
            now += Nanos::millis(memory);
            assert_eq!(then(&mut idle, 1, now - Nanos(1)), Action::Pause, "{memory} ms");
            assert_eq!(then(&mut idle, 1, now), Action::Yield, "{memory} ms");
            now += Nanos::millis(4);
            idle.yielded(now, Nanos::millis(4));
        }
        now += Nanos::secs(1);
        (0..2).for_each(|_| idle.yielded(now, Nanos::millis(4)));
        assert_eq!(then(&mut idle, 1, now + Nanos::millis(8)), Action::Yield, "a new one is not known yet");
    }

    #[test]
    fn long_yields_that_are_rare_are_no_hog() {
        let mut idle = idle(Policy::Adaptive, true);
        for at in (10..1000).step_by(10) {
            idle.yielded(Nanos::millis(at), Nanos::millis(4));
            assert_eq!(then(&mut idle, 1, Nanos::millis(at)), Action::Yield, "{at} ms");
        }
    }

    #[test]
    fn a_yield_of_two_milliseconds_is_no_hog() {
        let mut idle = idle(Policy::Yield, true);
        (3..9).for_each(|at| idle.yielded(Nanos::millis(at), Nanos::millis(2)));
        assert_eq!(idle.after(0, Nanos::millis(9)), Action::Yield);
    }

    #[test]
    fn the_core_is_given_away_after_an_empty_round_or_eight_with_work() {
        for policy in [Policy::Yield, Policy::Adaptive] {
            let mut idle = idle(policy, true);
            for _ in 0..3 {
                (0..8).for_each(|_| assert_eq!(idle.after(1, Nanos(1)), Action::Again));
                assert_eq!(idle.after(1, Nanos(1)), Action::Yield);
            }
            (0..5).for_each(|_| assert_eq!(idle.after(1, Nanos(1)), Action::Again));
            assert_eq!(idle.after(0, Nanos(1)), Action::Yield);
        }
    }

    #[test]
    fn spin_and_yield_never_sleep_and_a_core_of_ones_own_pauses() {
        let later = Nanos::secs(5);
        assert_eq!(idle(Policy::Spin, true).after(0, later), Action::Pause);
        assert_eq!(idle(Policy::Spin, true).after(1, later), Action::Again);
        assert_eq!(idle(Policy::Yield, false).after(0, later), Action::Yield);
        let own = Config { shared_core: false, ..Config::default() };
        assert_eq!(then(&mut Idle::new(own, true, Nanos::ZERO), 1, later), Action::Pause);
    }
}
