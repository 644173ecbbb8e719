//! Messages, whole and in parts, and how they share units with those of other connections.
use crate::rig::{GEOMETRY, Rig, pattern};
use machnet::abi::*;
use machnet::*;
use machnet_shm::{Fragment, Returned};

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
