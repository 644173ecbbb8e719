//! Calls that wait, and waiters that look and arm by themselves.
use crate::rig::{Channel, IP, Rig, joined, pattern, text};
use machnet::abi::*;
use machnet::*;
use machnet_shm::{Established, Fragment, Origin, Reason, Reply, Request};
use std::os::unix::thread::JoinHandleExt;
use std::ptr::null_mut;
use std::thread::sleep;
use std::time::{Duration, Instant};

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
    let began = Instant::now();
    // Until then the waiter has not begun: this call finds the direction free, and nothing to receive.
    while rig.recv(conn, 8, 0) != Err(MACHNET_EBUSY.into()) {
        assert!(began.elapsed() < Duration::from_secs(20), "nobody waits");
        sleep(Duration::from_millis(20));
    }
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
            assert_eq!(machnet_listen(ch, 5, 0, &mut listener, &mut port), 0);
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
