//! A world shared by those who call and the thread that runs it in real time.

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use machnet_engine::idle::{self, Idle, Waited};
use machnet_host::{Machine, Rounds, drive};
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

    /// Runs the world in real time until it is stopped: by the loop of machnetd's threads, one thread for all engines.
    fn run(&self) {
        let mut clock = Clock { start: self.lock().now, begun: Instant::now() };
        let mut idle = Idle::new(idle::Config::default(), true, clock.start);
        drive(&mut Turn(self), &mut idle, &mut clock);
    }
}

/// The thread's way to the world: it takes it for each step and lets callers have it between.
struct Turn<'a>(&'a Inside);

impl Rounds for Turn<'_> {
    /// A whole round: to send in a second half would take the world a second time.
    fn receive(&mut self, now: Nanos) -> usize {
        while self.0.wanted.load(Ordering::SeqCst) != 0 {
            std::thread::yield_now();
        }
        self.0.lock().round(now)
    }
    fn send(&mut self, _: Nanos) -> usize {
        0
    }
    fn next_deadline(&self, _: Nanos) -> Option<Nanos> {
        self.0.lock().due()
    }
    fn prepare_sleep(&mut self) -> bool {
        self.0.lock().prepare_sleep()
    }
    fn fds(&mut self, out: &mut Vec<RawFd>) {
        // A caller rings before it takes the world, so what it changes behind this wakes the thread.
        out.push(self.0.bell.0.as_raw_fd());
        self.0.lock().fds(out);
    }
    fn wake(&mut self) {
        let mut sink = [0; 64];
        while matches!((&self.0.bell.0).read(&mut sink), Ok(n) if n == sink.len()) {}
        self.0.lock().wake();
    }
    /// Whatever gives the world something to do rings, the links in their time.
    fn rings(&self) -> bool {
        true
    }
    /// Its engines' counters tell of the world, not of the thread that runs it.
    fn waited(&mut self, _: Waited) {}
    fn is_drained(&self) -> bool {
        self.0.stop.load(Ordering::Relaxed)
    }
}

/// The world's time goes on in real time.
struct Clock {
    start: Nanos,
    begun: Instant,
}

impl Machine for Clock {
    fn now(&mut self) -> Nanos {
        self.start + Nanos(u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
    /// The cores are the test's, which may have fewer than it has threads.
    fn pause(&mut self) {
        std::thread::yield_now();
    }
    fn give_way(&mut self) {
        std::thread::yield_now();
    }
    fn sleep(&mut self, fds: &[RawFd], longest: Nanos) {
        system::sleep(fds, longest.0);
    }
    /// The thread is the test's, and stays as the test has it.
    fn beside_hog(&mut self, _: bool) {}
}
