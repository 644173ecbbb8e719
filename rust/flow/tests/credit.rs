//! Flow control: a reader who does not read, updates that are lost, pools that are small; and messages given up.

mod common;

use common::{A, B, Channel, Sim, message};
use machnet_flow::Config;
use machnet_wire::{Nanos, Seq};

#[test]
fn a_connection_that_is_not_read_blocks_its_sender_without_loss_and_goes_on_when_read() {
    let mut sim = Sim::new(1);
    sim.establish();
    sim.ends[B].reading = false;
    for n in 0..600 {
        sim.send(A, &message(n, 1000));
    }
    sim.run_for(Nanos::millis(500));
    let stats = sim.flow(A).stats();
    assert_eq!(sim.ends[B].channel.lent, Config::default().credit_first, "no more before it reads");
    assert!(stats.refused_by_peer > 0 && stats.refused_by_peer < 20, "{stats:?}");
    assert_eq!((stats.rtos, stats.lost, stats.tail_probes), (0, 0, 0));
    let now = sim.now;
    let window = sim.flow(A).window(now);
    assert!(window >= 8, "a refusal is no congestion");
    sim.ends[B].reading = true;
    sim.pump(B);
    // At once: the update tells, nobody waits for the next probe.
    sim.run_until(Nanos::millis(1), |sim| sim.ends[B].channel.messages.len() == 600);
    for (n, got) in sim.ends[B].channel.messages.iter().enumerate() {
        assert_eq!(*got, message(n as u64, 1000));
    }
}

/// The last unit waits for nothing behind it; all the same it is tried ever more rarely.
#[test]
fn a_single_unit_for_one_who_does_not_read_is_tried_rarely() {
    let mut sim = Sim::new(8);
    sim.establish();
    sim.ends[B].reading = false;
    let first = u64::from(Config::default().credit_first);
    (0..=first).for_each(|n| sim.send(A, &message(n, 64)));
    sim.run_for(Nanos::millis(500));
    let stats = sim.flow(A).stats();
    assert_eq!(sim.ends[B].channel.lent, Config::default().credit_first);
    assert!(stats.refused_by_peer > 0 && stats.refused_by_peer < 20, "{stats:?}");
    sim.ends[B].reading = true;
    sim.pump(B);
    sim.run_until(Nanos::millis(1), |sim| sim.ends[B].channel.messages.len() == first as usize + 1);
}

/// A peer that dies, or plays dead, after a loss holds what it has sent, and not all that it was promised.
#[test]
fn a_promise_behind_a_gap_goes_back() {
    let mut sim = Sim::new(9);
    sim.establish();
    sim.send(A, &message(1, 1 << 20));
    sim.run_until(Nanos::millis(5), |sim| sim.ends[B].channel.messages.len() == 1);
    sim.links[A].drops = 1;
    sim.send(A, &message(2, 20_000));
    while sim.flow(B).stats().out_of_order == 0 {
        sim.run_for(Nanos::micros(1));
    }
    let promised = sim.ends[B].channel.reserved;
    sim.links[A].loss = 1000;
    sim.run_for(Nanos::millis(5));
    let stats = sim.flow(B).stats();
    let reserved = sim.ends[B].channel.reserved;
    assert!(promised > 100 && stats.out_of_order < 20);
    assert!(reserved > 0 && u64::from(reserved) <= stats.out_of_order + 1, "{reserved}, {stats:?}");
    sim.links[A].loss = 0;
    sim.run_until(Nanos::secs(2), |sim| sim.ends[B].channel.messages.len() == 2);
}

/// B's application does not read until A waits; then it does, and the first `lost` packets that B sends are lost.
fn lost_updates(lost: u32) -> Sim {
    let mut sim = Sim::new(2);
    sim.establish();
    sim.ends[B].reading = false;
    for n in 0..300 {
        sim.send(A, &message(n, 1000));
    }
    sim.run_for(Nanos::millis(500));
    assert!(sim.flow(B).credit_wait().is_some());
    sim.links[B].drops = lost;
    sim.ends[B].reading = true;
    sim.pump(B);
    assert!(sim.flow(B).credit_wait().is_none());
    sim
}

#[test]
fn a_lost_update_is_told_again() {
    for lost in 1..=4 {
        let mut sim = lost_updates(lost);
        sim.run_until(Nanos::millis(2 * u64::from(lost)), |sim| sim.ends[B].channel.messages.len() > 10);
        sim.run_until(Nanos::millis(5), |sim| sim.ends[B].channel.messages.len() == 300);
        assert_eq!(sim.flow(A).stats().rtos, 0);
    }
}

#[test]
fn when_all_updates_are_lost_a_probe_finds_out() {
    let mut sim = lost_updates(5);
    let before = sim.flow(A).stats().credit_probes;
    sim.run_until(Nanos::millis(250), |sim| sim.ends[B].channel.messages.len() == 300);
    assert!(sim.flow(A).stats().credit_probes > before);
}

