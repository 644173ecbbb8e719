//! The C functions against a real engine's end of a channel, attached over a socket pair. This thread plays the sidecar.
use machnet::abi::*;
use machnet::*;
use machnet_shm::{
    EngineEnd, Established, Fd, FlowId, Fragment, Geometry, Limit, Origin, Reason, Reply, Request, Returned,
    ServerAttach, ServerStep, Submission, Welcome,
};
use std::ffi::CStr;
use std::net::Ipv4Addr;
use std::os::unix::thread::JoinHandleExt;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::sleep;
use std::time::{Duration, Instant};

type Channel = *mut client::machnet_channel;

const IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const GEOMETRY: Geometry = Geometry { units: 64, flows: 8, unit_size: 1424 };

/// Both ends of a channel.
struct Rig {
    ch: Channel,
    engine: Option<Box<EngineEnd>>,
    socket: Option<Fd>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        // SAFETY: the channel is ours, and no call is under way.
        unsafe { machnet_detach(self.ch) };
    }
}

fn socketpair() -> (i32, i32) {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    assert_eq!(unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET, 0, ends.as_mut_ptr()) }, 0);
    (ends[0], ends[1])
}

impl Rig {
    fn new() -> Self {
        let (app, sidecar) = socketpair();
        let mut ch: Channel = null_mut();
        // SAFETY: `ch` is writable; the channel owns the socket.
        assert_eq!(unsafe { machnet_attach_fd(app, std::ptr::null(), &mut ch) }, 0);
        let mut server = ServerAttach::new(Fd::own(sidecar));
        let welcome = Welcome { geometry: GEOMETRY, engine: 3, ip: IP, mtu: 1500 };
        let engine = loop {
            // SAFETY: a live channel.
            let stepped = unsafe { machnet_attach_step(ch) };
            assert!(stepped == MACHNET_EAGAIN, "step gave {stepped}: {}", text(ch));
            match server.step().expect("the sidecar's side") {
                ServerStep::Hello(_) => server.welcome(&welcome).expect("welcome"),
                ServerStep::Attached(end) => break end,
                ServerStep::Wait => {}
            }
        };
        // SAFETY: a live channel.
        assert_eq!(unsafe { machnet_attach_step(ch) }, 0, "{}", text(ch));
        Self { ch, engine: Some(engine), socket: Some(server.into_socket()) }
    }

    fn engine(&mut self) -> &mut EngineEnd {
        self.engine.as_mut().expect("the sidecar lives")
    }

    /// A connection, announced and polled.
    fn connection(&mut self) -> (FlowId, machnet_conn) {
        let flow = self.engine().open_flow().expect("a flow");
        let made = Established { flow, origin: Origin::Accepted(9), local: (IP, 80), peer: (IP, 4000) };
        self.engine().established(&made);
        self.engine().flush();
        let events = self.events();
        let accepted: Vec<_> = events.iter().filter(|event| event.kind == MACHNET_EVENT_ACCEPTED).collect();
        assert_eq!(accepted.len(), 1, "{events:?}");
        (flow, accepted[0].conn)
    }

    fn deliver(&mut self, flow: FlowId, message: &[u8]) {
        let engine = self.engine();
        let mut at = 0;
        loop {
            let next = (at + 1424).min(message.len());
            let (begin, end) = (at == 0, next == message.len());
            assert_eq!(engine.grant(flow, 1), 1, "no room to deliver");
            let fragment = Fragment { begin, end, message_len: if begin { message.len() as u32 } else { 0 } };
            assert!(engine.deliver(flow, fragment, &message[at..next]));
            at = next;
            if end {
                break;
            }
        }
        engine.flush();
    }

    fn events(&mut self) -> Vec<machnet_event> {
        let mut out = [machnet_event::default(); 16];
        // SAFETY: a live channel and 16 writable events.
        let have = unsafe { machnet_poll(self.ch, out.as_mut_ptr(), 16) };
        assert!(have >= 0, "poll gave {have}");
        out[..have as usize].to_vec()
    }

    fn recv(&mut self, conn: machnet_conn, cap: usize, flags: u32) -> Result<Vec<u8>, i64> {
        let mut out = vec![0; cap];
        // SAFETY: a live channel and `cap` writable bytes.
        let n = unsafe { machnet_recv_some(self.ch, conn, out.as_mut_ptr().cast(), cap, flags, null_mut()) };
        if n < 0 {
            return Err(n);
        }
        out.truncate(n as usize);
        Ok(out)
    }

    fn send(&mut self, conn: machnet_conn, bytes: &[u8], flags: u32) -> i64 {
        // SAFETY: a live channel and readable bytes.
        unsafe { machnet_send_some(self.ch, conn, bytes.as_ptr().cast(), bytes.len(), flags) }
    }

    /// Takes what was submitted: the payloads of data units, and names of the rest; completes every unit if asked to.
    fn submitted(&mut self, complete: bool) -> (Vec<u8>, Vec<&'static str>) {
        let (mut bytes, mut order) = (Vec::new(), Vec::new());
        let engine = self.engine();
        while let Some(submission) = engine.submission().expect("an honest application") {
            let unit = match submission {
                Submission::Data { unit, fragment, .. } => {
                    let mut payload = vec![0; unit.len()];
                    engine.read_tx(&unit, 0, &mut payload);
                    bytes.extend(payload);
                    if fragment.end {
                        order.push("message");
                    }
                    Some(unit)
                }
                Submission::Abort { unit, .. } => {
                    order.push("abort");
                    Some(unit)
                }
                Submission::Fin { unit, .. } => {
                    order.push("fin");
                    Some(unit)
                }
                Submission::Close { .. } => {
                    order.push("close");
                    None
                }
                Submission::Reset { .. } => {
                    order.push("reset");
                    None
                }
            };
            if let (Some(unit), true) = (unit, complete) {
                engine.complete(unit);
            }
        }
        engine.flush();
        (bytes, order)
    }

    /// The sidecar dies.
    fn kill(&mut self) {
        self.engine = None;
        self.socket = None;
    }
}

