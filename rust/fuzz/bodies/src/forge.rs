//! Frames that a fuzzer makes: each begins as the right one for its moment, and the bytes say what is wrong with it.

use std::net::Ipv4Addr;

use machnet_wire::frame::{self, Route};
use machnet_wire::{
    Flags, Header, Hello, Kind, Mac, Part, PathEntry, Reason, Reset, SackRange, Seq, arp, checksum, ether,
    icmp, ipv4, packet, udp,
};

use crate::flow_sim::Choices;
use crate::wiretap::Target;

/// One end of the wire.
#[derive(Debug, Clone, Copy)]
pub struct Station {
    pub ip: Ipv4Addr,
    pub mac: Mac,
}

/// A Machnet packet of a connection, from the far end to `to`.
pub fn machnet(choices: &mut Choices, target: &Target, from: Mac, to: Station) -> (Header, Vec<u8>) {
    let kind = kind(choices, target);
    let mut header = next(target, kind);
    let mut body = body(choices, target, &mut header);
    let mut words = Words::default();
    // Questions about pairs and claims about them, of whatever port and queue.
    if matches!(kind, Kind::Ping | Kind::SynAck) && choices.chance(600) {
        header.flags |= Flags::REPORT;
    }
    words.hit = (matches!(kind, Kind::Data | Kind::Ack) && choices.chance(150)).then(|| entry(choices));
    for _ in 0..choices.below(4) {
        deviate(choices, &mut header, &mut words, &mut body);
    }
    // The first port decides the queue.
    let ports = (31_580 + u16::from(choices.byte()), 31_580);
    let route = Route {
        src_mac: from,
        dst_mac: to.mac,
        src_ip: target.way.src,
        dst_ip: to.ip,
        src_port: ports.0,
        dst_port: ports.1,
    };
    (header, emit(&route, &header, &words, &body))
}

/// Where a pair of UDP ports is said to lead: one of those that are in use, or any, and a queue that there may be.
fn entry(choices: &mut Choices) -> PathEntry {
    let port = |choices: &mut Choices| match choices.below(4) {
        0 => choices.below(1 << 16) as u16,
        _ => 31_580 + choices.below(1024) as u16,
    };
    PathEntry { src: port(choices), dst: port(choices), queue: choices.below(5) as u16 }
}

/// What stands between header and payload.
#[derive(Debug, Default)]
pub struct Words {
    hit: Option<PathEntry>,
    part: Option<Part>,
    sack: Vec<u64>,
}

/// The frame of a packet. The flags of a path word and of a part word are as the words are.
pub fn emit(route: &Route, header: &Header, words: &Words, body: &[u8]) -> Vec<u8> {
    let Words { hit, part, sack } = words;
    let len = machnet_wire::header::LEN + 8 * (sack.len() + hit.iter().count() + part.iter().count());
    let mut bytes = vec![0; frame::UDP_HEADERS + len + body.len()];
    let at = frame::emit_udp(route, len + body.len(), &mut bytes);
    let mut header = *header;
    header.flags = Flags(header.flags.0 & !(Flags::HIT.0 | Flags::PART.0));
    for (there, flag) in [(hit.is_some(), Flags::HIT), (part.is_some(), Flags::PART)] {
        header.flags |= if there { flag } else { Flags::NONE };
    }
    let at = at + header.emit_with(*hit, *part, sack, &mut bytes[at..]);
    bytes[at..].copy_from_slice(body);
    frame::write_udp_checksum(&mut bytes);
    bytes
}

fn kind(choices: &mut Choices, target: &Target) -> Kind {
    const KINDS: [Kind; 16] = [
        Kind::Data,
        Kind::Data,
        Kind::Data,
        Kind::Data,
        Kind::Data,
        Kind::Ack,
        Kind::Ack,
        Kind::Ack,
        Kind::Ping,
        Kind::Syn,
        Kind::SynAck,
        Kind::Rst,
        Kind::Paths,
        Kind::Data,
        Kind::Ack,
        Kind::Syn,
    ];
    let choice = KINDS[choices.below(16) as usize];
    // Most of what one can say to who has never been spoken to is a SYN.
    if target.heard.is_none() && choice == Kind::Data { Kind::Syn } else { choice }
}

/// The header of the packet that would be next.
fn next(target: &Target, kind: Kind) -> Header {
    let first = Header { unit: Seq(100), tx: Seq(99), ..Header::new(Kind::Ack) };
    let said = target.said.unwrap_or(first);
    let mut header = Header {
        src: target.way.src_port,
        dst: target.way.dst_port,
        tag: if kind == Kind::Syn { 0 } else { target.tag },
        unit: said.unit + u32::from(said.kind == Kind::Data),
        tx: said.tx + 1,
        credit: 16,
        ts: said.ts.wrapping_add(1000),
        ..Header::new(kind)
    };
    if let Some(heard) = target.heard {
        header.flags = if kind == Kind::Syn { Flags::NONE } else { Flags::ECHO };
        header.unit = heard.ack;
        header.ack = heard.unit + u32::from(heard.kind == Kind::Data);
        header.ack_tx = heard.tx;
        header.ts_echo = heard.ts;
        // A stranger's packets are on no wire that is listened on.
        if target.said.is_none() {
            header.tx = heard.ack_tx + 1;
        }
    }
    header
}

