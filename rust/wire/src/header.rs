//! The Machnet header: 48 bytes after UDP's. What follows it is in `packet`; docs/wire.md has the tables.

use core::fmt;

use crate::{Fragment, Nanos, Part, PathEntry, Seq, field};

/// The version in every packet.
pub const VERSION: u8 = 3;
/// Bytes of the header without SACK words.
pub const LEN: usize = 48;
/// The most SACK words in one packet: bits for 1024 units, or 32 ranges.
pub const SACK_WORDS_MAX: usize = 16;
/// Bytes of each word that may follow the header.
pub const WORD: usize = 8;
/// Lanes that a connection can have; they are numbered from 0.
pub const LANES_MAX: u8 = 8;
/// One step of [`Header::ack_delay`] and [`Header::gap`], nanoseconds; their largest value stands for anything longer.
pub const DELAY_STEP: u64 = 64;

pub(crate) mod at {
    /// Version, kind, lane, SACK words and flags: 4, 4, 3, 5 and 16 bits.
    pub const START: usize = 0;
    pub const SRC: usize = 4;
    pub const DST: usize = 6;
    pub const TAG: usize = 8;
    pub const UNIT: usize = 12;
    pub const TX: usize = 16;
    pub const ACK: usize = 20;
    pub const ACK_TX: usize = 24;
    pub const CREDIT: usize = 28;
    pub const BACKLOG: usize = 30;
    pub const WANT: usize = 31;
    pub const TS: usize = 32;
    pub const TS_ECHO: usize = 36;
    pub const ACK_DELAY: usize = 40;
    pub const GAP: usize = 42;
    pub const MESSAGE_LEN: usize = 44;
}

/// What a packet is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Kind {
    /// Asks for a connection; payload [`crate::Hello`].
    Syn = 1,
    /// Grants one; payload [`crate::Hello`].
    SynAck = 2,
    /// Carries one unit.
    Data = 3,
    /// Carries none: acknowledgement, credit.
    Ack = 4,
    /// Carries none and wants an acknowledgement.
    Ping = 5,
    /// There is no connection (any more); payload [`crate::Reset`].
    Rst = 6,
    /// Tells which queue each probe reached; payload [`crate::Paths`].
    Paths = 7,
}

impl Kind {
    #[inline]
    pub(crate) fn from_wire(b: u8) -> Option<Kind> {
        Some(match b {
            1 => Kind::Syn,
            2 => Kind::SynAck,
            3 => Kind::Data,
            4 => Kind::Ack,
            5 => Kind::Ping,
            6 => Kind::Rst,
            7 => Kind::Paths,
            _ => return None,
        })
    }
}

/// Flags of a packet. The two highest bits are 0. Their `Debug` form is their names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(pub u16);

impl Flags {
    /// None.
    pub const NONE: Flags = Flags(0);
    /// The unit begins a message.
    pub const BEGIN: Flags = Flags(1);
    /// The unit ends a message.
    pub const END: Flags = Flags(2);
    /// The unit cuts the message before it: its sender gave it up.
    pub const ABORT: Flags = Flags(4);
    /// The unit is the last one in this direction.
    pub const FIN: Flags = Flags(8);
    /// `ack_tx`, `ts_echo`, `ack_delay` and `gap` are valid.
    pub const ECHO: Flags = Flags(0x10);
    /// A unit was refused for want of a buffer.
    pub const REFUSED: Flags = Flags(0x20);
    /// Answer at once.
    pub const PROBE: Flags = Flags(0x40);
    /// The drain epoch of the sender's engine, one bit: when it changes, whoever sends to it and has met congestion holds back
    /// for a moment, so that all of them see the path without a queue.
    pub const DRAIN_EPOCH: Flags = Flags(0x80);
    /// Tell by PATHS which receive queue this packet reached.
    pub const REPORT: Flags = Flags(0x100);
    /// A path word follows the header: a packet of the receiver's had this pair of UDP ports and reached this queue.
    pub const HIT: Flags = Flags(0x200);
    /// The SACK words are ranges.
    pub const RANGES: Flags = Flags(0x400);
    /// The packet ends with an authentication tag.
    pub const SEALED: Flags = Flags(0x800);
    /// The packet carries a part of a unit; a part word says which.
    pub const PART: Flags = Flags(0x1000);
    /// The acknowledgement carries the caller's hello with the server's cookie.
    pub const HELLO: Flags = Flags(0x2000);

