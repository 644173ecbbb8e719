//! The thread that makes the memory of channels and gives it back. Both take as long as thousands of messages, so neither an engine nor
//! the control thread waits for them. It works through what it is given in order. Where it may run on an engine's core it yields the
//! core after each step, so that the engine waits for one step at most; and it runs at a lower priority (nice 10), so that the engine
//! has nine tenths of that core.

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use machnet_engine::Leftover;
use machnet_host::Attaching;
use machnet_shm::{AttachError, EngineEnd, ServerAttach, Welcome};

/// The way to the thread; it ends when this is dropped and it has worked off what is left.
pub struct Memory {
    jobs: Sender<Job>,
    made: Receiver<Made>,
    bell: UnixStream,
}

enum Job {
    Make { client: RawFd, attaching: Box<Attaching>, welcome: Welcome },
    Abandon(Box<ServerAttach>),
    Release(Leftover),
    Discard(Box<EngineEnd>),
}

/// A channel that was asked for.
pub struct Made {
    /// Whose.
    pub client: RawFd,
    /// Goes on with attaching.
    pub attaching: Box<Attaching>,
    /// What came of it; the application was told where it can be.
    pub result: Result<(), AttachError>,
}

impl Memory {
    /// Starts the thread. `keep_off` runs in it first, and says whether the thread keeps off the engines' cores now.
    ///
    /// # Errors
    /// There is no thread or socket to be had.
    pub fn start(keep_off: impl FnOnce() -> bool + Send + 'static) -> Result<Memory, String> {
        let (jobs, given) = channel();
        let (done, made) = channel();
        let (bell, far) = UnixStream::pair().map_err(|e| format!("memory: make a pair of sockets: {e}"))?;
        bell.set_nonblocking(true).map_err(|e| format!("memory: its bell: {e}"))?;
        let body = move || {
            let mut yields = Yields { due: !keep_off(), hogged_until: None };
            if yields.due {
                lower_priority();
            }
            work(&given, &done, &far, &mut yields);
        };
        std::thread::Builder::new()
            .name("memory".to_owned())
            .spawn(body)
            .map_err(|error| format!("memory: start its thread: {error}"))?;
        Ok(Memory { jobs, made, bell })
    }

    /// Makes a channel for a client; [`Memory::next`] has it when it is made.
    pub fn make(&self, client: RawFd, attaching: Box<Attaching>, welcome: Welcome) {
        self.give(Job::Make { client, attaching, welcome });
    }

    /// Takes back what was made for an application that has not come to have it.
    pub fn abandon(&self, attaching: Attaching) {
        self.give(Job::Abandon(Box::new(attaching.give_up())));
    }

    /// Takes back what an engine leaves.
    pub fn release(&self, leftover: Leftover) {
        self.give(Job::Release(leftover));
    }

    /// Takes back what an engine did not take.
    pub fn discard(&self, end: Box<EngineEnd>) {
        self.give(Job::Discard(end));
    }

    /// Becomes readable when something was made.
    pub fn fd(&self) -> RawFd {
        self.bell.as_raw_fd()
    }

    /// Empties the descriptor; before [`Memory::next`], so that nothing is missed.
    pub fn drain(&self) {
        let mut sink = [0; 64];
        while matches!((&self.bell).read(&mut sink), Ok(n) if n == sink.len()) {}
    }

    /// What was made, in order.
    pub fn next(&self) -> Option<Made> {
        self.made.try_recv().ok()
    }

    fn give(&self, job: Job) {
        // The thread lives as long as this: it ends by a panic alone, and the process with it.
        let _ = self.jobs.send(job);
    }
}

/// Yields the core between two steps, where an engine may wait for it.
struct Yields {
    due: bool,
    /// Until then it does not yield: another thread kept the core for longer than an engine ever does, and would at every yield.
    hogged_until: Option<Instant>,
}

impl Yields {
    fn step(&mut self) {
        let now = Instant::now();
        if !self.due || self.hogged_until.is_some_and(|until| now < until) {
            return;
        }
        // SAFETY: no arguments, and it cannot fail on Linux.
        unsafe { libc::sched_yield() };
        let back = Instant::now();
        self.hogged_until = (back - now > HOG).then_some(back + HOG);
    }
}

fn work(given: &Receiver<Job>, done: &Sender<Made>, mut bell: &UnixStream, yields: &mut Yields) {
    let bytes = if yields.due { STEP_SHARED } else { STEP_ALONE };
    let mut step = || yields.step();
    for job in given {
        match job {
            Job::Make { client, mut attaching, welcome } => {
                let result = attaching.make(&welcome, &mut step);
                if done.send(Made { client, attaching, result }).is_err() {
                    return;
                }
                // One byte for each client, and the control thread takes them all: there is room.
                let _ = bell.write(&[1]);
            }
            Job::Abandon(server) => server.release(bytes, &mut step),
            Job::Release(leftover) => leftover.release(bytes, &mut step),
            Job::Discard(end) => end.release(bytes, &mut step),
        }
    }
}

/// Leaves this thread a tenth of the core where another wants it, and all of it where none does.
fn lower_priority() {
    // SAFETY: no pointers; 0 names the calling thread. It asks for less, which is never refused.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 10) };
}

/// A yield that takes longer than this met a thread that is no engine, since engines give the core back much sooner. For as long again it
/// is not worth yielding.
const HOG: Duration = Duration::from_millis(1);
/// Bytes whose pages are given back in one step where an engine may wait for this core: some 30 us of work.
const STEP_SHARED: usize = 256 << 10;
/// The same where none does: each step interrupts the engines' cores for a moment, so there are few.
const STEP_ALONE: usize = 4 << 20;
