//! What an engine's thread does between rounds, as a state machine that never reads a clock: the thread calls
//! [`Idle::after`] and does what it says. The figures behind the policies are in docs/performance.md.

use machnet_wire::Nanos;

/// How a thread waits for work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// Never waits: for a core of its own.
    Spin,
    /// Gives the core away between rounds, and sleeps only beside a hog: always ready on cores shared with threads that yield, too.
    Yield,
    /// Stays ready while work comes, sleeps when none does.
    #[default]
    Adaptive,
    /// Sleeps after each round that found nothing: for threads with a real-time priority, which may keep nobody waiting.
    Block,
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
    /// Two yields longer than this, no further apart than twice this, raise the alarm: a processor hog shares the core, a thread that uses
    /// up its time slice whenever the kernel gives it one. One long yield alone may be a thread of the kernel, or the hypervisor. Between two
    /// of them others of the core may run for as long as the hog's slice, since the kernel gives each its share: their yields are short.
    pub hog: Nanos,
    /// How long an alarm lasts: twice as long each time that the hog is still there afterwards, up to `hog_memory_longest`. Not for ever:
    /// beside threads that yield, to sleep is the slowest way to wait.
    pub hog_memory: Nanos,
    /// The longest alarm. Each costs a yield to find that the hog is still there, a time slice or more.
    pub hog_memory_longest: Nanos,
    /// The longest nap under an alarm, where nothing can wake the thread and there was work within `hog_linger`. A nap of 20 us costs
    /// 42 % of a core while it lasts, one of 50 us a quarter, and makes every answer as late.
    pub hog_nap: Nanos,
    /// How long after work naps are as short as `hog_nap`.
    pub hog_linger: Nanos,
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
            hog_memory_longest: Nanos::millis(1024),
            hog_nap: Nanos::micros(20),
            hog_linger: Nanos::micros(300),
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
        /// The longest sleep where the NIC is armed to end it.
        longest: Nanos,
        /// The longest where it is not: the NIC's queue must then be looked at.
        nap: Nanos,
    },
}

/// What a thread waited for its core, and whether that raised the alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Waited {
    /// How long it waited.
    pub core: Nanos,
    /// How long the alarm lasts that this raised; zero if it raised none.
    pub alarm: Nanos,
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
    /// The alarm lasts until then.
    hogged_until: Nanos,
    /// How long the next alarm lasts.
    hog_memory: Nanos,
    /// Yields that are still to be short before the hog of the last alarm is forgotten.
    trial: u32,
    /// When the first of them ended.
    trial_began: Option<Nanos>,
    /// When the last long yield ended.
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
            trial: 0,
            trial_began: None,
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
        if self.config.policy == Policy::Spin {
            return if work > 0 { Action::Again } else { Action::Pause };
        }
        if self.blocks(now) {
            return if work > 0 { Action::Again } else { self.sleep(now) };
        }
        if self.config.policy == Policy::Yield || now - self.worked <= self.linger {
            return self.ready(work);
        }
        self.sleep(now)
    }

    /// A yield ended at `now` and took this long. After two long ones the thread sleeps for a while instead of yielding.
    #[inline]
    pub fn yielded(&mut self, now: Nanos, took: Nanos) -> Waited {
        if took <= self.config.hog {
            if self.trial > 0 {
                self.pass(now);
            }
            return Waited::default();
        }
        self.met(now, took)
    }

    /// A yield after an alarm was short.
    fn pass(&mut self, now: Nanos) {
        let began = *self.trial_began.get_or_insert(now);
        // A hog that has just had a slice lets others run for as long.
        if self.trial > 1 || now - began >= self.config.hog * 2 {
            self.trial -= 1;
        }
        if self.trial == 0 {
            self.hog_memory = self.config.hog_memory;
        }
    }

    #[cold]
    fn met(&mut self, now: Nanos, took: Nanos) -> Waited {
        // Work may have come while the hog ran: stay ready for as long as after work.
        self.worked = now;
        self.nap = self.config.nap_first;
        let again = self.suspected.is_some_and(|at| now - took <= at + self.config.hog * 2);
        self.suspected = Some(now);
        if self.trial == 0 && !again {
            return Waited { core: took, alarm: Nanos::ZERO };
        }
        let alarm = self.hog_memory;
        self.hogged_until = now.saturating_add(alarm);
        self.hog_memory = (alarm * 2).min(self.config.hog_memory_longest);
        self.trial = TRIAL;
        self.trial_began = None;
        self.suspected = None;
        Waited { core: took, alarm }
    }

    /// Whether the alarm lasts, so that the thread does not yield.
    pub fn hogged(&self, now: Nanos) -> bool {
        now < self.hogged_until
    }

    /// How late an acknowledgement may be that would go alone: where the thread sleeps at once, to wake for it and to wake the peer with it
    /// costs more than an answer that takes it along. Below the time after which a peer sends again (`pto_min`).
    pub fn patience(&self, now: Nanos) -> Nanos {
        if self.blocks(now) { ACK_PATIENCE } else { Nanos::ZERO }
    }

    /// Whether a hog was found and is not forgotten.
    pub fn beside_hog(&self) -> bool {
        self.trial > 0
    }

    /// Whether to sleep after a round that found nothing.
    #[inline]
    fn blocks(&self, now: Nanos) -> bool {
        self.config.policy == Policy::Block || self.config.shared_core && self.hogged(now)
    }

    fn sleep(&mut self, now: Nanos) -> Action {
        let Config { nap_idle, nap_longest, look, hog_nap, hog_linger, .. } = self.config;
        let quiet = now - self.worked;
        // A share of the silence, which bounds also a sleep that the NIC ends if it does what it says.
        let share = (quiet / 32).min(nap_idle);
        let longest = if self.interrupts { look } else { share.max(nap_longest) };
        if self.blocks(now) && quiet <= hog_linger {
            return Action::Sleep { longest, nap: hog_nap };
        }
        let nap = self.nap.max(share);
        self.nap = (self.nap * 2).min(nap_longest);
        Action::Sleep { longest, nap }
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
    fn ready(&mut self, work: usize) -> Action {
        if work > 0 && self.in_a_row < ROUNDS {
            self.in_a_row += 1;
            return Action::Again;
        }
        self.in_a_row = 0;
        if self.config.shared_core { Action::Yield } else { Action::Pause }
    }
}

