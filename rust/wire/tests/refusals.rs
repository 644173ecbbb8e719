//! What is not taken: golden frames with one thing made wrong, and the field that is blamed.

mod common;

use common::read;
use machnet_wire::frame::{self, Frame, UDP_HEADERS};
use machnet_wire::{
    Flags, Header, Hello, Kind, Packet, ParseError, Part, Paths, Reset, SackRange, ether, header, ipv4,
};

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
        ("ping", MACHNET + 2, &[0x40], "machnet flags"),
        ("ping", MACHNET + 2, &[0x80], "machnet flags"),
        ("ping", MACHNET + 2, &[0x10], "machnet flags"),
        ("ping", MACHNET + 2, &[0x20], "machnet flags"),
        ("ping", MACHNET + 2, &[0x02], "machnet path word"),
        ("ping", MACHNET + 2, &[0x04], "machnet sack ranges"),
        ("ping", MACHNET + 2, &[0x08], "machnet seal"),
        ("data_empty", MACHNET + 2, &[0x10], "machnet part word"),
        ("data_empty", MACHNET + 2, &[0x20], "machnet flags"),
        ("ack_sack", MACHNET + 2, &[0x10], "machnet flags"),
        ("ack_sack", MACHNET + 2, &[0x20], "machnet acknowledgement with a payload"),
        ("ack_sack", MACHNET + 1, &[1], "machnet acknowledgement with a payload"),
        ("ack_hello", MACHNET + 2, &[0], "machnet acknowledgement with a payload"),
        ("syn", MACHNET + 1, &[0x20], "machnet lane"),
        ("syn", MACHNET + 2, &[0x02], "machnet flags"),
        ("syn_ack", MACHNET + 2, &[0x08], "machnet flags"),
        ("rst_refused", MACHNET + 1, &[0xe0], "machnet lane"),
        ("rst_refused", MACHNET + 2, &[0x20], "machnet flags"),
        ("data_hit", MACHNET + 48 + 7, &[1], "machnet path word reserved"),
        ("data_part_last", MACHNET + 48 + 7, &[1], "machnet part reserved"),
        ("data_part_last", MACHNET + 48, &[5, 0x88], "machnet part"),
        ("data_part_last", MACHNET + 48 + 2, &[0, 9], "machnet part"),
        ("data_part_first", MACHNET + 46, &[5, 0x90], "machnet message length"),
        ("data_sealed", MACHNET + 47, &[22], "machnet message length"),
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
            Kind::Ack if packet.header.flags.has(Flags::HELLO) => drop(Hello::parse(packet.payload)?),
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
fn ranges_out_of_order_touching_empty_or_out_of_reach_are_refused() {
    let parse = |ranges: &[(u16, u16)]| {
        let mut words = [0; header::SACK_WORDS_MAX];
        let ranges: Vec<SackRange> =
            ranges.iter().copied().map(|(first, count)| SackRange { first, count }).collect();
        let n = SackRange::to_words(&ranges, &mut words);
        let mut bytes = vec![0; header::LEN + 8 * n];
        Header { flags: Flags::RANGES, ..Header::new(Kind::Ack) }.emit(&words[..n], &mut bytes);
        Packet::parse(&bytes).map(|packet| packet.sack.ranges().count())
    };
    assert_eq!(parse(&[(0, 1)]), Ok(1));
    assert_eq!(parse(&[(0, 1), (2, 1), (16_383, 1)]), Ok(3));
    assert_eq!(parse(&[(0, 16_384)]), Ok(1));
    for bad in [
        &[][..],
        &[(0, 0)],
        &[(3, 0)],
        &[(0, 2), (1, 1)],
        &[(0, 2), (2, 1)],
        &[(5, 1), (3, 1)],
        &[(1, 1), (3, 0)],
        &[(0, 1), (0, 0), (5, 1)],
        &[(0, 16_385)],
        &[(16_384, 1)],
        &[(65_535, 65_535)],
    ] {
        let refused = parse(bad);
        let named = matches!(refused, Err(ParseError::Field { what: "machnet sack ranges", .. }));
        assert!(named, "{bad:?}: {refused:?}");
    }
}

#[test]
fn a_part_of_no_bytes_is_none() {
    let parse = |payload: usize| {
        let header = Header { flags: Flags::PART, ..Header::new(Kind::Data) };
        let mut bytes = vec![0; header::LEN + 8 + payload];
        header.emit_with(None, Some(Part { offset: 7, unit_len: 9 }), &[], &mut bytes);
        Packet::parse(&bytes).map(|packet| packet.payload.len())
    };
    assert_eq!((parse(1), parse(2)), (Ok(1), Ok(2)));
    for wrong in [0, 3] {
        assert!(matches!(parse(wrong), Err(ParseError::Field { what: "machnet part", .. })), "{wrong} bytes");
    }
}
