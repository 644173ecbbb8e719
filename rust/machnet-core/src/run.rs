//! A world shared by those who call and the thread that runs it in real time.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use machnet_engine::idle::{self, Action, Idle};
use machnet_wire::Nanos;

use crate::system;
use crate::world::World;

/// The world and, once started, its thread.
pub struct Runner {
    inside: Arc<Inside>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Inside {
    world: Mutex<World>,
    /// How many callers want the world: the thread lets them pass.
    wanted: AtomicU32,
    stop: AtomicBool,
    bell: (UnixStream, UnixStream),
}

impl Runner {
    /// Around a world that stands still.
    pub fn new(world: World) -> std::io::Result<Runner> {
        let bell = UnixStream::pair()?;
        bell.0.set_nonblocking(true)?;
        bell.1.set_nonblocking(true)?;
        let (wanted, stop) = (AtomicU32::new(0), AtomicBool::new(false));
        let inside = Arc::new(Inside { world: Mutex::new(world), wanted, stop, bell });
        Ok(Runner { inside, thread: Mutex::new(None) })
    }

    /// Does something with the world.
    pub fn with<T>(&self, what: impl FnOnce(&mut World) -> T) -> T {
        self.inside.wanted.fetch_add(1, Ordering::SeqCst);
        self.inside.ring();
        let mut world = self.inside.lock();
        self.inside.wanted.fetch_sub(1, Ordering::SeqCst);
        what(&mut world)
    }

    /// Starts the thread; false if it runs already or cannot be had.
    pub fn start(&self) -> bool {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_some() {
            return false;
        }
        let inside = Arc::clone(&self.inside);
        let builder = std::thread::Builder::new().name("machnet-hosts".into());
        *thread = system::without_signals(|| builder.spawn(move || inside.run())).ok();
        thread.is_some()
    }

    /// Whether the thread runs.
    pub fn runs(&self) -> bool {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.inside.stop.store(true, Ordering::SeqCst);
        self.inside.ring();
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // It ended, or it panicked and the process with it.
            let _ = thread.join();
        }
    }
}

impl Inside {
    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self) {
        // A full socket is readable already.
        let _ = (&self.bell.1).write(&[1]);
    }

    /// Runs the world until it is stopped: as machnetd's threads do, one thread for all engines.
    fn run(&self) {
        let begun = Instant::now();
        let start = self.lock().now;
        let clock = || start + Nanos(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
        let mut idle = Idle::new(idle::Config::default(), true, start);
        let mut fds = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            while self.wanted.load(Ordering::SeqCst) != 0 {
                std::thread::yield_now();
            }
            let mut world = self.lock();
            let now = clock();
            let work = world.round(now);
            // Frames on their way arrive by themselves, soon, and nothing can ring for them.
            let due = world.due().map_or(NAP, |due| (due - now).min(NAP));
            match idle.after(work, now) {
                Action::Sleep { .. } => {
                    fds.clear();
                    fds.push(self.bell.0.as_raw_fd());
                    if !world.prepare_sleep(&mut fds) {
                        continue;
                    }
                    drop(world);
                    if self.wanted.load(Ordering::SeqCst) == 0 {
                        system::sleep(&fds, due.0);
                    }
                    self.lock().wake();
                    let mut sink = [0; 64];
                    while matches!((&self.bell.0).read(&mut sink), Ok(n) if n == sink.len()) {}
                }
                _ => {
                    drop(world);
                    let before = clock();
                    std::thread::yield_now();
                    let after = clock();
                    idle.yielded(after, after - before);
                }
            }
        }
    }
}

/// The longest sleep.
const NAP: Nanos = Nanos::millis(10);
