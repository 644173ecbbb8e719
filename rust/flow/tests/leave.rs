//! An application that is gone: what it had submitted arrives, and the reset behind it.

mod common;

use common::{A, B, Link, Sim, message};
use machnet_flow::{Closed, Event, SendError, Unit};
use machnet_wire::{Fragment, Kind, Nanos, Reason};

const RST: fn(&machnet_wire::Packet<'_>) -> bool = |p| p.header.kind == Kind::Rst;
const GONE: Reason = Reason::AppGone;

fn messages(n: u64, len: usize) -> Vec<Vec<u8>> {
    (0..n).map(|n| message(n, len)).collect()
}

#[test]
fn what_was_submitted_arrives_before_the_reset() {
    let mut sim = Sim::new(1);
    sim.establish();
    sim.ends[A].tokens_max = usize::MAX;
    for n in 0..20 {
        sim.send(A, &message(n, 50_000));
    }
    assert!(sim.flow(A).queued() > 0, "most of it is still here");
    assert_eq!(sim.leave(A, GONE), 0);
    assert_eq!(sim.ends[A].channel.closed(), None, "it is not over before everything is acknowledged");
    sim.run_until(Nanos::millis(200), |sim| sim.both(|end| end.channel.closed().is_some()));
    assert!(sim.ends[B].channel.messages == messages(20, 50_000));
    assert_eq!(sim.ends[A].channel.closed(), Some(Closed::ByUs(GONE)));
    assert_eq!(sim.ends[B].channel.closed(), Some(Closed::ByPeer(GONE)));
    assert_eq!(sim.ends[B].channel.told(Event::PeerFin), 0, "nobody said that this was all");
    assert!(sim.both(|end| end.flow.is_none()));
    sim.check_books();
}

#[test]
fn with_nothing_to_say_the_reset_goes_at_once() {
    let mut sim = Sim::new(2);
    sim.establish();
    sim.run_for(Nanos::millis(1));
    sim.leave(A, GONE);
    assert_eq!(sim.ends[A].channel.closed(), Some(Closed::ByUs(GONE)));
    sim.run_for(Nanos::micros(11));
    assert_eq!(sim.ends[B].channel.closed(), Some(Closed::ByPeer(GONE)));
}

#[test]
fn a_call_under_way_ends_at_once() {
    let mut sim = Sim::new(3);
    sim.links[A].down = true;
    sim.connect();
    sim.leave(A, GONE);
    assert_eq!(sim.ends[A].channel.closed(), Some(Closed::ByUs(GONE)));
    assert!(sim.ends[A].flow.is_none(), "there is nobody to tell");
}

#[test]
fn a_message_half_submitted_is_aborted_and_the_reset_comes_behind_it() {
    let mut sim = Sim::new(4);
    sim.establish();
    sim.send(A, &message(1, 10_000));
    let len = sim.ends[A].unit as u32;
    let tx = sim.ends[A].channel.token(&vec![0; len as usize]);
    let fragment = Fragment { begin: true, end: false, message_len: 50_000 };
    sim.flow(A).send(Unit { fragment, len, tx }).expect("room");
    sim.pump(A);
    // The reader has the beginning of it by now.
    sim.run_for(Nanos::millis(1));
    sim.leave(A, GONE);
    sim.run_until(Nanos::millis(10), |sim| sim.ends[B].channel.closed().is_some());
    assert!(sim.ends[B].channel.messages == messages(2, 10_000)[1..]);
    assert_eq!(sim.ends[B].channel.aborted, 1);
    assert_eq!(sim.ends[B].channel.closed(), Some(Closed::ByPeer(GONE)));
    sim.check_books();
}

#[test]
fn behind_a_fin_the_peer_reads_the_end_first() {
    let mut sim = Sim::new(5);
    sim.establish();
    sim.send(A, &message(1, 100_000));
    sim.finish(A);
    sim.leave(A, GONE);
    sim.run_until(Nanos::millis(20), |sim| sim.ends[B].channel.closed().is_some());
    assert_eq!(sim.ends[B].channel.messages.len(), 1);
    assert_eq!(
        sim.ends[B].channel.events,
        [Event::Established, Event::PeerFin, Event::Closed(Closed::ByPeer(GONE))]
    );
}

#[test]
fn where_both_have_finished_the_end_is_clean() {
    let mut sim = Sim::new(6);
    sim.establish();
    sim.send(A, &message(1, 100_000));
    sim.finish(A);
    sim.finish(B);
    sim.run_for(Nanos::micros(15));
    sim.leave(A, GONE);
    sim.run_until(Nanos::millis(20), |sim| sim.both(|end| end.channel.closed().is_some()));
    assert!(sim.both(|end| end.channel.closed() == Some(Closed::Clean)));
}

#[test]
fn nothing_is_taken_after_it() {
    let mut sim = Sim::new(7);
    sim.establish();
    sim.send(A, &message(1, 100_000));
    sim.leave(A, GONE);
    let tx = sim.ends[A].channel.token(b"x");
    let fragment = Fragment { begin: true, end: true, message_len: 1 };
    let refused = sim.flow(A).send(Unit { fragment, len: 1, tx }).expect_err("it has left");
    assert_eq!(
        (refused.why, sim.flow(A).fin(tx).expect_err("it has left").why),
        (SendError::NotOpen, SendError::NotOpen)
    );
}

#[test]
fn a_reader_that_pauses_gets_everything_by_and_by() {
    let mut sim = Sim::new(8);
    sim.ends[B].channel = common::Channel::new(16);
    sim.establish();
    for n in 0..4 {
        sim.send(A, &message(n, 50_000));
    }
    sim.ends[B].reading = false;
    sim.leave(A, GONE);
    sim.run_for(Nanos::millis(300));
    assert!(sim.ends[B].channel.messages.is_empty(), "50 000 bytes are more than 16 units");
    assert!(sim.both(|end| end.channel.closed().is_none()), "what waits for the reader is not given up");
    // Whatever it reads is news to a sender whose application is gone, too.
    sim.ends[B].reading = true;
    sim.pump(B);
    sim.run_until(Nanos::millis(20), |sim| sim.ends[B].channel.closed().is_some());
    assert!(sim.ends[B].channel.messages == messages(4, 50_000));
}

#[test]
fn loss_delays_it_and_changes_nothing() {
    for seed in 0..20 {
        let mut sim = Sim::new(seed);
        for i in [A, B] {
            sim.links[i] = Link { loss: 100, duplicate: 50, reorder: 100, ..Link::default() };
        }
        sim.establish();
        for n in 0..10 {
            sim.send(A, &message(n, 20_000));
            sim.send(B, &message(n, 20_000));
        }
        sim.leave(A, GONE);
        // If the RST is lost, the peer asks after a while and is told that there is no such connection.
        sim.run_until(Nanos::secs(20), |sim| sim.both(|end| end.channel.closed().is_some()));
        assert!(sim.ends[B].channel.messages == messages(10, 20_000), "seed {seed}");
        assert!(sim.both(|end| end.channel.tokens.is_empty() && end.channel.reserved == 0), "seed {seed}");
    }
}

#[test]
fn data_that_brings_the_last_acknowledgement_is_told_the_same() {
    let mut sim = Sim::new(10);
    sim.establish();
    sim.send(A, &message(1, 1000));
    sim.links[B].drop_if = Some(|p| p.header.kind == Kind::Ack);
    sim.links[B].drops = 10;
    sim.leave(A, GONE);
    sim.run_until(Nanos::micros(100), |sim| sim.ends[B].channel.messages.len() == 1);
    sim.send(B, &message(2, 1000));
    sim.run_until(Nanos::micros(100), |sim| sim.both(|end| end.channel.closed().is_some()));
    assert_eq!(sim.ends[A].channel.closed(), Some(Closed::ByUs(GONE)));
    assert_eq!(sim.ends[B].channel.closed(), Some(Closed::ByPeer(GONE)));
}

#[test]
fn a_lost_reset_is_made_up_for_by_the_next_question() {
    let mut sim = Sim::new(9);
    sim.establish();
    sim.send(A, &message(1, 1000));
    sim.links[A].drop_if = Some(RST);
    sim.links[A].drops = 1;
    sim.leave(A, GONE);
    sim.run_until(Nanos::millis(1100), |sim| sim.ends[B].channel.closed().is_some());
    assert_eq!(sim.ends[B].channel.messages.len(), 1);
    assert_eq!(sim.ends[B].channel.closed(), Some(Closed::ByPeer(Reason::Closed)));
}
