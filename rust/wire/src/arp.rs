//! ARP for IPv4 over Ethernet (RFC 826).

use crate::{Mac, ParseError, field};
use core::net::Ipv4Addr;

/// Bytes of a packet; a frame may pad it.
pub const LEN: usize = 28;

/// What an ARP packet is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Who has the target address?
    Request,
    /// The sender has it.
    Reply,
}

mod at {
    pub const HARDWARE: usize = 0;
    pub const PROTOCOL: usize = 2;
    pub const LENGTHS: usize = 4;
    pub const OPERATION: usize = 6;
    pub const SENDER_MAC: usize = 8;
    pub const SENDER_IP: usize = 14;
    pub const TARGET_MAC: usize = 18;
    pub const TARGET_IP: usize = 24;
}

/// An ARP packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    /// Request or reply.
    pub operation: Operation,
    /// Who sends.
    pub sender_mac: Mac,
    /// The sender's address; 0.0.0.0 in a probe (RFC 5227).
    pub sender_ip: Ipv4Addr,
    /// Zero in a request.
    pub target_mac: Mac,
    /// The address asked for.
    pub target_ip: Ipv4Addr,
}

impl Packet {
    /// Reads a packet; bytes after it are padding.
    pub fn parse(b: &[u8]) -> Result<Packet, ParseError> {
        let (h, _) = field::split::<LEN>("arp packet", b)?;
        for (what, at, want) in [
            ("arp hardware", at::HARDWARE, 1),
            ("arp protocol", at::PROTOCOL, 0x0800),
            ("arp address lengths", at::LENGTHS, 0x0604),
        ] {
            let value = field::u16_at(h, at);
            if value != want {
                return Err(ParseError::Field { what, value: value.into() });
            }
        }
        let operation = match field::u16_at(h, at::OPERATION) {
            1 => Operation::Request,
            2 => Operation::Reply,
            value => return Err(ParseError::Field { what: "arp operation", value: value.into() }),
        };
        let mac = |at: usize| Mac([h[at], h[at + 1], h[at + 2], h[at + 3], h[at + 4], h[at + 5]]);
        Ok(Packet {
            operation,
            sender_mac: mac(at::SENDER_MAC),
            sender_ip: Ipv4Addr::from_bits(field::u32_at(h, at::SENDER_IP)),
            target_mac: mac(at::TARGET_MAC),
            target_ip: Ipv4Addr::from_bits(field::u32_at(h, at::TARGET_IP)),
        })
    }

    /// Writes the packet at the start of `out`; `LEN` bytes.
    pub fn emit(&self, out: &mut [u8]) {
        let (h, _) = field::split_mut::<LEN>(out);
        field::put16(h, at::HARDWARE, 1);
        field::put16(h, at::PROTOCOL, 0x0800);
        field::put16(h, at::LENGTHS, 0x0604);
        field::put16(h, at::OPERATION, if self.operation == Operation::Request { 1 } else { 2 });
        h[at::SENDER_MAC..at::SENDER_MAC + 6].copy_from_slice(&self.sender_mac.0);
        field::put32(h, at::SENDER_IP, self.sender_ip.to_bits());
        h[at::TARGET_MAC..at::TARGET_MAC + 6].copy_from_slice(&self.target_mac.0);
        field::put32(h, at::TARGET_IP, self.target_ip.to_bits());
    }
}
