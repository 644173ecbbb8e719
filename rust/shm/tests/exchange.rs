//! Both ends in one thread: units in both directions, tokens, requests, reuse of indices.

use machnet_shm::sleep::{ROOM, TOKENS};
use machnet_shm::{
    AppEnd, Data, Delivery, EngineEnd, Fragment, Geometry, PeerFault, Reason, Reply, Request, Rx, Submission,
    TxUnit, pair,
};

const SMALL: Geometry = Geometry { units: 16, flows: 4, unit_size: 1424 };
const WHOLE: fn(usize) -> Fragment = |len| Fragment { begin: true, end: true, message_len: len as u32 };

fn pattern(len: usize, salt: u8) -> Vec<u8> {
    (0..len).map(|i| (i as u8).wrapping_mul(31).wrapping_add(salt)).collect()
}

fn unit_bytes(engine: &EngineEnd, unit: &TxUnit) -> Vec<u8> {
    let mut bytes = vec![0; unit.len()];
    engine.read_tx(unit, 0, &mut bytes);
    bytes
}

fn data_bytes(rx: &Rx, data: &Data) -> Vec<u8> {
    let mut bytes = vec![0; data.len.into()];
    if data.token.has_buffer() {
        rx.read(data.token, 0, &mut bytes);
    } else {
        bytes.copy_from_slice(&data.inline[..data.len.into()]);
    }
    bytes
}

#[test]
fn units_of_every_size_cross_both_ways_and_every_token_comes_back() {
    let (mut app, mut engine) = pair(SMALL).unwrap();
    let flow = engine.open_flow().unwrap();
    for round in 0..1000 {
        for len in [0, 1, 7, 8, 64, 95, 96, 97, 1423, 1424] {
            let sent = pattern(len, round as u8);
            app.tx.data(flow, WHOLE(len), &sent).unwrap();
            let Some(Submission::Data { flow: got, fragment, unit }) = engine.submission().unwrap() else {
                panic!("nothing was submitted")
            };
            assert_eq!((got, fragment), (flow, WHOLE(len)));
            assert_eq!(unit_bytes(&engine, &unit), sent);
            assert_eq!(engine.grant(flow, 1), 1);
            assert!(engine.deliver(flow, fragment, &sent));
            engine.complete(unit);
            engine.flush();
            let Some(Delivery::Data(data)) = app.rx.delivery().unwrap() else {
                panic!("nothing was delivered")
            };
            assert_eq!((data.flow, data.fragment), (flow, fragment));
            assert_eq!(data_bytes(&app.rx, &data), sent);
            app.rx.give_back(data.token);
            app.rx.flush_returns();
            app.tx.reclaim(|_| ()).unwrap();
            engine.returns(|_| ()).unwrap();
        }
    }
    assert!(app.rx.delivery().unwrap().is_none());
    engine.returns(|_| ()).unwrap();
    assert_eq!(engine.usage(), (0, 0, 0));
    assert_eq!(app.tx.tokens(flow), SMALL.quota());
}

#[test]
fn a_connection_holds_its_quota_and_no_more_in_either_direction() {
    let (mut app, mut engine) = pair(SMALL).unwrap();
    let (one, two) = (engine.open_flow().unwrap(), engine.open_flow().unwrap());
    for _ in 0..4 {
        app.tx.data(one, WHOLE(8), &[0; 8]).unwrap();
    }
    assert!(app.tx.data(one, WHOLE(8), &[0; 8]).is_err());
    app.tx.data(two, WHOLE(8), &[0; 8]).unwrap();
    assert_eq!(engine.grant(one, 100), 4);
    assert_eq!(engine.grant(two, 100), 4);
    assert_eq!(engine.free_units(), 4, "half of the units are for all, and each took two of those");
}

#[test]
fn an_index_is_used_anew_only_when_both_sides_are_done_with_it() {
    let (mut app, mut engine) = pair(Geometry { flows: 1, ..SMALL }).unwrap();
    let flow = engine.open_flow().unwrap();
    assert!(engine.open_flow().is_none());
    app.tx.data(flow, WHOLE(8), &[1; 8]).unwrap();
    app.tx.close(flow);
    let Some(Submission::Data { unit, .. }) = engine.submission().unwrap() else { panic!() };
    assert!(matches!(engine.submission().unwrap(), Some(Submission::Close { .. })));
    engine.flow_done(flow);
    assert!(engine.open_flow().is_none(), "a unit is still under way");
    engine.complete(unit);
    let next = engine.open_flow().unwrap();
    assert_eq!((next.index, next.generation), (flow.index, flow.generation + 1));
    // The old handle is a fault now.
    app.tx.reset(flow);
    assert!(matches!(engine.submission(), Err(PeerFault::Flow { .. })));
}

