//! The receiving direction over a channel's half that a test fills.
use super::*;
use crate::code::{
    MACHNET_ERESET, MACHNET_EVENT_ACCEPTED, MACHNET_EVENT_CLOSED, MACHNET_EVENT_CONNECTED,
    MACHNET_EVENT_READABLE,
};
use crate::conns::{Entry, handle};
use crate::inbox::Units;
use crate::memory::{leaked, room};
use core::sync::atomic::AtomicU64;
use std::boxed::Box;
use std::collections::VecDeque;
use std::vec::Vec;

#[derive(Default)]
struct Fake {
    coming: VecDeque<Delivery<u32>>,
    back: Vec<u32>,
    read_to_the_end: Vec<machnet_conn>,
    accepted: Vec<machnet_conn>,
}

impl Units for Fake {
    type Token = u32;
    fn read(&self, token: u32, _: usize, out: &mut [MaybeUninit<u8>]) {
        out.fill(MaybeUninit::new(token as u8));
    }
    fn give_back(&mut self, token: u32) {
        self.back.push(token);
    }
}

impl ReceiveHalf for Fake {
    fn pop(&mut self, inline: &mut Inline) -> Option<Delivery<u32>> {
        let delivery = self.coming.pop_front();
        if let Some(Delivery::Unit(unit)) = &delivery {
            inline.0.fill(unit.token as u8);
        }
        delivery
    }
    fn on_read_to_the_end(&mut self, conn: machnet_conn) {
        self.read_to_the_end.push(conn);
    }
    fn accepted(&mut self, conn: machnet_conn) {
        self.accepted.push(conn);
    }
}

fn receiver(count: usize) -> (Receiver<Fake>, Conns) {
    let entries: Vec<_> = (0..count).map(|_| Entry::default()).collect();
    let words: Vec<_> = (0..Conns::words(count)).map(|_| AtomicU64::new(0)).collect();
    let conns: Vec<_> = (0..count).map(|_| RxConn::UNUSED).collect();
    let nodes = Nodes::new(leaked(64));
    let shared = Conns::new(Box::leak(entries.into()), Box::leak(words.into()));
    (Receiver::new(Fake::default(), Box::leak(conns.into()), nodes), shared)
}

fn established(at: u32, generation: u32, origin: Origin) -> Delivery<u32> {
    let peer = machnet_peer { remote_port: at as u16, ..machnet_peer::default() };
    Delivery::Established { conn: handle(at, generation), origin, peer }
}

/// A message of one byte, which is also its token.
fn byte(conn: machnet_conn, byte: u32) -> Delivery<u32> {
    let kind = Kind::Data(Fragment { begin: true, end: true, message_len: 1 });
    Delivery::Unit(Unit { conn, kind, len: 1, inline: true, token: byte })
}

fn events(rx: &mut Receiver<Fake>, shared: &Conns, cap: usize) -> Vec<(u32, u64, i32)> {
    let mut out = std::vec![machnet_event::default(); cap];
    let have = rx.poll(shared, room(&mut out));
    out[..have].iter().map(|e| (e.kind, e.conn, e.code)).collect()
}

fn read(rx: &mut Receiver<Fake>, shared: &Conns, conn: machnet_conn) -> Result<Vec<u8>, i32> {
    let mut out = [0; 8];
    let got = rx.recv(shared, conn, Mode::Stream, room(&mut out)).map_err(|refused| refused.code)?;
    Ok(out[..got.bytes].to_vec())
}

#[test]
fn events_come_in_order_and_readable_again_only_after_a_receive_that_took_everything() {
    let (mut rx, shared) = receiver(8);
    let (a, b) = (handle(1, 1), handle(2, 1));
    rx.channel.coming.extend([
        established(1, 1, Origin::Accepted(9)),
        established(2, 1, Origin::Dialled(5)),
        byte(b, 1),
        byte(a, 2),
        byte(a, 3),
        Delivery::Reset { conn: a, code: MACHNET_ERESET },
    ]);
    let want = [
        (MACHNET_EVENT_ACCEPTED, a, 0),
        (MACHNET_EVENT_READABLE, a, 0),
        (MACHNET_EVENT_CLOSED, a, MACHNET_ERESET),
        (MACHNET_EVENT_CONNECTED, b, 0),
        (MACHNET_EVENT_READABLE, b, 0),
    ];
    assert_eq!(events(&mut rx, &shared, 1), want[..1]);
    assert_eq!(rx.pending(), 2);
    assert_eq!(events(&mut rx, &shared, 8), want[1..]);
    assert_eq!(read(&mut rx, &shared, b), Ok(std::vec![1]));
    rx.channel.coming.push_back(byte(b, 4));
    assert_eq!(events(&mut rx, &shared, 8), [(MACHNET_EVENT_READABLE, b, 0)]);
    rx.channel.coming.push_back(byte(b, 6));
    assert_eq!(events(&mut rx, &shared, 8), [], "b was told, and has not read");
    assert_eq!(read(&mut rx, &shared, b), Ok(std::vec![4, 6]));
    assert_eq!(read(&mut rx, &shared, b), Err(MACHNET_EAGAIN));
    rx.channel.coming.push_back(byte(b, 5));
    assert_eq!(events(&mut rx, &shared, 8), [(MACHNET_EVENT_READABLE, b, 0)]);
    assert_eq!(read(&mut rx, &shared, a), Ok(std::vec![2, 3]), "what came before the reset is read first");
    assert_eq!(read(&mut rx, &shared, a), Err(MACHNET_ERESET));
}

