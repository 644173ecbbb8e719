//! Applications at the control socket: how they come by a channel, why they do not, and how they lose it.

mod common;

use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::process::Command;

use common::{Sidecar, attach_as, connect, hello, pair, send, wait_readable, wait_readable_fd};
use machnet_shm::{AttachError, ClientAttach, ClientHello, Fd, FlowId, Status};

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
    sidecar.until("the channel is counted", |s| s.channels().contains(r#""channels":[{"channel":"#));
    let (stats, channels) = (sidecar.stats(), sidecar.channels());
    assert!(
        channels.contains(&format!(r#""engine":0,"application":1,"pid":{},"uid":"#, std::process::id())),
        "{channels}"
    );
    assert!(stats.contains(r#""ip":"10.0.0.1""#) && stats.contains(r#""link_downs":0"#), "{stats}");
}

#[test]
fn an_application_that_leaves_loses_its_channel_at_once() {
    let sidecar = Sidecar::start("leaves", &[]);
    let (app, _, life) = sidecar.attach(None).expect("attached");
    sidecar.until("the channel is counted", |s| !s.channels().ends_with(r#""channels":[]}"#));
    drop((app, life));
    sidecar.until("the channel is gone", |s| s.channels().ends_with(r#""channels":[]}"#));
    sidecar.until("the log says so", |s| s.log().contains(&format!("process {} left", std::process::id())));
}

#[test]
fn an_application_whose_process_ends_loses_its_channel_though_its_socket_stays_open() {
    let sidecar = Sidecar::start("process", &[]);
    let mut process = Command::new("sleep").arg("1000").spawn().expect("a process");
    // SAFETY: no pointers; the child has not been waited for.
    let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, process.id(), 0) } as i32;
    assert!(raw >= 0, "Linux 5.3 or later");
    // SAFETY: just made, and owned by nobody else.
    let descriptor = unsafe { OwnedFd::from_raw_fd(raw) };
    let _socket = attach_as(&sidecar, &descriptor);
    // Another that says a pipe is its process: readable at once, and believed in nothing.
    let (pipe, _) = std::io::pipe().expect("a pipe");
    let _other = attach_as(&sidecar, &pipe);
    sidecar.until("both have channels", |s| s.channels().matches("\"channel\":").count() == 2);
    process.kill().expect("it is alive");
    let left = |channel| format!("channel {channel}: process {} left", std::process::id());
    sidecar.until("the first has left", |s| s.log().contains(&left(1)));
    assert!(!sidecar.log().contains(&left(2)), "a pipe ended a channel");
    sidecar.until("the other stays", |s| s.channels().matches("\"channel\":").count() == 1);
    process.wait().expect("it was killed");
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
    let limit = "2 applications have channels, the most (control.max_channels); try later or raise it";
    assert_eq!(refused(None), (Status::NoResources, limit.to_owned()));
    drop(first);
    sidecar.until("there is room again", |s| s.attach(Some(1)).is_ok());
}

#[test]
fn another_version_is_told_both() {
    let sidecar = Sidecar::start("version", &[]);
    // What a newer client says: its hello, with another version (bytes 12..16 of the message).
    let (near, far) = pair();
    let mut newer = ClientAttach::new(Fd::own(near.into_raw_fd()), ClientHello::default()).expect("a hello");
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
    let own = format!("sidecar speaks {} ", machnet_shm::ABI_VERSION);
    sidecar.until("the log names both versions", |s| {
        s.log().contains("app speaks channel version 99") && s.log().contains(&own)
    });
    sidecar.attach(None).expect("others are served");
}

#[test]
fn garbage_at_the_control_socket_harms_nobody() {
    let sidecar = Sidecar::start("garbage", &[]);
    let keep = sidecar.attach(None).expect("attached");
    for garbage in [&b"x"[..], &[0; 32], &[0xff; 300], b"machnet-stats/1"] {
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
    sidecar.until("the honest one stays", |s| s.channels().matches(r#""channel":"#).count() == 1);
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
    sidecar.until("the honest one stays", |s| s.channels().matches(r#""channel":"#).count() == 1);
    drop((app, keep));
}

#[test]
fn channels_that_are_being_given_count_and_are_taken_back() {
    let sidecar = Sidecar::start("given", &["--max-channels", "1"]);
    let taker = connect(&sidecar.folder.socket()).expect("connected");
    send(&taker, &hello());
    wait_readable(&taker); // it is welcome, and says nothing more
    assert!(matches!(sidecar.attach(None), Err(AttachError::Refused(Status::NoResources, _))));
    assert_eq!(sidecar.mappings(), 1);
    drop(taker);
    sidecar.until("there is room again", |s| s.attach(None).is_ok());
    for _ in 0..50 {
        let taker = connect(&sidecar.folder.socket()).expect("connected");
        send(&taker, &hello());
    }
    sidecar.until("what was made for nobody is given back", |s| s.mappings() == 0);
    sidecar.until("and others are served", |s| s.attach(None).is_ok());
}

#[test]
fn where_there_is_no_memory_for_a_channel_its_application_is_told_and_others_go_on() {
    let sidecar = Sidecar::start("memory", &[]);
    let keep = sidecar.attach(None).expect("attached");
    let status = fs::read_to_string(format!("/proc/{}/status", sidecar.child.id())).expect("its state");
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")?.trim().strip_suffix(" kB"));
    let size = size.and_then(|kib| kib.parse::<u64>().ok()).expect("its size") << 10;
    let limit = |bytes| {
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: `limit` is readable, and the old one is not asked for.
        let set = unsafe {
            libc::prlimit(sidecar.child.id() as i32, libc::RLIMIT_AS, &raw const limit, std::ptr::null_mut())
        };
        assert_eq!(set, 0);
    };
    limit(size + (2 << 20)); // a channel of the default size is larger
    match sidecar.attach(None) {
        Err(AttachError::Refused(Status::NoResources, text)) => {
            assert_eq!(text.as_str(), "no channel of 3 MiB can be made: map the channel: errno 12");
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("attached"),
    }
    limit(libc::RLIM_INFINITY);
    sidecar.attach(None).expect("there is memory again");
    drop(keep);
}
