//! What the two ends agree on in their hellos, and what of version 3 a flow understands without using it itself: ranges, cookies,
//! padding; lanes and seals, which it has not agreed on.

mod common;

use common::{A, B, Channel, Choices, Sim, message};
use machnet_flow::{Closed, Config, Event, FlowError};
use machnet_wire::{
    Flags, Header, Hello, Kind, Nanos, Packet, ParseError, Part, Reason, Reset, SackRange, Seq, header,
};

/// The next packet of B's to A, as far as a test does not vary it.
fn from_b(sim: &Sim, kind: Kind) -> Header {
    let newest = sim.ends[A].newest.expect("A has sent something");
    Header {
        src: newest.dst,
        dst: newest.src,
        tag: sim.ends[A].tag,
        unit: Seq(1000),
        tx: Seq(5000),
        ack: Seq(1000),
        credit: 1000,
        ..Header::new(kind)
    }
}

/// Its bytes.
fn bytes(header: &Header, part: Option<Part>, sack: &[u64], body: &[u8]) -> Vec<u8> {
    let mut out = vec![0; header::LEN + 8 * (sack.len() + 1)];
    let at = header.emit_with(None, part, sack, &mut out);
    out.truncate(at);
    out.extend(body);
    out
}

/// Gives a packet to A, and what A makes of it.
fn give(sim: &mut Sim, bytes: &[u8]) -> Result<(), FlowError> {
    let packet = Packet::parse(bytes).expect("it parses");
    let (now, end) = (sim.now, &mut sim.ends[A]);
    let taken = end.flow.as_mut().expect("a flow").on_packet(now, &packet, &mut end.channel);
    sim.pump(A);
    taken
}

/// Two ends that know each other, and the packets of A that were recorded from then on.
fn established(seed: u64) -> Sim {
    let mut sim = Sim::new(seed);
    sim.establish();
    sim.run_for(Nanos::millis(5));
    sim.record = Some(Vec::new());
    sim
}

/// Eight units of A's are in flight, and B tells of those in `set`, in bits or in ranges.
fn told(seed: u64, set: &[bool], ranges: bool) -> (u32, u32, machnet_flow::Stats) {
    let mut sim = established(seed);
    let open = bytes(&from_b(&sim, Kind::Ack), None, &[], b"");
    give(&mut sim, &open).expect("credit");
    sim.links[A].down = true;
    for n in 0..8 {
        sim.send(A, &message(n, 10));
    }
    sim.pump(A);
    assert_eq!(sim.flow(A).in_flight(), 8, "seed {seed}");
    let mut header = Header { tx: Seq(5001), ..from_b(&sim, Kind::Ack) };
    let mut words = [0; header::SACK_WORDS_MAX];
    let n = if ranges {
        header.flags = Flags::RANGES;
        let mut named: Vec<SackRange> = Vec::new();
        for first in (0..set.len()).filter(|&i| set[i]).map(|i| i as u16) {
            match named.last_mut() {
                Some(last) if last.first + last.count == first => last.count += 1,
                _ => named.push(SackRange { first, count: 1 }),
            }
        }
        SackRange::to_words(&named, &mut words)
    } else {
        words[0] = set.iter().enumerate().map(|(i, &there)| u64::from(there) << i).sum();
        1
    };
    give(&mut sim, &bytes(&header, None, &words[..n], b"")).expect("taken");
    let flow = sim.flow(A);
    (flow.in_flight(), flow.queued(), flow.stats())
}

#[test]
fn ranges_say_what_bits_say() {
    for seed in 0..200 {
        let mut choices = Choices::seeded(seed);
        let mut set: Vec<bool> = (0..7).map(|_| choices.chance(500)).collect();
        set[choices.below(7) as usize] = true;
        let (bits, ranges) = (told(seed, &set, false), told(seed, &set, true));
        assert_eq!(format!("{bits:?}"), format!("{ranges:?}"), "seed {seed}, {set:?}");
        assert!(bits.0 < 8, "seed {seed}: nothing was taken for arrived");
    }
}