/// What a thread gives, within five seconds.
fn joined<T>(thread: std::thread::JoinHandle<T>) -> T {
    let begun = Instant::now();
    while !thread.is_finished() {
        assert!(begun.elapsed() < Duration::from_secs(5), "a call does not return");
        sleep(Duration::from_millis(1));
    }
    thread.join().expect("the thread")
}

fn text(ch: Channel) -> String {
    let mut buf = [0_u8; MACHNET_ERROR_TEXT_MAX as usize];
    // SAFETY: a live channel and a writable buffer of this size.
    unsafe { machnet_error_text(ch, buf.as_mut_ptr().cast(), buf.len()) };
    CStr::from_bytes_until_nul(&buf).expect("a final zero").to_str().expect("UTF-8").to_string()
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 256) as u8).collect()
}

#[test]
fn attaching_tells_what_the_sidecar_said() {
    let rig = Rig::new();
    let mut info = machnet_info_t::default();
    // SAFETY: a live channel and a writable struct.
    unsafe { machnet_info(rig.ch, &mut info) };
    assert_eq!((info.ip, info.engine, info.mtu, info.unit_size), (IP.to_bits(), 3, 1500, 1424));
    assert_eq!((info.units, info.units_per_conn, info.conns), (64, 16, 8));
    // SAFETY: a live channel.
    unsafe {
        assert!(machnet_socket(rig.ch) >= 0 && machnet_doorbell(rig.ch) >= 0);
        assert_eq!(machnet_check(rig.ch), 0);
    }
}

#[test]
fn messages_cross_both_ways_and_tokens_come_back() {
    let mut rig = Rig::new();
    let (flow, conn) = rig.connection();
    for (round, len) in [0, 1, 64, 96, 97, 1424, 1425, 20_000].into_iter().enumerate() {
        let message = pattern(len);
        rig.deliver(flow, &message);
        assert_eq!(rig.recv(conn, 30_000, MACHNET_RECV_MESSAGE), Ok(message.clone()), "{len} bytes");
        assert_eq!(rig.send(conn, &message, 0), len as i64);
        assert_eq!(rig.submitted(true), (message, vec!["message"]), "round {round}");
        assert_eq!(rig.recv(conn, 1, MACHNET_RECV_STREAM), Err(MACHNET_EAGAIN.into()));
        rig.engine().returns(|_| {}).expect("honest returns");
    }
    assert_eq!(rig.engine().usage(), (0, 0, 0));
}

/// Its reader takes each message and then does something else for ever: the peer must find a unit free all the same.
#[test]
fn a_connection_read_to_the_end_has_units_free_though_nobody_else_is_read_and_nothing_more_is_called() {
    let mut rig = Rig::new();
    let conns: Vec<_> = (0..8).map(|_| rig.connection()).collect();
    let (flow, conn) = conns[0];
    let one = Fragment { begin: true, end: true, message_len: 1 };
    let mut late = 0;
    for (other, _) in &conns[1..] {
        late = 0;
        while rig.engine().grant(*other, 1) == 1 {
            late += 1;
        }
        if *other != conns[7].0 {
            assert!((0..late).all(|_| rig.engine().deliver(*other, one, b"x")));
        }
    }
    for round in 0..1000_u32 {
        let reserved = rig.engine().grant(flow, GEOMETRY.own() - round % 3);
        assert!(reserved > 0, "round {round}: no unit is free, and nothing is left to read");
        let message = |i| vec![round as u8, i as u8];
        for i in 0..reserved {
            let fragment = Fragment { begin: true, end: true, message_len: 2 };
            assert!(rig.engine().deliver(flow, fragment, &message(i)));
        }
        // What comes after them and is not read must not pass for more to read.
        if late > 0 {
            late -= 1;
            assert!(rig.engine().deliver(conns[7].0, one, b"x"));
        }
        for i in 0..reserved {
            assert_eq!(rig.recv(conn, 8, MACHNET_RECV_MESSAGE), Ok(message(i)));
        }
        let of_flow = |back| matches!(back, Returned::Units(index, _) if index == flow.index);
        rig.engine().returns(|back| assert!(of_flow(back))).expect("honest returns");
    }
}

#[test]
fn a_message_goes_in_parts_where_others_hold_too_much_for_it_to_go_at_once() {
    let mut rig = Rig::new();
    let conns: Vec<_> = (0..4).map(|_| rig.connection().1).collect();
    for conn in &conns[1..] {
        while rig.send(*conn, &pattern(1424), 0) > 0 {}
    }
    let message = pattern(16 * 1424);
    let dontwait = |rig: &mut Rig| {
        // SAFETY: a live channel and readable bytes.
        unsafe { machnet_send(rig.ch, conns[0], message.as_ptr().cast(), message.len(), MACHNET_DONTWAIT) }
    };
    assert_eq!(dontwait(&mut rig), MACHNET_EAGAIN, "all of it or nothing");
    let sent = rig.send(conns[0], &message, MACHNET_SEND_WHOLE);
    assert!((4 * 1424..16 * 1424).contains(&sent), "{sent} bytes");
    assert_eq!(rig.send(conns[0], &message[sent as usize..], MACHNET_SEND_CONTINUE), MACHNET_EAGAIN.into());
    rig.submitted(true);
    let rest = &message[sent as usize..];
    assert_eq!(rig.send(conns[0], rest, MACHNET_SEND_CONTINUE), rest.len() as i64);
    assert_eq!(rig.send(conns[0], &message, MACHNET_SEND_WHOLE), MACHNET_EAGAIN.into(), "its own make room");
    rig.submitted(true);
    assert_eq!(dontwait(&mut rig), 0);
    assert_eq!(rig.send(conns[0], b"x", MACHNET_SEND_WHOLE | MACHNET_SEND_CONTINUE), MACHNET_EINVAL.into());
}

