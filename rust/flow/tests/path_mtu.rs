//! A path that takes shorter packets than both ends do: units shrink until they pass, and grow again when they may. And a connection on which
//! nothing gets through ends, whatever else is heard.

mod common;

use common::{A, B, Choices, Sim, message};
use machnet_flow::{Closed, Config};
use machnet_wire::{Kind, Nanos, Packet, Seq};

const OVERHEAD: u32 = machnet_wire::OVERHEAD as u32;

/// Two ends that know each other, with links that take IP packets of so many bytes, and the application's units as both ends' MTU allows.
fn narrow(seed: u64, mtu: u16, links: [usize; 2]) -> Sim {
    let mut sim = Sim::with(seed, Config::default(), mtu, Seq(1000));
    sim.establish();
    sim.run_for(Nanos::millis(5));
    for (link, mtu) in sim.links.iter_mut().zip(links) {
        link.mtu = mtu;
    }
    sim
}

/// Sends messages of these sizes from `i`, all at once, and how long it took until the last was in.
fn transfer(sim: &mut Sim, i: usize, sizes: &[usize]) -> Nanos {
    let sent: Vec<Vec<u8>> = sizes.iter().enumerate().map(|(n, len)| message(n as u64, *len)).collect();
    let to = 1 - i;
    let before = sim.ends[to].channel.messages.len();
    let begun = sim.now;
    for message in &sent {
        sim.ends[i].outbox.push_back((message.clone(), None));
    }
    sim.pump(i);
    let all = before + sent.len();
    sim.run_until(Nanos::secs(4), |sim| sim.ends[to].channel.messages.len() == all);
    assert!(sim.ends[to].channel.messages[before..] == sent, "messages arrive as sent");
    sim.now - begun
}

fn close(mut sim: Sim) {
    sim.finish(A);
    sim.finish(B);
    sim.run_until(Nanos::secs(5), |sim| sim.both(|end| end.channel.closed().is_some()));
    assert!(sim.both(|end| end.channel.closed() == Some(Closed::Clean)));
    sim.check_books();
}

#[test]
fn units_shrink_until_they_pass_and_what_was_under_way_goes_in_parts() {
    for (mtu, path) in
        [(1500, 1400), (1500, 1492), (1500, 1413), (1500, 576), (9001, 1500), (9001, 4000), (9001, 8900)]
    {
        let mut sim = narrow(1, mtu, [path, path]);
        let took = transfer(&mut sim, A, &[4000, 40_000, 10]);
        assert!(took < Nanos::millis(60), "{mtu} to {path}: {took:?}");
        // The last round of probes may still be out.
        sim.run_for(Nanos::millis(20));
        let (found, stats) = (u32::from(sim.flow(A).path_mtu()), sim.flow(A).stats());
        assert!(stats.parts_sent > 0 && stats.pmtu_shrunk == 1, "{stats:?}");
        assert!(sim.flow(B).stats().parts_received > 0);
        // At least nine tenths of it, or seven eighths of a gap between usual lengths closed.
        assert!(found <= path as u32 && found * 10 >= path as u32 * 9, "{mtu}: {found} of {path}");
        // From now on nothing is too long, so nothing is lost and nothing is in parts.
        let dropped = sim.dropped;
        transfer(&mut sim, A, &[100_000, 3, 5000]);
        assert_eq!(sim.dropped, dropped);
        assert_eq!(sim.flow(A).stats().parts_sent, stats.parts_sent);
        // The other direction is another path.
        assert_eq!(u32::from(sim.flow(B).path_mtu()), u32::from(mtu));
        transfer(&mut sim, B, &[20_000]);
        assert!(u32::from(sim.flow(B).path_mtu()) <= path as u32);
        close(sim);
    }
}

#[test]
fn what_was_never_sent_is_cut_to_fit_and_goes_whole() {
    let mut sim = narrow(2, 1500, [1400, 1400]);
    transfer(&mut sim, A, &[300_000]);
    let stats = sim.flow(A).stats();
    assert!(stats.parts_sent < 60, "211 units, of which few were in flight: {stats:?}");
}

