//! How a blocking call waits: look, sched_yield between looks for up to 50 us, then sleep in ppoll(2); at once where a thread beside it keeps
//! the core busy ([`Hogs`]).
//!
//! Yielding hands a shared core to the engine in under a microsecond; sleeping at once costs 30 to 60 us per message,
//! and spinning without yielding costs whole time slices where cores are shared.
//!
//! Signals: a thread that waits holds them off while it looks, and lets them in while it sleeps, so that none comes in between and leaves
//! it asleep. Every call of the system here is a plain one: the C library's are points where a cancelled thread ends, which
//! must not happen in the middle of Rust, with a direction taken.
use crate::hogs::Hogs;
use core::mem::MaybeUninit;
use core::ptr::{null, null_mut};

/// The wait of one call.
pub struct Patience<'a> {
    hogs: &'a Hogs,
    until: u64,
    /// The clock, as read last.
    now: u64,
    /// The thread's signal mask while we hold signals off.
    mask: Option<libc::sigset_t>,
}

/// What woke a sleeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Woken {
    /// The doorbell rang, or was hung up.
    pub bell: bool,
    /// The control socket has something: only its end comes there.
    pub socket: bool,
    /// A signal's handler ran that may not have asked for calls to go on (SA_RESTART).
    pub signal: bool,
}

impl<'a> Patience<'a> {
    /// Begins to wait.
    pub fn new(hogs: &'a Hogs) -> Self {
        let now = now();
        Self { hogs, until: now.saturating_add(YIELD), now, mask: None }
    }

    /// Yields once; `false` when it is time to sleep instead.
    pub fn yielded(&mut self) -> bool {
        if self.mask.is_none() {
            self.mask = Some(hold());
        }
        if self.hogs.alarmed(self.now) {
            return false;
        }
        yielded();
        let began = core::mem::replace(&mut self.now, now());
        self.hogs.yielded(began, self.now);
        self.now < self.until
    }

    /// Waits anew, in the same call.
    pub fn renew(&mut self) {
        self.now = now();
        self.until = self.now.saturating_add(YIELD);
    }

    /// Sleeps until one of the two descriptors is readable or hung up, a signal comes, or the clock shows `until` nanoseconds. A
    /// negative descriptor is left out.
    pub fn sleep(&self, bell: i32, socket: i32, until: Option<u64>) -> Woken {
        let entry = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut both = [entry(bell), entry(socket)];
        let mut left = until.map(|until| {
            let left = until.saturating_sub(now());
            libc::timespec { tv_sec: (left / SECOND) as _, tv_nsec: (left % SECOND) as _ }
        });
        let timeout = left.as_mut().map_or(null_mut(), |left| &raw mut *left);
        let mask = self.mask.as_ref().map_or(null(), |mask| &raw const *mask);
        // SAFETY: two entries, as said; `timeout` and `mask` are null or point to live values; a set of 64 signals is eight bytes.
        let ready = unsafe { libc::syscall(libc::SYS_ppoll, both.as_mut_ptr(), 2, timeout, mask, 8) };
        Woken {
            bell: ready > 0 && both[0].revents != 0,
            socket: ready > 0 && both[1].revents != 0,
            signal: ready < 0 && ends_calls(),
        }
    }
}

impl Drop for Patience<'_> {
    fn drop(&mut self) {
        if let Some(mask) = &self.mask {
            // SAFETY: `mask` is what `hold` got.
            unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, null_mut()) };
        }
    }
}

/// Holds signals off in this thread, but for those that its own instructions raise. The mask before.
fn hold() -> libc::sigset_t {
    let (mut all, mut before) = (MaybeUninit::uninit(), MaybeUninit::<libc::sigset_t>::zeroed());
    // SAFETY: `sigfillset` makes `all` a set, which the calls after it change and read; zeros are a set, `pthread_sigmask` or not.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        for own in RAISED {
            libc::sigdelset(all.as_mut_ptr(), own);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), before.as_mut_ptr());
        before.assume_init()
    }
}

/// After a sleep that a signal ended: whether any signal has a handler without SA_RESTART. poll(2) ends for every handler and does not tell
/// which it was, so a program that has handlers of both kinds hears of both.
fn ends_calls() -> bool {
    (1..=64).filter(|signal| !RAISED.contains(signal)).any(|signal| {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: `action` is writable; the C library refuses the numbers that are its own.
        let known = unsafe { libc::sigaction(signal, null(), action.as_mut_ptr()) } == 0;
        // SAFETY: all zero is a valid `sigaction`.
        let action = unsafe { action.assume_init() };
        let handled = !matches!(action.sa_sigaction, libc::SIG_DFL | libc::SIG_IGN);
        known && handled && action.sa_flags & libc::SA_RESTART == 0
    })
}

/// Signals that a thread's own instructions raise: never held off, and no reason to end a call.
const RAISED: [i32; 6] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS];

/// Lets others run.
pub fn yielded() {
    // SAFETY: sched_yield touches no memory.
    unsafe { libc::sched_yield() };
}

/// Sleeps for a moment.
pub fn nap() {
    let moment = libc::timespec { tv_sec: 0, tv_nsec: YIELD as _ };
    // SAFETY: `moment` is readable; null: what is left after a signal is not wanted.
    unsafe { libc::syscall(libc::SYS_nanosleep, &raw const moment, null_mut::<libc::timespec>()) };
}

/// Nanoseconds of the monotonic clock.
pub fn now() -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `t` is a timespec to be written. The monotonic clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut t) };
    (t.tv_sec as u64).saturating_mul(SECOND).saturating_add(t.tv_nsec as u64)
}

/// How long to yield before sleeping, nanoseconds. Waking a sleeping core costs about as much.
pub(crate) const YIELD: u64 = 50_000;
const SECOND: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beside_a_hog_a_wait_sleeps_at_once_and_holds_signals_off_until_then() {
        let hogs = Hogs::default();
        let patient = || {
            let mut patience = Patience::new(&hogs);
            patience.until = u64::MAX;
            patience
        };
        assert!(patient().yielded(), "there is time to look");
        let (now, slice) = (now(), 4_000_000);
        hogs.yielded(now - 2 * slice, now - slice);
        hogs.yielded(now - slice, now + SECOND);
        let mut patience = patient();
        assert!(!patience.yielded(), "an alarm");
        patience.renew();
        assert!(!patience.yielded(), "and after each sleep");
        assert!(patience.mask.is_some());
    }
}
