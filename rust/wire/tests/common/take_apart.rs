//! Every parser over the same bytes.

use machnet_wire::frame::{self, Frame};
use machnet_wire::{
    Flags, Hello, Packet, PathEntry, Paths, Reset, SackRange, arp, ether, header, icmp, ipv4, udp,
};

/// Takes bytes apart in every way there is, and holds what comes out against what went in. How many formats they have.
pub fn take_apart(bytes: &[u8]) -> u32 {
    let mut formats = 0;
    match frame::parse(bytes) {
        Ok(Frame::Udp { ip, datagram, payload, .. }) => {
            let _ = frame::udp_checksum_fits(&ip, datagram);
            assert_eq!(payload.len() + udp::LEN, datagram.len());
            formats += 1 + packet(payload);
        }
        Ok(_) => formats += 1,
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    formats + headers(bytes) + packet(bytes) + bodies(bytes)
}

fn headers(bytes: &[u8]) -> u32 {
    let mut again = vec![0; bytes.len()];
    if let Ok((ether, _)) = ether::Header::parse(bytes) {
        ether.emit(&mut again);
        assert_eq!(again[..ether::LEN], bytes[..ether::LEN]);
    }
    if let Ok((udp, payload)) = udp::Header::parse(bytes) {
        udp.emit(payload.len(), &mut again);
        assert_eq!(again[..udp::LEN], bytes[..udp::LEN]);
    }
    let mut formats = 0;
    if let Ok((ip, payload)) = ipv4::Header::parse(bytes) {
        assert!(payload.len() + ipv4::LEN <= bytes.len());
        // What a header says beyond this is not kept: service, identification.
        ip.emit(payload.len(), &mut again);
        assert_eq!(
            ipv4::Header::parse(&again).map(|(ip, payload)| (ip, payload.len())),
            Ok((ip, payload.len()))
        );
        formats += 1;
    }
    if let Ok(arp) = arp::Packet::parse(bytes) {
        arp.emit(&mut again);
        assert_eq!(again[..arp::LEN], bytes[..arp::LEN]);
        formats += 1;
    }
    if let Ok(echo) = icmp::Echo::parse(bytes) {
        echo.emit(&mut again);
        assert_eq!(icmp::Echo::parse(&again), Ok(echo));
        formats += 1;
    }
    formats
}

fn packet(bytes: &[u8]) -> u32 {
    let Ok(p) = Packet::parse(bytes) else { return 0 };
    assert!(p.sack.words() <= header::SACK_WORDS_MAX);
    let sack: Vec<u64> = p.sack.iter().collect();
    let mut again = vec![0; bytes.len()];
    let at = p.header.emit_with(p.hit, p.part, &sack, &mut again);
    assert_eq!(at, header::LEN + 8 * (sack.len() + p.hit.iter().count() + p.part.iter().count()));
    let seal = p.seal.map_or(&[][..], |tag| tag);
    again[at..].copy_from_slice(&[p.payload, seal].concat());
    if p.header.flags.has(Flags::RANGES) {
        let ranges: Vec<_> = p.sack.ranges().collect();
        let mut words = [0; header::SACK_WORDS_MAX];
        let n = SackRange::to_words(&ranges, &mut words);
        assert_eq!(words[..n], sack);
    }
    assert_eq!(again, bytes, "a packet that parses has one form only");
    1 + bodies(p.payload)
}

fn bodies(bytes: &[u8]) -> u32 {
    let mut formats = 0;
    if let Ok(hello) = Hello::parse(bytes) {
        assert_eq!(hello.emit(), bytes);
        formats += 1;
    }
    if let Ok(reset) = Reset::parse(bytes) {
        assert_eq!(reset.emit(), bytes);
        formats += 1;
    }
    if let Ok(paths) = Paths::parse(bytes) {
        let entries: Vec<PathEntry> = paths.iter().collect();
        let mut again = vec![0; bytes.len()];
        assert_eq!(Paths::emit(&entries, &mut again), bytes.len());
        assert_eq!(again, bytes);
        formats += 1;
    }
    formats
}
