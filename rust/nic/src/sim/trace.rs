//! The last packets, to be printed by a test that fails.

use machnet_wire::frame::{self, Frame};
use machnet_wire::{Header, Nanos, Packet, ParseError, arp};
use std::collections::VecDeque;
use std::fmt;
use std::net::Ipv4Addr;

/// What became of a frame, or of one copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Happening {
    Sent,
    NoSuchHost,
    TooLong,
    Lost,
    QueueFull,
    Duplicated,
    HeldBack,
    Corrupted,
    Delivered { queue: u16 },
    Missed { queue: u16 },
    Refused,
    Away,
}

#[derive(Clone, Copy, Debug)]
struct Line {
    at: Nanos,
    from: Option<usize>,
    to: Option<usize>,
    what: Happening,
    len: usize,
    content: Content,
}

/// What a frame held: taken apart when it passes, in words only when printed.
#[derive(Clone, Copy, Debug)]
enum Content {
    Arp(arp::Packet),
    Echo {
        reply: bool,
        seq: u16,
    },
    Machnet {
        ips: (Ipv4Addr, Ipv4Addr),
        ports: (u16, u16),
        header: Header,
        sack_words: usize,
        payload: usize,
    },
    Udp {
        ips: (Ipv4Addr, Ipv4Addr),
        ports: (u16, u16),
        why: ParseError,
    },
    Other,
    Bad(ParseError),
}

/// A bounded record of what happened.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    lines: VecDeque<Line>,
    dropped: u64,
}

impl Trace {
    pub fn push(&mut self, at: Nanos, from: Option<usize>, to: Option<usize>, what: Happening, frame: &[u8]) {
        if self.lines.len() == LINES {
            self.lines.pop_front();
            self.dropped += 1;
        }
        self.lines.push_back(Line { at, from, to, what, len: frame.len(), content: Content::of(frame) });
    }
}

impl Content {
    fn of(frame: &[u8]) -> Content {
        match frame::parse(frame) {
            Ok(Frame::Arp(arp)) => Content::Arp(arp),
            Ok(Frame::Icmp { echo, .. }) => Content::Echo { reply: echo.reply, seq: echo.seq },
            Ok(Frame::Udp { ip, udp, payload, .. }) => {
                let (ips, ports) = ((ip.src, ip.dst), (udp.src, udp.dst));
                match Packet::parse(payload) {
                    Ok(p) => Content::Machnet {
                        ips,
                        ports,
                        header: p.header,
                        sack_words: p.sack.words(),
                        payload: p.payload.len(),
                    },
                    Err(why) => Content::Udp { ips, ports, why },
                }
            }
            Ok(Frame::TooLong { .. } | Frame::Other) => Content::Other,
            Err(why) => Content::Bad(why),
        }
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.dropped > 0 {
            writeln!(f, "({} earlier lines dropped)", self.dropped)?;
        }
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = self.at.0 as f64 / 1e3;
        let host = |h: Option<usize>| h.map_or("*".into(), |h| h.to_string());
        write!(f, "{us:12.3} us  {} > {}  ", host(self.from), host(self.to))?;
        match self.what {
            Happening::Sent => write!(f, "sent      "),
            Happening::NoSuchHost => write!(f, "NO HOST   "),
            Happening::TooLong => write!(f, "TOO LONG  "),
            Happening::Lost => write!(f, "LOST      "),
            Happening::QueueFull => write!(f, "LINK FULL "),
            Happening::Duplicated => write!(f, "TWICE     "),
            Happening::HeldBack => write!(f, "HELD BACK "),
            Happening::Corrupted => write!(f, "CORRUPTED "),
            Happening::Delivered { queue } => write!(f, "to queue {queue}"),
            Happening::Missed { queue } => write!(f, "MISSED on {queue}"),
            Happening::Refused => write!(f, "REFUSED   "),
            Happening::Away => write!(f, "NIC AWAY  "),
        }?;
        write!(f, " {:5} B  {}", self.len, self.content)
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Content::Arp(p) => write!(f, "arp {:?} {} for {}", p.operation, p.sender_ip, p.target_ip),
            Content::Echo { reply, seq } => {
                write!(f, "icmp echo {} {seq}", if reply { "reply" } else { "request" })
            }
            Content::Machnet { ips, ports, header: h, sack_words, payload } => {
                write!(
                    f,
                    "{}:{} > {}:{} {:?} {:?} tag {:08x} unit {} tx {} ack {} credit {}",
                    ips.0, h.src, ips.1, h.dst, h.kind, h.flags, h.tag, h.unit.0, h.tx.0, h.ack.0, h.credit
                )?;
                write!(f, " sack {sack_words} payload {payload} udp {}>{}", ports.0, ports.1)
            }
            Content::Udp { ips, ports, why } => {
                write!(f, "udp {}:{} > {}:{}, {why}", ips.0, ports.0, ips.1, ports.1)
            }
            Content::Other => write!(f, "another protocol"),
            Content::Bad(why) => write!(f, "malformed, {why}"),
        }
    }
}

/// Lines kept.
const LINES: usize = 400;
