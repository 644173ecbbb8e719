//! ICMP echo (RFC 792), so that `ping` works.

use crate::{ParseError, checksum, field};

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