#[test]
fn a_path_that_narrows_during_a_transfer_loses_nothing() {
    for seed in 0..20 {
        let mut sim = narrow(seed, 1500, [1500, 1500]);
        for link in &mut sim.links {
            (link.loss, link.duplicate, link.reorder) = (10, 10, 10);
        }
        for n in 0..60 {
            sim.ends[A].outbox.push_back((message(n, 50_000), None));
            sim.ends[B].outbox.push_back((message(n, 3_000), None));
        }
        sim.pump(A);
        sim.pump(B);
        let mut choices = Choices::seeded(seed);
        for path in [1400, 1280, 600] {
            sim.run_for(Nanos::micros(1_000 + choices.below(3_000)));
            sim.links[A].mtu = path;
            sim.links[B].mtu = path + 40;
        }
        sim.run_until(Nanos::secs(20), |sim| sim.both(|end| end.channel.messages.len() == 60));
        for (n, (a, b)) in (0..).zip(sim.ends[B].channel.messages.iter().zip(&sim.ends[A].channel.messages)) {
            assert!(*a == message(n, 50_000) && *b == message(n, 3_000), "seed {seed}: message {n}");
        }
        close(sim);
    }
}

#[test]
fn longer_packets_are_tried_again_ten_minutes_later() {
    let mut sim = narrow(3, 1500, [1400, 1400]);
    transfer(&mut sim, A, &[4000]);
    sim.run_for(Nanos::secs(1));
    sim.links[A].mtu = 1470;
    for (after, path) in [(590, 1400), (20, 1460), (580, 1460)] {
        sim.run_for(Nanos::secs(after));
        assert_eq!(sim.flow(A).path_mtu(), path, "after {after} s more");
    }
    sim.links[A].mtu = 9000;
    sim.run_for(Nanos::secs(30));
    assert_eq!((sim.flow(A).path_mtu(), sim.flow(A).stats().pmtu_raised), (1500, 2));
    let probes = sim.flow(A).stats().pmtu_probes;
    sim.run_for(Nanos::secs(2000));
    assert_eq!(sim.flow(A).stats().pmtu_probes, probes, "there is nothing to gain any more");
    transfer(&mut sim, A, &[4000]);
    assert_eq!(sim.flow(A).next_timeout().map(|at| at < Nanos::MAX), Some(true));
    close(sim);
}

#[test]
fn what_is_lost_for_other_reasons_shrinks_nothing() {
    // Chance, in both directions, a lot of it.
    for seed in 0..40 {
        let mut sim = narrow(seed, 1500, [1500, 1500]);
        for link in &mut sim.links {
            link.loss = 100;
        }
        for n in 0..40 {
            sim.ends[A].outbox.push_back((message(n, 50_000), None));
        }
        sim.pump(A);
        sim.run_until(Nanos::secs(60), |sim| sim.ends[B].channel.messages.len() == 40);
        let stats = sim.flow(A).stats();
        assert_eq!((stats.pmtu_shrunk, sim.flow(A).path_mtu()), (0, 1500), "seed {seed}: {stats:?}");
    }
    // What arrives in between says that there is nothing to ask.
    let mut sim = narrow(49, 1500, [1500, 1500]);
    sim.links[A].loss = 20;
    for n in 0..20 {
        sim.ends[A].outbox.push_back((message(n, 500_000), None));
    }
    sim.pump(A);
    sim.run_until(Nanos::secs(60), |sim| sim.ends[B].channel.messages.len() == 20);
    let stats = sim.flow(A).stats();
    assert!(stats.lost > 100 && stats.pmtu_probes < 20, "{stats:?}");
    // A link that is down for a while, where everything is lost.
    let mut sim = narrow(50, 1500, [1500, 1500]);
    sim.ends[A].outbox.push_back((message(1, 50_000), None));
    sim.links[A].down = true;
    sim.pump(A);
    sim.run_for(Nanos::millis(1_500));
    sim.links[A].down = false;
    sim.run_until(Nanos::secs(1), |sim| sim.ends[B].channel.messages.len() == 1);
    assert_eq!((sim.flow(A).stats().pmtu_shrunk, sim.flow(A).path_mtu()), (0, 1500));
}

#[test]
fn a_clean_path_is_not_probed() {
    let mut sim = narrow(4, 1500, [1500, 1500]);
    transfer(&mut sim, A, &[1_000_000, 10, 50_000]);
    sim.run_for(Nanos::secs(5));
    let stats = sim.flow(A).stats();
    assert_eq!((stats.pmtu_probes, stats.parts_sent), (0, 0));
}