fn body(choices: &mut Choices, target: &Target, header: &mut Header) -> Vec<u8> {
    match header.kind {
        Kind::Syn | Kind::SynAck => {
            let mtu = [1500, 576, 1460, 9001][choices.below(4) as usize];
            let tag = 0x1000 + choices.below(4) as u32;
            let hit = choices.chance(700).then(|| entry(choices));
            let queues = [2, 2, 1, 8, u16::MAX][choices.below(5) as usize];
            let queue = [queues - 1, 0][choices.below(2) as usize];
            let (mirrored, steer) = (choices.chance(100), if choices.chance(100) { 31_600 } else { 0 });
            let cookie = if choices.chance(100) { choices.next() } else { 0 };
            Hello { queues, queue, hit, mirrored, steer, cookie, ..Hello::new(tag, 1, mtu) }.emit().to_vec()
        }
        Kind::Rst => {
            let reason = [Reason::Closed, Reason::Refused, Reason::Aborted, Reason::Protocol]
                [choices.below(4) as usize];
            // What the target sends carries the tag that its peer must echo.
            let echo = match (choices.below(4), target.heard) {
                (0 | 1, Some(heard)) => heard.tag,
                (n, _) => 0x1000 + n as u32,
            };
            Reset { epoch: 1, echo, reason }.emit().to_vec()
        }
        Kind::Paths => {
            let entries = (0..1 + choices.below(8)).map(|_| entry(choices));
            entries.flat_map(|e| [e.src, e.dst, e.queue].map(u16::to_be_bytes).concat()).collect()
        }
        Kind::Data => unit(choices, header),
        Kind::Ack | Kind::Ping => Vec::new(),
    }
}

fn unit(choices: &mut Choices, header: &mut Header) -> Vec<u8> {
    let len = match choices.below(8) {
        0..=4 => choices.below(64) as u32,
        5 => 0,
        6 => 1424,
        _ => choices.below(1500) as u32,
    };
    let (flags, message_len) = match choices.below(8) {
        0..=2 => (Flags::BEGIN | Flags::END, len),
        3 => (Flags::BEGIN, len + 1 + choices.below(4000) as u32),
        4 => (Flags::NONE, 0),
        5 => (Flags::END, 0),
        6 => (Flags::FIN, 0),
        _ => (Flags::ABORT, 0),
    };
    header.flags |= flags;
    header.message_len = message_len;
    let mark = flags == Flags::FIN || flags == Flags::ABORT;
    vec![0x5a; if mark { 0 } else { len as usize }]
}

/// Makes one thing wrong, or only unusual.
fn deviate(choices: &mut Choices, header: &mut Header, words: &mut Words, body: &mut Vec<u8>) {
    let field = choices.below(24);
    let sack = &mut words.sack;
    match field {
        0 => header.flags = Flags(header.flags.0 ^ u16::from(choices.byte() & 127)),
        1 => header.src = number(choices, header.src.into()) as u16,
        2 => header.dst = number(choices, header.dst.into()) as u16,
        3 => header.tag = number(choices, header.tag),
        4 => header.unit = Seq(number(choices, header.unit.0)),
        5 => header.tx = Seq(number(choices, header.tx.0)),
        6 => header.ack = Seq(number(choices, header.ack.0)),
        7 => header.ack_tx = Seq(number(choices, header.ack_tx.0)),
        8 => header.credit = number(choices, header.credit.into()) as u16,
        9 => header.want = choices.byte(),
        10 => header.backlog = choices.byte(),
        11 => header.ts = number(choices, header.ts),
        12 => header.ts_echo = number(choices, header.ts_echo),
        13 => header.ack_delay = number(choices, header.ack_delay.into()) as u16,
        14 => header.gap = number(choices, header.gap.into()) as u16,
        15 => header.message_len = number(choices, header.message_len),
        16 => {
            let words = choices.below(17) as usize;
            sack.resize(words, 0);
            if let Some(word) = sack.last_mut() {
                *word = if choices.chance(500) { 1 << choices.below(64) } else { choices.next() };
            }
        }
        17 => header.flags = Flags(header.flags.0 ^ choices.word() as u16),
        18 => header.lane = choices.below(8) as u8,
        19 => words.hit = Some(entry(choices)),
        20 => {
            let (offset, more) = (choices.below(1500) as u16, choices.below(2) as u16);
            words.part = Some(Part { offset, unit_len: offset + body.len() as u16 + more });
        }
        21 => {
            header.flags |= Flags::SEALED;
            body.extend([7; packet::SEAL]);
        }
        22 => {
            header.flags |= Flags::RANGES;
            let first = choices.below(4) as u16;
            let ranges = [SackRange { first, count: 1 + choices.below(4) as u16 }];
            let mut all = [0; machnet_wire::header::SACK_WORDS_MAX];
            let n = SackRange::to_words(&ranges, &mut all);
            *sack = all[..n].to_vec();
        }
        _ => {
            let len = body.len() as u64;
            if len > 0 && choices.chance(700) {
                body[choices.below(len) as usize] = choices.byte();
            } else {
                body.resize(choices.below(1500) as usize, 1);
            }
        }
    }
}