#[test]
fn a_long_message_goes_in_steps_and_waits_for_completions() {
    let mut rig = Rig::new();
    let (_, conn) = rig.connection();
    let message = pattern(100_000);
    let (mut sent, mut got) = (0, Vec::new());
    while sent < message.len() {
        let flags = if sent > 0 { MACHNET_SEND_CONTINUE } else { 0 };
        let n = rig.send(conn, &message[sent..], flags);
        assert!(n > 0 && n <= 16 * 1424, "a step of {n} bytes");
        sent += n as usize;
        if sent < message.len() {
            assert_eq!(rig.send(conn, &message[sent..], MACHNET_SEND_CONTINUE), MACHNET_EAGAIN.into());
        }
        got.extend(rig.submitted(true).0);
    }
    assert!(got == message);
    let mut event = [machnet_event::default(); 4];
    // SAFETY: a live channel and four writable events.
    assert_eq!(unsafe { machnet_poll_tx(rig.ch, event.as_mut_ptr(), 4) }, 1);
    assert_eq!((event[0].kind, event[0].conn), (MACHNET_EVENT_WRITABLE, conn));
}

#[test]
fn parts_make_one_message_also_in_steps() {
    let mut rig = Rig::new();
    let (_, conn) = rig.connection();
    let message = pattern(50_000);
    let parts: Vec<_> = [&message[..10], &[], &message[10..2000], &message[2000..]]
        .map(|part| machnet_iovec { base: part.as_ptr(), len: part.len() })
        .into();
    let (mut sent, mut got) = (0, Vec::new());
    while sent < message.len() {
        let flags = if sent > 0 { MACHNET_SEND_CONTINUE } else { 0 };
        // SAFETY: a live channel; the parts are slices of `message`.
        let n = unsafe { machnet_sendv(rig.ch, conn, parts.as_ptr(), parts.len(), sent, flags) };
        assert!(n > 0, "sendv gave {n}");
        sent += n as usize;
        got.extend(rig.submitted(true).0);
    }
    assert!(got == message);
}

#[test]
fn abort_finish_close_and_reset_travel_in_order_with_the_data() {
    let mut rig = Rig::new();
    let (_, a) = rig.connection();
    let (_, b) = rig.connection();
    let ch = rig.ch;
    assert_eq!(rig.send(a, &pattern(100_000), 0), 16 * 1424);
    rig.submitted(true);
    // SAFETY: a live channel.
    unsafe {
        assert_eq!(machnet_abort(ch, a), 0);
        assert_eq!(rig.send(a, b"last", 0), 4);
        assert_eq!(machnet_finish(ch, a), 0);
        assert_eq!(rig.send(a, b"too late", 0), MACHNET_EPIPE.into());
        assert_eq!(machnet_close(ch, a), 0);
        assert_eq!(machnet_close(ch, a), MACHNET_ECLOSED);
        assert_eq!(machnet_reset(ch, b), 0);
    }
    assert_eq!(rig.submitted(true), (b"last".to_vec(), vec!["abort", "message", "fin", "close", "reset"]));
    assert_eq!(rig.send(a, b"gone", 0), MACHNET_ECLOSED.into());
    assert_eq!(rig.recv(a, 1, 0), Err(MACHNET_ECLOSED.into()));
}

#[test]
fn the_peers_end_and_reset_come_after_its_data() {
    let mut rig = Rig::new();
    let (flow, conn) = rig.connection();
    rig.deliver(flow, b"last words");
    assert_eq!(rig.engine().grant(flow, 1), 1);
    rig.engine().fin(flow);
    rig.engine().flush();
    assert_eq!(rig.recv(conn, 100, 0), Ok(b"last words".to_vec()));
    assert_eq!(rig.recv(conn, 100, 0), Err(MACHNET_EEOF.into()));
    assert_eq!(rig.send(conn, b"half closed: this way still works", 0), 33);
    let (flow, conn) = rig.connection();
    rig.deliver(flow, b"more");
    rig.engine().reset(flow, Reason::Gone);
    rig.engine().flush();
    let kinds: Vec<_> = rig.events().iter().map(|event| (event.kind, event.code)).collect();
    assert_eq!(kinds, [(MACHNET_EVENT_READABLE, 0), (MACHNET_EVENT_CLOSED, MACHNET_ERESET)]);
    assert_eq!(rig.recv(conn, 100, 0), Ok(b"more".to_vec()));
    assert_eq!(rig.recv(conn, 100, 0), Err(MACHNET_ERESET.into()));
    assert_eq!(rig.send(conn, b"x", 0), MACHNET_ERESET.into());
}

#[test]
fn a_sender_who_never_receives_hears_of_the_end_from_every_call() {
    let mut rig = Rig::new();
    let (flow, conn) = rig.connection();
    let ch = rig.ch;
    assert_eq!(rig.send(conn, &pattern(100_000), 0), 16 * 1424, "a message is under way");
    rig.engine().reset(flow, Reason::Reset);
    rig.engine().flush();
    // Nobody receives or polls, and no completion has come.
    let code = MACHNET_ERESET;
    let rest = pattern(100_000 - 16 * 1424);
    assert_eq!(rig.send(conn, &rest, MACHNET_SEND_CONTINUE), code.into());
    assert_eq!(rig.send(conn, b"x", MACHNET_SEND_WHOLE), code.into());
    let parts = [machnet_iovec { base: rest.as_ptr(), len: 10 }];
    // SAFETY: a live channel, and readable bytes.
    unsafe {
        assert_eq!(machnet_sendv(ch, conn, parts.as_ptr(), 1, 0, 0), code.into());
        assert_eq!(machnet_send(ch, conn, rest.as_ptr().cast(), 10, 0), code);
        assert_eq!(machnet_send(ch, conn, rest.as_ptr().cast(), 10, MACHNET_DONTWAIT), code);
        assert_eq!(machnet_abort(ch, conn), code);
        assert_eq!(machnet_finish(ch, conn), code);
        assert_eq!(machnet_close(ch, conn), 0);
        assert_eq!(machnet_send(ch, conn, rest.as_ptr().cast(), 10, 0), MACHNET_ECLOSED);
    }
}

#[test]
fn a_send_that_waits_returns_when_the_connection_ends() {
    let mut rig = Rig::new();
    let (flow, conn) = rig.connection();
    let (ch, began) = (rig.ch as usize, Instant::now());
    let sender = std::thread::spawn(move || {
        let message = pattern(100_000);
        // SAFETY: the channel lives until this thread is joined.
        unsafe { machnet_send(ch as Channel, conn, message.as_ptr().cast(), message.len(), 0) }
    });
    // It is in its middle once it has all the units that it may have.
    let mut units = 0;
    while units < 16 {
        assert!(began.elapsed() < Duration::from_secs(20), "{units} units came");
        if rig.engine().submission().expect("honest submissions").is_some() {
            units += 1;
        }
    }
    rig.engine().reset(flow, Reason::Timeout);
    rig.engine().flush();
    assert_eq!(joined(sender), MACHNET_ETIMEDOUT);
}

