//! DPDK's log: every line goes to `log` under the target `dpdk`, and the last complaints are kept, so that an error
//! can say in DPDK's own words what went wrong.

use std::collections::VecDeque;
use std::ffi::{c_char, c_int};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::Mutex;

/// The last warnings and errors, numbered since the start.
struct Recent {
    lines: VecDeque<(u64, String)>,
    next: u64,
    /// A line whose end has not come yet: DPDK may write one in pieces.
    partial: String,
    /// While EAL starts: lines that wait to be logged, see [`quietly`].
    held: Option<Vec<(c_int, String)>>,
}

static RECENT: Mutex<Recent> =
    Mutex::new(Recent { lines: VecDeque::new(), next: 0, partial: String::new(), held: None });

/// A place in the log, to ask later what was said since.
pub(super) struct Mark(u64);

impl Mark {
    pub(super) fn now() -> Mark {
        Mark(lock().next)
    }

    /// Complaints since the mark, oldest first, joined; at most four, since the first ones carry the reason. What is
    /// logged in normal operation, and what only repeats that something failed, is left out.
    pub(super) fn complaints(&self) -> String {
        let recent = lock();
        let lines = recent.lines.iter().filter(|(n, _)| *n >= self.0).map(|(_, line)| line.as_str());
        let lines = lines.filter(|line| !EXPECTED.iter().chain(&ECHOES).any(|said| line.contains(said)));
        let mut said: Vec<&str> = Vec::new();
        for line in lines {
            if said.len() < 4 && !said.contains(&line) {
                said.push(line);
            }
        }
        said.join("; ")
    }
}

/// Whether one of the last complaints holds these words.
pub(super) fn was_said(words: &str) -> bool {
    lock().lines.iter().any(|(_, line)| line.contains(words))
}

/// Sends DPDK's log here from now on; before EAL starts, or its first lines go to stderr.
pub(super) fn take_over() {
    // SAFETY: `sink` stays valid for ever and takes any thread; called before EAL starts, so nobody logs meanwhile.
    let taken = unsafe { dpdk_sys::mdpdk_log_to(Some(sink)) };
    if taken != 0 {
        log::warn!(target: "dpdk", "DPDK's log cannot be captured (error {taken}); it goes to stderr");
    }
}

/// Runs `start`, which starts EAL: it writes some messages to stderr instead of its log. They are caught and logged; what
/// others write there meanwhile still goes to stderr. Lines of the log wait until `start` returns, since the logger
/// may write to stderr too.
pub(super) fn quietly<T>(start: impl FnOnce() -> T) -> T {
    lock().held = Some(Vec::new());
    let caught = Stderr::redirect();
    let result = start();
    let words = caught.map(Stderr::restore).unwrap_or_default();
    for line in words.lines() {
        // EAL's own, and those of the C library about EAL's arguments, by the name that we gave the program.
        if line.starts_with("EAL:") || line.starts_with("machnet:") {
            append(ERROR, &format!("{line}\n"));
        } else {
            let _ = std::io::stderr().lock().write_all(format!("{line}\n").as_bytes());
        }
    }
    for (level, line) in lock().held.take().unwrap_or_default() {
        say(level, &line);
    }
    result
}

/// The process's stderr, turned into a file in memory.
struct Stderr {
    own: File,
    caught: File,
}

impl Stderr {
    /// `None` where that is impossible: then EAL's messages stay on stderr.
    fn redirect() -> Option<Stderr> {
        // SAFETY: the name is a C string; descriptors that come back are ours alone.
        unsafe {
            let caught = libc::memfd_create(c"stderr".as_ptr(), libc::MFD_CLOEXEC);
            let caught = (caught >= 0).then(|| File::from_raw_fd(caught))?;
            let own = libc::fcntl(2, libc::F_DUPFD_CLOEXEC, 3);
            let own = (own >= 0).then(|| File::from_raw_fd(own))?;
            (libc::dup2(caught.as_raw_fd(), 2) >= 0).then_some(Stderr { own, caught })
        }
    }

