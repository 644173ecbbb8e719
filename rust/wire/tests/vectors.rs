//! The golden vectors, both ways: they parse to exactly these values, and these values make exactly those bytes.

mod common;

use common::read;
use machnet_wire::frame::{self, Frame, Route, UDP_HEADERS};
use machnet_wire::{
    Flags, Header, Hello, Kind, Mac, Packet, Part, PathEntry, Paths, Reason, Reset, SackRange, Seq, arp,
    ether, header, icmp, ipv4, packet,
};
use std::net::Ipv4Addr;

const MAC_A: Mac = Mac([2, 0, 0, 0, 0, 0x0a]);
const MAC_B: Mac = Mac([2, 0, 0, 0, 0, 0x0b]);
const IP_A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const IP_B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const PORT_A: u16 = 50000;
const PORT_B: u16 = 7000;
const TAG_A: u32 = 0xa1a2_a3a4;
const TAG_B: u32 = 0xb1b2_b3b4;
const EPOCH_A: u64 = 0x0102_0304_0506_0708;
const EPOCH_B: u64 = 0x1112_1314_1516_1718;

const A_TO_B: Route =
    Route { src_mac: MAC_A, dst_mac: MAC_B, src_ip: IP_A, dst_ip: IP_B, src_port: 40001, dst_port: 31580 };
const B_TO_A: Route =
    Route { src_mac: MAC_B, dst_mac: MAC_A, src_ip: IP_B, dst_ip: IP_A, src_port: 40002, dst_port: 31580 };

/// A's packet to B with everything but what the vectors vary.
fn from_a(kind: Kind, flags: Flags, unit: u32, tx: u32, ts: u32) -> Header {
    Header {
        flags,
        src: PORT_A,
        dst: PORT_B,
        tag: TAG_B,
        unit: Seq(unit),
        tx: Seq(tx),
        ack: Seq(0xffff_fffe),
        credit: 64,
        ts,
        ..Header::new(kind)
    }
}

/// The same of B.
fn from_b(kind: Kind, tx: u32) -> Header {
    Header { src: PORT_B, dst: PORT_A, tag: TAG_A, unit: Seq(0xffff_fffe), tx: Seq(tx), ..Header::new(kind) }
}

/// What follows a header.
#[derive(Default)]
struct After<'a> {
    hit: Option<PathEntry>,
    part: Option<Part>,
    sack: &'a [u64],
    payload: &'a [u8],
    seal: Option<[u8; packet::SEAL]>,
}

/// Holds a Machnet packet against its vector.
#[track_caller]
fn both_ways(name: &str, route: &Route, header: &Header, sack: &[u64], payload: &[u8]) {
    both_ways_with(name, route, header, &After { sack, payload, ..After::default() });
}

/// The same with all that can stand in a packet.
#[track_caller]
fn both_ways_with(name: &str, route: &Route, header: &Header, after: &After<'_>) {
    let golden = read(name);
    let Frame::Udp { ether, ip, udp, datagram, payload: inner } = frame::parse(&golden).expect(name) else {
        panic!("{name} is not udp");
    };
    assert_eq!(
        (ether.src, ether.dst, ip.src, ip.dst, udp.src, udp.dst, ip.ttl),
        (route.src_mac, route.dst_mac, route.src_ip, route.dst_ip, route.src_port, route.dst_port, ipv4::TTL)
    );
    assert!(frame::udp_checksum_fits(&ip, datagram), "{name}: udp checksum");
    let packet = Packet::parse(inner).expect(name);
    assert_eq!(packet.header, *header, "{name}");
    assert_eq!((packet.hit, packet.part), (after.hit, after.part), "{name}");
    assert_eq!(packet.sack.iter().collect::<Vec<_>>(), after.sack, "{name}");
    assert_eq!((packet.payload, packet.seal), (after.payload, after.seal.as_ref()), "{name}");

    let mut inner = vec![0xee; header::LEN + 8 * (after.sack.len() + 2)];
    let len = header.emit_with(after.hit, after.part, after.sack, &mut inner);
    inner.truncate(len);
    inner.extend(after.payload);
    inner.extend(after.seal.iter().flatten());
    let mut out = vec![0xee; UDP_HEADERS + inner.len()];
    let at = frame::emit_udp(route, inner.len(), &mut out);
    out[at..].copy_from_slice(&inner);
    frame::write_udp_checksum(&mut out);
    assert_eq!(out, golden, "{name}");
}

