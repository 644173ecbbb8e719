//! Ethernet II frames (IEEE 802.3), untagged.

use crate::ParseError;
use crate::field;
use core::fmt;

/// Bytes of the header.
pub const LEN: usize = 14;

/// A MAC address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Every station.
    pub const BROADCAST: Mac = Mac([0xff; 6]);

    /// Group addresses, broadcast among them.
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let m = self.0;
        write!(f, "{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", m[0], m[1], m[2], m[3], m[4], m[5])
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Not a MAC address: six pairs of hexadecimal digits with colons between them are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadMac;

impl core::str::FromStr for Mac {
    type Err = BadMac;
    fn from_str(s: &str) -> Result<Mac, BadMac> {
        let mut mac = [0; 6];
        let mut words = s.split(':');
        for byte in &mut mac {
            // `from_str_radix` alone would take a sign for a digit.
            let digits = |w: &&str| w.len() == 2 && w.bytes().all(|b| b.is_ascii_hexdigit());
            let word = words.next().filter(digits).ok_or(BadMac)?;
            *byte = u8::from_str_radix(word, 16).map_err(|_| BadMac)?;
        }
        if words.next().is_some() { Err(BadMac) } else { Ok(Mac(mac)) }
    }
}

/// What a frame carries.
pub mod kind {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
}

mod at {
    pub const DST: usize = 0;
    pub const SRC: usize = 6;
    pub const KIND: usize = 12;
}

/// An Ethernet header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Receiver.
    pub dst: Mac,
    /// Sender.
    pub src: Mac,
    /// EtherType, one of [`kind`] where it is for us.
    pub kind: u16,
}

impl Header {
    /// Splits the header off a frame.
    #[inline]
    pub fn parse(b: &[u8]) -> Result<(Header, &[u8]), ParseError> {
        let (h, rest) = field::split::<LEN>("ethernet header", b)?;
        let mac = |at: usize| Mac([h[at], h[at + 1], h[at + 2], h[at + 3], h[at + 4], h[at + 5]]);
        Ok((Header { dst: mac(at::DST), src: mac(at::SRC), kind: field::u16_at(h, at::KIND) }, rest))
    }

    /// Writes the header at the start of `out`; `LEN` bytes.
    #[inline]
    pub fn emit(&self, out: &mut [u8]) {
        let (h, _) = field::split_mut::<LEN>(out);
        h[at::DST..at::DST + 6].copy_from_slice(&self.dst.0);
        h[at::SRC..at::SRC + 6].copy_from_slice(&self.src.0);
        field::put16(h, at::KIND, self.kind);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::string::ToString;

    #[test]
    fn addresses_read_as_they_are_written_and_nothing_else_does() {
        let mac = Mac([0x02, 0, 0xab, 0, 0, 0xff]);
        assert_eq!(mac.to_string(), "02:00:ab:00:00:ff");
        assert_eq!("02:00:AB:00:00:ff".parse(), Ok(mac));
        for bad in [
            "",
            "02:00:ab:00:00",
            "02:00:ab:00:00:ff:00",
            "2:00:ab:00:00:ff",
            "02-00-ab-00-00-ff",
            "02:00:ab:00:00:+f",
        ] {
            assert_eq!(bad.parse::<Mac>(), Err(BadMac), "{bad}");
        }
        assert!(Mac::BROADCAST.is_multicast() && !mac.is_multicast());
    }
}