    /// Puts it back and returns what was written.
    fn restore(mut self) -> String {
        // SAFETY: both descriptors are open.
        unsafe { libc::dup2(self.own.as_raw_fd(), 2) };
        let mut bytes = Vec::new();
        let _ = self.caught.rewind().and_then(|()| self.caught.read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

extern "C" fn sink(level: c_int, text: *const c_char, len: usize) {
    if text.is_null() {
        return;
    }
    // SAFETY: the C library passes `len` readable bytes that live through this call.
    let bytes = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), len) };
    // A panic must not cross into C; losing a log line is the smaller harm.
    let _ = std::panic::catch_unwind(|| append(level, &String::from_utf8_lossy(bytes)));
}

fn append(level: c_int, text: &str) {
    let mut whole: Vec<(c_int, String)> = Vec::new();
    {
        let mut recent = lock();
        recent.partial.push_str(text);
        while let Some(end) = recent.partial.find('\n') {
            let line: String = recent.partial.drain(..=end).collect();
            let line = line.trim();
            if line.is_empty() {
                continue;
            }
            if level <= WARNING {
                let number = recent.next;
                recent.next += 1;
                recent.lines.push_back((number, line.to_owned()));
                if recent.lines.len() > KEEP {
                    recent.lines.pop_front();
                }
            }
            whole.push((level, line.to_owned()));
        }
        if let Some(held) = &mut recent.held {
            held.append(&mut whole);
        }
    }
    // Outside the lock: the logger is the application's and may take its time.
    whole.iter().for_each(|(level, line)| say(*level, line));
}

fn say(level: c_int, line: &str) {
    log::log!(target: "dpdk", severity(level, line), "{line}");
}

/// The level at which we log a line of DPDK's.
fn severity(level: c_int, line: &str) -> log::Level {
    // A memif client whose server is not there logs that at every attempt, twenty times a second.
    if EXPECTED.iter().any(|said| line.contains(said)) {
        return log::Level::Trace;
    }
    match level {
        ..=ERROR => log::Level::Error,
        WARNING => log::Level::Warn,
        6 | 7 => log::Level::Debug,
        _ => log::Level::Trace,
    }
}

fn lock() -> std::sync::MutexGuard<'static, Recent> {
    RECENT.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// DPDK's level of errors; smaller is worse.
const ERROR: c_int = 4;
/// And of warnings.
const WARNING: c_int = 5;
/// Complaints remembered.
const KEEP: usize = 64;
/// What DPDK complains of in normal operation: that a driver has no receive interrupt, which we only asked; and of memif that no
/// secondary process can join us, that a client's server is not there yet, that a port is stopped before it starts again, that
/// a peer leaves.
const EXPECTED: [&str; 5] = [
    "Rx Intr handle unset",
    "Failed to register mp action callback",
    "Failed to connect socket",
    "Device with port_id=",
    "Invalid message size",
];

/// What EAL adds when a driver has refused a device.
const ECHOES: [&str; 2] = ["Driver cannot attach the device", "Failed to attach device on primary process"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_since_a_mark_are_whole_lines_without_what_is_always_said() {
        append(4, "EAL: before\n");
        let mark = Mark::now();
        append(7, "EAL: Detected CPU lcores: 2\n");
        append(4, "EAL: cannot ");
        append(4, "open it\nEAL: second\n");
        append(4, "Rx Intr handle unset\nEAL: Failed to attach device on primary process\nEAL: second\n");
        assert_eq!(mark.complaints(), "EAL: cannot open it; EAL: second");
    }

    #[test]
    fn a_server_that_is_not_there_yet_is_no_error() {
        assert_eq!(severity(4, "memif_connect_client(): Failed to connect socket: /x."), log::Level::Trace);
        assert_eq!(severity(4, "EAL: no memory"), log::Level::Error);
    }
}