#[test]
fn arp_packets() {
    for (name, dst, src, packet) in [
        (
            "arp_request",
            Mac::BROADCAST,
            MAC_A,
            arp::Packet {
                operation: arp::Operation::Request,
                sender_mac: MAC_A,
                sender_ip: IP_A,
                target_mac: Mac::default(),
                target_ip: IP_B,
            },
        ),
        (
            "arp_reply",
            MAC_A,
            MAC_B,
            arp::Packet {
                operation: arp::Operation::Reply,
                sender_mac: MAC_B,
                sender_ip: IP_B,
                target_mac: MAC_A,
                target_ip: IP_A,
            },
        ),
    ] {
        let golden = read(name);
        assert_eq!(frame::parse(&golden), Ok(Frame::Arp(packet)), "{name}");
        let mut out = vec![0xee; ether::LEN + arp::LEN];
        ether::Header { dst, src, kind: ether::kind::ARP }.emit(&mut out);
        packet.emit(&mut out[ether::LEN..]);
        assert_eq!(out, golden, "{name}");
    }
}

#[test]
fn icmp_echoes() {
    let data = b"0123456789:;<";
    for (name, reply, route) in [("icmp_echo_request", false, A_TO_B), ("icmp_echo_reply", true, B_TO_A)] {
        let golden = read(name);
        let ether = ether::Header { dst: route.dst_mac, src: route.src_mac, kind: ether::kind::IPV4 };
        let ip = ipv4::Header {
            src: route.src_ip,
            dst: route.dst_ip,
            protocol: ipv4::protocol::ICMP,
            ttl: ipv4::TTL,
        };
        let echo = icmp::Echo { reply, id: 0x1234, seq: 7, data };
        assert_eq!(frame::parse(&golden), Ok(Frame::Icmp { ether, ip, echo }), "{name}");
        let mut out = vec![0xee; ether::LEN + ipv4::LEN + echo.len()];
        ether.emit(&mut out);
        ip.emit(echo.len(), &mut out[ether::LEN..]);
        echo.emit(&mut out[ether::LEN + ipv4::LEN..]);
        assert_eq!(out, golden, "{name}");
    }
}

#[test]
fn hellos() {
    let hello = Hello { queues: 4, queue: 2, ..Hello::new(TAG_A, EPOCH_A, 1500) };
    let syn = Header {
        src: PORT_A,
        dst: PORT_B,
        unit: Seq(1000),
        tx: Seq(500),
        ts: 1_000_000,
        ..Header::new(Kind::Syn)
    };
    both_ways("syn", &A_TO_B, &syn, &[], &hello.emit());
    assert_eq!(Hello::parse(&hello.emit()), Ok(hello));

    let hit = Some(PathEntry { src: 40001, dst: 31580, queue: 1 });
    let hello = Hello { queues: 2, queue: 1, hit, ..Hello::new(TAG_B, EPOCH_B, 9001) };
    let syn_ack = Header {
        flags: Flags::ECHO,
        ack: Seq(1000),
        ack_tx: Seq(500),
        backlog: 3,
        ts: 777,
        ts_echo: 1_000_000,
        ack_delay: 78,
        gap: 3,
        ..from_b(Kind::SynAck, 0xffff_ffff)
    };
    both_ways("syn_ack", &B_TO_A, &syn_ack, &[], &hello.emit());
    assert_eq!(Hello::parse(&hello.emit()), Ok(hello));
}

