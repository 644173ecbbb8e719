//! Lets link changes happen only between bursts.
//!
//! memif's control work (handshake, disconnect) runs in EAL's one interrupt thread and unmaps rings that a burst on
//! another thread may be using: a peer that is killed takes this process with it. So that thread is parked in a
//! callback of ours, and runs on only while every queue is quiet:
//!
//! ```text
//! interrupt thread                                        engine thread
//! parked: poll(EAL's epoll descriptor)                    burst, burst, ...
//! it becomes readable: some driver's callback is due
//! PASS := 1, fence, wait until no member is online  --->  next burst sees PASS: offline, yields
//! ring our own descriptor, return into EAL
//! EAL: epoll_wait, the driver's callbacks, then ours
//! look at the links, PASS := 0                      --->  online, fence, looks at PASS again, burst
//! parked again
//! ```
//!
//! The cost per burst is two relaxed loads, of [`Line`]'s word and of the queue's own [`Member`]. A thread that sleeps is
//! offline: nobody waits for it. The parked thread also reconnects memif clients, which the driver never does.

use super::log::Mark;
use super::relay::Relay;
use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_void};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

/// What the queues of one port look at before each burst: zero means go.
#[derive(Default)]
pub(super) struct Line {
    word: AtomicU32,
    /// Times the link came up.
    pub ups: AtomicU64,
    /// Times the link was lost.
    pub downs: AtomicU64,
    /// Peers that were turned away.
    pub refused: AtomicU64,
}

/// One queue, as the gate sees it.
#[derive(Default)]
pub(super) struct Member {
    /// The token of the thread that may be in a burst on this queue, 0 when nobody is.
    online: AtomicU64,
}

/// A port whose driver works in the interrupt thread.
struct Port {
    id: u16,
    line: Arc<Line>,
    state: State,
    /// The driver leaves reconnecting to us.
    reconnect: bool,
    /// The last attempt came to nothing, and the log says so.
    stuck: bool,
    name: String,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Up,
    /// Server: waiting for a peer. Client: next attempt at this time.
    Down(Instant),
    /// The client's attempt is under way since then.
    Trying(Instant),
}

type Command = Box<dyn FnOnce() + Send>;

/// The gate. One per process, made with the first port that needs it.
pub(super) struct Gate {
    /// Watched by EAL: readable means "call us".
    own: OwnedFd,
    /// Wakes the parked thread.
    bell: OwnedFd,
    watch: AtomicPtr<c_void>,
    members: Mutex<Vec<Arc<Member>>>,
    ports: Mutex<Vec<Port>>,
    relays: Mutex<Vec<Relay>>,
    commands: Mutex<Vec<Command>>,
    stop: AtomicBool,
    /// EAL's epoll descriptor as found last; it makes a new one whenever a callback comes or goes.
    epoll: AtomicI32,
    /// The CPUs of the process before EAL pinned anything.
    cpus: libc::cpu_set_t,
}

impl Line {
    /// A line whose link is up as long as nobody says otherwise.
    pub(super) fn open() -> Arc<Line> {
        Arc::default()
    }

    /// A line that waits for its link.
    pub(super) fn down() -> Arc<Line> {
        Arc::new(Line { word: AtomicU32::new(DOWN), ..Line::default() })
    }

    /// Whether a burst must first ask [`Member::enter`]. One relaxed load.
    #[inline(always)]
    pub(super) fn raised(&self) -> bool {
        self.word.load(Ordering::Relaxed) != 0
    }

    pub(super) fn is_up(&self) -> bool {
        self.word.load(Ordering::Relaxed) & DOWN == 0
    }

    fn set(&self, bit: u32, on: bool) {
        if on {
            self.word.fetch_or(bit, Ordering::Release);
        } else {
            self.word.fetch_and(!bit, Ordering::Release);
        }
    }
}

impl Member {
    /// Whether the calling thread is online with this queue. One relaxed load.
    #[inline(always)]
    pub(super) fn is_mine(&self) -> bool {
        let token = TOKEN.get();
        token != 0 && self.online.load(Ordering::Relaxed) == token
    }

    /// Goes quiet: between this and the next [`Member::enter`] links may change.
    pub(super) fn leave(&self) {
        self.online.store(0, Ordering::Release);
    }

