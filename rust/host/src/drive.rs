//! The loop of a thread that drives engines: a clock reading per round, two where there is work, and the waits that [`Idle`] asks for.

use std::os::fd::RawFd;

use machnet_engine::Engine;
use machnet_engine::idle::{Action, Idle};
use machnet_nic::Queue;
use machnet_wire::Nanos;

/// Runs the engine until it is drained.
pub fn drive(engine: &mut impl Rounds, idle: &mut Idle, machine: &mut impl Machine) {
    let mut fds = Vec::new();
    let mut yielded_at = None;
    loop {
        let now = machine.now();
        // How long a yield took is seen from one round's reading to the next: what the round itself took is far
        // below the bound that matters.
        if let Some(before) = yielded_at.take() {
            idle.yielded(now, now - before);
        }
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
            Action::Sleep { longest } => {
                if engine.prepare_sleep() {
                    let deadline = engine.next_deadline().map(|at| at - now);
                    let longest = longest.min(deadline.unwrap_or(Nanos::MAX));
                    fds.clear();
                    engine.fds(&mut fds);
                    machine.sleep(&fds, longest);
                    engine.wake();
                }
            }
        }
    }
}

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
}

/// What the loop needs of an engine.
pub trait Rounds {
    /// The first half of a round; how much there was to do.
    fn receive(&mut self, now: Nanos) -> usize;
    /// The second half.
    fn send(&mut self, now: Nanos) -> usize;
    /// When the next round is due though nothing arrives.
    fn next_deadline(&self) -> Option<Nanos>;
    /// Arms what can wake a sleeper; false: there is work.
    fn prepare_sleep(&mut self) -> bool;
    /// The descriptors to sleep on.
    fn fds(&mut self, out: &mut Vec<RawFd>);
    /// Disarms it.
    fn wake(&mut self);
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
    fn next_deadline(&self) -> Option<Nanos> {
        Engine::next_deadline(self)
    }
    fn prepare_sleep(&mut self) -> bool {
        Engine::prepare_sleep(self)
    }
    fn fds(&mut self, out: &mut Vec<RawFd>) {
        Engine::fds(self, out)
    }
    fn wake(&mut self) {
        Engine::wake(self)
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
        fn next_deadline(&self) -> Option<Nanos> {
            self.deadline
        }
        fn prepare_sleep(&mut self) -> bool {
            self.armed = true;
            true
        }
        fn fds(&mut self, out: &mut Vec<RawFd>) {
            out.push(7);
        }
        fn wake(&mut self) {
            self.armed = false;
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
        yields: u64,
        /// How long each yield takes.
        slow: Nanos,
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
            self.yields += 1;
            self.now += self.slow.max(Nanos::micros(1));
        }
        fn sleep(&mut self, fds: &[RawFd], longest: Nanos) {
            assert_eq!(fds, [7], "no descriptor of an earlier sleep is left");
            self.sleeps.push(longest);
            self.now += longest.min(Nanos::secs(1));
        }
    }

    fn run(
        arrivals: &[u64],
        deadline: Option<Nanos>,
        interrupts: bool,
        slow: Nanos,
        until: Nanos,
    ) -> (Script, Virtual) {
        let config = Config { policy: Policy::Adaptive, ..Config::default() };
        let mut idle = Idle::new(config, interrupts, Nanos::ZERO);
        let mut machine = Virtual { slow, ..Virtual::default() };
        let mut script = Script {
            arrivals: arrivals.iter().map(|&us| Nanos::micros(us)).collect(),
            deadline,
            rounds: 0,
            last: Nanos::ZERO,
            armed: false,
            drained_at: until,
        };
        drive(&mut script, &mut idle, &mut machine);
        (script, machine)
    }

    #[test]
    fn an_idle_loop_yields_for_50_us_and_then_naps_up_to_a_millisecond() {
        let (_, machine) = run(&[], None, false, Nanos::ZERO, Nanos::millis(20));
        assert!((45..=55).contains(&machine.yields), "{} yields", machine.yields);
        assert_eq!(machine.sleeps[..4], [50, 100, 200, 400].map(Nanos::micros));
        assert_eq!(machine.sleeps.last(), Some(&Nanos::millis(1)));
    }

    #[test]
    fn a_sleep_ends_at_the_deadline() {
        let (_, machine) = run(&[], Some(Nanos::micros(300)), true, Nanos::ZERO, Nanos::micros(299));
        assert_eq!(machine.sleeps.len(), 1);
        assert!(machine.sleeps[0] < Nanos::micros(250) && machine.sleeps[0] > Nanos::micros(240));
    }

    #[test]
    fn after_yields_that_met_a_hog_the_loop_pauses() {
        let (_, machine) = run(&[0], None, false, Nanos::millis(4), Nanos::millis(9));
        assert_eq!(machine.yields, 2, "two were enough to learn");
        assert!(machine.pauses > 50, "{} pauses", machine.pauses);
    }
}
