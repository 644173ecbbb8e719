//! How a blocking call waits: look, sched_yield between looks for up to 50 us, then sleep in poll(2).
//!
//! Yielding hands a shared core to the engine in under a microsecond; sleeping at once costs 30 to 60 us per message,
//! and spinning without yielding costs whole time slices where cores are shared.

/// The wait of one call.
pub struct Patience {
    until: u64,
}

/// What woke a sleeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Woken {
    /// The doorbell rang, or was hung up.
    pub bell: bool,
    /// The control socket has something: only its end comes there.
    pub socket: bool,
}

impl Patience {
    /// Begins to wait.
    pub fn new() -> Self {
        Self { until: now().saturating_add(YIELD) }
    }

    /// Yields once; `false` when it is time to sleep instead.
    pub fn yielded(&mut self) -> bool {
        yielded();
        now() < self.until
    }
}

/// Lets others run.
pub fn yielded() {
    // SAFETY: sched_yield touches no memory.
    unsafe { libc::sched_yield() };
}

/// Nanoseconds of the monotonic clock.
pub fn now() -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `t` is a timespec to be written. The monotonic clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut t) };
    (t.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(t.tv_nsec as u64)
}

/// Sleeps until one of the two descriptors is readable or hung up, or `timeout` milliseconds (negative: for ever) are over. A negative
/// descriptor is left out.
pub fn sleep(bell: i32, socket: i32, timeout: i32) -> Woken {
    let entry = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let mut both = [entry(bell), entry(socket)];
    // SAFETY: two entries, as said. A failure (EINTR) leaves revents 0: the caller looks again.
    let ready = unsafe { libc::poll(both.as_mut_ptr(), 2, timeout) };
    Woken { bell: ready > 0 && both[0].revents != 0, socket: ready > 0 && both[1].revents != 0 }
}

/// How long to yield before sleeping, nanoseconds. Waking a sleeping core costs about as much.
const YIELD: u64 = 50_000;
