//! The thread that makes the memory of channels and gives it back. Both take as long as thousands of messages, so neither an engine nor
//! the control thread waits for them. It works through what it is given in order. Where it may run on an engine's core it gives the core
//! away after each step, which is then all that the engine waits for; and it is nice, so that the engine has nine tenths of that core.

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
    /// Starts the thread. `settle` runs in it first, and says whether it is off the engines' cores.
    ///
    /// # Errors
    /// There is no thread or socket to be had.
    pub fn start(settle: impl FnOnce() -> bool + Send + 'static) -> Result<Memory, String> {
        let (jobs, given) = channel();
        let (done, made) = channel();
        let (bell, far) = UnixStream::pair().map_err(|e| format!("memory: make a pair of sockets: {e}"))?;
        bell.set_nonblocking(true).map_err(|e| format!("memory: its bell: {e}"))?;
        let body = move || {
            let mut courtesy = Courtesy { due: !settle(), hogged_until: None };
            if courtesy.due {
                be_nice();
            }
            work(&given, &done, &far, &mut courtesy);
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

/// Gives the core away between two steps, where that is due.
struct Courtesy {
    due: bool,
    /// Somebody took the core for long, as no engine does: what is left of a step would wait for that at every turn.
    hogged_until: Option<Instant>,
}

impl Courtesy {
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

fn work(given: &Receiver<Job>, done: &Sender<Made>, mut bell: &UnixStream, courtesy: &mut Courtesy) {
    let bytes = if courtesy.due { GENTLE } else { BRISK };
    let mut step = || courtesy.step();
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

/// A tenth of the core where somebody else wants it, all of it where nobody does.
fn be_nice() {
    // SAFETY: no pointers; 0 names the calling thread. It asks for less, which is never refused.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 10) };
}

/// An engine that has the core gives it back much sooner; and what an engine waits for where somebody else is there, too.
const HOG: Duration = Duration::from_millis(1);
/// Bytes whose pages are forgotten at once where an engine may wait for this core: some 30 us of work.
const GENTLE: usize = 256 << 10;
/// And where none does: each step interrupts the engines' cores for a moment, so there are few.
const BRISK: usize = 4 << 20;
