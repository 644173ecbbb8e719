//! What becomes of packets that are lost, late or in another order (RFC 8985, RFC 6298).

mod common;

use common::{A, B, Channel, Link, Sim, message};
use machnet_wire::{Kind, Nanos, Packet};

/// A connection over which enough has passed that round trip, window and credit are known.
fn warm(seed: u64) -> Sim {
    warm_with(seed, 4096)
}

/// The same where the receiver's channel has so many units.
fn warm_with(seed: u64, units: u32) -> Sim {
    let mut sim = Sim::new(seed);
    sim.ends[B].channel = Channel::new(units);
    sim.establish();
    for n in 0..20 {
        sim.send(A, &message(n, 200_000));
        sim.run_until(Nanos::millis(5), |sim| sim.ends[B].channel.messages.len() as u64 == n + 1);
    }
    sim.run_for(Nanos::micros(100));
    sim
}

#[test]
fn a_whole_window_behind_a_lost_unit_is_kept_and_not_sent_again() {
    let mut sim = warm(1);
    sim.links[A].drops = 1;
    let before = sim.flow(A).stats();
    let received = sim.flow(B).stats();
    sim.send(A, &message(99, 250 * 1424));
    sim.run_until(Nanos::millis(5), |sim| sim.ends[B].channel.messages.len() == 21);
    let (sent, got) = (sim.flow(A).stats(), sim.flow(B).stats());
    assert_eq!((sent.retransmitted - before.retransmitted, sent.rtos - before.rtos), (1, 0));
    assert!(got.out_of_order - received.out_of_order > 60, "{got:?}");
    assert_eq!(got.beyond_window, 0);
}

#[test]
fn a_repetition_that_is_lost_as_well_is_found_without_a_timeout() {
    let mut sim = warm(2);
    let before = sim.flow(A).stats();
    sim.links[A].drop_if = Some(|p| p.header.kind == Kind::Data && p.header.message_len == 300_000);
    sim.links[A].drops = 2;
    sim.send(A, &message(5, 300_000));
    sim.run_until(Nanos::millis(5), |sim| sim.ends[B].channel.messages.len() == 21);
    let after = sim.flow(A).stats();
    assert_eq!((after.retransmitted - before.retransmitted, after.rtos - before.rtos), (2, 0));
}

/// Each copy of one unit is lost, again and again, in the midst of a stream: each time the next transmission shows it.
#[test]
fn three_losses_of_one_unit_in_a_row_are_found_without_a_timeout() {
    for times in [2, 3] {
        // Enough to send and room for it, so that there is a next transmission.
        let mut sim = warm_with(12, 65_536);
        sim.ends[A].tokens_max = 16_384;
        let before = sim.flow(A).stats();
        sim.links[A].drop_if = Some(|p| p.header.kind == Kind::Data && p.header.message_len == 300_000);
        sim.links[A].drops = times;
        for n in 0..60 {
            sim.send(A, &message(n, 300_000 + n as usize));
        }
        sim.run_until(Nanos::millis(40), |sim| sim.ends[B].channel.messages.len() == 80);
        let after = sim.flow(A).stats();
        let seen = (after.retransmitted - before.retransmitted, after.rtos - before.rtos);
        assert_eq!(seen, (u64::from(times), 0), "{after:?}");
    }
}

#[test]
fn reordering_is_learned_and_then_costs_nothing() {
    let mut sim = warm(3);
    sim.links[A] = Link { reorder: 100, jitter: Nanos::micros(20), ..sim.links[A].clone() };
    let mut needless = Vec::new();
    for n in 0..60 {
        let before = sim.flow(A).stats().retransmitted;
        sim.send(A, &message(n, 300_000));
        let have = sim.ends[B].channel.messages.len();
        sim.run_until(Nanos::millis(20), |sim| sim.ends[B].channel.messages.len() == have + 1);
        needless.push(sim.flow(A).stats().retransmitted - before);
    }
    let late: u64 = needless[30..].iter().sum();
    // 30 messages of 211 units, a tenth of them up to 20 us late on a path of 20 us.
    assert!(late <= 30, "{needless:?}");
    assert_eq!(sim.flow(A).stats().rtos, 0);
}

#[test]
fn the_timeout_doubles_from_a_millisecond_to_its_bound() {
    let mut sim = warm(4);
    sim.links[A].down = true;
    sim.links[B].down = true;
    sim.record = Some(Vec::new());
    let begun = sim.now;
    sim.send(A, &message(1, 64));
    let mut at = vec![];
    while sim.now < begun + Nanos::millis(1500) {
        let had = sim.record.as_ref().map_or(0, Vec::len);
        if !sim.step(begun + Nanos::millis(1500)) {
            break;
        }
        let record = sim.record.as_ref().expect("a record");
        let data = |(from, bytes): &(usize, Vec<u8>)| {
            *from == A && Packet::parse(bytes).is_ok_and(|p| p.header.kind == Kind::Data)
        };
        if record[had..].iter().any(data) {
            at.push((sim.now - begun).0 / 1000);
        }
    }
    // The probe, then timeouts of 1, 2, 4 .. 128 ms and of 200 ms for ever.
    let gaps: Vec<u64> = at.windows(2).map(|w| w[1] - w[0]).collect();
    assert_eq!(at[0], 200, "two round trips are less than 200 us");
    assert_eq!(
        gaps,
        [
            1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 200_000, 200_000, 200_000, 200_000,
            200_000, 200_000
        ]
    );
}

