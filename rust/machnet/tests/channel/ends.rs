//! How the end of a connection, and of the sidecar, is told to those who send, receive and wait.
use crate::rig::{Channel, Rig, joined, pattern, text};
use machnet::abi::*;
use machnet::*;
use machnet_shm::Reason;
use std::ptr::null_mut;
use std::thread::sleep;
use std::time::{Duration, Instant};

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
            machnet_listen_begin(ch, 0, 0, 1, 0, &mut id),
            machnet_unlisten(ch, 1),
            machnet_dial_begin(ch, &dial, &mut id),
            machnet_dial_cancel(ch, 1),
            machnet_listen(ch, 1, 0, &mut id, null_mut()),
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
