//! Whatever arrives, nothing panics, nothing is read beyond the bytes given, and what was parsed means the same again.

mod common;

use common::take_apart::take_apart;
use machnet_wire::frame::{self, Frame, Route};
use machnet_wire::{
    Flags, Header, Hello, Kind, Mac, Packet, ParseError, Part, PathEntry, Paths, Reason, Reset, SackRange,
    Seq, arp, ether, header, icmp, packet,
};
use proptest::collection::vec;
use proptest::prelude::*;
use std::net::Ipv4Addr;

#[test]
fn every_truncation_of_every_vector_is_refused_or_harmless() {
    for (name, bytes) in common::all() {
        for len in 0..bytes.len() {
            assert!(frame::parse(&bytes[..len]).is_err(), "{name} cut to {len} bytes was taken");
            take_apart(&bytes[..len]);
            take_apart(&bytes[len..]);
        }
    }
}

#[test]
fn every_flipped_bit_of_every_vector_is_found_by_a_checksum_or_harmless() {
    for (name, bytes) in common::all() {
        for bit in 0..8 * bytes.len() {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            take_apart(&flipped);
            if bit / 8 >= ether::LEN
                && let Ok(Frame::Udp { ip, datagram, .. }) = frame::parse(&flipped)
            {
                assert!(!frame::udp_checksum_fits(&ip, datagram), "{name}: bit {bit} goes unnoticed");
                assert!(!frame::udp_checksum_is_partial(&ip, datagram), "{name}: bit {bit} goes unnoticed");
            }
        }
    }
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Syn),
        Just(Kind::SynAck),
        Just(Kind::Ack),
        Just(Kind::Ping),
        Just(Kind::Rst),
        Just(Kind::Paths)
    ]
}

prop_compose! {
    /// SACK words that are ranges: gaps and lengths, 1 or more, that together stay within reach.
    fn ranges()(steps in vec((1..250u16, 1..250u16), 1..=2 * header::SACK_WORDS_MAX)) -> Vec<SackRange> {
        let mut next = 0;
        steps
            .iter()
            .map(|&(gap, count)| {
                let first = next + gap - 1;
                next = first + count + 1;
                SackRange { first, count }
            })
            .collect()
    }
}

prop_compose! {
    /// A packet of any values that may stand together: the header, what follows it, and what stands at the end.
    fn packet()(
        kind in kind(),
        data in 0..6u8,
        other_flags in 0..32u16,
        lane in 0..header::LANES_MAX,
        words in vec(any::<u64>(), 0..=header::SACK_WORDS_MAX),
        ranges in proptest::option::of(ranges()),
        hit in proptest::option::of(any::<(u16, u16, u16)>()),
        seal in proptest::option::of(any::<[u8; packet::SEAL]>()),
        payload in vec(any::<u8>(), 1..1500),
        offset in 0..8000u16,
        more in 1..8_000_000u32,
        ports in any::<(u16, u16)>(),
        numbers in any::<[u32; 5]>(),
        credit: u16,
        backlog: u8,
        times in any::<[u32; 3]>(),
    ) -> Parts {
        let len = payload.len() as u32;
        let mut part = None;
        let (kind, unit, message_len, payload) = match data {
            0 => (Kind::Data, Flags::BEGIN | Flags::END, len, payload),
            1 => (Kind::Data, Flags::BEGIN, len + more, payload),
            2 => (Kind::Data, if more % 2 == 0 { Flags::END } else { Flags::NONE }, 0, payload),
            3 => (Kind::Data, if more % 2 == 0 { Flags::FIN } else { Flags::ABORT }, 0, Vec::new()),
            4 => {
                let unit_len = offset + len as u16 + (more % 2) as u16;
                part = Some(Part { offset, unit_len });
                (Kind::Data, Flags::BEGIN, u32::from(unit_len) + more, payload)
            }
            _ if kind == Kind::Ack && more % 2 == 0 => (kind, Flags::HELLO, 0, vec![7; Hello::LEN]),
            _ if kind == Kind::Ack => (kind, Flags::NONE, 0, Vec::new()),
            _ => (kind, Flags::NONE, 0, payload),
        };
        let connected = !matches!(kind, Kind::Syn | Kind::SynAck | Kind::Rst);
        let hit = hit.filter(|_| connected).map(|(src, dst, queue)| PathEntry { src, dst, queue });
        let seal = seal.filter(|_| connected);
        let mut flags = unit | Flags(other_flags << 4);
        let words = match &ranges {
            None => words,
            Some(ranges) => {
                flags |= Flags::RANGES;
                let mut words = [0; header::SACK_WORDS_MAX];
                let n = SackRange::to_words(ranges, &mut words);
                words[..n].to_vec()
            }
        };
        for (there, flag) in
            [(hit.is_some(), Flags::HIT), (part.is_some(), Flags::PART), (seal.is_some(), Flags::SEALED)]
        {
            flags |= if there { flag } else { Flags::NONE };
        }
        let header = Header {
            kind,
            flags,
            lane: if connected { lane } else { 0 },
            src: ports.0,
            dst: ports.1,
            tag: numbers[0],
            unit: Seq(numbers[1]),
            tx: Seq(numbers[2]),
            ack: Seq(numbers[3]),
            ack_tx: Seq(numbers[4]),
            credit,
            backlog,
            ts: times[0],
            ts_echo: times[1],
            want: numbers[1] as u8,
            ack_delay: times[2] as u16,
            gap: (times[2] >> 16) as u16,
            message_len,
        };
        Parts { header, hit, part, words, ranges, payload, seal }
    }
}

