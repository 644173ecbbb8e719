//! The real binary, over memif, without root and without huge pages. Waits poll for a condition with a bound that only a
//! broken program reaches.
#![allow(dead_code, unused_imports, reason = "each test uses a part")]
#![allow(clippy::result_large_err, reason = "attach errors carry their sentence; once per test")]

mod socket;

use std::fs;
use std::os::fd::{AsRawFd, FromRawFd};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use machnet_shm::{AppEnd, AttachError, ClientHello, Fd, Welcome};

pub use socket::{
    answer, attach_as, attach_over, connect, hello, pair, send, wait_readable, wait_readable_fd,
};

/// A folder and a sidecar in it; both go with the test.
pub struct Sidecar {
    pub child: Child,
    pub folder: Folder,
    log: fs::File,
}

/// A file of this process alone.
fn nameless_file() -> fs::File {
    // SAFETY: the name is a C string; the descriptor is new, and owned by nobody else.
    unsafe {
        let raw = libc::memfd_create(c"log".as_ptr(), libc::MFD_CLOEXEC);
        assert!(raw >= 0, "a file in memory");
        fs::File::from_raw_fd(raw)
    }
}

/// Goes with the test.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("machnetd-test-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder for the test");
        Folder(path)
    }

    pub fn socket(&self) -> PathBuf {
        self.0.join("ctl.sock")
    }

    pub fn command(&self, flags: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_machnetd"));
        command.args(["--ip", "10.0.0.1/24", "--socket"]).arg(self.socket());
        if !flags.contains(&"--vdev") {
            command.arg("--memif").arg(format!("server:{}", self.0.join("link.sock").display()));
        }
        command.args(flags).stdin(Stdio::null());
        command
    }

    /// Runs one that ends by itself.
    pub fn run(&self, flags: &[&str]) -> Output {
        let mut command = self.command(flags);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("machnetd runs");
        let pid = child.id() as i32;
        let (ended, watch) = std::sync::mpsc::channel::<()>();
        // One that does not end is ended, and its exit code shows it.
        let guard = std::thread::spawn(move || {
            if watch.recv_timeout(PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                // SAFETY: no pointers; the child is not waited for before `ended` is dropped.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
        });
        let output = child.wait_with_output().expect("its output");
        drop(ended);
        guard.join().expect("the guard");
        output
    }

    pub fn names(&self) -> Vec<String> {
        let names = fs::read_dir(&self.0).expect("the folder").flatten();
        names.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Sidecar {
    pub fn start(name: &str, flags: &[&str]) -> Sidecar {
        Sidecar::start_in(Folder::new(name), flags)
    }

    pub fn start_in(folder: Folder, flags: &[&str]) -> Sidecar {
        Sidecar::of(folder.command(flags), folder)
    }

    /// Of a process whose standard error goes elsewhere, and which may not answer yet.
    pub fn unheard(child: Child, folder: Folder) -> Sidecar {
        Sidecar { child, folder, log: nameless_file() }
    }

    /// Of a command that starts one in this folder.
    pub fn of(mut command: Command, folder: Folder) -> Sidecar {
        let log = nameless_file();
        let copy = log.try_clone().expect("another descriptor");
        let child = command.stderr(copy).spawn().expect("machnetd starts");
        let sidecar = Sidecar { child, folder, log };
        // The file alone may be a dead one's.
        sidecar.until("it answers", |s| connect(&s.folder.socket()).is_ok());
        sidecar
    }

    /// All that it has logged so far. It writes into a file: what it did after a line was logged is never seen before the line, as it could
    /// be where somebody has to copy the lines out of a pipe.
    pub fn log(&self) -> String {
        // By a description of our own: the position of the one that the sidecar writes at stays.
        let path = format!("/proc/self/fd/{}", self.log.as_raw_fd());
        fs::read_to_string(path).expect("its log")
    }

    /// Waits until the condition holds.
    #[track_caller]
    pub fn until(&self, what: &str, condition: impl Fn(&Sidecar) -> bool) {
        let begun = Instant::now();
        while !condition(self) {
            assert!(begun.elapsed() < PATIENCE, "after {PATIENCE:?}, not so: {what}; log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: no pointers; the child has not been waited for, so its number is its own.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    /// Waits for its end; the exit code.
    pub fn end(&mut self) -> Option<i32> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("its state") {
                return status.code();
            }
            assert!(begun.elapsed() < PATIENCE, "it does not end; log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn attach(&self, engine: Option<u32>) -> Result<(AppEnd, Welcome, Fd), AttachError> {
        self.attach_saying(ClientHello { engine, group: 0 })
    }

    /// A channel of an application that has several.
    pub fn attach_in(&self, group: u32) -> Result<(AppEnd, Welcome, Fd), AttachError> {
        self.attach_saying(ClientHello { engine: None, group })
    }

    fn attach_saying(&self, asked: ClientHello) -> Result<(AppEnd, Welcome, Fd), AttachError> {
        let socket = connect(&self.folder.socket()).expect("the control socket");
        attach_over(socket, asked)
    }

    /// The answer to a question at the control socket.
    pub fn ask(&self, question: &str) -> String {
        let socket = connect(&self.folder.socket()).expect("the control socket");
        send(&socket, question.as_bytes());
        answer(&socket)
    }

    /// The counters as JSON.
    pub fn stats(&self) -> String {
        self.ask(r#"{"version":1,"query":"stats"}"#)
    }

    /// The channels as JSON.
    pub fn channels(&self) -> String {
        self.ask(r#"{"version":1,"query":"channels"}"#)
    }

    /// Processor time used so far, of all threads.
    pub fn cpu(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("its threads").flatten();
        let nanos = tasks.filter_map(|task| {
            let line = fs::read_to_string(task.path().join("schedstat")).ok()?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanos.sum())
    }

    pub fn counter(&self, name: &str) -> u64 {
        let stats = self.stats();
        let at = stats.find(&format!("\"{name}\":")).expect("the counter") + name.len() + 3;
        let digits: String = stats[at..].chars().take_while(char::is_ascii_digit).collect();
        digits.parse().expect("a number")
    }

    /// Mappings of channels.
    pub fn mappings(&self) -> usize {
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.child.id())).expect("its mappings");
        maps.lines().filter(|line| line.contains("memfd:machnet")).count()
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Longer than anything takes on a machine that is busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(20);