/// One that waits by itself leaves nothing for machnet_poll_tx, which who uses the calls that wait need not know.
#[test]
fn a_send_that_has_waited_leaves_nothing_that_others_would_wake_for() {
    let mut rig = Rig::new();
    let (_, conn) = rig.connection();
    let (ch, began) = (rig.ch as usize, Instant::now());
    let sender = std::thread::spawn(move || {
        let message = pattern(200_000);
        // SAFETY: the channel lives until this thread is joined.
        unsafe { machnet_send(ch as Channel, conn, message.as_ptr().cast(), message.len(), 0) }
    });
    let (mut bytes, mut woken) = (0, 0);
    while bytes < 200_000 && began.elapsed() < Duration::from_secs(20) {
        bytes += rig.submitted(true).0.len();
        // SAFETY: a live channel.
        woken += unsafe { machnet_wait(rig.ch, 0) };
    }
    assert_eq!((joined(sender), bytes), (0, 200_000));
    // SAFETY: a live channel.
    woken += unsafe { machnet_wait(rig.ch, 20) };
    assert_eq!(woken, 0, "nothing has come in");
}

#[test]
fn requests_and_replies_name_their_ids() {
    let mut rig = Rig::new();
    let ch = rig.ch;
    let (mut listener, mut dial) = (0, 0);
    let request = machnet_dial_t { ip: IP.to_bits(), port: 7, local_port: 0, timeout_ms: 30 };
    // SAFETY: a live channel, and writable ids.
    unsafe {
        assert_eq!(machnet_listen_begin(ch, 0, 80, 5, &mut listener), 0);
        assert_eq!(machnet_dial_begin(ch, &request, &mut dial), 0);
        assert_eq!(machnet_dial_cancel(ch, dial), 0);
        assert_eq!(machnet_dial_begin(ch, &machnet_dial_t::default(), &mut dial), MACHNET_EINVAL);
    }
    assert_ne!(listener, dial);
    let asked: Vec<_> = std::iter::from_fn(|| rig.engine().request().expect("honest requests")).collect();
    let ip = Ipv4Addr::UNSPECIFIED;
    assert_eq!(
        asked,
        [
            Request::Listen { id: listener, ip, port: 80, backlog: 5 },
            Request::Connect { id: dial, ip: IP, port: 7, local_port: 0, timeout_ms: 30 },
            Request::Cancel { id: dial },
        ]
    );
    rig.engine().reply(Reply::Listening { id: listener, port: 80 });
    rig.engine().reply(Reply::ConnectFailed { id: dial, reason: Reason::Canceled });
    rig.engine().reply(Reply::Unlistened { id: listener });
    rig.engine().flush();
    let events: Vec<_> = rig.events().iter().map(|e| (e.kind, e.id, e.code, e.local_port)).collect();
    assert_eq!(
        events,
        [
            (MACHNET_EVENT_LISTENING, listener, 0, 80),
            (MACHNET_EVENT_CONNECT_FAILED, dial, MACHNET_ECANCELED, 0),
            (MACHNET_EVENT_UNLISTENED, listener, 0, 0),
        ]
    );
}

#[test]
fn a_waiter_sees_by_loads_alone_what_has_come() {
    let mut rig = Rig::new();
    let (flow, conn) = rig.connection();
    // SAFETY: all-zero pointers are a valid value of this struct.
    let mut view: machnet_wait_view_t = unsafe { std::mem::zeroed() };
    // SAFETY: a live channel and a writable struct.
    assert_eq!(unsafe { machnet_wait_view(rig.ch, &mut view) }, 0);
    let ready = |ring: &machnet_ring_view| {
        // SAFETY: the addresses that the channel gave out, and it lives.
        unsafe {
            let head = ring.head.read_volatile();
            let slot = ring.slots.add((head & ring.mask) as usize * ring.stride as usize);
            slot.cast::<u32>().read_volatile() == head.wrapping_add(1)
        }
    };
    assert!(!ready(&view.deliver) && !ready(&view.complete) && !ready(&view.replies));
    rig.deliver(flow, b"x");
    assert!(ready(&view.deliver));
    assert_eq!(rig.recv(conn, 9, 0), Ok(b"x".to_vec()));
    assert!(!ready(&view.deliver));
    let (other, _) = rig.connection();
    rig.deliver(other, b"for another");
    assert_eq!(rig.recv(conn, 9, 0), Err(MACHNET_EAGAIN.into()));
    // SAFETY: an address that the channel gave out, and it lives.
    assert_eq!((ready(&view.deliver), unsafe { view.events.read_volatile() }), (false, 1));
    rig.send(conn, b"y", 0);
    rig.submitted(true);
    assert!(ready(&view.complete));
    rig.engine().reply(Reply::Unlistened { id: 1 });
    assert!(ready(&view.replies));
    rig.events();
    assert!(!ready(&view.replies));
    rig.kill();
    // SAFETY: a live channel; `down` as above.
    unsafe {
        assert_eq!(view.down.read_volatile(), 0);
        assert_eq!(machnet_check(rig.ch), MACHNET_ENETDOWN);
        assert_eq!(view.down.read_volatile(), 1);
    }
}

#[test]
fn an_armed_channel_is_rung_and_one_with_work_does_not_sleep() {
    let mut rig = Rig::new();
    let (flow, conn) = rig.connection();
    let ch = rig.ch;
    // SAFETY: a live channel.
    let fd = unsafe { machnet_doorbell(ch) };
    let rung = || {
        let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry.
        unsafe { libc::poll(&mut entry, 1, 0) == 1 }
    };
    // SAFETY: a live channel.
    unsafe {
        assert_eq!(machnet_arm(ch), 1);
        assert!(!rung());
        rig.deliver(flow, b"x");
        assert!(rung(), "an armed channel was not rung");
        machnet_disarm(ch);
        assert_eq!(machnet_drain(ch), 0);
        assert!(!rung());
        assert_eq!(machnet_arm(ch), 0, "there is work");
        rig.events();
        assert_eq!(machnet_arm(ch), 1, "told is not work: the reader knows");
        machnet_disarm(ch);
    }
    assert_eq!(rig.recv(conn, 9, 0), Ok(b"x".to_vec()));
}

