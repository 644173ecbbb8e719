//! The few system calls, and everything unsafe but the C functions themselves.

use std::io::Error;
use std::os::fd::RawFd;

use machnet_host::Owner;
use machnet_shm::Fd;

/// A connected pair of sockets for attaching.
pub fn socketpair() -> Result<(Fd, Fd), Error> {
    let mut ends = [0; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: `ends` has room for two descriptors.
    if unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()) } < 0 {
        return Err(Error::last_os_error());
    }
    Ok((Fd::own(ends[0]), Fd::own(ends[1])))
}

/// A copy of the caller's socket. It does not block, and neither does the caller's from here on: they share that.
pub fn copy(socket: RawFd) -> Option<Fd> {
    // SAFETY: these touch descriptors alone; a number that is none is refused.
    let copy = unsafe { libc::fcntl(socket, libc::F_DUPFD_CLOEXEC, 0) };
    let copy = (copy >= 0).then(|| Fd::own(copy))?;
    // SAFETY: as above.
    let set = unsafe {
        libc::fcntl(copy.raw(), libc::F_SETFL, libc::fcntl(copy.raw(), libc::F_GETFL) | libc::O_NONBLOCK)
    };
    (set >= 0).then_some(copy)
}

/// This process, which all applications here are.
pub fn owner() -> Owner {
    // SAFETY: no arguments, and neither call can fail.
    unsafe { Owner { pid: libc::getpid(), uid: libc::getuid() } }
}

/// Sleeps until one of the descriptors is readable, at most `nanos` nanoseconds.
pub fn sleep(fds: &[RawFd], nanos: u64) {
    let mut polls: Vec<_> =
        fds.iter().map(|&fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 }).collect();
    let time = libc::timespec { tv_sec: (nanos / 1_000_000_000) as _, tv_nsec: (nanos % 1_000_000_000) as _ };
    // SAFETY: `polls` holds as many entries as told, `time` is readable, a null mask changes none. An error is an early end.
    unsafe {
        libc::ppoll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, &raw const time, std::ptr::null())
    };
}

/// Runs `start` with all signals blocked but those that a fault of this very thread raises, and puts the mask back. A
/// thread that `start` makes inherits the mask: signals of the program (Go's preemption, SIGINT) never land on it.
pub fn without_signals<T>(start: impl FnOnce() -> T) -> T {
    // SAFETY: all zero is a valid signal set; the calls touch these two sets only.
    let before = unsafe {
        let (mut blocked, mut before) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&raw mut blocked);
        for own in [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGABRT] {
            libc::sigdelset(&raw mut blocked, own);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const blocked, &raw mut before);
        before
    };
    let started = start();
    // SAFETY: the mask that was in force before.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut()) };
    started
}
