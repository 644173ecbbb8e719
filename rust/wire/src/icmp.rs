//! ICMP (RFC 792): echo, so that `ping` works; and "fragmentation needed" (RFC 1191), by which a router says that a packet was too long.

use core::net::Ipv4Addr;

use crate::{ParseError, checksum, field, header, ipv4, udp};

/// Bytes of an echo's header.
pub const LEN: usize = 8;

/// An echo request or reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Echo<'a> {
    /// A reply; else a request.
    pub reply: bool,
    /// The pinger's number.
    pub id: u16,
    /// Counts up with every request.
    pub seq: u16,
    /// What a reply must bring back.
    pub data: &'a [u8],
}

/// "Fragmentation needed": a router had to drop a packet because it was longer than the next link takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooLong<'a> {
    /// What that link takes, bytes of an IP packet; 0: a router from before RFC 1191 does not say.
    pub mtu: u16,
    /// The packet's beginning, from its IP header on.
    pub quoted: &'a [u8],
}

impl<'a> TooLong<'a> {
    /// Reads such a message, the payload of an IPv4 packet. Any other is refused as [`ParseError::Field`].
    pub fn parse(b: &'a [u8]) -> Result<TooLong<'a>, ParseError> {
        let (h, quoted) = field::split::<LEN>("icmp fragmentation needed", b)?;
        let kind = field::u16_at(h, 0);
        if kind != TOO_LONG {
            return Err(ParseError::Field { what: "icmp type and code", value: kind.into() });
        }
        if checksum::ones_complement(b) != 0 {
            return Err(ParseError::Checksum { what: "icmp" });
        }
        Ok(TooLong { mtu: field::u16_at(h, 6), quoted })
    }

    /// Whether an ICMP message claims to be one.
    pub fn is(b: &[u8]) -> bool {
        b.first_chunk::<2>().is_some_and(|start| u16::from_be_bytes(*start) == TOO_LONG)
    }

    /// Writes the message with its checksum at the start of `out`.
    pub fn emit(&self, out: &mut [u8]) {
        let out = &mut out[..LEN + self.quoted.len()];
        let (h, quoted) = field::split_mut::<LEN>(out);
        h.fill(0);
        field::put16(h, 0, TOO_LONG);
        field::put16(h, 6, self.mtu);
        quoted.copy_from_slice(self.quoted);
        let sum = checksum::ones_complement(out);
        out[2..4].copy_from_slice(&sum.to_be_bytes());
    }
}

/// Type 3, code 4.
const TOO_LONG: u16 = 0x0304;

/// What a router quotes of a UDP datagram of ours. Its lengths and checksums are those of the whole, and are not looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quoted {
    /// Its sender.
    pub src: Ipv4Addr,
    /// Its receiver.
    pub dst: Ipv4Addr,
    /// UDP source and destination port.
    pub ports: (u16, u16),
    /// Machnet's source and destination port and tag, where so much is quoted.
    pub machnet: Option<(u16, u16, u32)>,
}

impl Quoted {
    /// `None`: it is not a datagram as Machnet sends them.
    pub fn parse(b: &[u8]) -> Option<Quoted> {
        let (ip, rest) = b.split_first_chunk::<{ ipv4::LEN }>()?;
        let ours = ip[0] == 0x45 && ip[9] == ipv4::protocol::UDP && field::u16_at(ip, 6) & 0x3fff == 0;
        let (udp, rest) = rest.split_first_chunk::<{ udp::LEN }>().filter(|_| ours)?;
        let machnet = match rest.first_chunk::<12>() {
            Some(h) if h[0] >> 4 != header::VERSION => return None,
            Some(h) => Some((field::u16_at(h, 4), field::u16_at(h, 6), field::u32_at(h, 8))),
            None => None,
        };
        Some(Quoted {
            src: Ipv4Addr::from_bits(field::u32_at(ip, 12)),
            dst: Ipv4Addr::from_bits(field::u32_at(ip, 16)),
            ports: (field::u16_at(udp, 0), field::u16_at(udp, 2)),
            machnet,
        })
    }
}

impl<'a> Echo<'a> {
    /// Reads an echo, the payload of an IPv4 packet. Other ICMP is refused as [`ParseError::Field`].
    pub fn parse(b: &'a [u8]) -> Result<Echo<'a>, ParseError> {
        let (h, data) = field::split::<LEN>("icmp echo", b)?;
        let reply = match field::u16_at(h, 0) {
            0x0800 => false,
            0x0000 => true,
            value => return Err(ParseError::Field { what: "icmp type and code", value: value.into() }),
        };
        if checksum::ones_complement(b) != 0 {
            return Err(ParseError::Checksum { what: "icmp" });
        }
        Ok(Echo { reply, id: field::u16_at(h, 4), seq: field::u16_at(h, 6), data })
    }

    /// Bytes that [`Echo::emit`] writes.
    pub fn len(&self) -> usize {
        LEN + self.data.len()
    }

    /// Never: an echo has a header. Here because there is a `len`.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Writes the echo with its checksum at the start of `out`.
    pub fn emit(&self, out: &mut [u8]) {
        let out = &mut out[..self.len()];
        let (h, data) = field::split_mut::<LEN>(out);
        field::put16(h, 0, if self.reply { 0x0000 } else { 0x0800 });
        field::put16(h, 2, 0);
        field::put16(h, 4, self.id);
        field::put16(h, 6, self.seq);
        data.copy_from_slice(self.data);
        let sum = checksum::ones_complement(out);
        out[2..4].copy_from_slice(&sum.to_be_bytes());
    }
}
