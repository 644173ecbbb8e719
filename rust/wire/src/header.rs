//! The Machnet header: 48 bytes after UDP's, then SACK words, then the payload. docs/wire.md has the table.

use crate::{Fragment, Nanos, ParseError, Seq, field};

/// The version in every packet.
pub const VERSION: u8 = 2;
/// Bytes of the header without SACK words.
pub const LEN: usize = 48;
/// The most SACK words in one packet: 1024 units.
pub const SACK_WORDS_MAX: usize = 16;
/// One step of [`Header::ack_delay`] and [`Header::gap`], nanoseconds; their largest value stands for anything longer.
pub const DELAY_STEP: u64 = 64;

mod at {
    pub const VERSION: usize = 0;
    pub const KIND: usize = 1;
    pub const FLAGS: usize = 2;
    pub const SACK_WORDS: usize = 3;
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
    fn from_wire(b: u8) -> Option<Kind> {
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

/// Flags of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Flags(pub u8);

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
    pub const ECHO: Flags = Flags(16);
    /// A unit was refused for want of a buffer.
    pub const REFUSED: Flags = Flags(32);
    /// Answer at once.
    pub const PROBE: Flags = Flags(64);
    /// The drain epoch of the sender's engine, one bit: when it changes, whoever sends to it and has met congestion holds back
    /// for a moment, so that all of them see the path without a queue.
    pub const DRAIN_EPOCH: Flags = Flags(128);

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
        debug_assert!(sack.len() <= SACK_WORDS_MAX);
        let (h, rest) = field::split_mut::<LEN>(out);
        h[at::VERSION] = VERSION;
        h[at::KIND] = self.kind as u8;
        h[at::FLAGS] = self.flags.0;
        h[at::SACK_WORDS] = sack.len() as u8;
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
        for (word, out) in sack.iter().zip(rest.as_chunks_mut::<8>().0) {
            *out = word.to_be_bytes();
        }
        LEN + 8 * sack.len()
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

/// The SACK words of a packet: bit `i` of word `w` says that unit `ack + 1 + 64 w + i` has arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sack<'a>(&'a [[u8; 8]]);

impl<'a> Sack<'a> {
    /// No words.
    pub const EMPTY: Sack<'static> = Sack(&[]);

    /// How many words, 0 to 16.
    #[inline]
    pub fn words(&self) -> usize {
        self.0.len()
    }

    /// The words in order.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = u64> + 'a {
        self.0.iter().map(|word| u64::from_be_bytes(*word))
    }
}

/// A Machnet packet: what a UDP datagram carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet<'a> {
    /// The header.
    pub header: Header,
    /// Which units beyond `ack` have arrived.
    pub sack: Sack<'a>,
    /// A unit of a message, or the body that the kind calls for.
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Reads a packet and checks what can be checked without the connection.
    #[inline]
    pub fn parse(b: &'a [u8]) -> Result<Packet<'a>, ParseError> {
        let (h, rest) = field::split::<LEN>("machnet header", b)?;
        let refuse = |what, value: u32| Err(ParseError::Field { what, value });
        if h[at::VERSION] != VERSION {
            return refuse("machnet version", h[at::VERSION].into());
        }
        let Some(kind) = Kind::from_wire(h[at::KIND]) else {
            return refuse("machnet kind", h[at::KIND].into());
        };
        let flags = Flags(h[at::FLAGS]);
        let words = usize::from(h[at::SACK_WORDS]);
        if words > SACK_WORDS_MAX {
            return refuse("machnet sack words", words as u32);
        }
        if rest.len() < 8 * words {
            return Err(ParseError::Short { what: "machnet sack words", have: rest.len(), need: 8 * words });
        }
        let (sack, payload) = rest.split_at(8 * words);
        let header = Header {
            kind,
            flags,
            src: field::u16_at(h, at::SRC),
            dst: field::u16_at(h, at::DST),
            tag: field::u32_at(h, at::TAG),
            unit: Seq(field::u32_at(h, at::UNIT)),
            tx: Seq(field::u32_at(h, at::TX)),
            ack: Seq(field::u32_at(h, at::ACK)),
            ack_tx: Seq(field::u32_at(h, at::ACK_TX)),
            credit: field::u16_at(h, at::CREDIT),
            backlog: h[at::BACKLOG],
            want: h[at::WANT],
            ts: field::u32_at(h, at::TS),
            ts_echo: field::u32_at(h, at::TS_ECHO),
            ack_delay: field::u16_at(h, at::ACK_DELAY),
            gap: field::u16_at(h, at::GAP),
            message_len: field::u32_at(h, at::MESSAGE_LEN),
        };
        check_unit(&header, payload.len())?;
        Ok(Packet { header, sack: Sack(sack.as_chunks::<8>().0), payload })
    }
}

/// Flags that make a unit, and the payload that goes with them.
#[inline]
fn check_unit(h: &Header, payload: usize) -> Result<(), ParseError> {
    const UNIT: u8 = Flags::BEGIN.0 | Flags::END.0 | Flags::ABORT.0 | Flags::FIN.0;
    let unit = h.flags.0 & UNIT;
    let flags_fit = match h.kind {
        Kind::Data => {
            unit & (Flags::ABORT.0 | Flags::FIN.0) == 0
                || (unit == Flags::ABORT.0 || unit == Flags::FIN.0) && payload == 0
        }
        _ => unit == 0,
    };
    if !flags_fit {
        return Err(ParseError::Field { what: "machnet unit flags", value: h.flags.0.into() });
    }
    let begin = h.flags.has(Flags::BEGIN);
    let length_fits = match (begin, h.flags.has(Flags::END)) {
        (true, true) => h.message_len as usize == payload,
        (true, false) => h.message_len as usize > payload,
        _ => h.message_len == 0,
    };
    if !length_fits {
        return Err(ParseError::Field { what: "machnet message length", value: h.message_len });
    }
    Ok(())
}
