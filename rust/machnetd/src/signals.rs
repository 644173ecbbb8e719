//! Signals: SIGINT and SIGTERM end the process (`ctrlc`); SIGHUP, which asks for the settings to be read again, and SIGUSR1, which asks
//! for the counters in the log, are read from a descriptor. Those that need nothing done are ignored.

use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};

/// What the control thread polls.
pub struct Signals {
    end: UnixStream,
    requests: OwnedFd,
}

/// What a signal asks of a running sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// The counters in the log.
    Dump,
    /// The settings read again.
    Reload,
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
        // As a container's first process it inherits those whose parents ended; ignored, their ends leave no zombies. It has no children of its own.
        for signal in [libc::SIGPIPE, libc::SIGCHLD] {
            // SAFETY: SIG_IGN is a valid disposition and no handler code is involved.
            unsafe { libc::signal(signal, libc::SIG_IGN) };
        }
        // Blocked, SIGHUP does not reach `ctrlc`, which takes it for the end.
        let requests =
            signalfd(&[libc::SIGUSR1, libc::SIGHUP]).map_err(failed("receive SIGUSR1 and SIGHUP"))?;
        let (end, far) = UnixStream::pair().map_err(failed("make a pair of sockets"))?;
        ctrlc::set_handler(move || {
            if ENDING.swap(true, Ordering::AcqRel) {
                HURRIED.store(true, Ordering::Release);
            }
            // One byte per signal; nobody sends so many that it blocks.
            let _ = (&far).write(&[1]);
        })
        .map_err(|error| format!("signals: take over SIGINT and SIGTERM: {error}"))?;
        Ok(Signals { end, requests })
    }

    /// Becomes readable when the process shall end.
    pub fn end_fd(&self) -> RawFd {
        self.end.as_raw_fd()
    }

    /// Becomes readable when there is a request.
    pub fn requests_fd(&self) -> RawFd {
        self.requests.as_raw_fd()
    }

    /// Whether the process shall end.
    pub fn ending(&self) -> bool {
        ENDING.load(Ordering::Acquire)
    }

    /// Whether it was told so again: it shall end at once.
    pub fn hurried(&self) -> bool {
        HURRIED.load(Ordering::Acquire)
    }

    /// The oldest request that was not yet returned.
    pub fn next_request(&self) -> Option<Request> {
        let mut info = std::mem::MaybeUninit::<libc::signalfd_siginfo>::uninit();
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: `info` is writable for `size` bytes; the descriptor does not block.
        let read = unsafe { libc::read(self.requests.as_raw_fd(), info.as_mut_ptr().cast(), size) };
        if read != size as isize {
            return None;
        }
        // SAFETY: the kernel has filled it in.
        let signal = unsafe { info.assume_init() }.ssi_signo;
        Some(if signal == libc::SIGHUP as u32 { Request::Reload } else { Request::Dump })
    }
}

fn signalfd(signals: &[libc::c_int]) -> std::io::Result<OwnedFd> {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigemptyset` fills the set in before anything reads it; the old mask is not asked for.
    let fd = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), *signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
        libc::signalfd(-1, set.as_ptr(), libc::SFD_NONBLOCK | libc::SFD_CLOEXEC)
    };
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: just made, and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
