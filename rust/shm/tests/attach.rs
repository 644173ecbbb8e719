//! Attaching: both sides as they are, and each against a hand-made other side that breaks off, lies or hands over too much. What
//! the memory's seals forbid.

use machnet_shm::{
    ABI_VERSION, AppEnd, AttachError, ClientAttach, ClientHello, Delivery, EngineEnd, Fd, Fragment, Geometry,
    Rung, ServerAttach, ServerStep, Status, Text, Welcome, hung_up, layout_hash, pair,
};
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const GEOMETRY: Geometry = Geometry { units: 16, flows: 4, unit_size: 300 };
const WELCOME: Welcome = Welcome { geometry: GEOMETRY, engine: 3, ip: Ipv4Addr::new(10, 0, 0, 7), mtu: 1500 };
const MAGIC: &[u8; 8] = b"MACHNETA";

// ---- the two sides as they are

#[test]
fn both_sides_step_by_step_make_a_channel() {
    let (app, server) = sockets();
    let mut client = ClientAttach::new(own(app), ClientHello { engine: Some(3), group: 7 }).unwrap();
    let mut server = ServerAttach::new(own(server));
    assert!(client.step().unwrap().is_none(), "nothing was answered");
    let ServerStep::Hello(hello) = server.step().unwrap() else { panic!("the hello is there") };
    assert_eq!(hello.engine, Some(3));
    assert!(matches!(server.step().unwrap(), ServerStep::Wait));
    server.welcome(&WELCOME).unwrap();
    assert!(matches!(server.step().unwrap(), ServerStep::Wait));
    assert!(client.step().unwrap().is_none(), "mapped, and not yet sealed");
    let ServerStep::Attached(mut engine) = server.step().unwrap() else {
        panic!("the application has mapped")
    };
    let (mut app, welcome) = client.step().unwrap().expect("ready");
    assert_eq!(welcome, WELCOME);
    exchange(&mut app, &mut engine);

    // The life line: each side's end hangs up when the other is gone.
    let (client, server) = (client.into_socket(), server.into_socket());
    assert!(!hung_up(client.raw()) && !hung_up(server.raw()));
    drop(server);
    assert!(hung_up(client.raw()));
}

#[test]
fn an_application_hands_over_a_descriptor_of_its_process_and_of_no_other() {
    let (app, server) = sockets();
    let _client = ClientAttach::new(own(app), ClientHello::default()).unwrap();
    let mut server = ServerAttach::new(own(server));
    assert!(server.take_process().is_none(), "before its hello");
    server.step().unwrap();
    let process = server.take_process().expect("Linux 5.3 or later");
    let told = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", process.raw())).unwrap();
    let pid = told.lines().find_map(|line| line.strip_prefix("Pid:")).map(str::trim);
    assert_eq!(pid, Some(std::process::id().to_string().as_str()), "{told}");
}

#[test]
fn an_application_that_names_no_engine_leaves_the_choice() {
    let (app, server) = sockets();
    let _client = ClientAttach::new(own(app), ClientHello::default()).unwrap();
    let ServerStep::Hello(hello) = ServerAttach::new(own(server)).step().unwrap() else { panic!("no hello") };
    assert_eq!(hello.engine, None);
}

#[test]
fn a_refusal_arrives_with_its_sentence() {
    let (app, server) = sockets();
    let mut client = ClientAttach::new(own(app), ClientHello::default()).unwrap();
    let mut server = ServerAttach::new(own(server));
    server.step().unwrap();
    server.refuse(Status::NotPermitted, Text::new("user 1000 is not in group machnet")).unwrap();
    let refused = client.step().err();
    assert_eq!(
        refused,
        Some(AttachError::Refused(Status::NotPermitted, Text::new("user 1000 is not in group machnet")))
    );
    assert_eq!(server.step().err(), Some(AttachError::Closed), "nothing follows a refusal");
}

// ---- versions

#[test]
fn another_version_is_told_to_both_and_names_both() {
    for (version, hash, len) in
        [(ABI_VERSION + 6, layout_hash(), 32), (ABI_VERSION, !layout_hash(), 32), (ABI_VERSION + 6, 1, 77)]
    {
        let (app, server) = sockets();
        send(&app, &hello(version, hash, len), &[]);
        let mut server = ServerAttach::new(own(server));
        let wanted = AttachError::Version { app: (version, hash), sidecar: (ABI_VERSION, layout_hash()) };
        assert_eq!(server.step().err(), Some(wanted));
        let (answer, fds) = receive(&app);
        assert_eq!((word(&answer, 8), word(&answer, 12)), (2, Status::Version as u32));
        assert!(fds.is_empty(), "memory for the wrong version");
        let text = String::from_utf8_lossy(&answer[64..]).into_owned();
        for part in [format!("version {version}"), format!("speaks {ABI_VERSION}"), format!("{hash:016x}")] {
            assert!(text.contains(&part), "{text:?} does not say {part:?}");
        }
    }
}

