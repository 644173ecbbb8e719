//! The golden vectors, both ways: they parse to exactly these values, and these values make exactly those bytes.

mod common;

use common::read;
use machnet_wire::frame::{self, Frame, Route, UDP_HEADERS};
use machnet_wire::{
    Flags, Header, Hello, Kind, Mac, Packet, ParseError, PathEntry, Paths, Reason, Reset, Seq, arp, ether,
    header, icmp, ipv4,
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

/// Holds a Machnet packet against its vector.
#[track_caller]
fn both_ways(name: &str, route: &Route, header: &Header, sack: &[u64], payload: &[u8]) {
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
    assert_eq!(packet.sack.iter().collect::<Vec<_>>(), sack, "{name}");
    assert_eq!(packet.payload, payload, "{name}");

    let mut out = vec![0xee; UDP_HEADERS + header::LEN + 8 * sack.len() + payload.len()];
    let inner_len = out.len() - UDP_HEADERS;
    let mut at = frame::emit_udp(route, inner_len, &mut out);
    at += header.emit(sack, &mut out[at..]);
    out[at..].copy_from_slice(payload);
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

/// What a golden frame becomes with some bytes changed, and the field that is blamed. The offsets are of docs/wire.md.
#[test]
fn what_is_not_understood_is_refused_by_name() {
    const IP: usize = ether::LEN;
    const UDP: usize = IP + ipv4::LEN;
    const MACHNET: usize = UDP_HEADERS;
    let cases: &[(&str, usize, &[u8], &str)] = &[
        ("arp_request", 14, &[0, 2], "arp hardware"),
        ("arp_request", 16, &[0x86, 0xdd], "arp protocol"),
        ("arp_request", 18, &[8], "arp address lengths"),
        ("arp_request", 20, &[0, 3], "arp operation"),
        ("icmp_echo_request", IP + 20, &[13], "icmp type and code"),
        ("icmp_echo_request", IP + 28, &[0xff], "icmp"),
        ("ping", IP, &[0x65], "ipv4 version and header length"),
        ("ping", IP, &[0x46], "ipv4 version and header length"),
        ("ping", IP + 2, &[0, 19], "ipv4 length"),
        ("ping", IP + 2, &[0, 77], "ipv4 length"),
        ("ping", IP + 6, &[0x20, 0], "ipv4 fragment"),
        ("ping", IP + 6, &[0, 1], "ipv4 fragment"),
        ("ping", IP + 8, &[63], "ipv4 header"),
        ("ping", UDP + 4, &[0, 55], "udp length"),
        ("ping", UDP + 4, &[0, 57], "udp length"),
        ("ping", MACHNET, &[0x25], "machnet version"),
        ("ping", MACHNET, &[0x45], "machnet version"),
        ("ping", MACHNET, &[0x30], "machnet kind"),
        ("ping", MACHNET, &[0x38], "machnet kind"),
        ("ping", MACHNET + 1, &[1], "machnet sack words"),
        ("ping", MACHNET + 1, &[17], "machnet sack words"),
        ("ping", MACHNET + 3, &[1], "machnet unit flags"),
        ("ping", MACHNET + 47, &[1], "machnet message length"),
        ("data_whole", MACHNET + 3, &[3 | 8], "machnet unit flags"),
        ("data_whole", MACHNET + 3, &[8], "machnet unit flags"),
        ("data_whole", MACHNET + 3, &[4], "machnet unit flags"),
        ("data_whole", MACHNET + 3, &[0], "machnet message length"),
        ("data_whole", MACHNET + 3, &[1], "machnet message length"),
        ("data_whole", MACHNET + 47, &[15], "machnet message length"),
        ("fin", MACHNET + 3, &[8 | 4], "machnet unit flags"),
        ("fin", MACHNET + 3, &[8 | 2], "machnet unit flags"),
        ("syn", MACHNET + 48 + 12, &[2, 63], "machnet hello mtu"),
        ("syn", MACHNET + 48 + 12, &[0x23, 0x2a], "machnet hello mtu"),
        ("syn", MACHNET + 48 + 17, &[4], "machnet hello queue"),
        ("syn", MACHNET + 48 + 23, &[4], "machnet hello hit queue"),
        ("syn", MACHNET + 48 + 26, &[8], "machnet hello seal"),
        ("syn", MACHNET + 48 + 27, &[0], "machnet hello lanes"),
        ("syn", MACHNET + 48 + 27, &[9], "machnet hello lanes"),
        ("syn", MACHNET + 48 + 28, &[0, 4], "machnet hello flags"),
        ("syn", MACHNET + 48 + 28, &[0x80, 0], "machnet hello flags"),
        ("syn", MACHNET + 48 + 31, &[1], "machnet hello reserved"),
        ("rst_refused", MACHNET + 48 + 12, &[0], "machnet reset reason"),
        ("rst_refused", MACHNET + 48 + 12, &[12], "machnet reset reason"),
        ("rst_refused", MACHNET + 48 + 15, &[1], "machnet reset limit"),
        ("rst_full", MACHNET + 48 + 12, &[11], "machnet reset limit"),
    ];
    for (name, at, bytes, blamed) in cases {
        let mut frame = read(name);
        frame[*at..*at + bytes.len()].copy_from_slice(bytes);
        let error = parse_all(&frame).expect_err(&format!("{name} with {bytes:?} at {at} was taken"));
        let (ParseError::Short { what, .. } | ParseError::Field { what, .. } | ParseError::Checksum { what }) =
            error;
        assert_eq!(what, *blamed, "{name} with {bytes:?} at {at}: {error}");
    }
}

/// Everything down to the body of a control packet.
fn parse_all(frame: &[u8]) -> Result<(), ParseError> {
    if let Frame::Udp { payload, .. } = frame::parse(frame)? {
        let packet = Packet::parse(payload)?;
        match packet.header.kind {
            Kind::Syn | Kind::SynAck => drop(Hello::parse(packet.payload)?),
            Kind::Rst => drop(Reset::parse(packet.payload)?),
            Kind::Paths => drop(Paths::parse(packet.payload)?),
            Kind::Data | Kind::Ack | Kind::Ping => {}
        }
    }
    Ok(())
}

#[test]
fn bodies_have_exactly_their_length() {
    for (name, len) in [("syn", 40), ("rst_refused", 16), ("paths", 18)] {
        let frame = read(name);
        let body = &frame[UDP_HEADERS + header::LEN..];
        assert_eq!(body.len(), len);
        let parses = |b: &[u8]| match name {
            "syn" => Hello::parse(b).is_ok(),
            "rst_refused" => Reset::parse(b).is_ok(),
            _ => Paths::parse(b).is_ok(),
        };
        assert!(parses(body), "{name}");
        assert!(!parses(&body[..len - 1]) && !parses(&[body, &[0]].concat()), "{name}");
    }
    assert!(
        Paths::parse(&[]).is_err()
            && Paths::parse(&[0; 32 * 6]).is_ok()
            && Paths::parse(&[0; 33 * 6]).is_err()
    );
}

#[test]
fn more_sack_words_than_sixteen_are_refused_even_where_they_fit() {
    let mut bytes = vec![0; header::LEN + 17 * 8];
    Header::new(Kind::Ping).emit(&[0; 16], &mut bytes);
    assert_eq!(Packet::parse(&bytes).map(|p| (p.sack.words(), p.payload.len())), Ok((16, 8)));
    bytes[1] = 17;
    assert_eq!(Packet::parse(&bytes), Err(ParseError::Field { what: "machnet sack words", value: 17 }));
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
