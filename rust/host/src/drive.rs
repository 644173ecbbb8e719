//! The loop of a thread that drives engines: a clock reading per round, two where there is work, and the waits that [`Idle`] asks for.

use std::os::fd::RawFd;

use machnet_engine::Engine;
use machnet_engine::idle::{Action, Idle, Waited};
use machnet_nic::Queue;
use machnet_wire::Nanos;

/// Runs the engine until it is drained.
pub fn drive(engine: &mut impl Rounds, idle: &mut Idle, machine: &mut impl Machine) {
    let mut fds = Vec::new();
    let mut yielded_at = None;
    let mut sleeps_until = Nanos::MAX;
    let mut beside_hog = false;
    loop {
        let now = machine.now();
        // How long a yield took is seen from one round's reading to the next: what the round itself took is far
        // below the bound that matters.
        if let Some(before) = yielded_at.take() {
            let waited = idle.yielded(now, now - before);
            if waited != Waited::default() {
                engine.waited(waited);
            }
            if beside_hog != idle.beside_hog() {
                beside_hog = !beside_hog;
                machine.beside_hog(beside_hog);
            }
        } else if now - sleeps_until > LATE {
            engine.waited(Waited { core: now - sleeps_until, alarm: Nanos::ZERO });
        }
        sleeps_until = Nanos::MAX;
        let came = engine.receive(now);
        let work = came + engine.send(if came > 0 { machine.now() } else { now });
        if engine.is_drained() {
            return;
        }
        match idle.after(work, now) {
            Action::Again => {}
            Action::Pause => machine.pause(),
            Action::Yield => {
                machine.give_way();
                yielded_at = Some(now);
            }
            Action::Sleep { longest, nap } => {
                if engine.prepare_sleep() {
                    let longest = if engine.rings() { longest } else { nap };
                    let deadline = engine.next_deadline(idle.patience(now)).map(|at| at - now);
                    let longest = longest.min(deadline.unwrap_or(Nanos::MAX));
                    sleeps_until = now.saturating_add(longest);
                    fds.clear();
                    engine.fds(&mut fds);
                    machine.sleep(&fds, longest);
                    engine.wake();
                }
            }
        }
    }
}

/// A sleep that ends by its time ends some 60 us after it; one that ends later than this has waited for its core.
const LATE: Nanos = Nanos::micros(200);

/// What the loop needs of the machine; a test stands in with virtual time.
pub trait Machine {
    /// The time, monotonic.
    fn now(&mut self) -> Nanos;
    /// Waits for some tens of nanoseconds.
    fn pause(&mut self);
    /// Gives the core to others.
    fn give_way(&mut self);
    /// Waits until a descriptor is readable, at most this long.
    fn sleep(&mut self, fds: &[RawFd], longest: Nanos);
    /// A processor hog shares the core from now on, or no longer.
    fn beside_hog(&mut self, there: bool);
}

/// What the loop needs of an engine.
pub trait Rounds {
    /// The first half of a round; how much there was to do.
    fn receive(&mut self, now: Nanos) -> usize;
    /// The second half.
    fn send(&mut self, now: Nanos) -> usize;
    /// When the next round is due though nothing arrives; an acknowledgement that would go alone may be late by `patience`.
    fn next_deadline(&self, patience: Nanos) -> Option<Nanos>;
    /// Arms what can wake a sleeper; false: there is work.
    fn prepare_sleep(&mut self) -> bool;
    /// Whether the NIC is armed, so that a sleep ends when something arrives.
    fn rings(&self) -> bool;
    /// The descriptors to sleep on.
    fn fds(&mut self, out: &mut Vec<RawFd>);
    /// Disarms it.
    fn wake(&mut self);
    /// The thread has waited for its core, or goes on under an alarm.
    fn waited(&mut self, waited: Waited);
    /// Nothing is left to do, ever.
    fn is_drained(&self) -> bool;
}