/// A dial whose request finds room or not.
fn dial(ch: Channel) -> i32 {
    let (mut id, to) = (0, machnet_dial_t { ip: IP.to_bits() + 1, port: 7, ..machnet_dial_t::default() });
    // SAFETY: a live channel, a readable dial and a writable id.
    unsafe { machnet_dial_begin(ch, &to, &mut id) }
}

/// Dials until there is no room; how many requests the ring holds.
fn fill_requests(ch: Channel) -> u32 {
    let mut sent = 0;
    loop {
        match dial(ch) {
            0 => sent += 1,
            MACHNET_EAGAIN => return sent,
            code => panic!("dial {sent} gave {code}"),
        }
        assert!(sent < 10_000, "the ring has no end");
    }
}

#[test]
fn a_request_without_room_is_told_so_and_whoever_waits_hears_once_that_there_is_some() {
    let mut rig = Rig::new();
    let ch = rig.ch;
    fill_requests(ch);
    // SAFETY: a live channel.
    let (arm, wait) = unsafe { (|| machnet_arm(ch), |ms| machnet_wait(ch, ms)) };
    assert_eq!((wait(0), arm()), (0, 1), "the ring is full, and nobody took anything");
    let mut taken = |ring: bool| {
        assert!(matches!(rig.engine().request(), Ok(Some(Request::Connect { .. }))));
        let mut entry = libc::pollfd {
            // SAFETY: a live channel.
            fd: unsafe { machnet_doorbell(ch) },
            events: libc::POLLIN,
            revents: 0,
        };
        rig.engine().flush();
        // SAFETY: one entry.
        assert_eq!(unsafe { libc::poll(&mut entry, 1, 0) == 1 }, ring, "rung");
        // SAFETY: a live channel.
        assert_eq!(unsafe { machnet_drain(ch) }, 0);
    };
    taken(true);
    assert_eq!((arm(), arm()), (0, 1), "told once: who does not ask again may sleep");
    assert_eq!((dial(ch), dial(ch)), (0, MACHNET_EAGAIN));
    taken(false);
    assert_eq!((wait(-1), wait(0)), (1, 0), "as before");
    assert_eq!(dial(ch), 0);
    assert_eq!(arm(), 1);
    taken(false);
}

#[test]
fn the_end_of_a_listener_or_dial_is_kept_until_there_is_room_and_what_begins_comes_after_it() {
    let mut rig = Rig::new();
    let ch = rig.ch;
    let sent = fill_requests(ch);
    // SAFETY: a live channel.
    unsafe {
        for id in 1..=300 {
            assert_eq!(machnet_unlisten(ch, id), 0, "listener {id}");
            assert_eq!(machnet_unlisten(ch, id), 0, "listener {id} again");
        }
        assert_eq!(machnet_dial_cancel(ch, 9), 0);
    }
    for _ in 0..sent {
        assert!(matches!(rig.engine().request(), Ok(Some(Request::Connect { .. }))));
    }
    assert_eq!(dial(ch), MACHNET_EAGAIN, "the 301 that were kept are first");
    let mut ended = Vec::new();
    while ended.len() < 301 {
        // Nothing but this is called any more.
        assert!(rig.events().is_empty());
        let before = ended.len();
        while let Some(request) = rig.engine().request().expect("an honest application") {
            ended.push(request);
        }
        assert!(ended.len() > before, "{before} of 301, and no more come");
    }
    let wanted = (1..=300).map(|id| Request::Unlisten { id }).chain([Request::Cancel { id: 9 }]);
    assert!(ended.into_iter().eq(wanted), "each once, in their order");
    assert_eq!(dial(ch), 0);
}

/// Whoever polls looks whether what was kept can go, and turns away nobody who sends meanwhile.
#[test]
fn a_poll_with_something_kept_makes_no_send_busy() {
    let mut rig = Rig::new();
    let (_, conn) = rig.connection();
    fill_requests(rig.ch);
    // SAFETY: a live channel.
    assert_eq!(unsafe { machnet_unlisten(rig.ch, 1) }, 0);
    let (ch, over) = (rig.ch as usize, AtomicBool::new(false));
    let busy = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut event = machnet_event::default();
            while !over.load(Relaxed) {
                // SAFETY: the channel lives until the test ends; one writable event.
                assert!(unsafe { machnet_poll(ch as Channel, &mut event, 1) } >= 0);
            }
        });
        // SAFETY: as above. There is no message to give up.
        let busy = (0..200_000).filter(|_| unsafe { machnet_abort(ch as Channel, conn) } != 0).count();
        over.store(true, Relaxed);
        busy
    });
    assert_eq!(busy, 0);
}

/// The sidecar takes nothing until the caller has had time to fall asleep.
#[test]
fn blocking_calls_wait_for_room_and_no_longer_than_their_time() {
    let mut rig = Rig::new();
    let ch = rig.ch as usize;
    let sent = fill_requests(rig.ch);
    let mut conn = 0;
    // SAFETY: a live channel and a writable result.
    assert_eq!(unsafe { machnet_connect(rig.ch, 1, 1, 30, &mut conn) }, MACHNET_ETIMEDOUT);
    let caller = std::thread::spawn(move || {
        let (mut id, mut port) = (0, 0);
        // SAFETY: the channel lives until the test ends; writable results.
        unsafe { (machnet_listen(ch as Channel, 5, &mut id, &mut port), id, port) }
    });
    sleep(Duration::from_millis(50));
    let begun = Instant::now();
    let mut taken = 0;
    while !caller.is_finished() {
        match rig.engine().request().expect("an honest application") {
            Some(Request::Listen { id, backlog: 5, .. }) => {
                assert_eq!(taken, sent, "it came after those that were there");
                rig.engine().reply(Reply::Listening { id, port: 77 });
            }
            Some(Request::Connect { .. }) => taken += 1,
            Some(other) => panic!("{other:?}"),
            None => sleep(Duration::from_millis(1)),
        }
        rig.engine().flush();
        assert!(begun.elapsed() < Duration::from_secs(5), "the call does not return");
    }
    let (code, id, port) = joined(caller);
    assert_eq!((code, port), (0, 77), "{}", text(rig.ch));
    assert!(id > sent);
}

