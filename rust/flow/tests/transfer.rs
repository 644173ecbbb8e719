//! Messages cross a bad link exactly once, in order, with equal bytes.

mod common;

use common::{A, B, Link, Rng, Sim, message};
use machnet_flow::{Closed, Config, Stats};
use machnet_wire::{Kind, Nanos, Packet, Seq};

fn bad(per_mille: u64) -> Link {
    Link { loss: per_mille, duplicate: per_mille, reorder: per_mille, ..Link::default() }
}

/// Sizes from nothing to many units, small ones most often.
fn size(rng: &mut Rng) -> usize {
    match rng.below(100) {
        0..=9 => 0,
        10..=69 => rng.below(200) as usize,
        70..=94 => rng.below(6_000) as usize,
        95..=98 => rng.below(40_000) as usize,
        _ => rng.below(200_000) as usize,
    }
}

/// Gives also what the flows had counted when the last message was in.
fn exchange(mut sim: Sim, messages: u64, time: Nanos) -> (Sim, [Stats; 2]) {
    let mut rng = Rng(sim.seed ^ 0x5151);
    let mut sent: [Vec<Vec<u8>>; 2] = [Vec::new(), Vec::new()];
    sim.establish();
    for n in 0..messages {
        let i = (n % 2) as usize;
        let bytes = message(n, size(&mut rng));
        sent[i].push(bytes.clone());
        sim.ends[i].outbox.push_back((bytes, None));
    }
    sim.pump(A);
    sim.pump(B);
    let counts = (sent[A].len(), sent[B].len());
    sim.run_until(time, |sim| {
        (sim.ends[B].channel.messages.len(), sim.ends[A].channel.messages.len()) == counts
    });
    assert!(sim.ends[B].channel.messages == sent[A], "A's messages arrive as sent");
    assert!(sim.ends[A].channel.messages == sent[B], "B's messages arrive as sent");
    let stats = [sim.flow(A).stats(), sim.flow(B).stats()];
    sim.finish(A);
    sim.finish(B);
    sim.run_until(Nanos::secs(5), |sim| sim.both(|end| end.channel.closed().is_some()));
    assert!(sim.both(|end| end.channel.closed() == Some(Closed::Clean)));
    sim.check_books();
    (sim, stats)
}

#[test]
fn ten_thousand_messages_of_mixed_sizes_cross_a_link_with_5_percent_of_every_fault() {
    let mut sim = Sim::new(1);
    sim.links = [bad(50), bad(50)];
    let (sim, _) = exchange(sim, 10_000, Nanos::secs(60));
    assert!(sim.dropped > 1_000);
}

#[test]
fn a_perfect_link_needs_no_repetition() {
    let (sim, stats) = exchange(Sim::new(2), 2_000, Nanos::secs(10));
    assert_eq!(sim.dropped, 0);
    for s in stats {
        assert_eq!((s.retransmitted, s.lost, s.rtos, s.duplicates, s.out_of_order), (0, 0, 0, 0, 0));
    }
}

#[test]
fn unit_and_transmission_numbers_wrap() {
    for distance in [1, 5, 300, 3_000] {
        let mut sim = Sim::with(3, Config::default(), 1500, Seq(0u32.wrapping_sub(distance)));
        sim.links = [bad(30), bad(30)];
        exchange(sim, 600, Nanos::secs(20));
    }
}

#[test]
fn eight_mebibytes_arrive_in_one_message() {
    let mut sim = Sim::new(4);
    sim.links = [bad(10), bad(10)];
    sim.establish();
    let bytes = message(9, 8 << 20);
    sim.send(A, &bytes);
    sim.run_until(Nanos::secs(20), |sim| sim.ends[B].channel.messages.len() == 1);
    assert!(sim.ends[B].channel.messages[0] == bytes);
}

#[test]
fn a_64_byte_request_and_its_reply_are_two_packets() {
    let mut sim = Sim::new(5);
    sim.establish();
    sim.run_for(Nanos::micros(500));
    let (before, acks) = (sim.sent_by[A] + sim.sent_by[B], sim.sent[Kind::Ack as usize]);
    const ROUNDS: usize = 1000;
    for n in 0..ROUNDS {
        sim.send(A, &message(n as u64, 64));
        sim.run_until(Nanos::millis(1), |sim| sim.ends[B].channel.messages.len() == n + 1);
        // The server thinks for 5 us, which is less than an acknowledgement waits.
        sim.run_for(Nanos::micros(5));
        sim.send(B, &message(n as u64, 64));
        sim.run_until(Nanos::millis(1), |sim| sim.ends[A].channel.messages.len() == n + 1);
    }
    assert_eq!(sim.sent_by[A] + sim.sent_by[B] - before, 2 * ROUNDS as u64);
    assert_eq!(sim.sent[Kind::Ack as usize], acks);
    assert_eq!(sim.dropped, 0);
}