#[test]
fn a_sidecar_of_another_version_is_an_error_even_if_it_grants() {
    for (version, hash, len) in
        [(ABI_VERSION + 6, layout_hash(), 176), (ABI_VERSION, 1, 176), (ABI_VERSION + 6, layout_hash(), 100)]
    {
        let (app, server) = sockets();
        let mut client = ClientAttach::new(own(app), ClientHello::default()).unwrap();
        let mut message = welcome(GEOMETRY);
        message[16..24].copy_from_slice(&hash.to_le_bytes());
        message[28..32].copy_from_slice(&version.to_le_bytes());
        send(&server, &message[..len], &[]);
        let wanted = AttachError::Version { app: (ABI_VERSION, layout_hash()), sidecar: (version, hash) };
        assert_eq!(client.step().err(), Some(wanted));
    }
}

// ---- a hand-made application

#[test]
fn a_hello_that_is_none_ends_the_attempt() {
    let good = hello(ABI_VERSION, layout_hash(), 32);
    let mut magic = good.clone();
    magic[3] ^= 1;
    let mut kind = good.clone();
    kind[8] = 3;
    for (bad, what) in [
        (good[..31].to_vec(), "length of a message"),
        (good[..1].to_vec(), "length of a message"),
        (hello(ABI_VERSION, layout_hash(), 40), "length of a message"),
        (vec![0; 600], "length of a message: longer than"),
        (magic, "first bytes of a message"),
        (kind, "kind of a message"),
    ] {
        let (app, server) = sockets();
        send(&app, &bad, &[]);
        match ServerAttach::new(own(server)).step() {
            Err(AttachError::Message { what: got, .. }) => assert_eq!(got, what),
            other => panic!("{:?} instead of an error", other.err()),
        }
    }
}

#[test]
fn an_application_that_dies_half_way_is_told_as_gone() {
    // Before its hello.
    let (app, server) = sockets();
    let mut server = ServerAttach::new(own(server));
    assert!(matches!(server.step().unwrap(), ServerStep::Wait));
    drop(app);
    assert_eq!(server.step().err(), Some(AttachError::Closed));

    // After its hello: the welcome meets a closed socket.
    let (app, server) = sockets();
    send(&app, &hello(ABI_VERSION, layout_hash(), 32), &[]);
    let mut server = ServerAttach::new(own(server));
    server.step().unwrap();
    drop(app);
    assert_eq!(server.welcome(&WELCOME), Err(AttachError::Closed));

    // With the memory in its hands.
    let (app, server) = sockets();
    send(&app, &hello(ABI_VERSION, layout_hash(), 32), &[]);
    let mut server = ServerAttach::new(own(server));
    server.step().unwrap();
    server.welcome(&WELCOME).unwrap();
    drop(app);
    assert_eq!(server.step().err(), Some(AttachError::Closed));
}

#[test]
fn descriptors_that_nobody_asked_for_are_closed() {
    // With a hello, beyond its one; few, and more than the kernel has room to hand over.
    for count in [2, 3, 5, 20] {
        let (app, server) = sockets();
        let (mut reader, writer) = std::io::pipe().unwrap();
        send(&app, &hello(ABI_VERSION, layout_hash(), 32), &vec![writer.as_raw_fd(); count]);
        drop(writer);
        let mut server = ServerAttach::new(own(server));
        assert!(matches!(server.step().unwrap(), ServerStep::Hello(_)));
        drop(server.take_process().expect("the first stands for the process"));
        assert_eq!(reader.read(&mut [0]).unwrap(), 0, "{count} descriptors: one is still open");
    }
    // With a welcome, beyond its four.
    let (app, server) = sockets();
    let mut client = ClientAttach::new(own(app), ClientHello::default()).unwrap();
    let (memory, bell) =
        (memfd(GEOMETRY.len(), libc::F_SEAL_SHRINK | libc::F_SEAL_GROW), std::io::pipe().unwrap());
    let (mut reader, writer) = std::io::pipe().unwrap();
    let extra = writer.as_raw_fd();
    send(
        &server,
        &welcome(GEOMETRY),
        &[memory.as_raw_fd(), bell.0.as_raw_fd(), bell.1.as_raw_fd(), bell.0.as_raw_fd(), extra, extra],
    );
    drop(writer);
    assert!(client.step().unwrap().is_none());
    assert_eq!(reader.read(&mut [0]).unwrap(), 0, "one is still open");
}

// ---- a hand-made sidecar

