//! Doorbells: pipes by which one end of a channel wakes the other.
//!
//! The system calls here are plain ones, made without the C library's functions: at those a cancelled thread of the application may
//! end (pthread_cancel), which must not happen in the middle of this library.

use crate::memory::Fd;
#[cfg(feature = "engine")]
use crate::memory::SystemError;

/// What a doorbell had to say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rung {
    /// Nothing.
    Silent,
    /// The peer has rung.
    Rang,
    /// The peer's end is closed.
    HungUp,
}

/// A pipe for a doorbell, non-blocking at both ends: (read end, write end). A pipe's ends are descriptions of their own, so
/// that whoever gets one end cannot make the other block.
#[cfg(feature = "engine")]
pub(crate) fn pipe() -> Result<(Fd, Fd), SystemError> {
    let mut ends = [0i32; 2];
    // SAFETY: `ends` has room for two descriptors.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC) } < 0 {
        return Err(SystemError::last("make a doorbell"));
    }
    Ok((Fd::own(ends[0]), Fd::own(ends[1])))
}

/// Rings: one byte. A full pipe is loud enough, and a closed one is noticed through the socket.
pub(crate) fn ring(bell: &Fd) {
    let byte = [1u8];
    // SAFETY: `byte` is readable for its length.
    unsafe { libc::syscall(libc::SYS_write, bell.raw(), byte.as_ptr(), 1) };
}

/// Runs `write`; a SIGPIPE that it raises in this thread is taken away again, also where the thread holds signals off already, as a call
/// that waits does: it would meet the thread once it lets them in. Three cheap system calls beside one that wakes a process; the
/// kernel has a flag for it (RWF_NOSIGNAL) only since 6.18.
pub(crate) fn without_sigpipe(write: impl FnOnce()) {
    // SAFETY: all zero is a valid `sigset_t`, and `sigemptyset` sets it anyhow; all pointers are to live values of the
    // right types. Only this thread's mask is changed, and changed back.
    unsafe {
        let mut pipe: libc::sigset_t = core::mem::zeroed();
        let mut before: libc::sigset_t = core::mem::zeroed();
        let mut pending: libc::sigset_t = core::mem::zeroed();
        libc::sigemptyset(&raw mut pipe);
        libc::sigaddset(&raw mut pipe, libc::SIGPIPE);
        if libc::pthread_sigmask(libc::SIG_BLOCK, &raw const pipe, &raw mut before) != 0 {
            return; // not rung: better than killed
        }
        let mut waits = || {
            libc::sigpending(&raw mut pending);
            libc::sigismember(&raw const pending, libc::SIGPIPE) == 1
        };
        let others = waits();
        write();
        // One that waits now and did not before is ours.
        if !others && waits() {
            let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            // A set of 64 signals is eight bytes.
            let none = core::ptr::null_mut::<libc::siginfo_t>();
            libc::syscall(libc::SYS_rt_sigtimedwait, &raw const pipe, none, &raw const now, 8);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, core::ptr::null_mut());
    }
}

/// Empties a doorbell, and says what there was.
pub fn drain(bell: i32) -> Rung {
    let mut bytes = [0u8; 256];
    let mut rung = Rung::Silent;
    // An honest peer rings once for each time that this end armed. One that writes without end must not keep us here; what it leaves in
    // the pipe wakes us again.
    for _ in 0..8 {
        // SAFETY: `bytes` is writable for its length.
        let n = unsafe { libc::syscall(libc::SYS_read, bell, bytes.as_mut_ptr(), bytes.len()) };
        if n == 0 {
            return Rung::HungUp;
        }
        if n > 0 {
            rung = Rung::Rang;
        }
        // Less than asked for: empty now. An error is EAGAIN (empty) or EINTR (it will be readable again).
        if n < bytes.len() as libc::c_long {
            break;
        }
    }
    rung
}