    /// Waits until no link change is under way and comes online. Returns whether the link is up.
    ///
    /// While it waits the thread is in none of its bursts, so its other queues go quiet too; they come back with
    /// their own next burst.
    #[cold]
    pub(super) fn enter(self: &Arc<Self>, line: &Line) -> bool {
        let token = token();
        MINE.with_borrow_mut(|mine| {
            if !mine.iter().any(|other| other.as_ptr() == Arc::as_ptr(self)) {
                mine.retain(|other| other.strong_count() > 0);
                mine.push(Arc::downgrade(self));
            }
        });
        let mut looks = 0u32;
        loop {
            while line.word.load(Ordering::Acquire) & PASS != 0 {
                retire_mine();
                // The interrupt thread may share this core.
                looks += 1;
                if looks < 1000 { std::thread::yield_now() } else { std::thread::sleep(NAP) }
            }
            self.online.store(token, Ordering::Relaxed);
            // Pairs with the fence in `quiesce`: either we see PASS, or it sees us online.
            fence(Ordering::SeqCst);
            let word = line.word.load(Ordering::Acquire);
            if word & PASS == 0 {
                return word & DOWN == 0;
            }
        }
    }

    /// Goes quiet if it is still the thread `token` that is online: a queue may have moved to another one.
    fn retire(&self, token: u64) {
        let _ = self.online.compare_exchange(token, 0, Ordering::Release, Ordering::Relaxed);
    }
}

thread_local! {
    /// Names this thread; 0 until it is first needed. Never used twice, unlike addresses.
    static TOKEN: Cell<u64> = const { Cell::new(0) };
    /// The queues this thread was online with.
    static MINE: RefCell<Vec<Weak<Member>>> = const { RefCell::new(Vec::new()) };
}

/// All queues of this thread go quiet: it is about to wait.
fn retire_mine() {
    let token = TOKEN.get();
    // A thread that ends may have lost its list already; then it was online with nothing.
    let _ = MINE.try_with(|mine| {
        mine.borrow().iter().filter_map(Weak::upgrade).for_each(|member| member.retire(token));
    });
}

fn token() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    if TOKEN.get() == 0 {
        TOKEN.set(NEXT.fetch_add(1, Ordering::Relaxed));
    }
    TOKEN.get()
}

impl Gate {
    /// Takes hold of EAL's interrupt thread.
    pub(super) fn install(cpus: libc::cpu_set_t) -> Result<Arc<Gate>, String> {
        let gate = Arc::new(Gate {
            own: eventfd().map_err(|e| format!("make an eventfd: {e}"))?,
            bell: eventfd().map_err(|e| format!("make an eventfd: {e}"))?,
            watch: AtomicPtr::new(std::ptr::null_mut()),
            members: Mutex::default(),
            ports: Mutex::default(),
            relays: Mutex::default(),
            commands: Mutex::default(),
            stop: AtomicBool::new(false),
            epoll: AtomicI32::new(-1),
            cpus,
        });
        ring(&gate.own);
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

    pub(super) fn join(&self) -> Arc<Member> {
        let member = Arc::<Member>::default();
        lock(&self.members).push(member.clone());
        member
    }

    pub(super) fn part(&self, member: &Arc<Member>) {
        member.leave();
        lock(&self.members).retain(|m| !Arc::ptr_eq(m, member));
    }

    /// Watches over a port's link from now on; its line must be down. With `reconnect` the port is restarted
    /// whenever its link breaks, and is started now.
    pub(super) fn watch_port(&self, id: u16, line: Arc<Line>, reconnect: bool, name: String) {
        lock(&self.ports).push(Port {
            id,
            line,
            state: State::Down(Instant::now()),
            reconnect,
            stuck: false,
            name,
        });
        ring(&self.bell);
    }

    /// Serves a memif server's door from now on.
    pub(super) fn serve(&self, relay: Relay) {
        lock(&self.relays).push(relay);
        ring(&self.bell);
    }

    /// Runs `command` in the parked interrupt thread, so that no driver callback runs meanwhile, and waits for it.
    /// The caller's queues go quiet.
    pub(super) fn run(&self, command: impl FnOnce() + Send + 'static) {
        if self.stop.load(Ordering::Acquire) {
            return;
        }
        retire_mine();
        let (done, wait) = mpsc::channel();
        lock(&self.commands).push(Box::new(move || {
            command();
            let _ = done.send(());
        }));
        ring(&self.bell);
        // The gate stops only when the last port is gone, so somebody answers; the bound is for a driver that hangs.
        if wait.recv_timeout(PATIENCE).is_err() {
            log::warn!("the interrupt thread of DPDK did not answer in {PATIENCE:?}; a driver hangs");
        }
    }

    /// Forgets a port: nobody touches its link any more.
    pub(super) fn forget_port(&self, id: u16) {
        lock(&self.ports).retain(|port| port.id != id);
        lock(&self.relays).retain(|relay| relay.port != id);
    }

    /// Lets EAL's thread go.
    pub(super) fn uninstall(&self) {
        self.stop.store(true, Ordering::Release);
        ring(&self.bell);
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
        ring(&self.own); // so that the driver's callbacks are followed by ours
    }

    /// EAL's epoll descriptor, which it tells nobody: the one that watches ours.
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
            ring(&self.own);
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
        for port in lock(&self.ports).iter() {
            port.line.set(PASS, true);
        }
        fence(Ordering::SeqCst);
        let begun = Instant::now();
        let mut warned = false;
        let mut looks = 0u32;
        // A copy: a queue that is dropped meanwhile needs the list.
        let members: Vec<Arc<Member>> = lock(&self.members).clone();
        for member in members {
            while member.online.load(Ordering::Acquire) != 0 {
                looks += 1;
                if looks < 100 {
                    std::thread::yield_now()
                } else {
                    std::thread::sleep(NAP)
                }
                if !warned && begun.elapsed() > PATIENCE {
                    warned = true;
                    log::warn!(
                        "a link change has waited {PATIENCE:?} for an engine to come between two bursts"
                    );
                }
            }
        }
    }