#[test]
fn a_sender_learns_that_its_connection_is_over_though_nobody_receives() {
    let (mut app, mut engine) = pair(Geometry { flows: 2, ..SMALL }).unwrap();
    let (flow, other) = (engine.open_flow().unwrap(), engine.open_flow().unwrap());
    engine.reset(flow, Reason::Gone);
    assert_eq!(app.tx.ended(flow), Ok(Some(Reason::Gone)));
    assert_eq!(app.tx.ended(other), Ok(None));
    engine.reset(other, Reason::Clean);
    assert_eq!(app.tx.ended(other), Ok(None), "a clean end is news to no sender");
    // The next connection of this index begins anew.
    app.tx.close(flow);
    assert!(matches!(engine.submission().unwrap(), Some(Submission::Close { .. })));
    engine.flow_done(flow);
    let next = engine.open_flow().unwrap();
    assert_eq!((next.index, app.tx.ended(next)), (flow.index, Ok(None)));
}

#[test]
fn an_armed_end_is_rung_once_and_pending_work_forbids_sleep() {
    let (mut app, mut engine) = pair(SMALL).unwrap();
    assert!(engine.arm());
    let request = Request::Unlisten { id: 7 };
    assert!(app.tx.request(request));
    app.tx.flush();
    app.tx.flush();
    let mut byte = [0u8; 8];
    // SAFETY: `byte` is writable for its length.
    let rung = unsafe { libc::read(engine.doorbell(), byte.as_mut_ptr().cast(), 8) };
    assert_eq!(rung, 1);
    assert!(!engine.arm(), "a request waits");
    assert_eq!(engine.request().unwrap(), Some(request));
    assert!(engine.arm());
    assert!(app.rx.arm(TOKENS, || true));
}

/// A read gives units back, and an echo's acknowledgement completes one: neither is worth a wake-up to who waits for data.
#[test]
fn a_bell_rings_only_for_what_its_owner_waits_for() {
    let (mut app, mut engine) = pair(SMALL).unwrap();
    let flow = engine.open_flow().unwrap();
    let rung = |fd: i32| {
        let mut byte = [0u8; 8];
        // SAFETY: `byte` is writable for its length.
        unsafe { libc::read(fd, byte.as_mut_ptr().cast(), 8) == 1 }
    };
    app.tx.data(flow, WHOLE(8), &[0; 8]).unwrap();
    let Some(Submission::Data { unit, .. }) = engine.submission().unwrap() else { panic!() };
    assert!(app.rx.arm(0, || true));
    engine.complete(unit);
    engine.flush();
    assert!(!rung(app.rx.doorbell()), "nobody waits for a token");
    assert!(!app.rx.arm(TOKENS, || true), "a token is there");
    assert!(app.rx.arm(0, || true));
    assert_eq!(engine.grant(flow, 1), 1);
    assert!(engine.deliver(flow, WHOLE(8), &[0; 8]));
    engine.flush();
    assert!(rung(app.rx.doorbell()));

    assert!(engine.arm_for(false));
    let Some(Delivery::Data(data)) = app.rx.delivery().unwrap() else { panic!() };
    app.rx.give_back(data.token);
    app.rx.flush_returns();
    assert!(!rung(engine.doorbell()), "no connection waits for units");
    assert!(!engine.arm(), "a unit has come back");
    assert!(engine.arm_for(false));
    app.tx.close(flow);
    app.tx.flush();
    assert!(rung(engine.doorbell()));
}

/// Empties a doorbell; whether it had rung.
fn rung(doorbell: i32) -> bool {
    let mut bytes = [0u8; 64];
    // SAFETY: `bytes` is writable for its length.
    unsafe { libc::read(doorbell, bytes.as_mut_ptr().cast(), bytes.len()) > 0 }
}

/// Slots of a control ring, as docs/channel.md has them.
const CONTROL: u32 = 128;

fn fill_requests(app: &mut AppEnd) {
    for _ in 1..CONTROL {
        assert!(app.tx.request(Request::Cancel { id: 0 }));
    }
    fill_one(app);
}

fn fill_one(app: &mut AppEnd) {
    assert!(app.tx.request(Request::Cancel { id: 0 }));
    assert!(!app.tx.request(Request::Cancel { id: 0 }));
}

