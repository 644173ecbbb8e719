//! IPv4 headers (RFC 791), without options and without fragments.

use crate::{ParseError, checksum, field};
use core::net::Ipv4Addr;

/// Bytes of the header.
pub const LEN: usize = 20;
/// Time to live of what we send, hops (RFC 1700's recommendation).
pub const TTL: u8 = 64;

/// Protocols carried.
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// UDP.
    pub const UDP: u8 = 17;
}

mod at {
    pub const VERSION_IHL: usize = 0;
    pub const LENGTH: usize = 2;
    pub const ID: usize = 4;
    pub const FRAGMENT: usize = 6;
    pub const TTL: usize = 8;
    pub const PROTOCOL: usize = 9;
    pub const CHECKSUM: usize = 10;
    pub const SRC: usize = 12;
    pub const DST: usize = 16;
}

/// An IPv4 header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Sender.
    pub src: Ipv4Addr,
    /// Receiver.
    pub dst: Ipv4Addr,
    /// One of [`protocol`] where it is for us.
    pub protocol: u8,
    /// Hops left.
    pub ttl: u8,
}

impl Header {
    /// Checks the header and gives it with the packet's payload; what follows the packet's length is padding of the frame.
    /// Options and fragments are refused: nothing that Machnet talks to sends them.
    #[inline]
    pub fn parse(b: &[u8]) -> Result<(Header, &[u8]), ParseError> {
        let (h, _) = field::split::<LEN>("ipv4 header", b)?;
        if h[at::VERSION_IHL] != 0x45 {
            return Err(ParseError::Field {
                what: "ipv4 version and header length",
                value: h[at::VERSION_IHL].into(),
            });
        }
        let length = field::u16_at(h, at::LENGTH);
        if usize::from(length) < LEN || usize::from(length) > b.len() {
            return Err(ParseError::Field { what: "ipv4 length", value: length.into() });
        }
        let fragment = field::u16_at(h, at::FRAGMENT);
        if fragment & 0x3fff != 0 {
            return Err(ParseError::Field { what: "ipv4 fragment", value: fragment.into() });
        }
        if checksum::ones_complement(h) != 0 {
            return Err(ParseError::Checksum { what: "ipv4 header" });
        }
        let header = Header {
            src: Ipv4Addr::from_bits(field::u32_at(h, at::SRC)),
            dst: Ipv4Addr::from_bits(field::u32_at(h, at::DST)),
            protocol: h[at::PROTOCOL],
            ttl: h[at::TTL],
        };
        Ok((header, &b[LEN..usize::from(length)]))
    }

    /// Writes the header for `payload` bytes at the start of `out`, with its checksum and "don't fragment"; `LEN` bytes.
    #[inline]
    pub fn emit(&self, payload: usize, out: &mut [u8]) {
        let (h, _) = field::split_mut::<LEN>(out);
        h[at::VERSION_IHL] = 0x45;
        h[1] = 0;
        field::put16(h, at::LENGTH, (LEN + payload) as u16);
        field::put16(h, at::ID, 0); // atomic datagrams need none (RFC 6864)
        field::put16(h, at::FRAGMENT, 0x4000);
        h[at::TTL] = self.ttl;
        h[at::PROTOCOL] = self.protocol;
        field::put16(h, at::CHECKSUM, 0);
        field::put32(h, at::SRC, self.src.to_bits());
        field::put32(h, at::DST, self.dst.to_bits());
        let sum = checksum::ones_complement(h);
        field::put16(h, at::CHECKSUM, sum);
    }
}
