//! The real binary, over memif, without root and without huge pages. Waits poll for a condition with a bound that only a
//! broken program reaches.
#![allow(clippy::result_large_err, reason = "attach errors carry their sentence; once per test")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use machnet_shm::{AppEnd, AttachError, ClientAttach, Fd, FlowId, Status, Welcome};

/// A folder and a sidecar in it; both go with the test.
struct Sidecar {
    child: Child,
    folder: Folder,
    log: Arc<Mutex<String>>,
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("machnetd-test-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder for the test");
        Folder(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("ctl.sock")
    }

    fn command(&self, flags: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_machnetd"));
        command.args(["--ip", "10.0.0.1/24", "--socket"]).arg(self.socket());
        if !flags.contains(&"--vdev") {
            command.arg("--memif").arg(format!("server:{}", self.0.join("link.sock").display()));
        }
        command.args(flags).stdin(Stdio::null());
        command
    }

    /// Runs one that ends by itself.
    fn run(&self, flags: &[&str]) -> Output {
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

    fn names(&self) -> Vec<String> {
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
    fn start(name: &str, flags: &[&str]) -> Sidecar {
        Sidecar::start_in(Folder::new(name), flags)
    }

    fn start_in(folder: Folder, flags: &[&str]) -> Sidecar {
        let mut child = folder.command(flags).stderr(Stdio::piped()).spawn().expect("machnetd starts");
        let log = Arc::new(Mutex::new(String::new()));
        let (lines, copy) = (BufReader::new(child.stderr.take().expect("a pipe")), Arc::clone(&log));
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let mut log = copy.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        let sidecar = Sidecar { child, folder, log };
        // The file alone may be a dead one's.
        sidecar.until("it answers", |s| connect(&s.folder.socket()).is_ok());
        sidecar
    }

    fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until the condition holds.
    #[track_caller]
    fn until(&self, what: &str, condition: impl Fn(&Sidecar) -> bool) {
        let begun = Instant::now();
        while !condition(self) {
            assert!(begun.elapsed() < PATIENCE, "after {PATIENCE:?}, not so: {what}; log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn signal(&self, signal: i32) {
        // SAFETY: no pointers; the child has not been waited for, so its number is its own.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    /// Waits for its end; the exit code.
    fn end(&mut self) -> Option<i32> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("its state") {
                return status.code();
            }
            assert!(begun.elapsed() < PATIENCE, "it does not end; log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn attach(&self, engine: Option<u32>) -> Result<(AppEnd, Welcome, Fd), AttachError> {
        let socket = connect(&self.folder.socket()).expect("the control socket");
        attach_over(socket, engine)
    }

    /// The counters as JSON.
    fn stats(&self) -> String {
        let socket = connect(&self.folder.socket()).expect("the control socket");
        send(&socket, b"machnet-stats/1");
        wait_readable(&socket);
        let mut packet = vec![0u8; 1 << 20];
        // SAFETY: `packet` is writable for its length.
        let n = unsafe { libc::recv(socket.as_raw_fd(), packet.as_mut_ptr().cast(), packet.len(), 0) };
        assert!(n > 0, "no counters: {}", std::io::Error::last_os_error());
        packet.truncate(n as usize);
        String::from_utf8(packet).expect("text")
    }

    /// Processor time used so far, of all threads.
    fn cpu(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("its threads").flatten();
        let nanos = tasks.filter_map(|task| {
            let line = fs::read_to_string(task.path().join("schedstat")).ok()?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanos.sum())
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn connect(path: &Path) -> std::io::Result<OwnedFd> {
    let failed = std::io::Error::last_os_error;
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(failed());
    }
    // SAFETY: just made, and owned by nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all bits zero is an address with an empty path.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    for (to, from) in address.sun_path.iter_mut().zip(path.as_os_str().as_bytes()) {
        *to = *from as libc::c_char;
    }
    let size = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    // SAFETY: `address` is a whole address of `size` bytes.
    match unsafe { libc::connect(fd.as_raw_fd(), (&raw const address).cast(), size) } {
        0 => Ok(fd),
        _ => Err(failed()),
    }
}

fn send(socket: &OwnedFd, packet: &[u8]) {
    // SAFETY: `packet` is readable for its length.
    let n =
        unsafe { libc::send(socket.as_raw_fd(), packet.as_ptr().cast(), packet.len(), libc::MSG_NOSIGNAL) };
    assert_eq!(n, packet.len() as isize, "{}", std::io::Error::last_os_error());
}

/// Waits until there is something to read, or the end.
#[track_caller]
fn wait_readable(socket: &impl AsRawFd) {
    wait_readable_fd(socket.as_raw_fd());
}

#[track_caller]
fn wait_readable_fd(fd: i32) {
    let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, which lives through the call.
    let n = unsafe { libc::poll(&mut entry, 1, PATIENCE.as_millis() as i32) };
    assert_eq!(n, 1, "nothing to read within {PATIENCE:?}");
}

fn attach_over(socket: OwnedFd, engine: Option<u32>) -> Result<(AppEnd, Welcome, Fd), AttachError> {
    use std::os::fd::IntoRawFd;
    let mut attach = ClientAttach::new(Fd::own(socket.into_raw_fd()), engine)?;
    loop {
        if let Some((app, welcome)) = attach.step()? {
            return Ok((app, welcome, attach.into_socket()));
        }
        wait_readable_fd(attach.socket());
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn an_address_and_a_link_are_enough_to_serve() {
    let sidecar = Sidecar::start("least", &[]);
    let there = fs::symlink_metadata(sidecar.folder.socket()).unwrap();
    assert!(there.file_type().is_socket());
    assert_eq!(there.permissions().mode() & 0o7777, 0o660);

    let (_app, welcome, _life) = sidecar.attach(None).expect("attached");
    assert_eq!((welcome.ip.to_string(), welcome.mtu, welcome.engine), ("10.0.0.1".to_owned(), 1500, 0));
    assert_eq!(
        (welcome.geometry.units, welcome.geometry.flows, welcome.geometry.unit_size),
        (1024, 256, 1424)
    );
    sidecar.until("the channel is counted", |s| s.stats().contains(r#""channels":[{"channel":"#));
    let stats = sidecar.stats();
    assert!(stats.contains(&format!(r#""engine":0,"pid":{},"uid":"#, std::process::id())), "{stats}");
    assert!(stats.contains(r#""ip":"10.0.0.1""#) && stats.contains(r#""link_downs":0"#), "{stats}");
}

#[test]
fn the_mode_is_the_configured_one_whatever_the_umask() {
    let folder = Folder::new("mode");
    let mut command = folder.command(&["--mode", "0666"]);
    use std::os::unix::process::CommandExt;
    // SAFETY: `umask` is safe to call between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::umask(0o077);
            Ok(())
        })
    };
    let child = command.stderr(Stdio::null()).spawn().expect("machnetd starts");
    let sidecar = Sidecar { child, folder, log: Arc::default() };
    sidecar.until("it answers", |s| connect(&s.folder.socket()).is_ok());
    let mode = fs::symlink_metadata(sidecar.folder.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o666);
}

#[test]
fn an_application_that_leaves_loses_its_channel_at_once() {
    let sidecar = Sidecar::start("leaves", &[]);
    let (app, _, life) = sidecar.attach(None).expect("attached");
    sidecar.until("the channel is counted", |s| !s.stats().ends_with(r#""channels":[]}"#));
    drop((app, life));
    sidecar.until("the channel is gone", |s| s.stats().ends_with(r#""channels":[]}"#));
    sidecar.until("the log says so", |s| s.log().contains(&format!("process {} left", std::process::id())));
}

#[test]
fn what_cannot_be_had_is_refused_with_a_sentence() {
    let sidecar = Sidecar::start("refused", &["--engines", "2", "--max-channels", "2"]);
    let refused = |engine| match sidecar.attach(engine) {
        Err(AttachError::Refused(status, text)) => (status, text.as_str().to_owned()),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("attached"),
    };
    assert_eq!(
        refused(Some(2)),
        (Status::NoEngine, "there is no engine 2; this sidecar has 0 to 1".to_owned())
    );
    let first = sidecar.attach(None).expect("the first");
    let second = sidecar.attach(None).expect("the second");
    assert_ne!(first.1.engine, second.1.engine, "each engine gets one");
    let limit = "2 channels are attached, the sidecar's limit (control.max_channels)";
    assert_eq!(refused(None), (Status::NoResources, limit.to_owned()));
    drop(first);
    sidecar.until("there is room again", |s| s.attach(Some(1)).is_ok());
}

#[test]
fn another_version_is_told_both() {
    let sidecar = Sidecar::start("version", &[]);
    // What a newer client says: its hello, with another version (bytes 12..16 of the message).
    let (near, far) = pair();
    use std::os::fd::IntoRawFd;
    let mut newer = ClientAttach::new(Fd::own(near.into_raw_fd()), None).expect("a hello");
    let mut hello = [0u8; 256];
    // SAFETY: `hello` is writable for its length.
    let n = unsafe { libc::recv(far.as_raw_fd(), hello.as_mut_ptr().cast(), hello.len(), 0) } as usize;
    hello[12..16].copy_from_slice(&99u32.to_le_bytes());
    let socket = connect(&sidecar.folder.socket()).unwrap();
    send(&socket, &hello[..n]);
    wait_readable(&socket);
    let mut answer = [0u8; 1024];
    // SAFETY: `answer` is writable for its length.
    let n = unsafe { libc::recv(socket.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0) } as usize;
    send(&far, &answer[..n]);
    assert!(matches!(newer.step(), Err(AttachError::Version { .. })), "the client is told");
    sidecar.until("the log names both versions", |s| {
        s.log().contains("app speaks channel version 99") && s.log().contains("sidecar speaks 2 ")
    });
    sidecar.attach(None).expect("others are served");
}

#[test]
fn garbage_at_the_control_socket_harms_nobody() {
    let sidecar = Sidecar::start("garbage", &[]);
    let keep = sidecar.attach(None).expect("attached");
    for garbage in [&b"x"[..], &[0; 32], &[0xff; 300], b"machnet-stats/2"] {
        let socket = connect(&sidecar.folder.socket()).unwrap();
        send(&socket, garbage);
        wait_readable(&socket);
    }
    // One that speaks after attaching is cut off.
    let (_app, _, life) = sidecar.attach(None).expect("attached");
    // SAFETY: the descriptor is open and not closed by `OwnedFd`, which is forgotten.
    let borrowed = unsafe { OwnedFd::from_raw_fd(life.raw()) };
    send(&borrowed, b"hello");
    std::mem::forget(borrowed);
    wait_readable_fd(life.raw());
    sidecar.until("the honest one stays", |s| s.stats().matches(r#""channel":"#).count() == 1);
    drop(keep);
}

#[test]
fn an_application_that_breaks_its_channel_is_named_and_cut_off() {
    let sidecar = Sidecar::start("breaks", &[]);
    let keep = sidecar.attach(None).expect("attached");
    let (mut app, _, life) = sidecar.attach(None).expect("attached");
    // A connection beyond the channel's table.
    app.tx.close(FlowId { index: 4711, generation: 1 });
    app.tx.flush();
    wait_readable_fd(life.raw());
    let cut_off = format!("process {} broke its channel on engine 0: ", std::process::id());
    sidecar.until("the log names process and value", |s| {
        s.log().lines().any(|line| line.contains(&cut_off) && line.contains("4711"))
    });
    sidecar.until("the honest one stays", |s| s.stats().matches(r#""channel":"#).count() == 1);
    drop((app, keep));
}

#[test]
fn a_second_sidecar_at_one_socket_is_refused_and_disturbs_nothing() {
    let sidecar = Sidecar::start("second", &[]);
    let refused = sidecar.folder.run(&[]);
    let path = sidecar.folder.socket();
    let expected = format!(
        "machnetd: control socket {}: process {} serves it; end that one, or choose another path\n",
        path.display(),
        sidecar.child.id()
    );
    assert_eq!((refused.status.code(), text(&refused.stderr)), (Some(4), expected));
    sidecar.attach(None).expect("the first one serves on");
}

#[test]
fn a_dead_sidecars_files_are_replaced() {
    let mut first = Sidecar::start("dead", &[]);
    first.signal(libc::SIGKILL);
    assert_eq!(first.end(), None, "ended by a signal");
    assert!(first.folder.names().contains(&"ctl.sock".to_owned()), "left behind");
    let folder = Folder(std::mem::take(&mut first.folder.0));
    let second = Sidecar::start_in(folder, &[]);
    second.attach(None).expect("served");
}

#[test]
fn each_ending_signal_ends_it_in_order() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        let mut sidecar = Sidecar::start(&format!("signal{signal}"), &[]);
        let (_app, _, life) = sidecar.attach(None).expect("attached");
        let begun = Instant::now();
        sidecar.signal(signal);
        wait_readable_fd(life.raw()); // the application learns of it by its socket
        assert_eq!(sidecar.end(), Some(0), "signal {signal}; log:\n{}", sidecar.log());
        assert!(begun.elapsed() < Duration::from_secs(5), "took {:?}", begun.elapsed());
        assert_eq!(sidecar.folder.names(), Vec::<String>::new(), "files left after signal {signal}");
    }
}

#[test]
fn sigusr1_logs_the_counters() {
    let sidecar = Sidecar::start("usr1", &[]);
    sidecar.signal(libc::SIGUSR1);
    sidecar.until("the counters are in the log", |s| s.log().contains("machnetd: stats: engine 0:"));
}

#[test]
fn an_idle_sidecar_uses_little() {
    let sidecar = Sidecar::start("idle", &[]);
    let keep = sidecar.attach(None).expect("attached");
    std::thread::sleep(Duration::from_millis(300));
    let (before, begun) = (sidecar.cpu(), Instant::now());
    std::thread::sleep(Duration::from_secs(2));
    let share = (sidecar.cpu() - before).as_secs_f64() / begun.elapsed().as_secs_f64();
    // 1.5 % is the aim, measured in release on a quiet machine; this is a debug build beside other tests.
    assert!(share < 0.08, "{:.1} % of a core", share * 100.0);
    drop(keep);
}

#[test]
fn refusals_have_one_sentence_and_a_code() {
    let folder = Folder::new("refusals");
    for (flags, code, sentence) in [
        (&["--vdev", "net_nope0"][..], 3, "machnetd: create the virtual device net_nope0: "),
        (&["--vdev", "net_null0", "--cores", "1023"], 5, "machnetd: engine 0: pin it to core 1023: "),
        (
            &["--idle", "fast"],
            2,
            "machnetd: --idle fast: unknown policy; use \"spin\", \"yield\" or \"adaptive\"",
        ),
        (&["--config", "/nowhere/m.toml"], 2, "machnetd: /nowhere/m.toml: cannot read the configuration: "),
        (
            &["--socket", "/proc/nope/ctl.sock"],
            4,
            "machnetd: control socket /proc/nope/ctl.sock: make the folder /proc/nope: ",
        ),
    ] {
        let refused = folder.run(&[flags, &["--log", "off"]].concat());
        let said = text(&refused.stderr);
        assert_eq!((refused.status.code(), said.lines().count()), (Some(code), 1), "{flags:?}: {said}");
        assert!(said.starts_with(sentence), "{flags:?}: {said}");
        assert_eq!(folder.names(), Vec::<String>::new(), "files left by {flags:?}");
    }
}

#[test]
fn check_starts_nothing() {
    let folder = Folder::new("check");
    let file = folder.0.join("machnetd.toml");
    fs::write(&file, "[engines]\nidle = \"yield\"\n").unwrap();
    let path = file.to_str().unwrap();
    let good = folder.run(&["--config", path, "--check"]);
    let expected = format!("machnetd: {path}: nothing wrong\n");
    assert_eq!(
        (good.status.code(), text(&good.stdout), text(&good.stderr)),
        (Some(0), expected, String::new())
    );
    fs::write(&file, "[engines]\nidle = \"fast\"\n").unwrap();
    let bad = folder.run(&["--config", path, "--check"]);
    let expected = format!(
        "machnetd: {path}:2: engines.idle = \"fast\": unknown policy; use \"spin\", \"yield\" or \"adaptive\"\n"
    );
    assert_eq!((bad.status.code(), text(&bad.stderr)), (Some(2), expected));
    assert_eq!(folder.names(), ["machnetd.toml"], "nothing was started");
}

fn pair() -> (OwnedFd, OwnedFd) {
    let mut fds = [0; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: `fds` has room for two descriptors.
    assert_eq!(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) }, 0);
    // SAFETY: just made, and owned by nobody else.
    fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).into()
}

/// Longer than anything takes on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(20);
