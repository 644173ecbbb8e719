//! Engine threads on this machine: their clock, how they sleep, their cores, and their end. The only code that sleeps; the loop that each
//! runs is [`drive`].

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use machnet_engine::Engine;
use machnet_engine::idle::{self, Idle};
use machnet_host::{Host, Machine, drive};
use machnet_nic::Queue;
use machnet_wire::Nanos;

use crate::pins::{self, Pins};
use crate::pulse::{Pulse, Pulses};
use crate::scheduling::{self, Scheduler};

/// This machine, for one engine.
struct Real {
    pulse: Arc<Pulse>,
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
        let now = now();
        self.pulse.next(now);
        now
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
        self.pulse.next(Nanos(now().0.saturating_add(longest.0)));
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

    fn beside_hog(&mut self, there: bool) {
        scheduling::short_slice(there);
    }
}

/// The engine threads of the sidecar.
pub struct Threads {
    all: Vec<JoinHandle<()>>,
    ended: Receiver<u16>,
    end: Sender<u16>,
    pins: Pins,
    pulses: Pulses,
}

/// What one engine's thread is given.
pub struct Job<Q: Queue> {
    /// Its number.
    pub index: u16,
    /// The engine, which has not run.
    pub engine: Engine<Q>,
    /// Its core.
    pub core: Option<usize>,
    /// How it waits.
    pub idle: idle::Config,
    /// How the kernel schedules it.
    pub scheduler: Scheduler,
}

impl Threads {
    /// None yet.
    pub fn new() -> Threads {
        let (end, ended) = channel();
        Threads { all: Vec::new(), ended, end, pins: Pins::default(), pulses: Pulses::default() }
    }

    /// Those that are bound to a core, to be watched over.
    pub fn take_pins(&mut self) -> Pins {
        std::mem::take(&mut self.pins)
    }

    /// What tells whether the engines are alive.
    pub fn pulses(&self) -> Pulses {
        self.pulses.clone()
    }

    /// Starts an engine.
    ///
    /// # Errors
    /// The core does not exist or may not be used, or there is no thread to be had.
    pub fn start<Q: Queue + 'static>(&mut self, job: Job<Q>) -> Result<(), String> {
        let Job { index, mut engine, core, idle, scheduler } = job;
        let end = self.end.clone();
        let (pinned, result) = channel();
        let pulse = self.pulses.add(now());
        let body = move || {
            let refused = core.and_then(|core| pin(core).err());
            let refused = refused.or_else(|| schedule(scheduler).err());
            let go = refused.is_none();
            // SAFETY: no arguments, and it cannot fail.
            let _ = pinned.send(refused.map_or_else(|| Ok(unsafe { libc::gettid() }), Err));
            if go {
                exact_naps();
                let mut idle = Idle::new(idle, engine.interrupts(), now());
                drive(&mut engine, &mut idle, &mut Real { pulse, polls: Vec::new() });
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
        self.all.push(thread);
        Ok(())
    }

    /// Ends all engines: each delivers what applications sent, and tells its peers. Engines that are not done in time, or when there is
    /// a hurry, are left behind.
    pub fn stop<Q>(self, host: &mut Host<Q>, hurry: impl Fn() -> bool) -> Stopped {
        let patience = Duration::from_nanos(host.patience().0);
        let until = Instant::now() + patience;
        let mut waiting = self.all.len();
        while waiting > 0 {
            // An engine with a full queue of notes is asked again.
            host.shutdown();
            let left = until.saturating_duration_since(Instant::now()).min(Duration::from_millis(10));
            match self.ended.recv_timeout(left) {
                Ok(_) => waiting -= 1,
                Err(RecvTimeoutError::Timeout) if hurry() => return Stopped::Hurried,
                Err(RecvTimeoutError::Timeout) if Instant::now() < until => {}
                Err(_) => return Stopped::Late(patience),
            }
        }
        for thread in self.all {
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
    /// Some did not within this time.
    Late(Duration),
}

/// The kernel may round a thread's sleeps up by 50 us, which doubles the first nap: 1 us for this one.
fn exact_naps() {
    // SAFETY: this option takes a number and no pointers. A refusal leaves longer naps.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1000 as libc::c_ulong) };
}

/// Gives the calling thread its scheduler.
fn schedule(scheduler: Scheduler) -> Result<(), String> {
    scheduling::begin(scheduler)
        .map_err(|error| format!("give it a real-time priority: {error}; {}", scheduling::REMEDY))
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

    #[test]
    fn an_unknown_core_is_refused_with_its_number() {
        let refused = pin(libc::CPU_SETSIZE as usize - 1).unwrap_err();
        assert!(refused.starts_with("pin it to core 1023: Invalid argument"), "{refused}");
    }
}