#[test]
fn one_lost_unit_is_repaired_without_a_timeout() {
    let mut sim = Sim::new(6);
    sim.establish();
    sim.links[A].drop_if = Some(|p| p.header.kind == Kind::Data && p.header.unit == Seq(1003));
    sim.links[A].drops = 1;
    let bytes = message(1, 100_000);
    sim.send(A, &bytes);
    sim.run_until(Nanos::millis(5), |sim| sim.ends[B].channel.messages.len() == 1);
    let stats = sim.flow(A).stats();
    assert_eq!((stats.lost, stats.retransmitted, stats.rtos, stats.needless), (1, 1, 0, 0));
}

#[test]
fn news_of_a_gap_does_not_wait_behind_full_units() {
    let mut sim = Sim::new(11);
    sim.establish();
    sim.run_for(Nanos::micros(100));
    sim.links[A].drops = 1;
    sim.send(A, &message(1, 2_000));
    // By the time the second unit arrives B has much to send, and its units have no room for SACK words.
    sim.ends[B].outbox.push_back((message(2, 4_000), None));
    sim.record = Some(Vec::new());
    sim.run_for(Nanos::micros(15));
    let kinds: Vec<_> = sim
        .record
        .take()
        .unwrap()
        .iter()
        .map(|(_, bytes)| Packet::parse(bytes).map(|p| (p.header.kind, p.sack.words())).unwrap())
        .collect();
    assert_eq!(kinds[..2], [(Kind::Ack, 1), (Kind::Data, 0)]);
}

#[test]
fn the_last_unit_is_repaired_by_a_probe() {
    let mut sim = Sim::new(7);
    sim.establish();
    sim.links[A].drop_if = Some(|p| p.header.kind == Kind::Data);
    sim.links[A].drops = 1;
    sim.send(A, &message(1, 64));
    sim.run_until(Nanos::millis(1), |sim| sim.ends[B].channel.messages.len() == 1);
    let stats = sim.flow(A).stats();
    assert_eq!((stats.tail_probes, stats.rtos), (1, 0));
}

#[test]
fn a_needless_timeout_is_recognised_and_undone() {
    let mut sim = Sim::new(8);
    sim.establish();
    sim.send(A, &message(1, 200_000));
    sim.run_until(Nanos::millis(5), |sim| sim.ends[B].channel.messages.len() == 1);
    sim.run_for(Nanos::micros(100));
    let now = sim.now;
    let window = sim.flow(A).window(now);
    // Everything is late by more than any timeout, and nothing is lost.
    sim.links[B].delay = Nanos::millis(5);
    sim.send(A, &message(2, 20_000));
    sim.run_until(Nanos::millis(20), |sim| {
        sim.ends[A].flow.as_ref().is_some_and(|f| f.stats().rtos_undone == 1)
    });
    let stats = sim.flow(A).stats();
    assert!(stats.rtos > 0 && stats.needless > 0, "{stats:?}");
    // Such a delay costs half of it, a timeout would have cost all.
    let now = sim.now;
    assert!(sim.flow(A).window(now) * 2 >= window);
    sim.run_for(Nanos::millis(20));
    assert_eq!(sim.ends[B].channel.messages.len(), 2);
}

#[test]
fn units_too_large_for_the_peers_packets_go_in_pieces() {
    let mut sim = Sim::with(9, Config::default(), 9001, Seq(0));
    sim.ends[B].mtu = 1460;
    sim.ends[B].unit = machnet_wire::unit_size(1460, 0);
    sim.links = [bad(30), bad(30)];
    exchange(sim, 400, Nanos::secs(20));
}

#[test]
fn thirty_percent_loss_is_slow_but_sure() {
    let mut sim = Sim::new(10);
    sim.links = [Link { loss: 300, ..Link::default() }, Link { loss: 300, ..Link::default() }];
    exchange(sim, 200, Nanos::secs(120));
}
