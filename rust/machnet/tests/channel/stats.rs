//! What a program asks of one connection: what is known of it, how often its peer is asked whether it lives, and what is not acknowledged yet.
use crate::rig::{Channel, GEOMETRY, IP, Rig, joined, pattern, socketpair, text};
use machnet::abi::*;
use machnet::*;
use machnet_shm::{
    Fd, FlowStats, KeepAlive, Pairs, Reason, Reply, Request, ServerAttach, ServerStep, Stage, Submission,
    Waits, Welcome,
};
use std::ptr::null_mut;
use std::thread::sleep;
use std::time::{Duration, Instant};

const KNOWN: FlowStats = FlowStats {
    srtt_ns: 1 << 40,
    rtt_var_ns: 2,
    bytes_sent: 3,
    bytes_received: 4,
    units_sent: 5,
    units_received: 6,
    retransmitted: 7,
    timeouts: 8,
    window: 9,
    in_flight: 10,
    queued: 11,
    credit: 12,
    granted: 13,
    engine: 14,
    udp_ports: (15, 16),
    peer_udp_ports: (17, 18),
    stage: Stage::Over,
    waits: Waits::Credit,
    pairing: Pairs::GivenUp,
    reason: Some(Reason::Timeout),
};

const TOLD: machnet_stats_t = machnet_stats_t {
    srtt_ns: 1 << 40,
    rtt_var_ns: 2,
    bytes_sent: 3,
    bytes_received: 4,
    units_sent: 5,
    units_received: 6,
    retransmitted: 7,
    timeouts: 8,
    window: 9,
    in_flight: 10,
    queued: 11,
    credit: 12,
    granted: 13,
    engine: 14,
    udp_source: 15,
    udp_destination: 16,
    peer_udp_source: 17,
    peer_udp_destination: 18,
    stage: MACHNET_STAGE_OVER,
    waits: MACHNET_WAITS_CREDIT,
    pairing: MACHNET_PAIRING_GIVEN_UP,
    reserved: [0; 5],
    reason: MACHNET_ETIMEDOUT,
};

fn begin(ch: Channel, conn: machnet_conn) -> (i32, u32) {
    let mut id = 0;
    // SAFETY: a live channel and a writable id.
    (unsafe { machnet_stats_begin(ch, conn, &mut id) }, id)
}

fn take(ch: Channel, id: u32) -> Result<machnet_stats_t, i32> {
    let mut out = machnet_stats_t::default();
    // SAFETY: a live channel and a writable result.
    match unsafe { machnet_stats_take(ch, id, &mut out) } {
        0 => Ok(out),
        code => Err(code),
    }
}

#[test]
fn an_answer_is_taken_once_by_the_number_of_its_question() {
    let mut rig = Rig::new();
    let (flow, conn) = rig.connection();
    let (asked, id) = begin(rig.ch, conn);
    assert_eq!((asked, take(rig.ch, id), take(rig.ch, 0)), (0, Err(MACHNET_ECLOSED), Err(MACHNET_ECLOSED)));
    assert_eq!(rig.engine().request(), Ok(Some(Request::Stats { id, flow })));
    rig.engine().reply(Reply::Stats { id, stats: Some(KNOWN) });
    rig.engine().reply(Reply::Stats { id: 99, stats: None });
    rig.engine().flush();
    let events: Vec<_> = rig.events().iter().map(|e| (e.kind, e.id, e.code)).collect();
    assert_eq!(events, [(MACHNET_EVENT_STATS, id, 0), (MACHNET_EVENT_STATS, 99, MACHNET_ECLOSED)]);
    assert_eq!((take(rig.ch, id), take(rig.ch, id)), (Ok(TOLD), Err(MACHNET_ECLOSED)));

    // As many as are asked for at once and taken before the next look; those that nobody takes give way to the newest.
    let answers = |rig: &mut Rig, ids: std::ops::Range<u32>| {
        for id in ids {
            rig.engine().reply(Reply::Stats { id, stats: Some(KNOWN) });
            assert_eq!(rig.events().len(), 1);
        }
    };
    answers(&mut rig, 1000..1064);
    assert!((1000..1064).all(|id| take(rig.ch, id) == Ok(TOLD)));
    answers(&mut rig, 2000..2065);
    assert_eq!(take(rig.ch, 2000), Err(MACHNET_ECLOSED));
    assert_eq!(take(rig.ch, 2001), Ok(TOLD));

    // SAFETY: a live channel.
    assert_eq!(unsafe { machnet_close(rig.ch, conn) }, 0);
    assert_eq!(begin(rig.ch, conn).0, MACHNET_ECLOSED);
}

