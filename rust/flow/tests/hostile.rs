//! A peer that knows our tag and sends what it likes: the flow stays in bounds, never panics, and the books add up.

mod common;

use common::{B, Channel, Choices, Sim, hostile};
use machnet_flow::{Closed, Event};
use machnet_wire::{Flags, Header, Kind, Nanos, Reason, Seq, header};

#[test]
fn no_packet_makes_a_flow_panic_or_lose_a_unit() {
    // One seed: MACHNET_SEED=n. More of them: MACHNET_SEEDS=n.
    let number = |name| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let seeds = number("MACHNET_SEED").map_or(0..number("MACHNET_SEEDS").unwrap_or(1000), |n| n..n + 1);
    let count = seeds.end - seeds.start;
    let (mut taken, mut broken) = (0, 0);
    for seed in seeds {
        let outcome = hostile::run(seed, Choices::seeded(seed));
        taken += u64::from(outcome.taken);
        broken += u64::from(outcome.broken);
    }
    if count > 100 {
        assert!(taken > 10 * count, "most packets are looked at: {taken}");
        assert!(broken > count / 10, "and rules are broken: {broken}");
    }
}

#[test]
fn a_flood_of_units_far_ahead_is_bounded() {
    let mut sim = Sim::new(5);
    // The channel would give more than a flow may promise.
    sim.ends[B].channel = Channel::new(8192);
    sim.establish();
    sim.run_for(Nanos::millis(5));
    for i in 1..20_000u32 {
        let mut h = Header::new(Kind::Data);
        (h.tag, h.unit, h.tx) = (sim.ends[B].tag, Seq(1000) + i, Seq(2000) + i);
        (h.ack, h.flags) = (Seq(1000), Flags::NONE);
        let mut bytes = vec![7; header::LEN + 100];
        h.emit(&[], &mut bytes);
        let end = &mut sim.ends[B];
        let packet = machnet_wire::Packet::parse(&bytes).unwrap();
        end.flow.as_mut().unwrap().on_packet(sim.now, &packet, &mut end.channel).unwrap();
    }
    assert!(sim.ends[B].channel.reserved <= 256 && sim.ends[B].channel.held <= 256);
    assert_eq!(sim.ends[B].channel.told(Event::Established), 1);
    let stats = sim.flow(B).stats();
    assert!(stats.refused > 500 && stats.beyond_window > 3_000, "{stats:?}");
}

#[test]
fn a_unit_kept_behind_the_fin_is_given_back() {
    let mut sim = Sim::new(6);
    sim.establish();
    sim.run_for(Nanos::millis(5));
    for (ahead, flags) in [(1, Flags::BEGIN | Flags::END), (0, Flags::FIN)] {
        let mut h = Header::new(Kind::Data);
        (h.tag, h.unit, h.tx) = (sim.ends[B].tag, Seq(1000) + ahead, Seq(2000) + (1 - ahead));
        (h.ack, h.flags) = (Seq(1000), flags);
        let mut bytes = vec![0; header::LEN];
        h.emit(&[], &mut bytes);
        let end = &mut sim.ends[B];
        let packet = machnet_wire::Packet::parse(&bytes).unwrap();
        let taken = end.flow.as_mut().unwrap().on_packet(sim.now, &packet, &mut end.channel);
        assert_eq!(taken.is_ok(), ahead == 1, "{taken:?}");
    }
    assert_eq!(sim.ends[B].channel.closed(), Some(Closed::ByUs(Reason::Protocol)));
    assert_eq!((sim.ends[B].channel.held, sim.ends[B].channel.reserved), (0, 0));
}