#[test]
fn a_range_of_units_that_were_never_sent_breaks_the_protocol() {
    for (range, fits) in [((0, 1), true), ((0, 2), false), ((1, 1), false), ((0, 16_384), false)] {
        let mut sim = established(1);
        let open = bytes(&from_b(&sim, Kind::Ack), None, &[], b"");
        give(&mut sim, &open).expect("credit");
        sim.links[A].down = true;
        sim.send(A, &message(0, 10));
        sim.send(A, &message(1, 10));
        sim.pump(A);
        let header = Header { flags: Flags::RANGES, tx: Seq(5001), ..from_b(&sim, Kind::Ack) };
        let mut words = [0; header::SACK_WORDS_MAX];
        SackRange::to_words(&[SackRange { first: range.0, count: range.1 }], &mut words);
        let taken = give(&mut sim, &bytes(&header, None, &words[..1], b""));
        assert_eq!(taken.is_ok(), fits, "{range:?}: {taken:?}");
        let closed = (!fits).then_some(Closed::ByUs(Reason::Protocol));
        assert_eq!(sim.ends[A].channel.closed(), closed, "{range:?}");
    }
}

#[test]
fn what_was_not_agreed_is_dropped_or_ends_the_connection() {
    const BOTH: Flags = Flags(Flags::BEGIN.0 | Flags::END.0);
    let lane = |value| Err(FlowError::Malformed(ParseError::Field { what: "machnet lane", value }));
    for kind in [Kind::Data, Kind::Ack, Kind::Ping, Kind::Paths] {
        let mut sim = established(2);
        let body = if kind == Kind::Paths { &[0; 6][..] } else { b"" };
        let flags = if kind == Kind::Data { BOTH } else { Flags::PROBE };
        for n in [1, 7] {
            let header = Header { lane: n, flags, ..from_b(&sim, kind) };
            assert_eq!(give(&mut sim, &bytes(&header, None, &[], body)), lane(n.into()), "{kind:?}");
        }
        assert_eq!(sim.ends[A].channel.closed(), None);
        assert_eq!(sim.record.as_ref().map(Vec::len), Some(0), "{kind:?} on another lane was answered");

        let header = Header { flags: flags | Flags::SEALED, ..from_b(&sim, kind) };
        let sealed = [body, &[7; 16]].concat();
        let taken = give(&mut sim, &bytes(&header, None, &[], &sealed));
        assert_eq!(taken, Err(FlowError::Protocol("a seal that was not agreed on")), "{kind:?}");
        assert_eq!(sim.ends[A].channel.closed(), Some(Closed::ByUs(Reason::Protocol)));
    }
}