#[test]
fn the_call_that_waits_gives_the_answer_and_ends_with_its_time() {
    let mut rig = Rig::new();
    let (_, conn) = rig.connection();
    let ch = rig.ch as usize;
    let ask = move |timeout_ms| {
        std::thread::spawn(move || {
            let mut out = machnet_stats_t::default();
            // SAFETY: the channel lives until the test ends; a writable result.
            let code = unsafe { machnet_stats(ch as Channel, conn, &mut out, timeout_ms) };
            (code, out)
        })
    };
    for (stats, wanted) in [(Some(KNOWN), (0, TOLD)), (None, (MACHNET_ECLOSED, machnet_stats_t::default()))] {
        // What was bound for the next listener is bound still.
        // SAFETY: a live channel.
        assert_eq!(unsafe { machnet_bind(rig.ch, 0, 81) }, 0);
        let caller = ask(-1);
        let begun = Instant::now();
        let id = loop {
            match rig.engine().request().expect("honest requests") {
                Some(Request::Stats { id, .. }) => break id,
                other => assert_eq!(other, None),
            }
            assert!(begun.elapsed() < Duration::from_secs(5), "nothing is asked");
            sleep(Duration::from_millis(1));
        };
        rig.engine().reply(Reply::Stats { id, stats });
        rig.engine().flush();
        assert_eq!(joined(caller), wanted);
    }
    assert_eq!(joined(ask(20)).0, MACHNET_ETIMEDOUT);
    let mut listener = 0;
    let caller = std::thread::spawn(move || {
        // SAFETY: the channel lives until the test ends; a writable id.
        unsafe { machnet_listen(ch as Channel, 1, 0, &mut listener, null_mut()) }
    });
    let begun = Instant::now();
    let (id, port) = loop {
        match rig.engine().request().expect("honest requests") {
            Some(Request::Listen { id, port, .. }) => break (id, port),
            _ => assert!(begun.elapsed() < Duration::from_secs(5), "nothing is asked"),
        }
        sleep(Duration::from_millis(1));
    };
    rig.engine().reply(Reply::Listening { id, port });
    rig.engine().flush();
    assert_eq!((joined(caller), port), (0, 81));
}

#[test]
fn a_keep_alive_out_of_range_is_refused_with_the_range() {
    let mut rig = Rig::new();
    let (flow, conn) = rig.connection();
    // SAFETY: a live channel.
    let set = |conn, ms| unsafe { machnet_keepalive(rig.ch, conn, ms) };
    for bad in [1, 9, 600_001, u32::MAX - 1] {
        assert_eq!(set(conn, bad), MACHNET_EINVAL);
    }
    assert_eq!(set(conn + 1, 10), MACHNET_ECLOSED);
    for good in [MACHNET_KEEPALIVE_NEVER, MACHNET_KEEPALIVE_DEFAULT, 10, 600_000] {
        assert_eq!(set(conn, good), 0);
    }
    assert_eq!(set(conn, 601_000), MACHNET_EINVAL);
    let said = text(rig.ch);
    assert!(said.contains("601000 ms") && said.contains("10 to 600000"), "{said}");
    let asked: Vec<_> = std::iter::from_fn(|| rig.engine().request().expect("honest requests")).collect();
    let every = [KeepAlive::Never, KeepAlive::Default, KeepAlive::Millis(10), KeepAlive::Millis(600_000)];
    assert_eq!(asked, every.map(|after| Request::KeepAlive { flow, after }));
}

#[test]
fn what_is_not_acknowledged_is_counted_down_to_nothing() {
    let mut rig = Rig::new();
    let (_, conn) = rig.connection();
    let ch = rig.ch;
    // SAFETY: a live channel.
    let unacked = || unsafe { machnet_unacked(ch, conn) };
    assert_eq!(unacked(), 0);
    assert_eq!(rig.send(conn, &pattern(5000), 0), 5000);
    // SAFETY: a live channel.
    assert_eq!(unsafe { machnet_finish(ch, conn) }, 0);
    assert_eq!(unacked(), 5, "four units and the end");
    let mut left = 5;
    while let Some(submission) = rig.engine().submission().expect("an honest application") {
        let (Submission::Data { unit, .. } | Submission::Fin { unit, .. }) = submission else { panic!() };
        assert_eq!(unacked(), left);
        rig.engine().complete(unit);
        rig.engine().flush();
        left -= 1;
        assert_eq!(unacked(), left);
    }
    assert_eq!(left, 0);
    // SAFETY: a live channel.
    unsafe {
        assert_eq!(machnet_close(ch, conn), 0);
        assert_eq!(machnet_unacked(ch, conn), i64::from(MACHNET_ECLOSED));
    }
}

/// What all channels of an application say of themselves, and of their listeners.
#[test]
fn a_channel_says_whose_it_is() {
    let (app, sidecar) = socketpair();
    let mut ch: Channel = null_mut();
    let options = machnet_options { engine: 2, group: 0xfeed };
    // SAFETY: readable options, and `ch` is writable; the channel owns the socket.
    assert_eq!(unsafe { machnet_attach_fd(app, &options, &mut ch) }, 0);
    // SAFETY: a live channel.
    assert_eq!(unsafe { machnet_attach_step(ch) }, MACHNET_EAGAIN);
    let mut server = ServerAttach::new(Fd::own(sidecar));
    let ServerStep::Hello(hello) = server.step().expect("a hello") else { panic!("no hello") };
    assert_eq!((hello.engine, hello.group), (Some(2), 0xfeed));
    server.welcome(&Welcome { geometry: GEOMETRY, engine: 2, ip: IP, mtu: 1500 }).expect("welcome");
    // SAFETY: a live channel; nothing of it is used any more.
    unsafe { machnet_detach(ch) };

    let mut rig = Rig::new();
    for (flags, wanted) in [
        (0, (false, false)),
        (MACHNET_REUSEPORT, (true, false)),
        (MACHNET_GROUP, (false, true)),
        (MACHNET_GROUP | MACHNET_REUSEPORT, (true, true)),
    ] {
        // SAFETY: a live channel, and nobody wants the id.
        assert_eq!(unsafe { machnet_listen_begin(rig.ch, 0, 80, 5, flags, null_mut()) }, 0);
        let Ok(Some(Request::Listen { reuse_port, group, .. })) = rig.engine().request() else { panic!() };
        assert_eq!((reuse_port, group), wanted);
    }
    // SAFETY: as above.
    assert_eq!(unsafe { machnet_listen_begin(rig.ch, 0, 80, 5, 2048, null_mut()) }, MACHNET_EINVAL);
}
