//! Lets link changes happen only between bursts.
//!
//! memif's control work (handshake, disconnect) runs in EAL's one interrupt thread and unmaps rings that a burst on
//! another thread may be using: a peer that is killed takes this process with it. So that thread is parked in a
//! callback of ours, and runs on only while no queue is in a burst:
//!
//! ```text
//! interrupt thread                                        engine thread
//! parked: poll(EAL's epoll descriptor)                        burst, burst, ...
//! it becomes readable: some driver's callback is due
//! CHANGING := 1, fence, wait until no member is online  --->  next burst sees CHANGING: offline, yields
//! signal our own descriptor, return into EAL
//! EAL: epoll_wait, the driver's callbacks, then ours
//! look at the links, CHANGING := 0                      --->  online, fence, looks at CHANGING again, burst
//! parked again
//! ```
//!
//! What engines do of this is in [`super::line`]. A thread that sleeps is offline: nobody waits for it. The parked thread also
//! connects memif clients ([`super::link`]) and serves the public sockets of memif servers ([`super::relay`]).

use super::line::{self, Line};
use super::link::WatchedLink;
use super::log::Mark;
use super::relay::Relay;
use std::ffi::{c_int, c_void};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

type Command = Box<dyn FnOnce() + Send>;

/// The gate. One per process, made with the first port that needs it.
pub(super) struct Gate {
    /// Watched by EAL: readable means "call us".
    own: OwnedFd,
    /// Wakes the parked thread.
    bell: OwnedFd,
    watch: AtomicPtr<c_void>,
    links: Mutex<Vec<WatchedLink>>,
    relays: Mutex<Vec<Relay>>,
    commands: Mutex<Vec<Command>>,
    stop: AtomicBool,
    /// EAL's epoll descriptor as found last; it makes a new one whenever a callback comes or goes.
    epoll: AtomicI32,
    /// The CPUs of the process before EAL pinned anything.
    cpus: libc::cpu_set_t,
}

impl Gate {
    /// Takes hold of EAL's interrupt thread.
    pub(super) fn install(cpus: libc::cpu_set_t) -> Result<Arc<Gate>, String> {
        let gate = Arc::new(Gate {
            own: eventfd().map_err(|e| format!("make an eventfd: {e}"))?,
            bell: eventfd().map_err(|e| format!("make an eventfd: {e}"))?,
            watch: AtomicPtr::new(std::ptr::null_mut()),
            links: Mutex::default(),
            relays: Mutex::default(),
            commands: Mutex::default(),
            stop: AtomicBool::new(false),
            epoll: AtomicI32::new(-1),
            cpus,
        });
        signal(&gate.own);
        let arg = Arc::into_raw(gate.clone()).cast_mut().cast::<c_void>();
        let mark = Mark::now();
        // SAFETY: EAL runs; `arg` is a reference of its own to the gate and is never given back, so it outlives any
        // call of `parked`.
        let watch = unsafe { dpdk_sys::mdpdk_intr_watch(gate.own.as_raw_fd(), Some(parked), arg) };
        if watch.is_null() {
            return Err(format!("hold EAL's interrupt thread: {}", mark.complaints()));
        }
        gate.watch.store(watch, Ordering::Release);
        Ok(gate)
    }

    /// Watches over a port's link from now on; its line must be down. With `reconnect` the port is restarted
    /// whenever its link breaks, and is started now.
    pub(super) fn watch_link(&self, port: u16, line: Arc<Line>, reconnect: bool, name: String) {
        lock(&self.links).push(WatchedLink::new(port, line, reconnect, name));
        signal(&self.bell);
    }

    /// Serves a memif server's public socket from now on.
    pub(super) fn serve(&self, relay: Relay) {
        lock(&self.relays).push(relay);
        signal(&self.bell);
    }

    /// Runs `command` in the parked interrupt thread, so that no driver callback runs meanwhile, and waits for it.
    /// The caller's queues go offline.
    pub(super) fn run(&self, command: impl FnOnce() + Send + 'static) {
        if self.stop.load(Ordering::Acquire) {
            return;
        }
        line::leave_all();
        let (done, wait) = mpsc::channel();
        lock(&self.commands).push(Box::new(move || {
            command();
            let _ = done.send(());
        }));
        signal(&self.bell);
        // The gate stops only when the last port is gone, so somebody answers; the bound is for a driver that hangs.
        if wait.recv_timeout(PATIENCE).is_err() {
            log::warn!("the interrupt thread of DPDK did not answer in {PATIENCE:?}; a driver hangs");
        }
    }