#[test]
fn hellos_that_say_all_they_can() {
    let own = Hello::new(TAG_A, EPOCH_A, 9001);
    let full =
        Hello { queues: 64, queue: 63, steer: 32603, seal: 16, lanes: 8, mirrored: true, parts: true, ..own };
    let syn =
        Header { tag: 0, ack: Seq(0), credit: 0, ..from_a(Kind::Syn, Flags::NONE, 1000, 501, 1_000_500) };
    both_ways("syn_full", &A_TO_B, &syn, &[], &full.emit());
    assert_eq!(Hello::parse(&full.emit()), Ok(full));

    let cookie = 0xc1c2_c3c4_c5c6_c7c8;
    let hit = Some(PathEntry { src: 40001, dst: 31580, queue: 7 });
    let granted = Hello { queues: 8, queue: 5, hit, cookie, ..Hello::new(TAG_B, EPOCH_B, 1500) };
    let syn_ack = Header {
        flags: Flags::ECHO | Flags::REPORT,
        ack: Seq(1000),
        ack_tx: Seq(501),
        ts: 778,
        ts_echo: 1_000_500,
        ack_delay: 1,
        gap: 2,
        ..from_b(Kind::SynAck, 6)
    };
    both_ways("syn_ack_cookie", &B_TO_A, &syn_ack, &[], &granted.emit());
    assert_eq!(Hello::parse(&granted.emit()), Ok(granted));

    let back = Hello { cookie, ..full };
    let flags = Flags::ECHO | Flags::PROBE | Flags::HELLO;
    let ack = answer(Header { ack_delay: 3, ..from_a(Kind::Ack, flags, 1000, 502, 1_002_000) });
    both_ways("ack_hello", &A_TO_B, &ack, &[], &back.emit());
    assert_eq!(Hello::parse(&back.emit()), Ok(back));

    let flags = Flags::BEGIN | Flags::END | Flags::ECHO | Flags::HIT;
    let first = Header { ack_delay: 4, message_len: 5, ..from_a(Kind::Data, flags, 1000, 503, 1_003_000) };
    let hit = Some(PathEntry { src: 40002, dst: 31580, queue: 2 });
    both_ways_with(
        "data_hit",
        &A_TO_B,
        &answer(first),
        &After { hit, payload: b"first", ..After::default() },
    );
}

/// With the echo of B's SYN-ACK.
fn answer(header: Header) -> Header {
    Header { credit: 8, ack_tx: Seq(6), ts_echo: 778, gap: 1, ..header }
}

#[test]
fn units_of_data() {
    let data = |flags, unit, tx, ts| from_a(Kind::Data, flags, unit, tx, ts);
    let whole = Header {
        want: 255,
        ack_tx: Seq(0xffff_ffff),
        ts_echo: 777,
        ack_delay: 156,
        gap: 780,
        message_len: 14,
        ..data(Flags::BEGIN | Flags::END | Flags::ECHO, 1000, 501, 1_015_000)
    };
    both_ways("data_whole", &A_TO_B, &whole, &[], b"hello, machnet");
    both_ways("data_empty", &A_TO_B, &data(Flags::BEGIN | Flags::END, 1001, 502, 1_016_000), &[], b"");
    let first = Header { message_len: 3000, ..data(Flags::BEGIN, 1002, 503, 1_017_000) };
    both_ways("data_first", &A_TO_B, &first, &[], b"first part");
    let last = data(Flags::END | Flags::PROBE, 1004, 507, 1_018_000);
    both_ways("data_last", &A_TO_B, &last, &[], b"last part");
    let middle = Header { credit: 60, backlog: 255, want: 200, ..data(Flags::PROBE, 1003, 506, 1_019_000) };
    both_ways("data_with_sack", &A_TO_B, &middle, &[0b110, 1 << 63], b"middle");
    both_ways("abort", &A_TO_B, &data(Flags::ABORT, 1005, 508, 1_020_000), &[], b"");
    both_ways("fin", &A_TO_B, &data(Flags::FIN, 1006, 509, 1_021_000), &[], b"");
}