#[test]
fn a_refusal_names_what_is_full_and_how_many_in_events_and_in_the_error_text() {
    let mut rig = Rig::new();
    let ch = rig.ch as usize;
    let words = "the process that listens there has 256 connections, as many as one may have";
    assert_eq!(dial(rig.ch), 0);
    let Ok(Some(Request::Connect { id, .. })) = rig.engine().request() else { panic!("no request") };
    let full = |id| Reply::ConnectFailed { id, reason: Reason::Full(Limit::PeerConnections, 256) };
    rig.engine().reply(full(id));
    let events = rig.events();
    let (event, mut buf) = (events[0], [0_u8; MACHNET_ERROR_TEXT_MAX as usize]);
    assert_eq!((event.id, event.code, event.limit), (id, MACHNET_EPEER_FULL_CONNS, 256));
    // SAFETY: a readable event and a writable buffer of this size, or less of it.
    let mut told = |cap| unsafe { machnet_event_text(&event, buf.as_mut_ptr().cast(), cap) };
    assert_eq!((told(0), told(4)), (0, 3));
    let len = told(256);
    assert!(buf.starts_with(words.as_bytes()) && buf[len] == 0, "{}", String::from_utf8_lossy(&buf));

    let caller = std::thread::spawn(move || {
        let mut conn = 0;
        // SAFETY: the channel lives until the test ends; a writable result.
        unsafe { machnet_connect(ch as Channel, IP.to_bits() + 1, 80, 0, &mut conn) }
    });
    let begun = Instant::now();
    while !caller.is_finished() {
        if let Some(Request::Connect { id, .. }) = rig.engine().request().expect("an honest application") {
            rig.engine().reply(full(id));
        }
        rig.engine().flush();
        sleep(Duration::from_millis(1));
        assert!(begun.elapsed() < Duration::from_secs(5), "the call does not return");
    }
    assert_eq!(joined(caller), MACHNET_EPEER_FULL_CONNS);
    assert!(text(rig.ch).starts_with(&format!("connect 10.0.0.2:80: {words}")), "{}", text(rig.ch));
}

#[test]
fn every_call_says_that_the_sidecar_is_gone() {
    let mut rig = Rig::new();
    let (_, conn) = rig.connection();
    let ch = rig.ch;
    assert!(rig.engine().arm(), "nothing is submitted");
    rig.kill();
    // Rings a bell that nobody holds: that must not end this process, which does not ignore SIGPIPE as Rust's do.
    // SAFETY: the disposition of a signal, set before it can come.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    assert_eq!(rig.send(conn, b"into the void", 0), 13);
    let mut id = 0;
    let (mut event, dial) =
        (machnet_event::default(), machnet_dial_t { ip: 1, port: 1, ..machnet_dial_t::default() });
    let mut accepted = 0;
    // SAFETY: a live channel and writable results.
    unsafe {
        assert_eq!(machnet_drain(ch), MACHNET_ENETDOWN);
        let all = [
            machnet_check(ch),
            machnet_drain(ch),
            machnet_poll(ch, &mut event, 1),
            machnet_poll_tx(ch, &mut event, 1),
            machnet_send(ch, conn, b"x".as_ptr().cast(), 1, 0),
            machnet_send_some(ch, conn, b"x".as_ptr().cast(), 1, 0) as i32,
            machnet_sendv(ch, conn, std::ptr::null(), 0, 0, 0) as i32,
            machnet_recv(ch, conn, null_mut(), 0, 0, null_mut()) as i32,
            machnet_recv_some(ch, conn, null_mut(), 0, 0, null_mut()) as i32,
            machnet_abort(ch, conn),
            machnet_finish(ch, conn),
            machnet_close(ch, conn),
            machnet_reset(ch, conn),
            machnet_listen_begin(ch, 0, 0, 1, &mut id),
            machnet_unlisten(ch, 1),
            machnet_dial_begin(ch, &dial, &mut id),
            machnet_dial_cancel(ch, 1),
            machnet_listen(ch, 1, &mut id, null_mut()),
            machnet_accept(ch, 1, &mut accepted, null_mut(), 0),
            machnet_accepted(ch, conn),
            machnet_connect(ch, 1, 1, 0, &mut accepted),
            machnet_wait(ch, -1),
        ];
        assert_eq!(all, [MACHNET_ENETDOWN; 22]);
        assert_eq!(machnet_arm(ch), 0, "nobody may sleep on a dead channel");
    }
    assert_eq!(text(ch), "channel: the sidecar is gone or has dropped it; attach anew");
}

/// A call that waits holds signals off while it looks: one of our own pipe must not meet the program after that.
#[test]
fn a_bell_that_nobody_holds_leaves_no_signal_behind_where_signals_are_held_off() {
    let mut rig = Rig::new();
    let (_, conn) = rig.connection();
    assert!(rig.engine().arm(), "nothing is submitted");
    rig.kill();
    // SAFETY: sets of this thread, written before they are read; only its own mask is changed.
    let waits = unsafe {
        let (mut pipe, mut pending) =
            (std::mem::zeroed::<libc::sigset_t>(), std::mem::zeroed::<libc::sigset_t>());
        libc::sigaddset(&mut pipe, libc::SIGPIPE);
        assert_eq!(libc::pthread_sigmask(libc::SIG_BLOCK, &pipe, null_mut()), 0);
        assert_eq!(rig.send(conn, b"into the void", 0), 13);
        libc::sigpending(&mut pending);
        libc::sigismember(&pending, libc::SIGPIPE)
    };
    assert_eq!(waits, 0, "SIGPIPE waits for this thread");
}