/// A's application gets what B sent in parts, in whatever order they come, once all of it is there.
#[test]
fn a_unit_in_parts_is_delivered_when_it_is_whole() {
    let mut sim = established(3);
    // B knows nothing of what is said in its name.
    sim.links[A].down = true;
    let header = Header {
        flags: Flags::BEGIN | Flags::END | Flags::PART,
        message_len: 10,
        ..from_b(&sim, Kind::Data)
    };
    let payload = message(7, 10);
    let part = |sim: &mut Sim, header: &Header, tx: u32, of: std::ops::Range<usize>| {
        let part = Some(Part { offset: of.start as u16, unit_len: 10 });
        give(sim, &bytes(&Header { tx: Seq(5000 + tx), ..*header }, part, &[], &payload[of]))
    };
    let stranger = Header { tag: header.tag + 1, ..header };
    assert_eq!(part(&mut sim, &stranger, 0, 0..4), Err(FlowError::Tag));
    for (tx, of) in [(1, 7..10), (2, 0..3), (3, 2..5), (4, 2..5)] {
        assert_eq!(part(&mut sim, &header, tx, of), Ok(()));
        assert!(sim.ends[A].channel.messages.is_empty());
    }
    // The next unit, meanwhile, of which the last part comes first.
    let next = Header { unit: Seq(1001), ..header };
    assert_eq!(part(&mut sim, &next, 5, 0..10), Ok(()));
    assert_eq!(part(&mut sim, &header, 6, 4..8), Ok(()));
    assert_eq!(sim.ends[A].channel.messages, [payload.clone(), payload.clone()]);
    assert_eq!(sim.ends[A].channel.held, 0);
    let stats = sim.flow(A).stats();
    assert_eq!((stats.parts_received, stats.duplicates, stats.out_of_order), (6, 1, 1));
    // One that comes late is a repetition, and one that came in parts may come as a whole.
    assert_eq!(part(&mut sim, &header, 7, 0..4), Ok(()));
    let last = Header { unit: Seq(1002), ..header };
    assert_eq!(part(&mut sim, &last, 8, 0..4), Ok(()));
    assert_eq!(sim.ends[A].channel.held, 1);
    let flags = Flags::BEGIN | Flags::END;
    let whole = Header { tx: Seq(5009), flags, ..last };
    assert_eq!(give(&mut sim, &bytes(&whole, None, &[], &payload)), Ok(()));
    assert_eq!(sim.ends[A].channel.messages.len(), 3);
    // What came of a unit goes when the peer leaves it at that, with what was reserved for it, and when nobody reads.
    for n in 0..2 {
        let lost = Header { unit: Seq(1003), ..header };
        assert_eq!(part(&mut sim, &lost, 10 + n, 0..4), Ok(()));
        assert_eq!(sim.ends[A].channel.held, 1);
        if n == 0 {
            sim.run_for(Nanos::millis(50));
        } else {
            sim.close(A);
        }
        assert_eq!(sim.ends[A].channel.held, 0);
    }
    assert_eq!(sim.ends[A].channel.closed(), None);
}

#[test]
fn parts_that_do_not_fit_break_the_protocol() {
    type Change = fn(&mut Header, &mut Part);
    let changes: [(Change, &str); 3] = [
        (|_, part| part.unit_len = 1400, "parts of one unit do not agree"),
        (|header, _| header.flags = Flags::PART, "parts of one unit do not agree"),
        (|_, part| part.unit_len = 1425, "a unit is longer than the path's packets"),
    ];
    for (change, what) in changes {
        let mut sim = established(3);
        let mut header =
            Header { flags: Flags::BEGIN | Flags::PART, message_len: 5000, ..from_b(&sim, Kind::Data) };
        let mut part = Part { offset: 10, unit_len: 1424 };
        assert_eq!(give(&mut sim, &bytes(&header, Some(part), &[], b"part")), Ok(()));
        change(&mut header, &mut part);
        header.message_len = if header.flags.has(Flags::BEGIN) { 5000 } else { 0 };
        let taken = give(&mut sim, &bytes(&header, Some(part), &[], b"part"));
        assert_eq!(taken, Err(FlowError::Protocol(what)));
        assert_eq!(sim.ends[A].channel.closed(), Some(Closed::ByUs(Reason::Protocol)));
    }
}

/// Each part of a unit is sought among those of all that are under way.
#[test]
fn no_more_than_256_units_are_under_way_in_parts() {
    let config = Config { credit_first: 1000, ..Config::default() };
    let mut sim = Sim::with(3, config, 1500, Seq(1000));
    sim.ends[A].channel = Channel::new(8192);
    sim.establish();
    sim.run_for(Nanos::millis(5));
    let first = Header { flags: Flags::PART, ..from_b(&sim, Kind::Data) };
    for n in 1..=300 {
        let header = Header { unit: first.unit + n, tx: first.tx + n, ..first };
        let part = Some(Part { offset: 10, unit_len: 1424 });
        assert_eq!(give(&mut sim, &bytes(&header, part, &[], b"part")), Ok(()));
    }
    assert_eq!((sim.ends[A].channel.held, sim.flow(A).stats().beyond_window), (256, 44));
}