#[test]
fn a_welcome_that_is_none_is_one_clear_error() {
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW;
    let good = memfd(GEOMETRY.len(), seals);
    let bell = std::io::pipe().unwrap();
    let all = [good.as_raw_fd(), bell.0.as_raw_fd(), bell.1.as_raw_fd(), bell.0.as_raw_fd()];
    let (unsealed, short) = (memfd(GEOMETRY.len(), 0), memfd(GEOMETRY.len() - 4096, seals));
    let with = |memory: &OwnedFd| [&[memory.as_raw_fd()], &all[1..]].concat();
    let geometry = |units, flows, unit_size| welcome(Geometry { units, flows, unit_size });
    for (message, fds, what) in [
        (welcome(GEOMETRY), vec![], "descriptors of a welcome"),
        (welcome(GEOMETRY), all[..3].to_vec(), "descriptors of a welcome"),
        (welcome(GEOMETRY), with(&unsealed), "memory of a welcome: length or seals; bytes wanted"),
        (welcome(GEOMETRY), with(&short), "memory of a welcome: length or seals; bytes wanted"),
        (geometry(0, 4, 300), all.to_vec(), "geometry: units"),
        (geometry(24, 4, 300), all.to_vec(), "geometry: units"),
        (geometry(1 << 31, 4, 300), all.to_vec(), "geometry: units"),
        (geometry(16, 0, 300), all.to_vec(), "geometry: units"),
        (geometry(16, u32::MAX, 300), all.to_vec(), "geometry: units"),
        (geometry(16, 4, u32::MAX), all.to_vec(), "geometry: units"),
        (welcome(GEOMETRY)[..175].to_vec(), all.to_vec(), "length of a message"),
        (welcome(GEOMETRY)[..20].to_vec(), all.to_vec(), "length of a message"),
    ] {
        let (app, server) = sockets();
        let mut client = ClientAttach::new(own(app), ClientHello::default()).unwrap();
        send(&server, &message, &fds);
        match client.step() {
            Err(AttachError::Message { what: got, .. }) => assert_eq!(got, what),
            other => panic!("{:?} instead of: {what}", other.err()),
        }
    }
}

#[test]
fn a_sidecar_that_dies_half_way_is_told_as_gone() {
    let (app, server) = sockets();
    let mut client = ClientAttach::new(own(app), ClientHello::default()).unwrap();
    drop(server);
    assert_eq!(client.step().err(), Some(AttachError::Closed));

    let (app, server) = sockets();
    drop(server);
    assert_eq!(ClientAttach::new(own(app), ClientHello::default()).err(), Some(AttachError::Closed));

    let (app, server) = sockets();
    let mut client = ClientAttach::new(own(app), ClientHello::default()).unwrap();
    let mut attach = ServerAttach::new(own(server));
    attach.step().unwrap();
    attach.welcome(&WELCOME).unwrap();
    assert!(client.step().unwrap().is_none());
    drop(attach);
    assert_eq!(client.step().err(), Some(AttachError::Closed));
}

// ---- seals

#[test]
fn the_memory_keeps_its_size_at_once_and_admits_no_other_writer_once_mapped() {
    let (app, server) = sockets();
    send(&app, &hello(ABI_VERSION, layout_hash(), 32), &[]);
    let mut server = ServerAttach::new(own(server));
    server.step().unwrap();
    server.welcome(&WELCOME).unwrap();
    let (_, fds) = receive(&app);
    let memory = &fds[0];
    let raw = memory.as_raw_fd();
    // SAFETY: no memory is touched by any of these.
    let (shrunk, grown) = unsafe { (libc::ftruncate(raw, 4096), libc::ftruncate(raw, 1 << 30)) };
    assert_eq!((shrunk, grown), (-1, -1), "a page that is gone would be a SIGBUS");
    let mapping = map(memory).expect("the application maps it before it says so");
    send(&app, &short(3), &[]);
    let ServerStep::Attached(_engine) = server.step().unwrap() else { panic!("mapped") };

    assert!(map(memory).is_none(), "a second writer");
    let holes = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: no memory is touched: all is refused.
    let (punched, sealed) = unsafe {
        (libc::fallocate(raw, holes, 0, 4096), libc::fcntl(raw, libc::F_ADD_SEALS, libc::F_SEAL_WRITE))
    };
    assert_eq!((punched, sealed), (-1, -1), "a hole, or a seal that would stop the engine");
    // SAFETY: no memory is touched.
    let seals = unsafe { libc::fcntl(raw, libc::F_GET_SEALS) };
    let wanted = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_FUTURE_WRITE | libc::F_SEAL_SEAL;
    assert_eq!(seals & wanted, wanted);
    assert!(
        std::fs::File::from(memory.try_clone().unwrap()).write(b"x").is_err(),
        "written without a mapping"
    );
    // SAFETY: mapped above, writable, a page at least.
    unsafe { mapping.write_volatile(1) };
}