    /// Forgets a port: nobody touches its link any more.
    pub(super) fn forget_port(&self, id: u16) {
        lock(&self.links).retain(|link| link.port != id);
        lock(&self.relays).retain(|relay| relay.port != id);
    }

    /// Lets EAL's thread go.
    pub(super) fn uninstall(&self) {
        self.stop.store(true, Ordering::Release);
        signal(&self.bell);
        let watch = self.watch.swap(std::ptr::null_mut(), Ordering::AcqRel);
        if watch.is_null() {
            return;
        }
        let arg = std::ptr::from_ref(self).cast_mut().cast::<c_void>();
        for _ in 0..1000 {
            // SAFETY: `watch` came from mdpdk_intr_watch with the same function and argument, and is given back once.
            let ret = unsafe { dpdk_sys::mdpdk_intr_unwatch(watch, Some(parked), arg) };
            if ret != -libc::EAGAIN {
                break;
            }
            std::thread::sleep(Duration::from_millis(1)); // it is on its way out of our callback
        }
    }

    /// The interrupt thread's stay with us, from the end of one pass to the beginning of the next.
    fn park(&self) {
        drain(&self.own);
        self.look_at_links();
        self.resume();
        let epoll = self.find_epoll();
        if epoll.is_none() && !self.stop.load(Ordering::Acquire) {
            log::warn!(
                "EAL's epoll descriptor is not to be found under /proc/self/fdinfo; link changes are looked for every {BLIND:?}"
            );
        }
        loop {
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            let wait = self.next_attempt().map(|at| at.saturating_duration_since(Instant::now()));
            let wait = match epoll {
                // The bell for it may have been heard together with the last pass.
                _ if !lock(&self.commands).is_empty() => Some(Duration::ZERO),
                Some(_) => wait,
                None => Some(wait.unwrap_or(BLIND).min(BLIND)),
            };
            let (due, called) = self.poll(epoll, wait);
            if called {
                drain(&self.bell);
            }
            if due || epoll.is_none() {
                break;
            }
            lock(&self.relays).iter_mut().for_each(Relay::serve);
            let commands = std::mem::take(&mut *lock(&self.commands));
            commands.into_iter().for_each(|command| command());
            self.attempt();
        }
        self.quiesce();
        signal(&self.own); // so that the driver's callbacks are followed by ours
    }

