//! UDP headers (RFC 768). In Machnet the ports only choose the route to a receive queue.

use crate::{ParseError, field};

/// Bytes of the header.
pub const LEN: usize = 8;

mod at {
    pub const SRC: usize = 0;
    pub const DST: usize = 2;
    pub const LENGTH: usize = 4;
    pub const CHECKSUM: usize = 6;
}

/// A UDP header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Sender's port.
    pub src: u16,
    /// Receiver's port.
    pub dst: u16,
    /// 0 where it was not computed.
    pub checksum: u16,
}

impl Header {
    /// Splits a datagram; its length must be that of the IP packet's payload.
    #[inline]
    pub fn parse(b: &[u8]) -> Result<(Header, &[u8]), ParseError> {
        let (h, rest) = field::split::<LEN>("udp header", b)?;
        let length = field::u16_at(h, at::LENGTH);
        if usize::from(length) != b.len() {
            return Err(ParseError::Field { what: "udp length", value: length.into() });
        }
        let header = Header {
            src: field::u16_at(h, at::SRC),
            dst: field::u16_at(h, at::DST),
            checksum: field::u16_at(h, at::CHECKSUM),
        };
        Ok((header, rest))
    }

    /// Writes the header for `payload` bytes at the start of `out`; `LEN` bytes.
    #[inline]
    pub fn emit(&self, payload: usize, out: &mut [u8]) {
        let (h, _) = field::split_mut::<LEN>(out);
        field::put16(h, at::SRC, self.src);
        field::put16(h, at::DST, self.dst);
        field::put16(h, at::LENGTH, (LEN + payload) as u16);
        field::put16(h, at::CHECKSUM, self.checksum);
    }
}