#[test]
fn credit_lapses_at_both_ends_and_comes_again_with_the_first_unit() {
    let mut sim = Sim::new(3);
    sim.establish();
    sim.send(A, &message(1, 100_000));
    sim.run_until(Nanos::millis(2), |sim| sim.ends[B].channel.messages.len() == 1);
    assert!(sim.ends[B].channel.reserved > 0);
    sim.run_for(Nanos::millis(3));
    assert!(sim.both(|end| end.channel.reserved == 0 && end.channel.rx_free == 1024));
    let tried = sim.flow(A).stats().credit_probes;
    sim.send(A, &message(2, 100_000));
    sim.run_until(Nanos::millis(2), |sim| sim.ends[B].channel.messages.len() == 2);
    let stats = sim.flow(A).stats();
    assert_eq!((stats.refused_by_peer, stats.lost, stats.rtos), (0, 0, 0));
    assert_eq!(stats.credit_probes, tried + 1, "A knows that its credit has lapsed");
}

#[test]
fn a_channel_of_four_units_carries_everything_slowly() {
    let mut sim = Sim::new(4);
    sim.ends[A].channel = Channel::new(4);
    sim.ends[B].channel = Channel::new(4);
    sim.establish();
    let bytes = message(1, 200_000);
    sim.send(A, &bytes);
    sim.send(B, &bytes);
    sim.run_until(Nanos::secs(2), |sim| sim.both(|end| end.channel.messages.len() == 1));
    assert!(sim.both(|end| end.channel.messages[0] == bytes));
}

#[test]
fn others_may_use_up_the_channel_and_the_flow_recovers_when_units_come_free() {
    let mut sim = Sim::new(5);
    sim.establish();
    sim.run_for(Nanos::millis(5));
    // Other flows hold every unit.
    sim.ends[B].channel.lent = sim.ends[B].channel.rx_free;
    sim.ends[B].channel.rx_free = 0;
    sim.ends[B].reading = false;
    sim.send(A, &message(1, 64));
    sim.run_for(Nanos::millis(50));
    assert!(sim.ends[B].channel.messages.is_empty() && sim.flow(B).credit_wait().is_some());
    sim.read(B, 1024);
    sim.pump(B);
    sim.run_until(Nanos::micros(25), |sim| sim.ends[B].channel.messages.len() == 1);
}

#[test]
fn an_engine_that_fails_to_take_a_unit_gets_it_again() {
    let mut sim = Sim::new(6);
    sim.establish();
    sim.ends[B].channel.broken = true;
    sim.send(A, &message(1, 20_000));
    sim.run_for(Nanos::millis(5));
    sim.ends[B].channel.broken = false;
    sim.run_until(Nanos::millis(500), |sim| sim.ends[B].channel.messages.len() == 1);
}

#[test]
fn an_aborted_message_is_cut_and_the_next_one_is_whole() {
    for loss in [0, 100] {
        let mut sim = Sim::new(7);
        sim.establish();
        sim.links[A].loss = loss;
        let mut aborted = 0;
        for n in 0..40 {
            sim.send_part(A, &message(n, 60_000), 20_000);
            sim.send(A, &message(n, 3_000));
            sim.run_for(Nanos::micros(300));
            aborted += 1;
        }
        sim.run_until(Nanos::secs(2), |sim| sim.ends[B].channel.messages.len() == 40);
        assert!(sim.ends[B].channel.aborted > 0 && sim.ends[B].channel.aborted <= aborted);
        for (n, got) in sim.ends[B].channel.messages.iter().enumerate() {
            assert_eq!(*got, message(n as u64, 3_000));
        }
        sim.run_for(Nanos::millis(300));
        assert!(sim.ends[A].channel.tokens.is_empty());
    }
}

#[test]
fn a_message_aborted_before_its_first_unit_went_out_is_never_heard_of() {
    let mut sim = Sim::new(8);
    sim.establish();
    sim.ends[B].reading = false;
    let first = u64::from(Config::default().credit_first);
    for n in 0..first {
        sim.send(A, &message(n, 1000));
    }
    sim.run_for(Nanos::millis(20));
    assert!(sim.ends[A].channel.tokens.is_empty());
    sim.send(A, &message(300, 1000));
    sim.run_for(Nanos::millis(20));
    assert_eq!(sim.ends[A].channel.tokens.len(), 1, "the unit that goes without credit");
    sim.send_part(A, &message(301, 20_000), 10_000);
    assert_eq!(sim.ends[A].channel.tokens.len(), 1, "all taken back");
    sim.send(A, &message(302, 2_000));
    sim.ends[B].reading = true;
    sim.pump(B);
    sim.run_until(Nanos::millis(5), |sim| sim.ends[B].channel.messages.len() as u64 == first + 2);
    assert_eq!(sim.ends[B].channel.aborted, 0);
    assert_eq!(sim.ends[B].channel.messages.last(), Some(&message(302, 2_000)));
}

#[test]
fn a_payload_in_pieces_is_given_up_whole_or_not_at_all() {
    let mut sim = Sim::with(9, Config::default(), 9001, Seq(0));
    sim.ends[B].mtu = 1500;
    sim.ends[B].unit = 1424;
    sim.establish();
    sim.run_for(Nanos::millis(5));
    // Without credit one piece of the first payload goes out; the rest of the message is given up.
    sim.send_part(A, &message(1, 50_000), 10_000);
    sim.links[A].drops = 1;
    sim.send(A, &message(2, 50_000));
    sim.run_until(Nanos::millis(20), |sim| sim.ends[B].channel.messages.len() == 1);
    assert_eq!(sim.ends[B].channel.aborted, 1);
    assert_eq!(sim.ends[B].channel.messages[0], message(2, 50_000));
    sim.run_for(Nanos::millis(1));
    assert!(sim.ends[A].channel.tokens.is_empty());
}
