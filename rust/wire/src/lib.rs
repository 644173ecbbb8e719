//! Bytes to typed headers and back: every format that Machnet puts on a wire, and the values that the whole stack
//! speaks, [`Nanos`], [`Seq`] and [`Fragment`].
//!
//! What arrives is parsed once into plain values; what is not understood is refused with a [`ParseError`] that names
//! the field. Nothing here allocates, panics on input, or knows a connection. Offsets and golden vectors: docs/wire.md.
#![no_std]
#![forbid(unsafe_code)]

pub mod arp;
pub mod checksum;
mod error;
pub mod ether;
pub mod field;
mod fragment;
pub mod frame;
pub mod header;
pub mod hello;
pub mod icmp;
pub mod ipv4;
mod nanos;
pub mod packet;
pub mod sample;
mod seq;
pub mod udp;
mod warning_limit;

pub use error::ParseError;
pub use ether::Mac;
pub use fragment::Fragment;
pub use header::{Flags, Header, Kind};
pub use hello::{Hello, PathEntry, Paths, Reason, Reset};
pub use nanos::Nanos;
pub use packet::{Packet, Part, Sack, SackRange};
pub use sample::Sample;
pub use seq::Seq;
pub use warning_limit::{Suppressed, WarningLimit};

/// Bytes of IPv4, UDP and Machnet header: what a unit's payload loses of the MTU.
pub const OVERHEAD: usize = ipv4::LEN + udp::LEN + header::LEN;

/// The most payload one unit can carry in packets of `mtu` bytes (IP header included) that end with an authentication tag of
/// `seal` bytes: 1424 at 1500 and 0.
pub const fn unit_size(mtu: u16, seal: u8) -> usize {
    (mtu as usize).saturating_sub(OVERHEAD + seal as usize)
}

/// The smallest MTU that Machnet works with, bytes: what every IPv4 host must take (RFC 791).
pub const MTU_MIN: u16 = 576;
/// The largest MTU, bytes: ENA's.
pub const MTU_MAX: u16 = 9001;
