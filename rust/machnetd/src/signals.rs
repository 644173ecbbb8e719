//! Signals: the end (SIGINT, SIGTERM, SIGHUP, by `ctrlc`) and a wish for the counters (SIGUSR1, by a descriptor).

use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};

/// What the control thread polls.
pub struct Signals {
    end: UnixStream,
    dump: OwnedFd,
}

static ENDING: AtomicBool = AtomicBool::new(false);
static HURRIED: AtomicBool = AtomicBool::new(false);

impl Signals {
    /// Takes over the process's signals. Called before any thread starts: the others inherit what is blocked here.
    ///
    /// # Errors
    /// The system refused one of the steps.
    pub fn take_over() -> Result<Signals, String> {
        let failed = |step: &'static str| move |error: std::io::Error| format!("signals: {step}: {error}");
        // SAFETY: SIG_IGN is a valid disposition and no handler code is involved.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
        let dump = signalfd(libc::SIGUSR1).map_err(failed("receive SIGUSR1"))?;
        let (end, far) = UnixStream::pair().map_err(failed("make a pair of sockets"))?;
        ctrlc::set_handler(move || {
            if ENDING.swap(true, Ordering::AcqRel) {
                HURRIED.store(true, Ordering::Release);
            }
            // One byte per signal; nobody sends so many that it blocks.
            let _ = (&far).write(&[1]);
        })
        .map_err(|error| format!("signals: take over SIGINT, SIGTERM and SIGHUP: {error}"))?;
        Ok(Signals { end, dump })
    }

    /// Becomes readable when the process shall end.
    pub fn end_fd(&self) -> RawFd {
        self.end.as_raw_fd()
    }

    /// Becomes readable when the counters are wanted.
    pub fn dump_fd(&self) -> RawFd {
        self.dump.as_raw_fd()
    }

    /// Whether the process shall end.
    pub fn ending(&self) -> bool {
        ENDING.load(Ordering::Acquire)
    }

    /// Whether it was told so again: it shall end at once.
    pub fn hurried(&self) -> bool {
        HURRIED.load(Ordering::Acquire)
    }

    /// Whether the counters were wanted since the last call.
    pub fn dump_wanted(&self) -> bool {
        let mut info = std::mem::MaybeUninit::<libc::signalfd_siginfo>::uninit();
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: `info` is writable for `size` bytes; the descriptor does not block.
        unsafe { libc::read(self.dump.as_raw_fd(), info.as_mut_ptr().cast(), size) == size as isize }
    }
}

fn signalfd(signal: libc::c_int) -> std::io::Result<OwnedFd> {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigemptyset` fills the set in before anything reads it; the old mask is not asked for.
    let fd = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), signal);
        libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
        libc::signalfd(-1, set.as_ptr(), libc::SFD_NONBLOCK | libc::SFD_CLOEXEC)
    };
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: just made, and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