#[test]
fn a_hello_in_an_acknowledgement_is_checked_and_changes_nothing() {
    let mut sim = established(4);
    let header = Header { flags: Flags::HELLO, ..from_b(&sim, Kind::Ack) };
    let peer = Hello { cookie: 99, ..Hello::new(sim.ends[B].tag, 7, 1500) };
    let other = Hello { tag: peer.tag + 1, ..peer };
    let (own, tag) = (bytes(&header, None, &[], &peer.emit()), other.tag);
    assert_eq!(give(&mut sim, &own), Ok(()));
    let taken = give(&mut sim, &bytes(&header, None, &[], &other.emit()));
    assert_eq!(taken, Err(FlowError::Malformed(ParseError::Field { what: "machnet hello tag", value: tag })));
    let small = Hello { mtu: 100, ..peer };
    let taken = give(&mut sim, &bytes(&header, None, &[], &small.emit()));
    assert_eq!(taken, Err(FlowError::Malformed(ParseError::Field { what: "machnet hello mtu", value: 100 })));
    assert_eq!((sim.ends[A].channel.closed(), sim.flow(A).unit_size()), (None, 1424));
    assert_eq!(sim.flow(A).peer().map(|peer| peer.cookie), Some(0));
}

#[test]
fn a_ping_is_answered_whatever_it_is_padded_with() {
    let mut sim = established(5);
    for (n, padding) in [(0, 0), (1, 1), (2, 1424), (3, 8000)] {
        let header = Header { tx: Seq(5000 + n), ts: 9 * n, ..from_b(&sim, Kind::Ping) };
        assert_eq!(give(&mut sim, &bytes(&header, None, &[], &vec![n as u8; padding])), Ok(()));
        let (_, answer) = sim.record.as_mut().and_then(Vec::pop).expect("an answer");
        let answer = Packet::parse(&answer).unwrap();
        assert_eq!((answer.header.kind, answer.payload.len()), (Kind::Ack, 0));
        assert_eq!((answer.header.ack_tx, answer.header.ts_echo), (header.tx, header.ts));
    }
    assert_eq!(sim.ends[A].channel.events, [Event::Established]);
}

/// A server that keeps nothing of a caller gives it a cookie; the test is the server.
#[test]
fn a_cookie_goes_back_with_the_callers_hello_and_nobody_is_connected_before_a_syn_ack_without_one() {
    const COOKIE: u64 = 0x0123_4567_89ab_cdef;
    let mut sim = Sim::new(6);
    sim.links[A].down = true;
    sim.record = Some(Vec::new());
    sim.connect();
    let hello = Hello { cookie: COOKIE, ..Hello::new(0xc3, 7, 1400) };
    let answer =
        Header { flags: Flags::ECHO, ack_tx: Seq(1000), tx: Seq(4999), ..from_b(&sim, Kind::SynAck) };
    assert_eq!(give(&mut sim, &bytes(&answer, None, &[], &hello.emit())), Ok(()));
    // Another copy of the SYN has bought another one.
    let second = Hello { cookie: COOKIE + 1, ..hello };
    assert_eq!(give(&mut sim, &bytes(&answer, None, &[], &second.emit())), Ok(()));
    sim.run_for(Nanos::millis(200));
    assert_eq!(sim.ends[A].channel.told(Event::Established), 0);
    let sent: Vec<Vec<u8>> = sim.record.take().into_iter().flatten().skip(1).map(|(_, b)| b).collect();
    assert!((3..20).contains(&sent.len()), "it is repeated: {}", sent.len());
    let own = |cookie| Hello { cookie, parts: true, ..Hello::new(sim.ends[A].tag, 7, 1500) };
    for (n, bytes) in sent.iter().enumerate() {
        let packet = Packet::parse(bytes).unwrap();
        let header = packet.header;
        assert_eq!((header.kind, header.tag, header.unit), (Kind::Ack, 0xc3, Seq(1000)));
        assert_eq!(header.ack, answer.unit);
        assert!(header.flags.has(Flags::HELLO | Flags::PROBE));
        assert_eq!(header.flags.has(Flags::ECHO), n == 0, "it answers one SYN-ACK");
        assert_eq!(Hello::parse(packet.payload), Ok(own(COOKIE + u64::from(n > 0))), "{n}");
    }
    // The server has begun the connection, under whatever tag.
    sim.record = Some(Vec::new());
    let hello = Hello::new(sim.ends[B].tag, 7, 1400);
    assert_eq!(give(&mut sim, &bytes(&answer, None, &[], &hello.emit())), Ok(()));
    assert_eq!(sim.ends[A].channel.told(Event::Established), 1);
    let sent = sim.record.take().unwrap_or_default();
    let headers: Vec<_> = sent.iter().map(|(_, bytes)| Packet::parse(bytes).unwrap().header).collect();
    assert!(!headers.is_empty());
    let plain = |header: &Header| !header.flags.has(Flags::HELLO) && header.tag == hello.tag;
    assert!(headers.iter().all(plain), "{headers:?}");
    assert_eq!(sim.flow(A).unit_size(), 1400 - 76);
}

