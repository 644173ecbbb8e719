//! How the kernel schedules an engine's thread: its time slice, and whether it comes before all ordinary threads.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

/// How engines' threads are scheduled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scheduler {
    /// As all threads are.
    #[default]
    Normal,
    /// SCHED_RR at the lowest priority: before all ordinary threads, as soon as it has something to do.
    RoundRobin,
}

/// Gives the calling thread this scheduler.
///
/// # Errors
/// The process may not: neither CAP_SYS_NICE, nor a limit on real-time priorities (RLIMIT_RTPRIO) above 0.
pub fn begin(scheduler: Scheduler) -> io::Result<()> {
    match scheduler {
        Scheduler::Normal => Ok(()),
        Scheduler::RoundRobin => {
            let first = libc::sched_param { sched_priority: 1 };
            // SAFETY: `first` is readable; 0 is the calling thread.
            check(unsafe { libc::sched_setscheduler(0, libc::SCHED_RR, &raw const first) })
        }
    }
}

/// Whether this process may give its threads this scheduler: tried by one that ends at once.
///
/// # Errors
/// As [`begin`]'s.
pub fn try_out(scheduler: Scheduler) -> io::Result<()> {
    if scheduler == Scheduler::Normal {
        return Ok(());
    }
    let tried = std::thread::Builder::new().spawn(move || begin(scheduler))?;
    tried.join().unwrap_or_else(|_| Err(io::Error::other("the thread that tried it panicked")))
}

/// What to do where [`begin`] is refused.
pub const REMEDY: &str = "grant CAP_SYS_NICE or a limit (ulimit -r) of 1, or leave out engines.scheduler";

/// Beside a hog: short time slices for the calling thread, so that the kernel lets it run sooner when it wakes; else those that threads
/// usually have, which cost less switching. No privilege is needed. A kernel that has no such slices (before 6.12) ignores it.
pub fn short_slice(wanted: bool) {
    if let Err(error) = set_slice(if wanted { SHORT } else { 0 })
        && !TOLD.swap(true, Ordering::Relaxed)
    {
        log::info!("engines keep their usual time slices beside busy threads: {error}");
    }
}

static TOLD: AtomicBool = AtomicBool::new(false);

/// Gives the calling thread, if it is an ordinary one, time slices of so many nanoseconds; 0: the usual ones.
fn set_slice(nanoseconds: u64) -> io::Result<()> {
    let size = size_of::<Attributes>() as libc::c_uint;
    let mut attributes = Attributes { size, ..Attributes::default() };
    // SAFETY: `attributes` is writable and as large as told; 0 is the calling thread.
    check(unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) } as libc::c_int)?;
    if attributes.policy != libc::SCHED_OTHER as u32 {
        return Ok(());
    }
    attributes.runtime = nanoseconds;
    // SAFETY: `attributes` is readable and as large as it says.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) } as libc::c_int)
}

fn check(ret: libc::c_int) -> io::Result<()> {
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The kernel's `struct sched_attr`, in its first version.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    /// Of an ordinary thread: its slice, nanoseconds.
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// The shortest slice that the kernel takes, nanoseconds.
const SHORT: u64 = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes() -> Attributes {
        let mut found = Attributes::default();
        let size = size_of::<Attributes>() as libc::c_uint;
        // SAFETY: as in `set_slice`.
        let ret = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut found, size, 0) };
        assert_eq!(ret, 0, "{}", io::Error::last_os_error());
        found
    }

    #[test]
    fn a_slice_changes_nothing_else_of_a_thread_and_a_real_time_thread_has_none() {
        // A thread of its own: what is set here stays.
        let test = || {
            let before = attributes();
            set_slice(SHORT).unwrap();
            let beside = attributes();
            assert_eq!((beside.policy, beside.nice), (before.policy, before.nice));
            // An older kernel tells 0.
            assert!([0, SHORT].contains(&beside.runtime), "{}", beside.runtime);
            set_slice(0).unwrap();
            assert_ne!(attributes().runtime, SHORT);
            match begin(Scheduler::RoundRobin) {
                Ok(()) => {
                    set_slice(SHORT).unwrap();
                    assert_eq!(attributes().policy, libc::SCHED_RR as u32, "still real-time");
                }
                Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EPERM)),
            }
        };
        std::thread::spawn(test).join().unwrap();
    }
}