#[test]
fn a_routers_word_is_a_hint_that_probes_confirm() {
    // True: no unit need be lost three times.
    let mut sim = narrow(5, 1500, [1413, 1413]);
    sim.ends[A].outbox.push_back((message(1, 4000), None));
    sim.pump(A);
    assert!(sim.flow(A).on_too_long(1413));
    assert!(!sim.flow(A).on_too_long(1413), "one search at a time");
    sim.pump(A);
    let begun = sim.now;
    sim.run_until(Nanos::secs(1), |sim| sim.ends[B].channel.messages.len() == 1);
    assert!(sim.now - begun < Nanos::millis(8), "{:?}", sim.now - begun);
    assert_eq!(sim.flow(A).path_mtu(), 1413);
    // A lie, of whatever size: the path is as it was.
    let mut sim = narrow(6, 1500, [1500, 1500]);
    for (mtu, news) in [
        (0, true),
        (1, false),
        (68, false),
        (575, false),
        (576, true),
        (1280, true),
        (1500, false),
        (9000, false),
    ] {
        assert_eq!(sim.flow(A).on_too_long(mtu), news, "{mtu}");
        transfer(&mut sim, A, &[4000, 4000]);
        sim.run_for(Nanos::millis(100));
        assert_eq!((sim.flow(A).path_mtu(), sim.flow(A).stats().pmtu_shrunk), (1500, 0), "{mtu}");
    }
}

#[test]
fn what_another_flow_has_found_is_known_from_the_start() {
    let mut sim = Sim::new(7);
    for (end, link) in sim.ends.iter_mut().zip(&mut sim.links) {
        end.channel.known_mtu = Some(1400);
        link.mtu = 1400;
    }
    sim.establish();
    sim.run_for(Nanos::millis(5));
    let dropped = sim.dropped;
    transfer(&mut sim, A, &[4000, 100_000]);
    assert_eq!((sim.dropped - dropped, u32::from(sim.flow(A).path_mtu())), (0, 1324 + OVERHEAD));
    assert_eq!(sim.flow(A).stats().pmtu_probes, 0);
    assert_eq!(sim.ends[A].channel.learned_mtu, None);
    // And what this one finds the others are told.
    sim.links[A].mtu = 1280;
    transfer(&mut sim, A, &[4000]);
    assert_eq!(sim.ends[A].channel.learned_mtu, Some(1280));
}

/// Not even the shortest that every path takes gets through, but what is shorter does: the peer is alive, and the connection of no use.
#[test]
fn where_nothing_passes_the_connection_ends_in_five_seconds() {
    let mut sim = narrow(8, 1500, [500, 1500]);
    sim.send(A, &message(1, 4000));
    let begun = sim.now;
    // The peer talks all the time, and is acknowledged.
    while sim.ends[A].channel.closed().is_none() {
        assert!(sim.now - begun < Nanos::secs(6), "it goes on and on");
        sim.send(B, &message(2, 100));
        sim.run_for(Nanos::millis(50));
    }
    assert_eq!(sim.ends[A].channel.closed(), Some(Closed::NoProgress));
    assert!(sim.now - begun >= Nanos::secs(5), "{:?}", sim.now - begun);
    assert_eq!(sim.ends[B].channel.closed(), Some(Closed::ByPeer(machnet_wire::Reason::Timeout)));
}

/// One unit never arrives, and all others do.
#[test]
fn one_unit_that_never_arrives_ends_the_connection() {
    fn unlucky(packet: &Packet<'_>) -> bool {
        packet.header.kind == Kind::Data && packet.header.unit == Seq(1003)
    }
    let mut sim = narrow(9, 1500, [1500, 1500]);
    sim.links[A].drop_if = Some(unlucky);
    sim.links[A].drops = u32::MAX;
    let begun = sim.now;
    while sim.ends[A].channel.closed().is_none() {
        assert!(sim.now - begun < Nanos::secs(7), "it goes on and on");
        sim.send(A, &message(2, 100));
        sim.run_for(Nanos::millis(50));
    }
    assert_eq!(sim.ends[A].channel.closed(), Some(Closed::NoProgress));
}

/// A peer whose application does not read refuses, and is alive.
#[test]
fn an_application_that_does_not_read_is_no_lack_of_progress() {
    let mut sim = narrow(10, 1500, [1500, 1500]);
    // Long enough that a unit is under way nearly always.
    for link in &mut sim.links {
        link.delay = Nanos::millis(80);
    }
    sim.ends[B].reading = false;
    for n in 0..400 {
        sim.ends[A].outbox.push_back((message(n, 4000), None));
    }
    sim.pump(A);
    sim.run_for(Nanos::secs(900));
    assert!(sim.both(|end| end.channel.closed().is_none()));
    sim.ends[B].reading = true;
    sim.pump(B);
    sim.run_until(Nanos::secs(100), |sim| sim.ends[B].channel.messages.len() == 400);
}
