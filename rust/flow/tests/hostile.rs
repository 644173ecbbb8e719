//! A peer that knows our tag and sends what it likes: the flow stays in bounds, never panics, and the books add up.

mod common;

use common::{A, B, Channel, Rng, Sim, message};
use machnet_flow::Event;
use machnet_wire::{Flags, Header, Kind, Nanos, Seq, header};

/// A packet that parses, near enough to what the flow expects that most of it is looked at.
fn packet(rng: &mut Rng, tag: u32, base: Seq) -> Option<Vec<u8>> {
    let kinds = [
        Kind::Data,
        Kind::Data,
        Kind::Data,
        Kind::Ack,
        Kind::Ping,
        Kind::Syn,
        Kind::SynAck,
        Kind::Rst,
        Kind::Paths,
    ];
    let kind = kinds[rng.below(kinds.len() as u64) as usize];
    // Fields that name what the flow has sent are mostly right, or it would end at the first packet.
    let near = |rng: &mut Rng, behind: u32, reach: u64| match rng.below(400) {
        0 => Seq(rng.next() as u32),
        1 => base + (rng.below(3000) as u32).wrapping_sub(1000),
        _ => base + (rng.below(reach) as u32).wrapping_sub(behind),
    };
    let mut h = Header::new(kind);
    // An RST with our tag is the end of it.
    h.tag = if rng.chance(if kind == Kind::Rst { 970 } else { 30 }) { rng.next() as u32 } else { tag };
    h.flags = Flags((rng.next() as u8 & 127) & if kind == Kind::Data { 127 } else { 112 });
    if kind == Kind::Data && rng.chance(900) {
        h.flags = Flags(h.flags.0 & !12 | if rng.chance(900) { 3 } else { 0 });
    }
    (h.unit, h.tx, h.ack, h.ack_tx) = (near(rng, 4, 40), near(rng, 4, 40), near(rng, 4, 8), near(rng, 4, 6));
    h.credit = if rng.chance(500) { rng.below(20) as u16 } else { rng.next() as u16 };
    (h.ts, h.ts_echo) = (rng.next() as u32, rng.next() as u32);
    (h.ack_delay, h.gap) = (rng.next() as u16 >> rng.below(16), rng.next() as u16 >> rng.below(16));
    (h.want, h.backlog) = (rng.next() as u8, rng.next() as u8);
    let sack: Vec<u64> =
        (0..rng.below(40).saturating_sub(23)).map(|_| if rng.chance(20) { rng.next() } else { 0 }).collect();
    let mut len = match kind {
        Kind::Syn | Kind::SynAck => 24,
        Kind::Rst => 16,
        Kind::Paths => 12,
        Kind::Data if h.flags.0 & 12 == 0 => rng.below(60) as usize,
        _ => 0,
    };
    if h.flags.has(Flags::BEGIN) && kind == Kind::Data {
        h.message_len = len as u32;
        if !h.flags.has(Flags::END) {
            h.message_len += 1 + rng.below(200) as u32;
        }
    }
    if rng.chance(1) {
        len = 1500;
        h.message_len = 0;
    }
    let mut bytes = vec![0; header::LEN + 8 * sack.len() + len];
    let at = h.emit(&sack, &mut bytes);
    for b in &mut bytes[at..] {
        *b = if matches!(kind, Kind::Rst | Kind::Syn | Kind::SynAck) {
            rng.below(2) as u8
        } else {
            rng.next() as u8
        };
    }
    machnet_wire::Packet::parse(&bytes).is_ok().then_some(bytes)
}

#[test]
fn no_packet_makes_a_flow_panic_or_lose_a_unit() {
    let mut rng = Rng(77);
    let mut taken = 0;
    for seed in 0..600 {
        let mut sim = Sim::with(seed, Default::default(), 1500, Seq(rng.next() as u32));
        let base = sim.ends[A].first;
        sim.establish();
        sim.ends[B].reading = seed % 3 != 0;
        sim.send(A, &message(1, 20_000));
        sim.send(B, &message(1, 20_000));
        if seed % 5 == 0 {
            sim.close(B);
        }
        // In most runs A does not hear what its forged self is told: it would reset the connection.
        sim.links[B].down = seed % 4 != 0;
        for _ in 0..200 {
            let Some(bytes) = packet(&mut rng, sim.ends[B].tag, base) else { continue };
            if sim.ends[B].channel.closed().is_some() || sim.ends[B].flow.is_none() {
                break;
            }
            taken += 1;
            // Its channel checks every call; what B says is between it and the forger.
            let parsed = machnet_wire::Packet::parse(&bytes).unwrap();
            let end = &mut sim.ends[B];
            // A message that the forger began may not fit what A sends, and the other way round: both are refused.
            let _ = end.flow.as_mut().unwrap().on_packet(sim.now, &parsed, &mut end.channel);
            sim.pump(B);
            if rng.chance(300) {
                sim.run_for(Nanos(rng.below(300_000)));
            }
        }
        // Whatever it believes by now, it ends when told to, and everything comes back.
        let end = &mut sim.ends[B];
        if let Some(flow) = &mut end.flow {
            flow.reset(machnet_wire::Reason::Aborted, &mut end.channel);
        }
        assert_eq!((end.channel.reserved, end.channel.held), (0, 0));
        assert!(end.channel.tokens.is_empty() && end.channel.lent <= 256);
    }
    assert!(taken > 5_000, "most packets are looked at: {taken}");
}

#[test]
fn a_flood_of_units_far_ahead_is_bounded() {
    let mut sim = Sim::new(5);
    // The channel would give more than a flow may promise.
    sim.ends[B].channel = Channel::new(8192);
    sim.establish();
    sim.run_for(Nanos::millis(5));
    for i in 1..5_000u32 {
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