/// Applications that are woken beside a hog answer within some 50 us; a peer sends again after 200.
const ACK_PATIENCE: Nanos = Nanos::micros(100);
/// Most rounds with work before the core is given away: 128 packets of 1500 bytes in bursts of 16, some 50 us.
const ROUNDS: u32 = 8;
/// So many yields after an alarm, over twice [`Config::hog`], tell whether the hog is still there: a neighbour that was busy for a moment is not believed to be back
/// for the long yield that anybody meets now and then.
const TRIAL: u32 = 16;

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

    /// How long it sleeps where nothing rings.
    fn nap(action: Action) -> Nanos {
        match action {
            Action::Sleep { nap, .. } => nap,
            other => panic!("{other:?}"),
        }
    }

    /// How long it sleeps where the NIC rings.
    fn longest(action: Action) -> Nanos {
        match action {
            Action::Sleep { longest, .. } => longest,
            other => panic!("{other:?}"),
        }
    }

    const SLICE: Nanos = Nanos::millis(4);

    /// Two yields of a time slice each, that end at `now`. How long the alarm lasts that they raise.
    fn meet(idle: &mut Idle, now: Nanos) -> Nanos {
        let first = idle.yielded(now - SLICE, SLICE);
        assert_eq!(first, Waited { core: SLICE, alarm: Nanos::ZERO });
        idle.yielded(now, SLICE).alarm
    }

    #[test]
    fn adaptive_stays_ready_for_50_us_and_then_sleeps() {
        let mut idle = idle(Policy::Adaptive, true);
        assert_eq!(then(&mut idle, 1, Nanos::micros(10)), Action::Yield);
        assert_eq!(idle.after(0, Nanos::micros(60)), Action::Yield);
        assert_eq!(longest(idle.after(0, Nanos::micros(61))), Nanos::millis(100));
    }

    #[test]
    fn naps_grow_to_a_millisecond_where_nothing_can_wake_us_and_shrink_with_work() {
        let mut idle = idle(Policy::Adaptive, false);
        let naps = [0; 7].map(|_| nap(idle.after(0, Nanos::micros(100))).0 / 1000);
        assert_eq!(naps, [50, 100, 200, 400, 800, 1000, 1000]);
        assert_eq!(then(&mut idle, 3, Nanos::millis(9)), Action::Yield);
        assert_eq!(nap(idle.after(0, Nanos::millis(10))), Nanos::micros(50));
    }

    #[test]
    fn after_long_silence_naps_last_a_32nd_of_it_and_10_ms_at_most() {
        let mut idle = idle(Policy::Adaptive, false);
        for (silence, expected) in [(1, 50), (3, 100), (64, 2000), (256, 8000), (3000, 10_000)] {
            let action = idle.after(0, Nanos::millis(silence));
            assert_eq!(nap(action), Nanos::micros(expected), "after {silence} ms");
            // A bell that is no interrupt may be missed once in a long while.
            assert_eq!(longest(action), Nanos::micros(expected.max(1000)), "after {silence} ms");
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
        idle.after(1, Nanos::micros(now + 1200));
        assert!(!ready(&mut idle, now + 1251), "rare work is not worth it");
    }

    #[test]
    fn two_long_yields_raise_the_alarm_and_then_the_thread_sleeps_after_an_empty_round() {
        for policy in [Policy::Adaptive, Policy::Yield] {
            let mut idle = idle(policy, true);
            assert_eq!(then(&mut idle, 1, Nanos::micros(1)), Action::Yield);
            assert_eq!(idle.yielded(SLICE, SLICE).alarm, Nanos::ZERO);
            assert_eq!(idle.after(0, SLICE), Action::Yield, "it may have been somebody who came by");
            assert_eq!(idle.yielded(SLICE * 2, SLICE), Waited { core: SLICE, alarm: Nanos::millis(8) });
            assert!(idle.hogged(SLICE * 2) && idle.beside_hog());
            for _ in 0..20 {
                assert_eq!(idle.after(1, SLICE * 2), Action::Again, "work is done, however much");
            }
            assert_eq!(longest(idle.after(0, SLICE * 2)), Nanos::millis(100));
            assert_eq!(longest(idle.after(0, Nanos::millis(16) - Nanos(1))), Nanos::millis(100));
            assert_eq!(then(&mut idle, 1, Nanos::millis(16)), Action::Yield);
        }
    }

    #[test]
    fn a_hog_that_is_still_there_is_believed_at_once_and_for_longer() {
        let mut idle = idle(Policy::Adaptive, true);
        let mut now = SLICE * 2;
        let mut alarm = meet(&mut idle, now);
        for expected in [8, 16, 32, 64, 128, 256, 512, 1024, 1024] {
            assert_eq!(alarm, Nanos::millis(expected));
            now += alarm;
            assert!(matches!(then(&mut idle, 1, now - Nanos(1)), Action::Sleep { .. }), "{expected} ms");
            // Many short yields in a moment prove nothing, since the hog has just had its slice; nor do few in a long time.
            for us in 0..1000 {
                assert_eq!(idle.yielded(now + Nanos::micros(us), Nanos::micros(1)), Waited::default());
            }
            assert!(idle.beside_hog());
            now += SLICE;
            alarm = idle.yielded(now, SLICE).alarm;
        }
    }

    #[test]
    fn a_hog_that_lets_sixteen_yields_pass_in_4_ms_is_forgotten() {
        let mut idle = idle(Policy::Adaptive, true);
        assert_eq!(meet(&mut idle, SLICE * 2), Nanos::millis(8));
        let mut now = Nanos::millis(20);
        for _ in 0..16 {
            assert!(idle.beside_hog());
            now += Nanos::micros(300);
            assert_eq!(idle.yielded(now, Nanos::micros(1)), Waited::default());
        }
        assert!(!idle.beside_hog());
        now += SLICE;
        assert_eq!(idle.yielded(now, SLICE).alarm, Nanos::ZERO, "one long yield is no evidence");
        assert_eq!(idle.yielded(now + SLICE, SLICE).alarm, Nanos::millis(8), "a new one is not known yet");
    }

    #[test]
    fn long_yields_that_are_rare_are_no_hog() {
        let mut idle = idle(Policy::Adaptive, true);
        for at in (10..1000).step_by(10) {
            assert_eq!(idle.yielded(Nanos::millis(at), SLICE).alarm, Nanos::ZERO);
            assert_eq!(then(&mut idle, 1, Nanos::millis(at)), Action::Yield, "{at} ms");
        }
    }

    #[test]
    fn a_yield_of_two_milliseconds_is_no_hog() {
        let mut idle = idle(Policy::Yield, true);
        (3..9)
            .for_each(|at| assert_eq!(idle.yielded(Nanos::millis(at), Nanos::millis(2)), Waited::default()));
        assert_eq!(idle.after(0, Nanos::millis(9)), Action::Yield);
    }

    #[test]
    fn beside_a_hog_naps_without_a_bell_are_short_for_300_us_and_then_as_ever() {
        let mut idle = idle(Policy::Adaptive, false);
        let met = SLICE * 2;
        meet(&mut idle, met);
        let at = |us| met + Nanos::micros(us);
        for us in [0, 20, 300] {
            let sleeps = idle.after(0, at(us));
            assert_eq!((nap(sleeps), longest(sleeps)), (Nanos::micros(20), Nanos::millis(1)), "{us} us");
        }
        let naps = [301, 352, 453].map(|us| nap(idle.after(0, at(us))).0 / 1000);
        assert_eq!(naps, [50, 100, 200]);
        idle.after(1, at(700));
        assert_eq!(nap(idle.after(0, at(1000))), Nanos::micros(20), "work makes them short again");
        assert_eq!(nap(idle.after(0, at(1001))), Nanos::micros(50));
    }

    #[test]
    fn a_thread_that_blocks_never_yields_and_one_on_a_core_of_its_own_knows_no_hog() {
        let mut block = idle(Policy::Block, true);
        for us in [1, 2, 1000] {
            assert_eq!(block.after(1, Nanos::micros(us)), Action::Again);
            assert_eq!(longest(block.after(0, Nanos::micros(us))), Nanos::millis(100));
        }
        let own = Config { shared_core: false, ..Config::default() };
        let mut own = Idle::new(own, true, Nanos::ZERO);
        meet(&mut own, SLICE * 2);
        assert_eq!(then(&mut own, 1, SLICE * 2), Action::Pause);
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