impl<Q: Queue> Rounds for Engine<Q> {
    fn receive(&mut self, now: Nanos) -> usize {
        Engine::receive(self, now)
    }
    fn send(&mut self, now: Nanos) -> usize {
        Engine::send(self, now)
    }
    fn next_deadline(&self, patience: Nanos) -> Option<Nanos> {
        Engine::sleep_deadline(self, patience)
    }
    fn prepare_sleep(&mut self) -> bool {
        Engine::prepare_sleep(self)
    }
    fn fds(&mut self, out: &mut Vec<RawFd>) {
        Engine::fds(self, out)
    }
    fn rings(&self) -> bool {
        Engine::rings(self)
    }
    fn wake(&mut self) {
        Engine::wake(self)
    }
    fn waited(&mut self, waited: Waited) {
        Engine::waited(self, waited)
    }
    fn is_drained(&self) -> bool {
        Engine::is_drained(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use machnet_engine::idle::{Config, Policy};

    /// Work at given times, and a record of what the loop did between.
    struct Script {
        arrivals: Vec<Nanos>,
        deadline: Option<Nanos>,
        rounds: u64,
        last: Nanos,
        armed: bool,
        rings: bool,
        waited: Vec<Waited>,
        drained_at: Nanos,
    }

    impl Rounds for Script {
        fn send(&mut self, _: Nanos) -> usize {
            0
        }
        fn receive(&mut self, now: Nanos) -> usize {
            assert!(!self.armed, "the engine was left armed");
            self.rounds += 1;
            self.last = now;
            let due = self.arrivals.iter().filter(|&&at| at <= now).count();
            self.arrivals.retain(|&at| at > now);
            due
        }
        fn next_deadline(&self, _: Nanos) -> Option<Nanos> {
            self.deadline
        }
        fn prepare_sleep(&mut self) -> bool {
            self.armed = true;
            true
        }
        fn fds(&mut self, out: &mut Vec<RawFd>) {
            out.push(7);
        }
        fn rings(&self) -> bool {
            self.rings
        }
        fn wake(&mut self) {
            self.armed = false;
        }
        fn waited(&mut self, waited: Waited) {
            self.waited.push(waited);
        }
        fn is_drained(&self) -> bool {
            self.last >= self.drained_at
        }
    }

    #[derive(Default)]
    struct Virtual {
        now: Nanos,
        sleeps: Vec<Nanos>,
        pauses: u64,
        /// When each yield began.
        yields: Vec<Nanos>,
        /// How long yields take until `slow_until`.
        slow: Nanos,
        slow_until: Nanos,
        /// How much later than asked sleeps end.
        late: Nanos,
        /// After how long something rings.
        ring: Option<Nanos>,
        hogs: Vec<bool>,
    }

    impl Machine for Virtual {
        fn now(&mut self) -> Nanos {
            self.now
        }
        fn pause(&mut self) {
            self.pauses += 1;
            self.now += Nanos(500);
        }
        fn give_way(&mut self) {
            self.yields.push(self.now);
            let slow = if self.now < self.slow_until { self.slow } else { Nanos::ZERO };
            self.now += slow.max(Nanos::micros(1));
        }
        fn sleep(&mut self, fds: &[RawFd], longest: Nanos) {
            assert_eq!(fds, [7], "no descriptor of an earlier sleep is left");
            self.sleeps.push(longest);
            self.now += longest.min(self.ring.unwrap_or(Nanos::secs(1))) + self.late;
        }
        fn beside_hog(&mut self, there: bool) {
            self.hogs.push(there);
        }
    }

    /// A loop on this machine, with work at these microseconds.
    fn run(
        arrivals: &[u64],
        deadline: Option<Nanos>,
        rings: bool,
        machine: &mut Virtual,
        until: Nanos,
    ) -> Script {
        let config = Config { policy: Policy::Adaptive, ..Config::default() };
        let mut idle = Idle::new(config, rings, Nanos::ZERO);
        let mut script = Script {
            arrivals: arrivals.iter().map(|&us| Nanos::micros(us)).collect(),
            deadline,
            rounds: 0,
            last: Nanos::ZERO,
            armed: false,
            rings,
            waited: Vec::new(),
            drained_at: until,
        };
        drive(&mut script, &mut idle, machine);
        script
    }

    #[test]
    fn an_idle_loop_yields_for_50_us_and_then_naps_up_to_a_millisecond() {
        let mut machine = Virtual::default();
        let script = run(&[], None, false, &mut machine, Nanos::millis(20));
        assert!((45..=55).contains(&machine.yields.len()), "{} yields", machine.yields.len());
        assert_eq!(machine.sleeps[..4], [50, 100, 200, 400].map(Nanos::micros));
        assert_eq!(machine.sleeps.last(), Some(&Nanos::millis(1)));
        assert!(script.waited.is_empty() && machine.hogs.is_empty());
    }

    #[test]
    fn a_sleep_ends_at_the_deadline_and_one_that_ends_much_later_has_waited_for_its_core() {
        let deadline = Some(Nanos::micros(300));
        let mut machine = Virtual::default();
        let script = run(&[], deadline, true, &mut machine, Nanos::micros(299));
        assert_eq!(machine.sleeps.len(), 1);
        assert!(machine.sleeps[0] < Nanos::micros(250) && machine.sleeps[0] > Nanos::micros(240));
        assert!(script.waited.is_empty(), "in time");

        let mut machine = Virtual { late: Nanos::millis(3), ..Virtual::default() };
        let script = run(&[], deadline, true, &mut machine, Nanos::micros(299));
        assert_eq!(script.waited, [Waited { core: Nanos::millis(3), alarm: Nanos::ZERO }]);
    }

    #[test]
    fn after_yields_that_met_a_hog_the_loop_sleeps_at_once_and_looks_now_and_then_whether_it_is_still_there()
    {
        let slice = Nanos::millis(4);
        let work: Vec<u64> = (0..2000).map(|i| i * 100).collect();
        for rings in [false, true] {
            let ring = rings.then_some(Nanos::micros(100));
            let mut machine =
                Virtual { slow: slice, slow_until: Nanos::millis(40), ring, ..Virtual::default() };
            let script = run(&work, Some(Nanos::secs(9)), rings, &mut machine, Nanos::millis(100));
            let long: Vec<Waited> =
                script.waited.iter().filter(|waited| waited.core == slice).copied().collect();
            // Two to learn it, and one each time that the alarm is over: after 8 ms, and after 16.
            assert_eq!(
                long.iter().map(|waited| waited.alarm.0 / 1_000_000).collect::<Vec<_>>(),
                [0, 8, 16, 32]
            );
            assert_eq!(machine.pauses, 0);
            assert_eq!(machine.hogs, [true, false], "it was told of the hog, and of its end");
            let alarm = Nanos::millis(8)..Nanos::millis(16);
            assert!(!machine.yields.iter().any(|at| alarm.contains(at)), "no yields under an alarm");
            let first = if rings { Nanos::millis(100) } else { Nanos::micros(20) };
            assert_eq!(
                machine.sleeps[0], first,
                "naps are short after work, sleeps that something ends are not"
            );
        }
    }
}