#[test]
fn an_end_dropped_in_the_middle_closes_what_it_holds() {
    let (app, engine) = pair(GEOMETRY).unwrap();
    let AppEnd { tx, rx } = app;
    drop(tx);
    assert_ne!(engine.drain_doorbell(), Rung::HungUp, "the other half still holds the pipe");
    drop(rx);
    assert_eq!(engine.drain_doorbell(), Rung::HungUp, "nobody holds it");
}

// ---- helpers

fn exchange(app: &mut AppEnd, engine: &mut EngineEnd) {
    let flow = engine.open_flow().unwrap();
    assert_eq!(engine.grant(flow, 1), 1);
    assert!(engine.deliver(flow, Fragment { begin: true, end: true, message_len: 3 }, b"abc"));
    engine.flush();
    let Some(Delivery::Data(data)) = app.rx.delivery().unwrap() else { panic!("nothing came") };
    assert_eq!(&data.inline[..3], b"abc");
}

fn sockets() -> (OwnedFd, OwnedFd) {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    let made = unsafe {
        libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0, ends.as_mut_ptr())
    };
    assert_eq!(made, 0);
    // SAFETY: both were made just now and are nobody else's.
    unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) }
}

fn own(fd: OwnedFd) -> Fd {
    use std::os::fd::IntoRawFd;
    Fd::own(fd.into_raw_fd())
}

fn short(kind: u32) -> Vec<u8> {
    [&MAGIC[..], &kind.to_le_bytes(), &[0; 4]].concat()
}

fn hello(version: u32, hash: u64, len: usize) -> Vec<u8> {
    let mut m = [&MAGIC[..], &1_u32.to_le_bytes(), &version.to_le_bytes(), &hash.to_le_bytes()].concat();
    m.extend(u32::MAX.to_le_bytes());
    m.resize(len, 0);
    m
}

fn welcome(g: Geometry) -> Vec<u8> {
    let mut m =
        [&MAGIC[..], &2_u32.to_le_bytes(), &0_u32.to_le_bytes(), &layout_hash().to_le_bytes()].concat();
    for value in [0, ABI_VERSION, g.units, g.flows, g.unit_size, 0x0a00_0007, 1500] {
        m.extend(value.to_le_bytes());
    }
    m.resize(176, 0);
    m
}

fn word(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(b[at..at + 4].try_into().unwrap())
}

fn memfd(len: usize, seals: i32) -> OwnedFd {
    // SAFETY: a C string; what is made is nobody else's.
    unsafe {
        let raw = libc::memfd_create(c"test".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING);
        let memory = OwnedFd::from_raw_fd(raw);
        assert_eq!(libc::ftruncate(raw, len as libc::off_t), 0);
        assert_eq!(libc::fcntl(raw, libc::F_ADD_SEALS, seals), 0);
        memory
    }
}

/// Maps the first page, shared and writable; never unmapped.
fn map(memory: &OwnedFd) -> Option<*mut u8> {
    let (access, fd) = (libc::PROT_READ | libc::PROT_WRITE, memory.as_raw_fd());
    // SAFETY: a new mapping touches no existing memory.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), 4096, access, libc::MAP_SHARED, fd, 0) };
    (page != libc::MAP_FAILED).then_some(page.cast())
}

fn send(socket: &OwnedFd, bytes: &[u8], fds: &[i32]) {
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut control = [0_u64; 32];
    // SAFETY: `msghdr` may be all zero; its pointers are to live memory of the lengths said, and `control` has room for 60
    // descriptors.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        if !fds.is_empty() {
            let len = size_of_val(fds) as u32;
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = libc::CMSG_SPACE(len) as _;
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(len) as _;
            std::ptr::copy_nonoverlapping(fds.as_ptr().cast(), libc::CMSG_DATA(header), len as usize);
        }
        assert_eq!(libc::sendmsg(socket.as_raw_fd(), &raw const message, 0), bytes.len() as isize);
    }
}

fn receive(socket: &OwnedFd) -> (Vec<u8>, Vec<OwnedFd>) {
    let mut bytes = vec![0_u8; 512];
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut control = [0_u64; 8];
    // SAFETY: as in `send`; the descriptors are new and nobody else's.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control) as _;
        let n = libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT);
        assert!(n > 0, "nothing was sent");
        bytes.truncate(n as usize);
        let mut fds = Vec::new();
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        if !header.is_null() {
            let count = ((*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize) / 4;
            fds.extend((0..count).map(|i| {
                OwnedFd::from_raw_fd(libc::CMSG_DATA(header).cast::<i32>().add(i).read_unaligned())
            }));
        }
        (bytes, fds)
    }
}