#[test]
fn who_waits_for_room_for_a_request_is_rung_when_one_was_taken() {
    let (mut app, mut engine) = pair(SMALL).unwrap();
    let flow = engine.open_flow().unwrap();
    assert!(app.rx.has_room());
    fill_requests(&mut app);
    assert!(!app.rx.has_room());
    assert!(app.rx.arm(ROOM, || true), "the ring is full");
    engine.flush();
    assert!(!rung(app.rx.doorbell()), "nothing was taken yet");
    assert_eq!(engine.request().unwrap(), Some(Request::Cancel { id: 0 }));
    engine.flush();
    assert!(rung(app.rx.doorbell()));
    assert!(app.rx.has_room() && !app.rx.arm(ROOM, || true), "there is room, so nobody may sleep for it");
    // A sender that sleeps meanwhile, with a request kept, has a bell of its own.
    fill_one(&mut app);
    assert!(app.tx.arm(flow, true), "the ring is full again");
    assert!(engine.request().unwrap().is_some());
    engine.flush();
    assert!(rung(app.tx.doorbell()) && !rung(app.rx.doorbell()));
    assert!(!app.tx.arm(flow, true), "there is room, so nobody may sleep for it");
    // Room is no news to one who does not wait for it.
    assert!(app.rx.arm(TOKENS, || true));
    assert!(app.tx.arm(flow, false));
    assert!(engine.request().unwrap().is_some());
    engine.flush();
    assert!(!rung(app.rx.doorbell()) && !rung(app.tx.doorbell()));
}

/// Answers beyond the reply ring go out as the application takes those before, and each time it sleeps it is rung for them.
#[test]
fn answers_beyond_the_ring_are_rung_for_and_the_engine_sleeps_until_there_is_room() {
    let (mut app, mut engine) = pair(SMALL).unwrap();
    let failed = |id| Reply::ConnectFailed { id, reason: Reason::Timeout };
    let all = CONTROL * 2 + 7;
    for id in 0..all {
        engine.reply(failed(id));
    }
    engine.flush();
    assert!(app.tx.request(Request::Cancel { id: 9 }));
    let mut next = 0;
    loop {
        let more = all - next > CONTROL;
        if more {
            assert_eq!(engine.request().unwrap(), None, "no request is taken while answers wait");
            assert!(engine.arm() && !rung(engine.doorbell()), "{next} taken: it need not stay awake");
        }
        for _ in 0..CONTROL.min(all - next) {
            assert_eq!(app.rx.reply().unwrap(), Some(failed(next)));
            next += 1;
        }
        assert_eq!(app.rx.reply().unwrap(), None);
        if !more {
            break;
        }
        assert!(rung(engine.doorbell()), "{next} taken: there is room");
        assert!(app.rx.arm(0, || true));
        assert_eq!(engine.request().unwrap().is_some(), all - next <= CONTROL);
        engine.flush();
        assert!(rung(app.rx.doorbell()), "{next} taken: more was published, and nobody was told");
    }
    assert_eq!(next, all);
}

/// The halves sleep in two threads: each is rung at its own bell, and for what it waits for.
#[test]
fn a_sender_that_sleeps_is_rung_at_its_own_bell() {
    let (mut app, mut engine) = pair(SMALL).unwrap();
    let flow = engine.open_flow().unwrap();
    let submit = |app: &mut AppEnd, engine: &mut EngineEnd| {
        app.tx.data(flow, WHOLE(8), &[0; 8]).unwrap();
        let Some(Submission::Data { unit, .. }) = engine.submission().unwrap() else { panic!() };
        unit
    };
    let unit = submit(&mut app, &mut engine);
    assert!(app.rx.arm(0, || false) && app.tx.arm(flow, false));
    engine.complete(unit);
    engine.flush();
    // One swap took both out of bed.
    assert!(rung(app.tx.doorbell()) && rung(app.rx.doorbell()));
    assert!(!app.tx.arm(flow, false), "a token is there");
    assert_eq!(app.tx.reclaim(|_| {}).unwrap(), 1);

    // One direction's disarming leaves the other armed.
    let unit = submit(&mut app, &mut engine);
    assert!(app.rx.arm(0, || false) && app.tx.arm(flow, false));
    app.rx.disarm();
    engine.complete(unit);
    engine.flush();
    assert!(rung(app.tx.doorbell()) && !rung(app.rx.doorbell()));
    assert_eq!(app.tx.reclaim(|_| {}).unwrap(), 1);

    // Deliveries are not its affair; the end of a connection is, and once that is there it does not sleep.
    assert_eq!(engine.grant(flow, 1), 1);
    assert!(app.tx.arm(flow, false));
    assert!(engine.deliver(flow, WHOLE(8), &[0; 8]));
    engine.flush();
    assert!(!rung(app.tx.doorbell()));
    engine.reset(flow, Reason::Timeout);
    engine.flush();
    assert!(rung(app.tx.doorbell()) && !rung(app.rx.doorbell()));
    assert!(!app.tx.arm(flow, false), "the connection is over");
}
