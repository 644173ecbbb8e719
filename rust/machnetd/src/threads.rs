//! Engine threads: a clock reading per round, two where there is work, and the waits that [`Idle`] asks for. The only code that sleeps.

use std::os::fd::RawFd;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use machnet_engine::idle::{self, Action, Idle};
use machnet_engine::{Engine, EngineHandle};
use machnet_nic::Queue;
use machnet_wire::Nanos;

use crate::pins::{self, Pins};

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
                    let longest = longest.unwrap_or(Nanos::MAX).min(deadline.unwrap_or(Nanos::MAX));
                    fds.clear();
                    engine.fds(&mut fds);
                    machine.sleep(&fds, longest);
                    engine.wake();
                }
            }
        }
    }
}

/// This machine.
#[derive(Default)]
pub struct Real {
    polls: Vec<libc::pollfd>,
}

/// CLOCK_MONOTONIC, by the vDSO: some 20 ns, no system call.
pub fn now() -> Nanos {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is writable; this clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    Nanos(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

impl Machine for Real {
    #[inline]
    fn now(&mut self) -> Nanos {
        now()
    }

    #[inline]
    fn pause(&mut self) {
        std::hint::spin_loop();
    }

    #[inline]
    fn give_way(&mut self) {
        // SAFETY: no arguments, and it cannot fail on Linux.
        unsafe { libc::sched_yield() };
    }

    fn sleep(&mut self, fds: &[RawFd], longest: Nanos) {
        self.polls.clear();
        self.polls.extend(fds.iter().map(|&fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 }));
        let time = libc::timespec {
            tv_sec: (longest.0 / 1_000_000_000) as libc::time_t,
            tv_nsec: (longest.0 % 1_000_000_000) as libc::c_long,
        };
        let limit = if longest == Nanos::MAX { std::ptr::null() } else { &raw const time };
        // SAFETY: `polls` holds as many entries as told; `limit` is null or points to `time`; a null mask changes none.
        unsafe {
            libc::ppoll(self.polls.as_mut_ptr(), self.polls.len() as libc::nfds_t, limit, std::ptr::null())
        };
        // An error (a signal) is an early end: the loop looks for work anyway.
    }
}

/// The engine threads of the sidecar.
pub struct Threads {
    all: Vec<(EngineHandle, JoinHandle<()>)>,
    ended: Receiver<u16>,
    end: Sender<u16>,
    pins: Pins,
}

/// What one engine's thread is given.
pub struct Job<Q: Queue> {
    /// The engine, which has not run.
    pub engine: Engine<Q>,
    /// The way to it.
    pub handle: EngineHandle,
    /// Its core.
    pub core: Option<usize>,
    /// How it waits.
    pub idle: idle::Config,
}

impl Threads {
    /// None yet.
    pub fn new() -> Threads {
        let (end, ended) = channel();
        Threads { all: Vec::new(), ended, end, pins: Pins::default() }
    }

    /// Those that are bound to a core, to be watched over.
    pub fn take_pins(&mut self) -> Pins {
        std::mem::take(&mut self.pins)
    }

    /// Starts an engine.
    ///
    /// # Errors
    /// The core does not exist or may not be used, or there is no thread to be had.
    pub fn start<Q: Queue + 'static>(&mut self, job: Job<Q>) -> Result<(), String> {
        let index = job.handle.engine();
        let core = job.core;
        let handle = job.handle.clone();
        let end = self.end.clone();
        let (pinned, result) = channel();
        let body = move || {
            let Job { mut engine, core, idle, .. } = job;
            let refused = core.and_then(|core| pin(core).err());
            let go = refused.is_none();
            // SAFETY: no arguments, and it cannot fail.
            let _ = pinned.send(refused.map_or_else(|| Ok(unsafe { libc::gettid() }), Err));
            if go {
                exact_naps();
                let mut idle = Idle::new(idle, engine.interrupts(), now());
                drive(&mut engine, &mut idle, &mut Real::default());
                // With the last engine the NIC closes.
                drop(engine);
                let _ = end.send(index);
            }
        };
        let thread = std::thread::Builder::new()
            .name(format!("engine{index}"))
            .spawn(body)
            .map_err(|error| format!("engine {index}: start its thread: {error}"))?;
        match (result.recv(), core) {
            (Ok(Err(refused)), _) => return Err(format!("engine {index}: {refused}")),
            (Ok(Ok(number)), Some(core)) => self.pins.add(index, core, number),
            _ => {}
        }
        self.all.push((handle, thread));
        Ok(())
    }

    /// Ends all engines: each delivers what applications sent, and tells its peers. Engines that are not done in time, or when there is
    /// a hurry, are left behind.
    pub fn stop(self, patience: Duration, hurry: impl Fn() -> bool) -> Stopped {
        let until = Instant::now() + patience;
        let mut waiting = self.all.len();
        let mut told = vec![false; self.all.len()];
        while waiting > 0 {
            // An engine with a full queue of notes is asked again.
            for ((handle, _), told) in self.all.iter().zip(&mut told) {
                *told = *told || handle.shutdown();
            }
            let left = until.saturating_duration_since(Instant::now()).min(Duration::from_millis(10));
            match self.ended.recv_timeout(left) {
                Ok(_) => waiting -= 1,
                Err(RecvTimeoutError::Timeout) if hurry() => return Stopped::Hurried,
                Err(RecvTimeoutError::Timeout) if Instant::now() < until => {}
                Err(_) => return Stopped::Late,
            }
        }
        for (_, thread) in self.all {
            // It said that it was done; a panic would have ended the process.
            let _ = thread.join();
        }
        Stopped::Done
    }
}

/// How the engines ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// All in good order.
    Done,
    /// Some did not, for there was a hurry.
    Hurried,
    /// Some did not in time.
    Late,
}

/// The kernel may round a thread's sleeps up by 50 us, which doubles the first nap: 1 us for this one.
fn exact_naps() {
    // SAFETY: this option takes a number and no pointers. A refusal leaves longer naps.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1000 as libc::c_ulong) };
}

/// Binds the calling thread to one core.
fn pin(core: usize) -> Result<(), String> {
    pins::bind(0, &[core]).map_err(|error| {
        let count = std::thread::available_parallelism().map_or(0, |n| n.get());
        format!(
            "pin it to core {core}: {error}; this process may use {count} cores (nproc, taskset -p show them)"
        )
    })
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

    #[test]
    fn an_unknown_core_is_refused_with_its_number() {
        let refused = pin(libc::CPU_SETSIZE as usize - 1).unwrap_err();
        assert!(refused.starts_with("pin it to core 1023: Invalid argument"), "{refused}");
    }
}