/// Whoever gave the cookie has forgotten its secret: it answers what comes by an RST that shows the tag which went with it.
#[test]
fn a_caller_whose_cookie_is_refused_calls_again() {
    let mut sim = Sim::new(8);
    sim.links[A].down = true;
    sim.connect();
    let hello = Hello { cookie: 99, ..Hello::new(0xc3, 7, 1500) };
    let answer =
        Header { flags: Flags::ECHO, ack_tx: Seq(1000), tx: Seq(4999), ..from_b(&sim, Kind::SynAck) };
    assert_eq!(give(&mut sim, &bytes(&answer, None, &[], &hello.emit())), Ok(()));
    let refused = |echo| Reset { epoch: 8, echo, reason: Reason::Closed }.emit();
    let reset = Header { tag: 0, ..from_b(&sim, Kind::Rst) };
    assert_eq!(give(&mut sim, &bytes(&reset, None, &[], &refused(0xc4))), Err(FlowError::Tag));
    sim.record = Some(Vec::new());
    assert_eq!(give(&mut sim, &bytes(&reset, None, &[], &refused(0xc3))), Ok(()));
    assert!(sim.record.as_ref().is_some_and(Vec::is_empty), "not at once");
    sim.run_for(Nanos::millis(500));
    let sent = sim.record.take().unwrap_or_default();
    let kinds: Vec<_> = sent.iter().map(|(_, bytes)| Packet::parse(bytes).unwrap().header.kind).collect();
    assert!(kinds.len() > 1 && kinds.iter().all(|kind| *kind == Kind::Syn), "{kinds:?}");
    assert_eq!(sim.ends[A].channel.closed(), None);
}

#[test]
fn a_unit_leaves_room_for_the_seal_agreed_on() {
    assert_eq!((machnet_wire::unit_size(1500, 0), machnet_wire::unit_size(1500, 16)), (1424, 1408));
    let mut sim = Sim::new(7);
    sim.connect();
    let hello = Hello { seal: 16, lanes: 8, parts: true, ..Hello::new(0xb2, 7, 1500) };
    let answer =
        Header { flags: Flags::ECHO, ack_tx: Seq(1000), tx: Seq(4999), ..from_b(&sim, Kind::SynAck) };
    assert_eq!(give(&mut sim, &bytes(&answer, None, &[], &hello.emit())), Ok(()));
    assert_eq!(sim.flow(A).unit_size(), 1424, "this end has asked for no seal");
}