/// Another number: near, anywhere, or an extreme.
fn number(choices: &mut Choices, from: u32) -> u32 {
    match choices.below(8) {
        0..=3 => from.wrapping_add_signed(i32::from(choices.byte() as i8)),
        4 => from.wrapping_add_signed(i32::from(choices.below(1 << 16) as u16 as i16)),
        5 => choices.word(),
        6 => 0,
        _ => u32::MAX,
    }
}

/// An ARP packet from anybody about anybody on the link.
pub fn arp(choices: &mut Choices, from: Mac, to: Station) -> Vec<u8> {
    let ip = |choices: &mut Choices| Ipv4Addr::new(10, 0, 0, choices.below(12) as u8);
    let mut bytes = vec![0; 60];
    let dst = if choices.chance(300) { Mac::BROADCAST } else { to.mac };
    ether::Header { dst, src: from, kind: ether::kind::ARP }.emit(&mut bytes);
    let operation = if choices.chance(500) { arp::Operation::Reply } else { arp::Operation::Request };
    let sender_mac = if choices.chance(200) { Mac([choices.byte(); 6]) } else { from };
    let target_ip = if choices.chance(200) { ip(choices) } else { to.ip };
    arp::Packet { operation, sender_mac, sender_ip: ip(choices), target_mac: to.mac, target_ip }
        .emit(&mut bytes[ether::LEN..]);
    bytes
}

/// A ping, or the answer to one.
pub fn ping(choices: &mut Choices, from: Station, to: Station) -> Vec<u8> {
    let data = vec![7; choices.below(1472) as usize];
    let echo = icmp::Echo { reply: choices.chance(200), id: 1, seq: 2, data: &data };
    let mut bytes = vec![0; ether::LEN + ipv4::LEN + echo.len()];
    ether::Header { dst: to.mac, src: from.mac, kind: ether::kind::IPV4 }.emit(&mut bytes);
    ipv4::Header { src: from.ip, dst: to.ip, protocol: ipv4::protocol::ICMP, ttl: 9 }
        .emit(echo.len(), &mut bytes[ether::LEN..]);
    echo.emit(&mut bytes[ether::LEN + ipv4::LEN..]);
    bytes
}

/// Overwrites a few bytes and changes the length; mostly lengths and checksums are made to fit again.
pub fn damage(choices: &mut Choices, bytes: &mut Vec<u8>) {
    for _ in 0..choices.below(4) {
        let at = choices.below(bytes.len().min(256) as u64) as usize;
        bytes[at] = choices.byte();
    }
    match choices.below(8) {
        6 => bytes.truncate(bytes.len().saturating_sub(choices.byte().into()).max(1)),
        7 => bytes.resize(bytes.len() + usize::from(choices.byte()), 0),
        _ => {}
    }
    if !choices.chance(100) {
        repair(bytes);
    }
}

/// Makes lengths and checksums fit what the frame holds, so that what lies behind them is looked at.
pub fn repair(bytes: &mut [u8]) {
    const IP: usize = ether::LEN;
    const INNER: usize = ether::LEN + ipv4::LEN;
    if bytes.len() < INNER || bytes[12..14] != ether::kind::IPV4.to_be_bytes() || bytes.len() - IP > 65_535 {
        return;
    }
    let len = (bytes.len() - IP) as u16;
    bytes[IP + 2..IP + 4].copy_from_slice(&len.to_be_bytes());
    bytes[IP + 10..IP + 12].fill(0);
    let sum = checksum::ones_complement(&bytes[IP..INNER]);
    bytes[IP + 10..IP + 12].copy_from_slice(&sum.to_be_bytes());
    match bytes[IP + 9] {
        ipv4::protocol::UDP if bytes.len() >= INNER + udp::LEN => {
            let len = len - ipv4::LEN as u16;
            bytes[INNER + 4..INNER + 6].copy_from_slice(&len.to_be_bytes());
            frame::write_udp_checksum(bytes);
        }
        ipv4::protocol::ICMP if bytes.len() >= INNER + icmp::LEN => {
            bytes[INNER + 2..INNER + 4].fill(0);
            let sum = checksum::ones_complement(&bytes[INNER..]);
            bytes[INNER + 2..INNER + 4].copy_from_slice(&sum.to_be_bytes());
        }
        _ => {}
    }
}
