//! Many applications at once, honest ones and others.

mod common;

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{PATIENCE, Sidecar, answer, attach_over, connect, hello, send, text, wait_readable};
use machnet_shm::{AttachError, ClientHello, Status};

#[test]
fn two_hundred_that_attach_at_once_are_all_served() {
    let sidecar = Sidecar::start("crowd", &["--units", "16", "--flows", "1"]);
    let sockets: Vec<_> = (0..200).map(|_| connect(&sidecar.folder.socket()).expect("connected")).collect();
    // All are there before the first says a word.
    let attached: Vec<_> = sockets
        .into_iter()
        .map(|socket| attach_over(socket, ClientHello::default()).expect("attached"))
        .collect();
    sidecar.until("all are counted", |s| s.channels().matches(r#""channel":"#).count() == 200);
    drop(attached);
    sidecar.until("all are gone", |s| s.channels().ends_with(r#""channels":[]}"#));
    sidecar.until("their memory is given back", |s| s.mappings() == 0);
}

#[test]
fn silent_sockets_of_one_process_shut_nobody_out_and_do_not_flood_the_log() {
    let sidecar = Sidecar::start("silent", &["--units", "16", "--flows", "1"]);
    // They are closed after five seconds of silence, so each look has some of its own.
    let crowd = |s: &Sidecar| -> Vec<_> {
        (0..300).map(|_| connect(&s.folder.socket()).expect("connected")).collect()
    };
    sidecar.until("another process attaches beside them", |s| {
        let _silent = crowd(s);
        serves_another_process(s)
    });
    sidecar.until("one of their process is turned away with a sentence", |s| {
        let _silent = crowd(s);
        match attach_over(connect(&s.folder.socket()).expect("connected"), ClientHello::default()) {
            Err(AttachError::Refused(Status::NoResources, text)) => {
                text.as_str() == "256 sockets of this process are connected and not attached, the most; attach or close some"
            }
            _ => false, // it had not said hello yet
        }
    });
    // Who asks is answered, where the question is there as soon as the socket: the sidecar meets both at once.
    sidecar.signal(libc::SIGSTOP);
    let silent = crowd(&sidecar);
    let asker = connect(&sidecar.folder.socket()).expect("connected");
    send(&asker, br#"{"version":1,"query":"channels"}"#);
    sidecar.signal(libc::SIGCONT);
    assert_eq!(answer(&asker), r#"{"version":1,"query":"channels","channels":[]}"#);
    drop(silent);

    let _silent = crowd(&sidecar);
    let begun = Instant::now();
    let mut turned_away = 0;
    while begun.elapsed() < Duration::from_secs(2) {
        drop(connect(&sidecar.folder.socket()).expect("connected"));
        turned_away += 1;
    }
    sidecar.until("what repeats is summed up", |s| s.log().contains("more like it within a second)"));
    let lines = sidecar.log().lines().filter(|line| line.contains("turned away")).count();
    assert!(lines <= 8 + 40, "{lines} lines about {turned_away} sockets:\n{}", sidecar.log());
    sidecar.until("there is room again", |s| s.attach(None).is_ok());
}

#[test]
fn who_connects_without_end_keeps_nobody_from_being_served() {
    let mut sidecar = Sidecar::start("flood", &[]);
    let stop = Arc::new(AtomicBool::new(false));
    let flood = |_| {
        let (socket, stop, begun) = (sidecar.folder.socket(), Arc::clone(&stop), Instant::now());
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) && begun.elapsed() < 2 * PATIENCE {
                drop(connect(&socket));
            }
        })
    };
    let flood: Vec<_> = (0..4).map(flood).collect();
    let (_, welcome, _) = sidecar.attach(None).expect("attached among them");
    assert_eq!(welcome.engine, 0);
    let left = format!("channel 1: process {} left", std::process::id());
    sidecar.until("one that leaves is let go", |s| s.log().contains(&left));
    sidecar.signal(libc::SIGTERM);
    assert_eq!(sidecar.end(), Some(0));
    stop.store(true, Ordering::Relaxed);
    flood.into_iter().for_each(|thread| thread.join().expect("a thread of the flood"));
}

#[test]
fn one_process_is_not_given_all_channels_to_take_none() {
    let sidecar = Sidecar::start("takers", &["--units", "16", "--flows", "1"]);
    let ask = |_| {
        let socket = connect(&sidecar.folder.socket()).expect("connected");
        let hello = hello();
        // One that is turned away at once says nothing more.
        // SAFETY: `hello` is readable for its length.
        unsafe { libc::send(socket.as_raw_fd(), hello.as_ptr().cast(), hello.len(), libc::MSG_NOSIGNAL) };
        socket
    };
    let takers: Vec<_> = (0..600).map(ask).collect();
    let is_welcome = |socket: &&OwnedFd| {
        wait_readable(*socket);
        let mut answer = [1u8; 256];
        // SAFETY: `answer` is writable for its length. No descriptor is taken.
        let n = unsafe { libc::recv(socket.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0) };
        n > 16 && answer[12..16] == [0; 4]
    };
    let given = takers.iter().filter(is_welcome).count();
    assert!((1..=256).contains(&given), "{given} channels for one process");
    assert!(serves_another_process(&sidecar), "log:\n{}", sidecar.log());
}

/// In a process of its own: what is in this variable is the socket to attach at.
const ATTACH_AT: &str = "MACHNET_TEST_ATTACH_AT";

#[test]
#[ignore = "the other process of the tests that need one"]
fn another_process() {
    let socket = std::env::var_os(ATTACH_AT).expect("started by a test");
    let attached =
        attach_over(connect(Path::new(&socket)).expect("the control socket"), ClientHello::default());
    assert!(attached.is_ok(), "{:?}", attached.err());
}

/// Whether another process can attach.
fn serves_another_process(sidecar: &Sidecar) -> bool {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", "another_process", "--ignored"]).env(ATTACH_AT, sidecar.folder.socket());
    let output = command.stdin(Stdio::null()).output().expect("it runs");
    assert!(text(&output.stdout).contains("running 1 test"), "{}", text(&output.stdout));
    output.status.success()
}
