//! Whatever arrives, nothing panics, nothing is read beyond the bytes given, and what was parsed means the same again.

mod common;

use common::take_apart::take_apart;
use machnet_wire::frame::{self, Frame, Route};
use machnet_wire::{
    Flags, Header, Hello, Kind, Mac, Packet, ParseError, PathEntry, Paths, Reason, Reset, Seq, arp, ether,
    header, icmp,
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
    /// A header of any values that may stand together, with the payload that goes with it.
    fn packet()(
        kind in kind(),
        data in 0..5u8,
        other_flags in 0..8u8,
        words in vec(any::<u64>(), 0..=header::SACK_WORDS_MAX),
        payload in vec(any::<u8>(), 0..1500),
        more in 1..8_000_000u32,
        ports in any::<(u16, u16)>(),
        numbers in any::<[u32; 5]>(),
        credit: u16,
        backlog: u8,
        times in any::<[u32; 3]>(),
    ) -> (Header, Vec<u64>, Vec<u8>) {
        let len = payload.len() as u32;
        let (kind, unit, message_len, payload) = match data {
            0 => (Kind::Data, Flags::BEGIN | Flags::END, len, payload),
            1 => (Kind::Data, Flags::BEGIN, len + more, payload),
            2 => (Kind::Data, if more % 2 == 0 { Flags::END } else { Flags::NONE }, 0, payload),
            3 => (Kind::Data, if more % 2 == 0 { Flags::FIN } else { Flags::ABORT }, 0, Vec::new()),
            _ => (kind, Flags::NONE, 0, payload),
        };
        let header = Header {
            kind,
            flags: unit | Flags(other_flags << 4),
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
        (header, words, payload)
    }
}

proptest! {
    #[test]
    fn packets_come_out_as_they_went_in((header, words, payload) in packet()) {
        let mut bytes = vec![0xee; header::LEN + 8 * words.len() + payload.len()];
        let at = header.emit(&words, &mut bytes);
        bytes[at..].copy_from_slice(&payload);
        let packet = Packet::parse(&bytes).expect("it parses");
        prop_assert_eq!(packet.header, header);
        prop_assert_eq!(packet.sack.iter().collect::<Vec<_>>(), words);
        prop_assert_eq!(packet.payload, &payload[..]);
    }

    #[test]
    fn bodies_come_out_as_they_went_in(
        tag: u32, epoch: u64, mtu in 576..=9001u16, queue in 0..u16::MAX, more in 1..100u16, hit: (u16, u16), reason in 1..=11u8,
        paths in vec(any::<(u16, u16, u16)>(), 1..=32),
    ) {
        let hello = Hello { tag, epoch, mtu, queues: queue.saturating_add(more), queue, hit };
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

    /// Past the first checks: random bytes behind a version, a kind and few SACK words.
    #[test]
    fn random_packets_do_no_harm(mut bytes in vec(any::<u8>(), 48..300), kind in 0..9u8, flags: u8, words in 0..18u8) {
        bytes[..4].copy_from_slice(&[header::VERSION, kind, flags, words]);
        bytes[31] = 0;
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