/// What a packet is made of.
#[derive(Debug)]
struct Parts {
    header: Header,
    hit: Option<PathEntry>,
    part: Option<Part>,
    words: Vec<u64>,
    ranges: Option<Vec<SackRange>>,
    payload: Vec<u8>,
    seal: Option<[u8; packet::SEAL]>,
}

proptest! {
    #[test]
    fn packets_come_out_as_they_went_in(made in packet()) {
        let Parts { header, hit, part, words, ranges, payload, seal } = made;
        let mut bytes = vec![0xee; header::LEN + 8 * (words.len() + 2)];
        let at = header.emit_with(hit, part, &words, &mut bytes);
        bytes.truncate(at);
        bytes.extend(&payload);
        bytes.extend(seal.iter().flatten());
        let packet = Packet::parse(&bytes).expect("it parses");
        prop_assert_eq!((packet.header, packet.hit, packet.part), (header, hit, part));
        prop_assert_eq!(packet.sack.iter().collect::<Vec<_>>(), words);
        if let Some(ranges) = ranges {
            prop_assert_eq!(packet.sack.ranges().collect::<Vec<_>>(), ranges);
        }
        prop_assert_eq!((packet.payload, packet.seal), (&payload[..], seal.as_ref()));
    }

    #[test]
    fn bodies_come_out_as_they_went_in(
        tag: u32, epoch: u64, mtu in 576..=9001u16, queue in 0..u16::MAX, more in 1..100u16, ports: (u16, u16), steer: u16,
        said: (bool, bool, bool), lanes in 1..=header::LANES_MAX, cookie: u64, reason in 1..=11u8,
        paths in vec(any::<(u16, u16, u16)>(), 1..=32),
    ) {
        let hit = (ports != (0, 0)).then_some(PathEntry { src: ports.0, dst: ports.1, queue });
        let queues = queue.saturating_add(more);
        let (seal, mirrored, parts) = (if said.0 { packet::SEAL as u8 } else { 0 }, said.1, said.2);
        let hello = Hello { tag, epoch, mtu, queues, queue, hit, steer, seal, lanes, mirrored, parts, cookie };
        prop_assert_eq!(Hello::parse(&hello.emit()), Ok(hello));
        let all = [Reason::Refused, Reason::PortInUse, Reason::Closed, Reason::AppGone, Reason::Timeout, Reason::Protocol,
            Reason::Aborted, Reason::NoResources, Reason::AppFull { limit: 256 }, Reason::EngineFull { limit: 65_536 }, Reason::Ending];
        let reset = Reset { epoch, echo: tag, reason: all[usize::from(reason) - 1] };
        prop_assert_eq!(reset.emit()[12], reason);
        prop_assert_eq!(Reset::parse(&reset.emit()), Ok(reset));
        let entries: Vec<PathEntry> = paths.iter().map(|p| PathEntry { src: p.0, dst: p.1, queue: p.2 }).collect();
        let mut bytes = [0; 32 * 6];
        let len = Paths::emit(&entries, &mut bytes);
        prop_assert_eq!(Paths::parse(&bytes[..len]).expect("paths").iter().collect::<Vec<_>>(), entries);
    }

    #[test]
    fn frames_come_out_as_they_went_in(
        macs: ([u8; 6], [u8; 6]), ips: (u32, u32), ports: (u16, u16), payload in vec(any::<u8>(), 0..2000), reply: bool, id: u16, seq: u16,
    ) {
        let route = Route {
            src_mac: Mac(macs.0), dst_mac: Mac(macs.1), src_ip: Ipv4Addr::from(ips.0), dst_ip: Ipv4Addr::from(ips.1),
            src_port: ports.0, dst_port: ports.1,
        };
        let mut bytes = vec![0xee; frame::UDP_HEADERS + payload.len()];
        let at = frame::emit_udp(&route, payload.len(), &mut bytes);
        bytes[at..].copy_from_slice(&payload);
        frame::write_udp_checksum(&mut bytes);
        let Ok(Frame::Udp { ether, ip, udp, datagram, payload: inner }) = frame::parse(&bytes) else { panic!("not udp") };
        prop_assert!(frame::udp_checksum_fits(&ip, datagram));
        // As a driver leaves it to the NIC: the pseudo-header's 16-bit words added up, carries and all, whatever the payload is.
        let words = [ips.0 >> 16, ips.0 & 0xffff, ips.1 >> 16, ips.1 & 0xffff, 17, datagram.len() as u32];
        let sum: u32 = words.iter().sum();
        let begun = (sum % 0xffff) as u16;
        let mut partial = datagram.to_vec();
        partial[6..8].copy_from_slice(&if begun == 0 { 0xffff } else { begun }.to_be_bytes());
        prop_assert!(frame::udp_checksum_is_partial(&ip, &partial));
        partial[6..8].copy_from_slice(&(begun + 1).to_be_bytes());
        prop_assert!(!frame::udp_checksum_is_partial(&ip, &partial));
        prop_assert!(!frame::udp_checksum_is_partial(&ip, &datagram[..7]));
        let back = Route { src_mac: ether.src, dst_mac: ether.dst, src_ip: ip.src, dst_ip: ip.dst, src_port: udp.src, dst_port: udp.dst };
        prop_assert_eq!((back, inner), (route, &payload[..]));

        let echo = icmp::Echo { reply, id, seq, data: &payload };
        let mut bytes = vec![0xee; echo.len()];
        echo.emit(&mut bytes);
        prop_assert_eq!(icmp::Echo::parse(&bytes), Ok(echo));
        let arp = arp::Packet {
            operation: if reply { arp::Operation::Reply } else { arp::Operation::Request },
            sender_mac: Mac(macs.0), sender_ip: Ipv4Addr::from(ips.0), target_mac: Mac(macs.1), target_ip: Ipv4Addr::from(ips.1),
        };
        let mut bytes = [0xee; arp::LEN];
        arp.emit(&mut bytes);
        prop_assert_eq!(arp::Packet::parse(&bytes), Ok(arp));
    }

    #[test]
    fn random_bytes_do_no_harm(bytes in vec(any::<u8>(), 0..300)) {
        take_apart(&bytes);
    }

    /// Past the first checks: random bytes behind a version, a kind, few SACK words and flags.
    #[test]
    fn random_packets_do_no_harm(
        mut bytes in vec(any::<u8>(), 48..300), kind in 0..9u8, flags: [u16; 2], words in 0..18u8, ranges: bool, lane in 0..8u8,
    ) {
        bytes[..2].copy_from_slice(&[header::VERSION << 4 | kind, lane << 5 | words]);
        bytes[2..4].copy_from_slice(&(flags[0] & flags[1]).to_be_bytes());
        // No message, and words that may be ranges or say which part.
        bytes[44..48].fill(0);
        if ranges {
            for (i, word) in bytes[48..].chunks_exact_mut(4).enumerate() {
                word.copy_from_slice(&[(i >> 6) as u8, (i << 2) as u8, 0, word[3] & 3]);
            }
        }
        take_apart(&bytes);
    }

    #[test]
    fn damaged_vectors_do_no_harm(which: prop::sample::Index, damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let all = common::all();
        let mut bytes = all[which.index(all.len())].1.clone();
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        take_apart(&bytes);
        if bytes.len() > frame::UDP_HEADERS {
            take_apart(&bytes[frame::UDP_HEADERS..]);
        }
    }

    #[test]
    fn a_refusal_names_the_bytes_there_were(bytes in vec(any::<u8>(), 0..14)) {
        prop_assert_eq!(
            frame::parse(&bytes),
            Err(ParseError::Short { what: "ethernet header", have: bytes.len(), need: 14 })
        );
    }
}