    /// Whether all of `other` are set.
    #[inline]
    pub const fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both together.
    #[inline]
    pub const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 14] = [
            "BEGIN",
            "END",
            "ABORT",
            "FIN",
            "ECHO",
            "REFUSED",
            "PROBE",
            "DRAIN_EPOCH",
            "REPORT",
            "HIT",
            "RANGES",
            "SEALED",
            "PART",
            "HELLO",
        ];
        f.write_str("[")?;
        let mut space = "";
        for (_, name) in NAMES.iter().enumerate().filter(|(i, _)| self.0 >> i & 1 == 1) {
            write!(f, "{space}{name}")?;
            space = " ";
        }
        match self.0 >> NAMES.len() {
            0 => f.write_str("]"),
            _ => write!(f, "{space}{:#x}]", self.0 & !0 << NAMES.len()),
        }
    }
}

impl core::ops::BitOr for Flags {
    type Output = Flags;
    fn bitor(self, other: Flags) -> Flags {
        self.with(other)
    }
}

impl core::ops::BitOrAssign for Flags {
    fn bitor_assign(&mut self, other: Flags) {
        *self = self.with(other);
    }
}

/// A Machnet header as plain values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// What the packet is.
    pub kind: Kind,
    /// Its flags.
    pub flags: Flags,
    /// The lane of the connection on which it goes, 0 to 7: each lane has transmission numbers of its own.
    pub lane: u8,
    /// Sender's Machnet port.
    pub src: u16,
    /// Receiver's Machnet port.
    pub dst: u16,
    /// The receiver's tag of this connection; 0 in a SYN, and in an RST whose sender does not know it.
    pub tag: u32,
    /// The unit carried (Data), else the next unit to be numbered.
    pub unit: Seq,
    /// Number of this transmission, new for each packet.
    pub tx: Seq,
    /// The next unit expected: all before it have arrived.
    pub ack: Seq,
    /// Transmission number of the packet that caused this acknowledgement (with `ECHO`).
    pub ack_tx: Seq,
    /// Units from `ack` on that the receiver may send.
    pub credit: u16,
    /// Fill of the sender's receive ring, 0 empty to 255 full.
    pub backlog: u8,
    /// Units that wait at the sender and were never sent, those after this packet's; 255 stands for more.
    pub want: u8,
    /// Sender's clock, nanoseconds, wraps after 4.29 s.
    pub ts: u32,
    /// `ts` of the packet that caused this acknowledgement (with `ECHO`).
    pub ts_echo: u32,
    /// Time between the moment that packet was taken from the ring and this one's departure, in steps of [`DELAY_STEP`],
    /// rounded down (with `ECHO`).
    pub ack_delay: u16,
    /// How long before that moment the ring had last been looked at: so long the packet may have lain there. In the same
    /// steps, rounded up (with `ECHO`).
    pub gap: u16,
    /// Total bytes of the message that begins here (`BEGIN`), else 0.
    pub message_len: u32,
}

impl Header {
    /// A header of a kind with everything else zero.
    pub const fn new(kind: Kind) -> Header {
        Header {
            kind,
            flags: Flags::NONE,
            lane: 0,
            src: 0,
            dst: 0,
            tag: 0,
            unit: Seq(0),
            tx: Seq(0),
            ack: Seq(0),
            ack_tx: Seq(0),
            credit: 0,
            backlog: 0,
            want: 0,
            ts: 0,
            ts_echo: 0,
            ack_delay: 0,
            gap: 0,
            message_len: 0,
        }
    }

