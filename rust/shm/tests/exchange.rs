//! Both ends in one thread: units in both directions, tokens, requests, reuse of indices.

use machnet_shm::{
    Data, Delivery, EngineEnd, Geometry, Part, PeerFault, Request, Rx, Submission, TxUnit, pair,
};

const SMALL: Geometry = Geometry { units: 16, flows: 4, unit_size: 1424 };
const WHOLE: fn(usize) -> Part = |len| Part { begin: true, end: true, message_len: len as u32 };

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
            let Some(Submission::Data { flow: got, part, unit }) = engine.submission().unwrap() else {
                panic!("nothing was submitted")
            };
            assert_eq!((got, part), (flow, WHOLE(len)));
            assert_eq!(unit_bytes(&engine, &unit), sent);
            assert_eq!(engine.grant(flow, 1), 1);
            assert!(engine.deliver(flow, part, &sent));
            engine.complete(unit);
            engine.flush();
            let Some(Delivery::Data(data)) = app.rx.delivery().unwrap() else {
                panic!("nothing was delivered")
            };
            assert_eq!((data.flow, data.part), (flow, part));
            assert_eq!(data_bytes(&app.rx, &data), sent);
            app.rx.give_back(data.token);
            app.rx.flush_returns();
            app.tx.reclaim(|_| ()).unwrap();
            engine.returns(|_, _| ()).unwrap();
        }
    }
    assert!(app.rx.delivery().unwrap().is_none());
    engine.returns(|_, _| ()).unwrap();
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
    assert!(app.rx.arm(true));
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
    assert!(app.rx.arm(false));
    engine.complete(unit);
    engine.flush();
    assert!(!rung(app.rx.doorbell()), "nobody waits for a token");
    assert!(!app.rx.arm(true), "a token is there");
    assert!(app.rx.arm(false));
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

/// The halves sleep in two threads: each is rung at its own bell, and for what it waits for.
#[test]
fn a_sender_that_sleeps_is_rung_at_its_own_bell() {
    let (mut app, mut engine) = pair(SMALL).unwrap();
    let flow = engine.open_flow().unwrap();
    let rung = |fd: i32| {
        let mut byte = [0u8; 8];
        // SAFETY: `byte` is writable for its length.
        unsafe { libc::read(fd, byte.as_mut_ptr().cast(), 8) == 1 }
    };
    let submit = |app: &mut machnet_shm::AppEnd, engine: &mut machnet_shm::EngineEnd| {
        app.tx.data(flow, WHOLE(8), &[0; 8]).unwrap();
        let Some(Submission::Data { unit, .. }) = engine.submission().unwrap() else { panic!() };
        unit
    };
    let unit = submit(&mut app, &mut engine);
    assert!(app.rx.arm(false) && app.tx.arm(false));
    engine.complete(unit);
    engine.flush();
    // One swap took both out of bed.
    assert!(rung(app.tx.doorbell()) && rung(app.rx.doorbell()));
    assert!(!app.tx.arm(false), "a token is there");
    assert_eq!(app.tx.reclaim(|_| {}).unwrap(), 1);

    // One direction's disarming leaves the other armed.
    let unit = submit(&mut app, &mut engine);
    assert!(app.rx.arm(false) && app.tx.arm(false));
    app.rx.disarm();
    engine.complete(unit);
    engine.flush();
    assert!(rung(app.tx.doorbell()) && !rung(app.rx.doorbell()));
    assert_eq!(app.tx.reclaim(|_| {}).unwrap(), 1);

    // A delivery wakes it where it asked for that, as a sender does beside whom nobody receives.
    assert_eq!(engine.grant(flow, 2), 2);
    assert!(app.tx.arm(false));
    assert!(engine.deliver(flow, WHOLE(8), &[0; 8]));
    engine.flush();
    assert!(!rung(app.tx.doorbell()));
    assert!(!app.tx.arm(true), "a delivery is there");
    assert!(app.rx.delivery().unwrap().is_some());
    assert!(app.tx.arm(true));
    assert!(engine.deliver(flow, WHOLE(8), &[0; 8]));
    engine.flush();
    assert!(rung(app.tx.doorbell()) && !rung(app.rx.doorbell()));
}