#[test]
fn a_receive_keeps_what_it_finds_for_others() {
    let (mut rx, shared) = receiver(8);
    let (a, b) = (handle(1, 1), handle(2, 1));
    rx.channel.coming.extend([established(1, 1, Origin::Dialled(1)), established(2, 1, Origin::Dialled(2))]);
    assert_eq!(events(&mut rx, &shared, 8).len(), 2);
    rx.channel.coming.extend([byte(b, 1), byte(a, 2)]);
    assert_eq!(read(&mut rx, &shared, a), Ok(std::vec![2]));
    assert_eq!(rx.pending(), 1);
    assert_eq!(events(&mut rx, &shared, 8), [(MACHNET_EVENT_READABLE, b, 0)]);
}

#[test]
fn messages_go_straight_to_a_waiting_reader_and_stay_in_order_with_what_is_queued() {
    let (mut rx, shared) = receiver(8);
    let a = handle(1, 1);
    rx.channel.coming.push_back(established(1, 1, Origin::Dialled(1)));
    assert_eq!(events(&mut rx, &shared, 8).len(), 1);
    let half = || Unit {
        conn: a,
        kind: Kind::Data(Fragment { begin: true, end: false, message_len: 2 }),
        len: 1,
        inline: true,
        token: 10,
    };
    let rest = || Unit {
        kind: Kind::Data(Fragment { begin: false, end: true, message_len: 0 }),
        token: 11,
        ..half()
    };
    rx.channel.coming.extend((1..=9).map(|n| byte(a, n)));
    rx.channel.coming.extend([Delivery::Unit(half()), Delivery::Unit(rest()), byte(a, 12)]);
    let mut out = [0; 8];
    let got = rx.recv(&shared, a, Mode::Stream, room(&mut out)).expect("bytes");
    assert_eq!((&out, got.bytes, got.end, got.more), (&[1, 2, 3, 4, 5, 6, 7, 8], 8, true, true));
    assert_eq!(rx.channel.back, [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(read(&mut rx, &shared, a), Ok(std::vec![9, 10, 11, 12]));
    rx.channel.coming.extend([Delivery::Unit(half()), Delivery::Unit(rest()), byte(a, 12)]);
    assert_eq!(read(&mut rx, &shared, a), Ok(std::vec![10, 11, 12]), "none overtakes another");
    rx.channel.coming.extend([byte(a, 13), byte(a, 14)]);
    let got = rx.recv(&shared, a, Mode::Message, room(&mut out)).expect("a message");
    assert_eq!((out[0], got.bytes, got.begin, got.end, got.message_len), (13, 1, true, true, 1));
    assert_eq!(rx.channel.coming.len(), 1, "one message was asked for, and one was taken");
    assert_eq!(read(&mut rx, &shared, a), Ok(std::vec![14]));
    assert_eq!(rx.pending(), 0);
}

#[test]
fn a_receive_that_leaves_nothing_queued_sees_to_it_that_its_tokens_do_not_stay() {
    let (mut rx, shared) = receiver(8);
    let (a, b) = (handle(1, 1), handle(2, 1));
    rx.channel.coming.extend([established(1, 1, Origin::Dialled(1)), established(2, 1, Origin::Dialled(2))]);
    assert_eq!(events(&mut rx, &shared, 8).len(), 2);
    rx.channel.coming.extend([byte(b, 1), byte(b, 2), byte(a, 3)]);
    assert_eq!(read(&mut rx, &shared, a), Ok(std::vec![3]));
    assert_eq!(rx.channel.read_to_the_end, [a], "though b is not read");
    let mut out = [0; 1];
    assert!(rx.recv(&shared, b, Mode::Message, room(&mut out)).is_ok());
    assert_eq!(rx.channel.read_to_the_end, [a], "b is about to be read on");
    assert!(rx.recv(&shared, b, Mode::Message, room(&mut out)).is_ok());
    assert!(rx.recv(&shared, b, Mode::Message, room(&mut out)).is_err());
    assert_eq!(rx.channel.read_to_the_end, [a, b, b]);
}

#[test]
fn a_closed_connection_gives_its_tokens_back_and_its_events_vanish() {
    let (mut rx, shared) = receiver(8);
    let a = handle(1, 1);
    rx.channel.coming.extend([established(1, 1, Origin::Dialled(1)), byte(a, 1), byte(a, 2)]);
    rx.drain(&shared, 8);
    shared.close(a);
    rx.channel.coming.push_back(byte(a, 3));
    assert_eq!(events(&mut rx, &shared, 8), []);
    assert_eq!((rx.channel.back.as_slice(), rx.pending()), (&[1, 2, 3][..], 0));
    assert_eq!(read(&mut rx, &shared, a), Err(MACHNET_ECLOSED));
}

#[test]
fn an_index_used_again_begins_afresh() {
    let (mut rx, shared) = receiver(8);
    let (old, new) = (handle(1, 1), handle(1, 2));
    rx.channel.coming.extend([established(1, 1, Origin::Dialled(1)), byte(old, 1)]);
    rx.drain(&shared, 8);
    shared.close(old);
    rx.channel.coming.extend([established(1, 2, Origin::Dialled(2)), byte(old, 2), byte(new, 3)]);
    let want = [(MACHNET_EVENT_CONNECTED, new, 0), (MACHNET_EVENT_READABLE, new, 0)];
    assert_eq!(events(&mut rx, &shared, 8), want);
    assert_eq!(read(&mut rx, &shared, new), Ok(std::vec![3]));
    assert_eq!(read(&mut rx, &shared, old), Err(MACHNET_ECLOSED));
    assert_eq!(rx.channel.back, [1, 2, 3]);
}

#[test]
fn an_engine_that_uses_an_index_too_early_costs_no_token() {
    let (mut rx, shared) = receiver(8);
    rx.channel.coming.extend([established(1, 1, Origin::Dialled(1)), byte(handle(1, 1), 1)]);
    rx.channel.coming.push_back(established(1, 2, Origin::Dialled(2)));
    assert_eq!(events(&mut rx, &shared, 8), [(MACHNET_EVENT_CONNECTED, handle(1, 2), 0)]);
    assert_eq!(rx.channel.back, [1]);
    assert_eq!(read(&mut rx, &shared, handle(1, 2)), Err(MACHNET_EAGAIN));
}

#[test]
fn a_waiting_accept_takes_its_own_connection_and_leaves_the_rest() {
    let (mut rx, shared) = receiver(8);
    rx.channel.coming.extend([
        established(1, 1, Origin::Dialled(7)),
        established(2, 1, Origin::Accepted(7)),
        established(3, 1, Origin::Accepted(8)),
    ]);
    let found = rx.take_new(&shared, Origin::Accepted(7)).map(|(conn, peer)| (conn, peer.remote_port));
    assert_eq!(found, Some((handle(2, 1), 2)));
    assert!(rx.take_new(&shared, Origin::Accepted(7)).is_none());
    assert_eq!((rx.pending(), rx.channel.accepted.as_slice()), (2, &[handle(2, 1)][..]));
    assert_eq!(events(&mut rx, &shared, 8).len(), 2);
}

#[test]
fn an_event_takes_no_connection_and_a_place_is_freed_once() {
    let (mut rx, shared) = receiver(8);
    let (dialled, taken, closed) = (handle(1, 1), handle(2, 1), handle(3, 1));
    rx.channel.coming.extend([
        established(1, 1, Origin::Dialled(7)),
        established(2, 1, Origin::Accepted(7)),
        established(3, 1, Origin::Accepted(7)),
    ]);
    assert_eq!(events(&mut rx, &shared, 8).len(), 3);
    assert_eq!(rx.channel.accepted, [], "being told of one is not taking it");
    for _ in 0..2 {
        assert_eq!([dialled, taken].map(|conn| rx.accepted(&shared, conn)), [Ok(()); 2]);
    }
    shared.close(closed);
    assert_eq!([closed, handle(2, 2), 0].map(|conn| rx.accepted(&shared, conn)), [Err(MACHNET_ECLOSED); 3]);
    assert_eq!(rx.channel.accepted, [taken]);
}

#[test]
fn deliveries_for_connections_that_are_not_there_only_give_tokens_back() {
    let (mut rx, shared) = receiver(2);
    rx.channel.coming.extend([
        byte(handle(1, 1), 1),
        byte(handle(2, 1), 2),
        byte(u64::MAX, 3),
        established(2, 1, Origin::Dialled(1)),
        Delivery::Reset { conn: handle(0, 4), code: -5 },
        Delivery::Reset { conn: u64::MAX, code: -5 },
    ]);
    assert_eq!(events(&mut rx, &shared, 8), []);
    assert_eq!(rx.channel.back, [1, 2, 3]);
}