#[test]
fn a_call_that_sleeps_wakes_when_the_sidecar_dies() {
    let mut rig = Rig::new();
    let (_, conn) = rig.connection();
    let ch = rig.ch as usize;
    let waiter = std::thread::spawn(move || {
        let mut byte = 0_u8;
        // SAFETY: the channel lives until this thread is joined.
        unsafe { machnet_recv(ch as Channel, conn, (&raw mut byte).cast(), 1, 0, null_mut()) }
    });
    sleep(Duration::from_millis(20));
    let killed = Instant::now();
    rig.kill();
    assert_eq!(joined(waiter), MACHNET_ENETDOWN.into());
    assert!(killed.elapsed() < Duration::from_millis(500), "it took {:?}", killed.elapsed());
}

/// An answer that nobody takes is not what these calls wait for: they sleep beside it, as a signal shows, which is let in only then.
#[test]
fn calls_that_wait_sleep_though_answers_wait_for_machnet_poll() {
    extern "C" fn nothing(_: i32) {}
    // SAFETY: a handler without SA_RESTART that does nothing, for a signal that nobody else here uses.
    unsafe {
        let mut action = std::mem::zeroed::<libc::sigaction>();
        action.sa_sigaction = nothing as extern "C" fn(i32) as usize;
        assert_eq!(libc::sigaction(libc::SIGUSR2, &action, null_mut()), 0);
    }
    // One, and more than a channel sets aside.
    for answers in [1, 40] {
        let mut rig = Rig::new();
        let (_, conn) = rig.connection();
        for id in 1..=answers {
            // SAFETY: a live channel.
            assert_eq!(unsafe { machnet_unlisten(rig.ch, id) }, 0);
            assert!(matches!(rig.engine().request(), Ok(Some(Request::Unlisten { .. }))));
            rig.engine().reply(Reply::Unlistened { id });
        }
        rig.engine().flush();
        let ch = rig.ch as usize;
        let waiter = std::thread::spawn(move || {
            let mut byte = 0_u8;
            let out = (&raw mut byte).cast();
            // SAFETY: the channel lives until this thread is joined; one writable byte.
            unsafe { machnet_recv_timeout(ch as Channel, conn, out, 1, 0, null_mut(), 3000) }
        });
        while !waiter.is_finished() {
            // SAFETY: a thread that is not joined yet.
            unsafe { libc::pthread_kill(waiter.as_pthread_t(), libc::SIGUSR2) };
            sleep(Duration::from_millis(5));
        }
        assert_eq!(joined(waiter), MACHNET_EINTR.into(), "beside {answers} answers");
        if answers == 40 {
            let mut made = 0;
            // SAFETY: a live channel and a writable result.
            let code = unsafe { machnet_connect(rig.ch, IP.to_bits() + 1, 80, 0, &mut made) };
            assert_eq!(code, MACHNET_ENOBUFS);
            assert!(text(rig.ch).starts_with("request: too many answers wait for machnet_poll"));
            assert!(matches!(rig.engine().request(), Ok(None)), "nothing was asked");
        }
        let mut events = 0;
        while let have @ 1.. = rig.events().len() {
            events += have;
        }
        assert_eq!(events, answers as usize, "each is there for machnet_poll");
    }
}

#[test]
fn a_second_caller_in_a_direction_is_told_so_and_the_other_direction_works() {
    let mut rig = Rig::new();
    let (flow, conn) = rig.connection();
    let ch = rig.ch as usize;
    let waiter = std::thread::spawn(move || {
        let mut bytes = [0_u8; 8];
        // SAFETY: the channel lives until this thread is joined.
        unsafe { machnet_recv(ch as Channel, conn, bytes.as_mut_ptr().cast(), 8, 0, null_mut()) }
    });
    sleep(Duration::from_millis(20));
    assert_eq!(rig.recv(conn, 8, 0), Err(MACHNET_EBUSY.into()));
    assert_eq!(rig.send(conn, b"the other way", 0), 13);
    rig.deliver(flow, b"now");
    assert_eq!(joined(waiter), 3);
}

#[test]
fn the_blocking_calls_make_an_echo() {
    let mut rig = Rig::new();
    let ch = rig.ch as usize;
    let app = std::thread::spawn(move || {
        let ch = ch as Channel;
        let (mut listener, mut port, mut conn, mut peer) = (0, 0, 0, machnet_peer::default());
        let mut message = vec![0_u8; 100_000];
        // SAFETY: the channel lives until this thread is joined; all results are writable.
        unsafe {
            assert_eq!(machnet_init(), 0);
            assert_eq!(machnet_bind(ch, 0x0a00_00ff, 80), MACHNET_EADDR);
            assert_eq!(
                text(ch),
                "bind 10.0.0.255:80: the sidecar's address is 10.0.0.1; bind that, or 0.0.0.0"
            );
            assert_eq!(machnet_bind(ch, IP.to_bits(), 80), 0);
            assert_eq!(machnet_listen(ch, 5, &mut listener, &mut port), 0);
            assert_eq!(machnet_accept(ch, listener, &mut conn, &mut peer, 0), 0);
            let got = machnet_recv(
                ch,
                conn,
                message.as_mut_ptr().cast(),
                100_000,
                MACHNET_RECV_MESSAGE,
                null_mut(),
            );
            assert_eq!(machnet_send(ch, conn, message.as_ptr().cast(), got as usize, 0), 0);
            assert_eq!(machnet_connect(ch, IP.to_bits(), 7, 0, &mut conn), MACHNET_EREFUSED);
            (listener, port, peer.remote_port, got, text(ch))
        }
    });
    let ask = |rig: &mut Rig| loop {
        if let Some(request) = rig.engine().request().expect("honest requests") {
            return request;
        }
        std::thread::yield_now();
    };
    let Request::Listen { id, .. } = ask(&mut rig) else { panic!("a listen was expected") };
    rig.engine().reply(Reply::Listening { id, port: 80 });
    let flow = rig.engine().open_flow().expect("a flow");
    let made = Established { flow, origin: Origin::Accepted(id), local: (IP, 80), peer: (IP, 4000) };
    rig.engine().established(&made);
    let message = pattern(90_000);
    let mut delivered = 0;
    while delivered < message.len() {
        rig.engine().returns(|_| {}).expect("honest returns");
        if rig.engine().grant(flow, 1) == 0 {
            std::thread::yield_now();
            continue;
        }
        let next = (delivered + 1424).min(message.len());
        let (begin, end) = (delivered == 0, next == message.len());
        let fragment = Fragment { begin, end, message_len: if begin { 90_000 } else { 0 } };
        assert!(rig.engine().deliver(flow, fragment, &message[delivered..next]));
        rig.engine().flush();
        delivered = next;
    }
    let mut echoed = Vec::new();
    while echoed.len() < message.len() {
        echoed.extend(rig.submitted(true).0);
    }
    assert!(echoed == message);
    let Request::Connect { id: dial, .. } = ask(&mut rig) else { panic!("a connect was expected") };
    rig.engine().reply(Reply::ConnectFailed { id: dial, reason: Reason::Refused });
    rig.engine().flush();
    let (listener, port, remote, got, said) = joined(app);
    assert_eq!((listener, port, remote, got), (id, 80, 4000, 90_000));
    assert_eq!(said, "connect 10.0.0.1:7: connection refused: nobody listens at the remote port");
}

