//! Listening and dialling: requests, their answers, and what becomes of them where a control ring is full.
use crate::rig::{Channel, IP, Rig, joined, text};
use machnet::abi::*;
use machnet::*;
use machnet_shm::{Limit, Reason, Reply, Request};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::sleep;
use std::time::{Duration, Instant};

#[test]
fn requests_and_replies_name_their_ids() {
    let mut rig = Rig::new();
    let ch = rig.ch;
    let (mut listener, mut dial) = (0, 0);
    let request = machnet_dial_t { ip: IP.to_bits(), port: 7, local_port: 0, timeout_ms: 30 };
    // SAFETY: a live channel, and writable ids.
    unsafe {
        assert_eq!(machnet_listen_begin(ch, 0, 80, 5, 0, &mut listener), 0);
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
            Request::Listen { id: listener, ip, port: 80, backlog: 5, reuse_port: false, group: false },
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
        unsafe { (machnet_listen(ch as Channel, 5, 0, &mut id, &mut port), id, port) }
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
    let words = "the process that listens there has 256 connections, as many as its channels hold";
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