#[test]
fn parts_seals_and_lanes() {
    let data = |flags, unit, tx, ts| from_a(Kind::Data, flags, unit, tx, ts);
    for (name, offset, tx, ts, payload) in [
        ("data_part_first", 0, 514, 1_026_000, &b"first part of a part"[..]),
        ("data_part_middle", 700, 515, 1_027_000, b"middle"),
        ("data_part_last", 1415, 516, 1_028_000, b"last part"),
    ] {
        let flags = Flags::BEGIN | Flags::PROBE | Flags::PART;
        let header = Header { message_len: 3000, ..data(flags, 1002, tx, ts) };
        let part = Some(Part { offset, unit_len: 1424 });
        both_ways_with(name, &A_TO_B, &header, &After { part, payload, ..After::default() });
    }
    let seal = Some(std::array::from_fn(|i| 0xe0 + i as u8));
    let whole = Flags::BEGIN | Flags::END;
    let sealed = Header { message_len: 6, ..data(whole | Flags::SEALED, 1003, 517, 1_029_000) };
    let after = After { payload: b"sealed", seal, ..After::default() };
    both_ways_with("data_sealed", &A_TO_B, &sealed, &after);
    let lane = Header { lane: 3, message_len: 6, ..data(whole, 1004, 20, 1_030_000) };
    both_ways("data_lane", &A_TO_B, &lane, &[], b"lane 3");

    let flags = [
        Flags::END,
        Flags::ECHO,
        Flags::REFUSED,
        Flags::PROBE,
        Flags::DRAIN_EPOCH,
        Flags::REPORT,
        Flags::HIT,
        Flags::RANGES,
        Flags::SEALED,
        Flags::PART,
    ];
    let all = Header {
        lane: 7,
        tx: Seq(u32::MAX),
        ack_tx: Seq(9),
        ts_echo: 3001,
        ack_delay: 7,
        gap: 9,
        credit: 63,
        backlog: 128,
        want: 3,
        ..data(flags.into_iter().fold(Flags::NONE, Flags::with), 1005, 0, 1_031_000)
    };
    let mut words = [0; header::SACK_WORDS_MAX];
    let n = SackRange::to_words(&[(0, 1), (2, 3), (9, 1)].map(range), &mut words);
    let after = After {
        hit: Some(PathEntry { src: 65535, dst: 1024, queue: 65534 }),
        part: Some(Part { offset: 100, unit_len: 104 }),
        sack: &words[..n],
        payload: b"last",
        seal,
    };
    both_ways_with("data_words", &A_TO_B, &all, &after);
}

fn range((first, count): (u16, u16)) -> SackRange {
    SackRange { first, count }
}

#[test]
fn ranges() {
    let mut words = [0; header::SACK_WORDS_MAX];
    let one = [range((1, 10))];
    assert_eq!(SackRange::to_words(&one, &mut words), 1);
    let ack = Header { flags: Flags::RANGES, ack: Seq(0xffff_fffa), credit: 100, ..from_b(Kind::Ack, 7) };
    both_ways("ack_ranges", &B_TO_A, &ack, &words[..1], b"");

    let mut most: Vec<SackRange> = (0..31).map(|i| range((501 * i, 1 + 37 * i % 400))).collect();
    most.push(range((16_000, 384)));
    assert_eq!(SackRange::to_words(&most, &mut words), header::SACK_WORDS_MAX);
    let ack = Header {
        flags: Flags::ECHO | Flags::RANGES,
        ack: Seq(3000),
        ack_tx: Seq(508),
        credit: packet::RANGES_REACH,
        ts: 3000,
        ts_echo: 1_020_000,
        ..from_b(Kind::Ack, 8)
    };
    both_ways("ack_ranges_full", &B_TO_A, &ack, &words, b"");
    for (name, ranges) in [("ack_ranges", &one[..]), ("ack_ranges_full", &most)] {
        let frame = read(name);
        let packet = Packet::parse(&frame[UDP_HEADERS..]).expect(name);
        assert_eq!(packet.sack.ranges().collect::<Vec<_>>(), ranges, "{name}");
    }
}

#[test]
fn acknowledgements_and_pings() {
    let ack = Header {
        flags: Flags::ECHO | Flags::REFUSED,
        ack: Seq(1001),
        ack_tx: Seq(506),
        backlog: 200,
        ts: 2000,
        ts_echo: 1_019_000,
        ack_delay: u16::MAX,
        gap: u16::MAX,
        ..from_b(Kind::Ack, 3)
    };
    both_ways("ack_sack", &B_TO_A, &ack, &[0b10, 1], b"");
    let full = Header { ack: Seq(2000), credit: u16::MAX, ts: u32::MAX, ..from_b(Kind::Ack, 4) };
    let words: Vec<u64> = (0..header::SACK_WORDS_MAX).map(|i| 1 << (4 * i)).collect();
    both_ways("ack_sack_full", &B_TO_A, &full, &words, b"");
    both_ways("ping", &A_TO_B, &from_a(Kind::Ping, Flags::NONE, 1007, 510, 1_022_000), &[], b"");
    let ping = |flags, tx, ts| Header { credit: 0, ..from_a(Kind::Ping, flags, 1007, tx, ts) };
    both_ways("ping_report", &A_TO_B, &ping(Flags::REPORT, 512, 1_024_000), &[], b"");
    let padding = [0xff, 0, 0x55, 0xaa].repeat(5);
    both_ways("ping_padded", &A_TO_B, &ping(Flags::NONE, 513, 1_025_000), &[], &padding);
}

