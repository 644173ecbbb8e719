//! What the sidecar says of itself: whether its engines are alive, to whoever asks, and to the service manager that started it.

mod common;

use std::os::unix::net::UnixDatagram;
use std::time::Instant;

use common::{Folder, PATIENCE, Sidecar};
use serde_json::{Value, json};

/// The service manager's end, and what has come there.
struct Manager {
    socket: UnixDatagram,
    told: Vec<String>,
}

impl Manager {
    fn new(folder: &Folder) -> Manager {
        let socket = UnixDatagram::bind(folder.0.join("notify")).expect("a socket");
        socket.set_nonblocking(true).expect("a socket that does not block");
        Manager { socket, told: Vec::new() }
    }

    /// Takes what came.
    fn take(&mut self) {
        let mut packet = [0; 4096];
        while let Ok(len) = self.socket.recv(&mut packet) {
            self.told.push(String::from_utf8_lossy(&packet[..len]).into_owned());
        }
    }

    /// Waits for a message that begins so, and forgets all that came before it.
    #[track_caller]
    fn hears(&mut self, begins: &str) -> String {
        let begun = Instant::now();
        loop {
            self.take();
            if let Some(at) = self.told.iter().position(|text| text.starts_with(begins)) {
                return self.told.drain(..=at).next_back().expect("the message");
            }
            assert!(begun.elapsed() < PATIENCE, "no {begins:?} in {:?}", self.told);
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

/// A sidecar that was started by a service manager, with a watchdog of so many microseconds, or none.
fn managed(name: &str, watchdog: Option<&str>, flags: &[&str]) -> (Sidecar, Manager) {
    let folder = Folder::new(name);
    let manager = Manager::new(&folder);
    let mut command = folder.command(flags);
    command.env("NOTIFY_SOCKET", folder.0.join("notify"));
    if let Some(usec) = watchdog {
        command.env("WATCHDOG_USEC", usec);
    }
    (Sidecar::of(command, folder), manager)
}

fn health(sidecar: &Sidecar) -> Value {
    serde_json::from_str(&sidecar.ask(r#"{"version":1,"query":"health"}"#)).expect("an answer")
}

#[test]
fn the_service_manager_hears_of_start_reload_and_end() {
    let (mut sidecar, mut manager) =
        managed("h-life", Some("300000"), &["--engines", "2", "--idle", "adaptive"]);
    manager.hears("READY=1");
    assert_eq!(manager.hears("STATUS="), "STATUS=0 channels, 2 engines, net_memif link-down");
    let attached = sidecar.attach(None).expect("attached");
    assert_eq!(manager.hears("STATUS="), "STATUS=1 channel, 2 engines, net_memif link-down");
    drop(attached);
    sidecar.signal(libc::SIGHUP);
    let reloading = manager.hears("RELOADING=1\nMONOTONIC_USEC=");
    let since: u64 = reloading.rsplit('=').next().expect("a number").parse().expect("microseconds");
    // CLOCK_MONOTONIC, as the manager compares it with its own reading.
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is writable.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    assert!(
        (0..PATIENCE.as_secs()).contains(&(now.tv_sec as u64 - since / 1_000_000)),
        "{since} and {now:?}"
    );
    manager.hears("READY=1");
    (0..3).for_each(|_| drop(manager.hears("WATCHDOG=1")));
    sidecar.signal(libc::SIGTERM);
    manager.hears("STOPPING=1");
    assert_eq!(sidecar.end(), Some(0));
}

#[test]
fn without_a_watchdog_there_are_no_signs_of_life() {
    let (mut sidecar, mut manager) = managed("h-quiet", None, &[]);
    manager.hears("STATUS=");
    sidecar.signal(libc::SIGTERM);
    assert_eq!(sidecar.end(), Some(0));
    manager.take();
    assert_eq!(manager.told, ["STOPPING=1"]);
}

#[test]
fn a_manager_that_is_not_there_holds_up_nothing() {
    for name in ["/nowhere/notify", "@machnetd-test-nobody", "no/path"] {
        let folder = Folder::new("h-nobody");
        let mut command = folder.command(&[]);
        command.env("NOTIFY_SOCKET", name).env("WATCHDOG_USEC", "1");
        let mut sidecar = Sidecar::of(command, folder);
        assert_eq!(health(&sidecar)["healthy"], json!(true));
        sidecar.signal(libc::SIGTERM);
        assert_eq!(sidecar.end(), Some(0));
    }
}

#[test]
fn an_engine_that_stands_still_is_seen_and_its_sleep_is_not_taken_for_that() {
    let (sidecar, mut manager) =
        managed("h-still", Some("300000"), &["--engines", "2", "--idle", "adaptive"]);
    manager.hears("WATCHDOG=1");
    let sound = health(&sidecar);
    assert_eq!(
        (&sound["healthy"], &sound["nic"]),
        (&json!(true), &json!({"driver": "net_memif", "state": "link-down"}))
    );
    for (number, engine) in (0..).zip(sound["engines"].as_array().expect("engines")) {
        assert_eq!((&engine["engine"], &engine["late_ns"]), (&json!(number), &json!(0)));
        assert!([json!("running"), json!("asleep")].contains(&engine["state"]), "{engine}");
    }

    let stopped = Stopped::stop(thread(&sidecar, "engine1"));
    manager.hears("STATUS=engine 1 has not moved for 1 s");
    let still = health(&sidecar);
    let [first, second] = [0, 1].map(|engine| &still["engines"][engine]);
    assert_eq!((&still["healthy"], &second["state"]), (&json!(false), &json!("stalled")));
    assert!(second["late_ns"].as_u64().is_some_and(|late| late > 1_000_000_000), "{second}");
    assert_ne!(first["state"], json!("stalled"));
    // What was sent before it was seen.
    manager.take();
    manager.told.clear();
    manager.hears("STATUS=engine 1 has not moved for");
    assert!(!manager.told.iter().any(|text| text == "WATCHDOG=1"), "{:?}", manager.told);

    drop(stopped);
    sidecar.until("it is healthy again", |sidecar| health(sidecar)["healthy"] == json!(true));
    manager.hears("WATCHDOG=1");
}

/// The number of the thread of this name.
fn thread(sidecar: &Sidecar, name: &str) -> libc::pid_t {
    let tasks = format!("/proc/{}/task", sidecar.child.id());
    let tasks = std::fs::read_dir(tasks).expect("threads").flatten();
    let named = |task: &std::fs::DirEntry| {
        std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name)
    };
    let task = tasks.into_iter().find(named).expect("a thread of this name");
    task.file_name().to_str().and_then(|number| number.parse().ok()).expect("a number")
}

/// One thread of another process that stands still, as no signal can have it: as long as this lives.
struct Stopped(libc::pid_t);

impl Stopped {
    fn stop(thread: libc::pid_t) -> Stopped {
        let nothing = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: neither request reads or writes memory of ours.
        unsafe {
            assert_eq!(libc::ptrace(libc::PTRACE_SEIZE, thread, nothing, nothing), 0, "ptrace");
            assert_eq!(libc::ptrace(libc::PTRACE_INTERRUPT, thread, nothing, nothing), 0, "ptrace");
        }
        // SAFETY: a null status is not written.
        let stopped = unsafe { libc::waitpid(thread, std::ptr::null_mut(), libc::__WALL) };
        assert_eq!(stopped, thread, "it stops");
        Stopped(thread)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let nothing = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: as above.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.0, nothing, nothing) };
    }
}