#[test]
fn what_the_peer_waits_is_no_part_of_the_round_trip() {
    let mut sim = warm(5);
    // Each is acknowledged alone, 25 us after it came.
    for n in 0..100 {
        sim.send(A, &message(n, 64));
        sim.run_for(Nanos::micros(200));
    }
    let rtt = sim.flow(A).rtt().expect("samples");
    assert!((Nanos::micros(20)..Nanos::micros(22)).contains(&rtt), "{rtt:?}");
}

#[test]
fn what_nobody_looked_at_in_time_is_no_delay_of_the_path() {
    let mut sim = warm(6);
    let now = sim.now;
    let window = sim.flow(A).window(now);
    // B looks every 300 us only, and says so.
    sim.ends[B].channel.gap = Nanos::micros(300);
    sim.links[A].delay += Nanos::micros(300);
    for n in 0..20 {
        sim.send(A, &message(n, 100_000));
        let have = sim.ends[B].channel.messages.len();
        sim.run_until(Nanos::millis(20), |sim| sim.ends[B].channel.messages.len() == have + 1);
    }
    let now = sim.now;
    assert!(sim.flow(A).window(now) >= window, "not a sign of congestion");
    assert!(sim.flow(A).rtt() > Some(Nanos::micros(300)), "but timeouts know of it");
    // Had it not said so, it would be.
    sim.ends[B].channel.gap = Nanos::ZERO;
    for n in 0..5 {
        sim.send(A, &message(n, 100_000));
        sim.run_for(Nanos::millis(2));
    }
    let now = sim.now;
    assert!(sim.flow(A).window(now) < window / 4);
}

#[test]
fn a_day_of_silence_changes_nothing() {
    let mut sim = warm(7);
    let pings = sim.sent[Kind::Ping as usize];
    sim.run_for(Nanos::secs(86_400));
    let asked = sim.sent[Kind::Ping as usize] - pings;
    assert!((80_000..180_000).contains(&asked), "{asked} PINGs: one a second, from one end or both");
    let before = sim.flow(A).stats();
    sim.send(A, &message(1, 1 << 20));
    sim.send(B, &message(2, 1 << 20));
    sim.run_until(Nanos::millis(20), |sim| {
        sim.ends[B].channel.messages.len() == 21 && sim.ends[A].channel.messages.len() == 1
    });
    assert_eq!(sim.ends[A].channel.messages[0], message(2, 1 << 20));
    let after = sim.flow(A).stats();
    assert_eq!((after.retransmitted, after.rtos), (before.retransmitted, before.rtos));
}

#[test]
fn one_percent_of_loss_does_not_stop_requests() {
    let mut sim = Sim::new(8);
    sim.links = [Link { loss: 10, ..Link::default() }, Link { loss: 10, ..Link::default() }];
    sim.establish();
    let begun = sim.now;
    for n in 0..10_000 {
        sim.send(A, &message(n, 64));
        sim.run_until(Nanos::secs(1), |sim| sim.ends[B].channel.messages.len() as u64 == n + 1);
        sim.send(B, &message(n, 64));
        sim.run_until(Nanos::secs(1), |sim| sim.ends[A].channel.messages.len() as u64 == n + 1);
    }
    // 20 us each; a loss is found by a probe after 200 us. Other stacks come to 50 ms each.
    let each = (sim.now - begun) / 10_000;
    assert!(each < Nanos::micros(30), "{each:?}");
    assert!(sim.dropped > 100 && sim.flow(A).stats().rtos < 20);
}

/// An end whose core is wanted elsewhere is late every few milliseconds, while timeouts that have backed off are two hundred.
#[test]
fn an_end_that_is_late_all_the_time_sends_again_what_was_lost() {
    for every in [1, 5, 50, 199] {
        let mut sim = Sim::new(25);
        sim.establish();
        sim.run_for(Nanos::micros(100));
        sim.links[A].down = true;
        sim.send(A, &message(1, 64));
        sim.run_for(Nanos::millis(600));
        assert!(sim.flow(A).timeout() >= Nanos::millis(200), "backed off");
        sim.links[A].down = false;
        let begun = sim.now;
        while sim.ends[B].channel.messages.is_empty() {
            assert!(sim.now < begun + Nanos::secs(1), "late every {every} ms");
            sim.run_for(Nanos::millis(every));
            let now = sim.now;
            sim.flow(A).stalled(now);
        }
    }
}