#[test]
fn resets_and_paths() {
    let refused = Reset { epoch: EPOCH_B, echo: TAG_A, reason: Reason::Refused };
    let header = Header { src: PORT_B, dst: PORT_A, ..Header::new(Kind::Rst) };
    both_ways("rst_refused", &B_TO_A, &header, &[], &refused.emit());
    assert_eq!(Reset::parse(&refused.emit()), Ok(refused));
    let full = Reset { reason: Reason::AppFull { limit: 256 }, ..refused };
    both_ways("rst_full", &B_TO_A, &header, &[], &full.emit());
    for reason in [
        Reason::PortInUse,
        Reason::Closed,
        Reason::AppGone,
        Reason::Timeout,
        Reason::Protocol,
        Reason::NoResources,
        Reason::AppFull { limit: 0 },
        Reason::AppFull { limit: Reason::MOST },
        Reason::EngineFull { limit: 65_536 },
        Reason::Ending,
    ] {
        let reset = Reset { reason, ..refused };
        assert_eq!(Reset::parse(&reset.emit()), Ok(reset));
    }
    let beyond = Reset { reason: Reason::EngineFull { limit: u32::MAX }, ..refused };
    let told = Reset { reason: Reason::EngineFull { limit: Reason::MOST }, ..refused };
    assert_eq!(Reset::parse(&beyond.emit()), Ok(told));
    let aborted = Reset { epoch: EPOCH_A, echo: TAG_A, reason: Reason::Aborted };
    let header = Header { credit: 0, ..from_a(Kind::Rst, Flags::NONE, 1007, 511, 1_023_000) };
    both_ways("rst_aborted", &A_TO_B, &header, &[], &aborted.emit());
    assert_eq!(Reset::parse(&aborted.emit()), Ok(aborted));

    let entries = [(40001, 31580, 1), (41000, 31581, 0), (65535, 1024, 3)]
        .map(|(src, dst, queue)| PathEntry { src, dst, queue });
    let mut body = [0; 18];
    assert_eq!(Paths::emit(&entries, &mut body), 18);
    both_ways("paths", &B_TO_A, &from_b(Kind::Paths, 5), &[], &body);
    assert_eq!(Paths::parse(&body).expect("paths").iter().collect::<Vec<_>>(), entries);
}

#[test]
fn padding_after_the_ip_packet_is_no_payload() {
    for (name, frame) in common::all() {
        let padded = [frame.as_slice(), &[0xaa; 20]].concat();
        assert_eq!(frame::parse(&padded), frame::parse(&frame), "{name}");
    }
}

#[test]
fn other_protocols_are_well_formed_and_not_ours() {
    let mut frame = read("ping");
    frame[12..14].copy_from_slice(&[0x86, 0xdd]); // IPv6
    assert_eq!(frame::parse(&frame), Ok(Frame::Other));
    let mut frame = read("ping");
    ipv4::Header { src: IP_A, dst: IP_B, protocol: 6, ttl: 64 }.emit(56, &mut frame[14..]);
    assert_eq!(frame::parse(&frame), Ok(Frame::Other));
}

#[test]
fn a_checksum_that_comes_out_as_zero_is_sent_as_ones_and_zero_is_never_taken() {
    let mut frame = vec![0; UDP_HEADERS + 2];
    frame::emit_udp(&A_TO_B, 2, &mut frame);
    frame::write_udp_checksum(&mut frame);
    // A payload of what was missing from the sum leaves nothing missing.
    frame.copy_within(UDP_HEADERS - 2..UDP_HEADERS, UDP_HEADERS);
    frame::write_udp_checksum(&mut frame);
    assert_eq!(frame[UDP_HEADERS - 2..UDP_HEADERS], [0xff, 0xff]);
    let valid = |frame: &[u8]| match frame::parse(frame) {
        Ok(Frame::Udp { ip, datagram, .. }) => frame::udp_checksum_fits(&ip, datagram),
        other => panic!("{other:?}"),
    };
    assert!(valid(&frame));
    frame[UDP_HEADERS - 2..UDP_HEADERS].fill(0);
    assert!(!valid(&frame), "\"not computed\" was taken for right");
}