#[test]
fn attaching_where_no_sidecar_is_says_what_to_do() {
    for (path, code, want) in [
        (
            c"/nowhere/machnet.sock",
            MACHNET_ENOSIDECAR,
            "attach /nowhere/machnet.sock: there is no such socket; start machnetd, or set MACHNET_SOCKET to its socket",
        ),
        (c"/dev/null", MACHNET_ENOSIDECAR, "attach /dev/null: nobody listens at this socket; start machnetd"),
    ] {
        let mut ch: Channel = null_mut();
        // SAFETY: a C string and a writable pointer.
        let attached = unsafe { machnet_attach(path.as_ptr(), std::ptr::null(), &mut ch) };
        assert_eq!((attached, text(ch).as_str()), (code, want));
        let mut event = machnet_event::default();
        // SAFETY: a channel that is given back once.
        unsafe {
            assert_eq!(machnet_poll(ch, &mut event, 1), MACHNET_ENOTATTACHED);
            machnet_detach(ch);
        }
    }
}

#[test]
fn a_sidecar_of_another_version_gets_one_clear_sentence() {
    let (app, sidecar) = socketpair();
    let mut ch: Channel = null_mut();
    // SAFETY: a writable pointer; the channel owns the socket.
    unsafe {
        assert_eq!(machnet_attach_fd(app, std::ptr::null(), &mut ch), 0);
        assert_eq!(machnet_attach_step(ch), MACHNET_EAGAIN);
        // Between the two ends sits somebody who changes the application's version.
        let mut bytes = [0_u8; 512];
        let n = libc::recv(sidecar, bytes.as_mut_ptr().cast(), 512, 0);
        bytes[12] = 99;
        let (near, far) = socketpair();
        assert_eq!(libc::send(near, bytes.as_ptr().cast(), n as usize, 0), n);
        let mut server = ServerAttach::new(Fd::own(far));
        assert!(server.step().is_err());
        let n = libc::recv(near, bytes.as_mut_ptr().cast(), 512, 0);
        assert_eq!(libc::send(sidecar, bytes.as_ptr().cast(), n as usize, 0), n);
        libc::close(near);
        assert_eq!(machnet_attach_step(ch), MACHNET_EVERSION);
        assert_eq!(machnet_attach_step(ch), MACHNET_EVERSION, "the answer stays the same");
        let said = text(ch);
        assert!(
            said.starts_with("attach over descriptor") && said.contains("app speaks channel version"),
            "{said}"
        );
        machnet_detach(ch);
        libc::close(sidecar);
    }
}

#[test]
fn nonsense_is_refused_and_changes_nothing() {
    let mut rig = Rig::new();
    let (_, conn) = rig.connection();
    let ch = rig.ch;
    // SAFETY: null channels and null buffers are what is tested; lengths that lie are refused before use.
    unsafe {
        assert_eq!(machnet_send_some(null_mut(), conn, b"x".as_ptr().cast(), 1, 0), MACHNET_EINVAL.into());
        assert_eq!(machnet_send_some(ch, conn, std::ptr::null(), 1, 0), MACHNET_EINVAL.into());
        assert_eq!(machnet_send_some(ch, conn, b"x".as_ptr().cast(), usize::MAX, 0), MACHNET_EINVAL.into());
        assert_eq!(machnet_send_some(ch, conn, b"x".as_ptr().cast(), 1, 77), MACHNET_EINVAL.into());
        assert_eq!(
            machnet_send_some(ch, conn, b"x".as_ptr().cast(), 1, MACHNET_SEND_CONTINUE),
            MACHNET_EINVAL.into()
        );
        assert_eq!(machnet_recv_some(ch, conn, null_mut(), 1, 0, null_mut()), MACHNET_EINVAL.into());
        assert_eq!(machnet_recv_some(ch, conn, null_mut(), 0, 77, null_mut()), MACHNET_EINVAL.into());
        assert_eq!(machnet_poll(ch, null_mut(), 1), MACHNET_EINVAL);
        assert_eq!(machnet_poll(ch, null_mut(), -1), 0);
        assert_eq!(machnet_sendv(ch, conn, std::ptr::null(), 1, 0, 0), MACHNET_EINVAL.into());
        assert_eq!(machnet_sendv(ch, conn, std::ptr::null(), 0, 1, 0), MACHNET_EINVAL.into());
        assert_eq!(machnet_attach_begin(c"x".as_ptr(), std::ptr::null(), null_mut()), MACHNET_EINVAL);
        machnet_detach(null_mut());
        machnet_info(null_mut(), null_mut());
    }
    for handle in [0, 1, conn + 1, conn + (1 << 32), u64::MAX] {
        assert_eq!(rig.send(handle, b"x", 0), MACHNET_ECLOSED.into());
        assert_eq!(rig.recv(handle, 1, 0), Err(MACHNET_ECLOSED.into()));
    }
    for (handle, code, said) in [(conn + 1, MACHNET_ECLOSED, "accepted: closed"), (conn, 0, "")] {
        // SAFETY: a live channel.
        assert_eq!((unsafe { machnet_accepted(ch, handle) }, text(ch).as_str()), (code, said));
    }
    let long = vec![0; MACHNET_MAX_MESSAGE as usize + 1];
    assert_eq!(rig.send(conn, &long, 0), MACHNET_ETOOBIG.into());
    assert_eq!(rig.submitted(true), (vec![], vec![]));
}