    /// EAL's epoll descriptor, which EAL does not give out: it is the one that watches ours.
    fn find_epoll(&self) -> Option<c_int> {
        let watched = self.own.as_raw_fd();
        let known = self.epoll.load(Ordering::Relaxed);
        if watches(&known.to_string(), watched) {
            return Some(known);
        }
        let descriptors = std::fs::read_dir("/proc/self/fdinfo").ok()?.flatten();
        let candidates: Vec<c_int> = descriptors
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| watches(name, watched))
            .filter_map(|name| name.parse().ok())
            .collect();
        let found = match candidates[..] {
            [only] => Some(only),
            // A process that started us may have left us its own, which watches the same number there.
            _ => candidates.into_iter().find(|&candidate| self.follows(candidate)),
        };
        self.epoll.store(found.unwrap_or(-1), Ordering::Relaxed);
        found
    }

    /// Whether an epoll descriptor becomes readable with ours, and only then. A few tries: drivers make it readable too.
    fn follows(&self, epoll: c_int) -> bool {
        (0..3).any(|_| {
            let before = readable(epoll);
            signal(&self.own);
            let during = readable(epoll);
            drain(&self.own);
            !before && during
        })
    }

    /// Waits until a driver's callback is due, the bell rings, or a relay has work; which of the first two it was.
    fn poll(&self, epoll: Option<c_int>, wait: Option<Duration>) -> (bool, bool) {
        let entry = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // A negative descriptor is skipped.
        let mut fds = vec![entry(epoll.unwrap_or(-1)), entry(self.bell.as_raw_fd())];
        lock(&self.relays).iter().for_each(|relay| relay.interests(&mut fds));
        // Rounded up, or the last fraction of a millisecond is spent spinning.
        let millis = wait.map_or(-1, |w| (w.as_micros().div_ceil(1000)).min(60_000) as c_int);
        // SAFETY: `fds` lives through the call. A relay that is dropped meanwhile closes its descriptors, which at
        // worst wakes us for nothing.
        let ready = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, millis) };
        if ready < 0 { (false, false) } else { (fds[0].revents != 0, fds[1].revents != 0) }
    }

    /// Returns when no queue is in a burst, nor will be before [`Gate::resume`].
    fn quiesce(&self) {
        // A copy: a port that is closed meanwhile needs the list.
        let lines: Vec<Arc<Line>> = lock(&self.links).iter().map(|link| link.line.clone()).collect();
        lines.iter().for_each(|line| line.set_changing(true));
        for line in lines {
            if !line.wait_until_quiet(PATIENCE) {
                log::warn!("a link change has waited {PATIENCE:?} for an engine to come between two bursts");
                line.wait_until_quiet(Duration::MAX);
            }
        }
    }

    fn resume(&self) {
        lock(&self.links).iter().for_each(|link| link.line.set_changing(false));
    }

    /// After a pass, while no queue is in a burst: takes over what the driver did to its links.
    fn look_at_links(&self) {
        lock(&self.links).iter_mut().for_each(WatchedLink::look);
    }

    /// When [`Gate::attempt`] has something to do; `None`: not before a link changes.
    fn next_attempt(&self) -> Option<Instant> {
        lock(&self.links).iter().filter_map(WatchedLink::due).min()
    }

    /// Connects the clients whose time has come.
    fn attempt(&self) {
        let now = Instant::now();
        let dial =
            |port| lock(&self.relays).iter_mut().find(|relay| relay.port == port).is_none_or(Relay::dial);
        lock(&self.links).iter_mut().for_each(|link| link.attempt(now, dial));
    }
}

extern "C" fn parked(arg: *mut c_void) {
    // SAFETY: `arg` is the reference that `install` gave away for ever.
    let gate = unsafe { &*arg.cast::<Gate>() };
    // A panic must not cross into C. Queues stay as they are; the message has been printed.
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        free_affinity(&gate.cpus);
        gate.park();
    }))
    .is_err()
    {
        gate.resume();
    }
}

/// EAL keeps its helpers off the main core; with engines on the others ours may run anywhere.
fn free_affinity(cpus: &libc::cpu_set_t) {
    thread_local!(static DONE: std::cell::Cell<bool> = const { std::cell::Cell::new(false) });
    if !DONE.replace(true) {
        // SAFETY: `cpus` is a whole cpu_set_t; 0 names the calling thread.
        unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), cpus) };
    }
}

/// Whether descriptor `fd` is an epoll instance that watches `watched`.
fn watches(fd: &str, watched: c_int) -> bool {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
    info.lines().any(|line| {
        let target = line.strip_prefix("tfd:").and_then(|rest| rest.split_whitespace().next());
        target.and_then(|fd| fd.parse::<c_int>().ok()) == Some(watched)
    })
}

fn readable(fd: c_int) -> bool {
    let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry that lives through the call.
    unsafe { libc::poll(&mut entry, 1, 0) == 1 }
}

fn eventfd() -> std::io::Result<OwnedFd> {
    // SAFETY: no pointers; a descriptor that is returned is ours alone.
    match unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) } {
        -1 => Err(std::io::Error::last_os_error()),
        // SAFETY: just made, and owned by nobody else.
        fd => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
    }
}

fn signal(fd: &OwnedFd) {
    let one = 1u64.to_ne_bytes();
    // SAFETY: eight readable bytes. A full counter is as good as one more.
    unsafe { libc::write(fd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
}

fn drain(fd: &OwnedFd) {
    let mut count = [0u8; 8];
    // SAFETY: eight writable bytes; the descriptor does not block.
    unsafe { libc::read(fd.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// After this a wait is worth a line in the log.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two passes when there is no epoll descriptor to wait on.
const BLIND: Duration = Duration::from_millis(10);