    /// Where the unit of a Data packet stands in its message; of an ABORT or a FIN, all zero.
    #[inline]
    pub const fn fragment(&self) -> Fragment {
        Fragment {
            begin: self.flags.has(Flags::BEGIN),
            end: self.flags.has(Flags::END),
            message_len: self.message_len,
        }
    }

    /// Writes header and SACK words (at most 16; `out` has room for them) and gives the bytes written.
    #[inline]
    pub fn emit(&self, sack: &[u64], out: &mut [u8]) -> usize {
        self.emit_with(None, None, sack, out)
    }

    /// As [`Header::emit`], with the path word that goes with `HIT` and the part word that goes with `PART`.
    #[inline]
    pub fn emit_with(
        &self,
        hit: Option<PathEntry>,
        part: Option<Part>,
        sack: &[u64],
        out: &mut [u8],
    ) -> usize {
        debug_assert!(sack.len() <= SACK_WORDS_MAX && self.lane < LANES_MAX);
        debug_assert_eq!(self.flags.has(Flags::HIT), hit.is_some());
        debug_assert_eq!(self.flags.has(Flags::PART), part.is_some());
        let (h, mut rest) = field::split_mut::<LEN>(out);
        h[at::START] = VERSION << 4 | self.kind as u8;
        h[at::START + 1] = self.lane << 5 | sack.len() as u8;
        field::put16(h, at::START + 2, self.flags.0);
        field::put16(h, at::SRC, self.src);
        field::put16(h, at::DST, self.dst);
        field::put32(h, at::TAG, self.tag);
        field::put32(h, at::UNIT, self.unit.0);
        field::put32(h, at::TX, self.tx.0);
        field::put32(h, at::ACK, self.ack.0);
        field::put32(h, at::ACK_TX, self.ack_tx.0);
        field::put16(h, at::CREDIT, self.credit);
        h[at::BACKLOG] = self.backlog;
        h[at::WANT] = self.want;
        field::put32(h, at::TS, self.ts);
        field::put32(h, at::TS_ECHO, self.ts_echo);
        field::put16(h, at::ACK_DELAY, self.ack_delay);
        field::put16(h, at::GAP, self.gap);
        field::put32(h, at::MESSAGE_LEN, self.message_len);
        let mut len = LEN + WORD * sack.len();
        if let Some(hit) = hit {
            let (out, behind) = field::split_mut::<WORD>(rest);
            *out = hit.to_word().to_be_bytes();
            (rest, len) = (behind, len + WORD);
        }
        if let Some(part) = part {
            let (out, behind) = field::split_mut::<WORD>(rest);
            *out = part.to_word().to_be_bytes();
            (rest, len) = (behind, len + WORD);
        }
        for (word, out) in sack.iter().zip(rest.as_chunks_mut::<WORD>().0) {
            *out = word.to_be_bytes();
        }
        len
    }
}

/// A time in steps of [`DELAY_STEP`], rounded down.
#[inline]
pub const fn delay_steps(time: Nanos) -> u16 {
    let steps = time.0 / DELAY_STEP;
    if steps > u16::MAX as u64 { u16::MAX } else { steps as u16 }
}

/// The time that so many steps stand for; `None` for the largest value, which stands for anything longer.
#[inline]
pub const fn delay_of(steps: u16) -> Option<Nanos> {
    if steps == u16::MAX { None } else { Some(Nanos(steps as u64 * DELAY_STEP)) }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::format;

    #[test]
    fn flags_are_told_by_name() {
        assert_eq!(format!("{:?}", Flags::NONE), "[]");
        assert_eq!(format!("{:?}", Flags::BEGIN | Flags::PROBE | Flags::HELLO), "[BEGIN PROBE HELLO]");
        let each: std::vec::Vec<_> = (0..16).map(|i| format!("{:?}", Flags(1 << i))).collect();
        assert_eq!(each[9..], ["[HIT]", "[RANGES]", "[SEALED]", "[PART]", "[HELLO]", "[0x4000]", "[0x8000]"]);
    }
}