    fn resume(&self) {
        for port in lock(&self.ports).iter() {
            port.line.set(PASS, false);
        }
    }

    /// After a pass, while all is quiet: takes over what the driver did to its links.
    fn look_at_links(&self) {
        for port in lock(&self.ports).iter_mut() {
            // SAFETY: the port is open; no burst and no driver callback runs now.
            let up = unsafe { dpdk_sys::mdpdk_port_link_up(port.id) } == 1;
            match (port.state, up) {
                (State::Up, false) => {
                    port.line.set(DOWN, true);
                    port.line.downs.fetch_add(1, Ordering::Relaxed);
                    log::warn!("{}: the peer left; link down", port.name);
                    port.stop();
                    port.state = State::Down(Instant::now());
                }
                (State::Down(_) | State::Trying(_), true) => {
                    port.line.ups.fetch_add(1, Ordering::Relaxed);
                    port.line.set(DOWN, false);
                    port.state = State::Up;
                    port.stuck = false;
                    log::info!("{}: link up", port.name);
                }
                _ => {}
            }
        }
    }

    /// When [`Gate::attempt`] has something to do; `None`: not before a link changes.
    fn next_attempt(&self) -> Option<Instant> {
        lock(&self.ports).iter().filter_map(Port::due).min()
    }

    /// Connects the clients whose time has come. Parked, and their lines are down: no burst touches the port.
    fn attempt(&self) {
        let now = Instant::now();
        for port in lock(&self.ports).iter_mut().filter(|port| port.due().is_some_and(|at| at <= now)) {
            if matches!(port.state, State::Trying(_)) && !std::mem::replace(&mut port.stuck, true) {
                log::warn!(
                    "{}: the other side is there and does not take us; check that both have the same memif_id and mtu, and each other's number of engines as memif_peer_queues, and that no other client has the link; the server's log says which",
                    port.name
                );
            }
            port.stop(); // an attempt that got stuck; nothing otherwise
            // SAFETY: the port is configured and stopped; no burst and no driver callback runs now.
            let started = unsafe { dpdk_sys::mdpdk_port_start(port.id) } == 0;
            port.state = if started { State::Trying(now) } else { State::Down(now + RETRY) };
        }
    }
}

impl Port {
    fn due(&self) -> Option<Instant> {
        match self.state {
            State::Down(at) if self.reconnect => Some(at),
            State::Trying(since) => Some(since + STUCK),
            _ => None,
        }
    }

    /// A memif client connects in `start` only, so it must be stopped first; a server listens all the time.
    fn stop(&self) {
        if self.reconnect {
            // SAFETY: the port is open; the line is down, so no burst runs, and the driver's callbacks run in this
            // thread only.
            unsafe { dpdk_sys::mdpdk_port_stop(self.id) };
        }
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

fn ring(fd: &OwnedFd) {
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

/// A link change is under way or wants to be.
const PASS: u32 = 1;
/// The link is down: no burst may touch the port.
const DOWN: u32 = 2;
/// Between two attempts to connect.
const RETRY: Duration = Duration::from_millis(50);
/// An attempt without an end is given up after this.
const STUCK: Duration = Duration::from_millis(500);
/// Between two looks at a thread that does not hurry.
const NAP: Duration = Duration::from_micros(50);
/// After this a wait is worth a line in the log.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two passes when there is no epoll descriptor to wait on.
const BLIND: Duration = Duration::from_millis(10);
