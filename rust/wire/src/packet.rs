//! A whole packet: the header, the words that follow it, and the payload; and what may stand together.

use crate::header::{Flags, Header, Kind, LEN, SACK_WORDS_MAX, VERSION, WORD, at};
use crate::{Hello, ParseError, PathEntry, Seq, field};

/// Bytes of the authentication tag at the end of a sealed packet.
pub const SEAL: usize = 16;
/// How far beyond `ack` ranges can tell, units.
pub const RANGES_REACH: u16 = 16_384;

/// Which part of a unit a packet carries: a unit that is too long for its path goes again in parts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Part {
    /// Bytes of the unit before this part.
    pub offset: u16,
    /// Bytes of the whole unit. The part that reaches it is the last.
    pub unit_len: u16,
}

impl Part {
    /// The word on the wire.
    pub(crate) fn to_word(self) -> u64 {
        u64::from(self.offset) << 48 | u64::from(self.unit_len) << 32
    }

    /// Reads the word of a part of `len` bytes.
    fn from_word(word: u64, len: usize) -> Result<Part, ParseError> {
        if word as u32 != 0 {
            return Err(ParseError::Field { what: "machnet part reserved", value: word as u32 });
        }
        let part = Part { offset: (word >> 48) as u16, unit_len: (word >> 32) as u16 };
        if len == 0 || usize::from(part.offset) + len > part.unit_len.into() {
            return Err(ParseError::Field { what: "machnet part", value: (word >> 32) as u32 });
        }
        Ok(part)
    }
}

/// Units that have arrived: `count` from `ack + 1 + first` on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct SackRange {
    /// Units between `ack + 1` and the first of them.
    pub first: u16,
    /// How many, 1 or more.
    pub count: u16,
}

impl SackRange {
    /// The SACK words for ranges in ascending order that do not touch, two in each word: how many of `out` were written.
    /// Of more than 32 the first are taken.
    pub fn to_words(ranges: &[SackRange], out: &mut [u64; SACK_WORDS_MAX]) -> usize {
        let half = |range: SackRange| u64::from(range.first) << 16 | u64::from(range.count);
        let pairs = ranges.chunks(2);
        let n = pairs.len().min(SACK_WORDS_MAX);
        for (pair, out) in pairs.zip(out) {
            *out = half(pair[0]) << 32 | pair.get(1).copied().map_or(0, half);
        }
        n
    }
}

/// The SACK words of a packet. Bit `i` of word `w` says that unit `ack + 1 + 64 w + i` has arrived, or, with `RANGES`, each
/// word is two ranges.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sack<'a>(&'a [[u8; WORD]]);

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

    /// The words of a packet with `RANGES`: ranges in ascending order that do not touch.
    pub fn ranges(&self) -> impl Iterator<Item = SackRange> + 'a {
        self.halves().filter(|range| range.count > 0)
    }

    /// Both ranges of each word, also one that is not there.
    fn halves(&self) -> impl Iterator<Item = SackRange> + 'a {
        self.iter().flat_map(|word| {
            [word >> 32, word].map(|half| SackRange { first: (half >> 16) as u16, count: half as u16 })
        })
    }

    /// Whether the words are ranges as they ought to be: some, ascending, apart from each other, within reach; only the very
    /// last may be absent.
    fn check_ranges(&self) -> Result<(), ParseError> {
        let refuse = |value| Err(ParseError::Field { what: "machnet sack ranges", value });
        if self.0.is_empty() {
            return refuse(0);
        }
        let mut free = 0;
        for (i, SackRange { first, count }) in self.halves().enumerate() {
            if (first, count) == (0, 0) && i == 2 * self.words() - 1 {
                break;
            }
            let end = u32::from(first) + u32::from(count);
            if count == 0 || u32::from(first) < free || end > RANGES_REACH.into() {
                return refuse(u32::from(first) << 16 | u32::from(count));
            }
            free = end + 1;
        }
        Ok(())
    }
}

/// A Machnet packet: what a UDP datagram carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet<'a> {
    /// The header.
    pub header: Header,
    /// With `HIT`: a pair of UDP ports of the receiver's, and which of the sender's queues it reached.
    pub hit: Option<PathEntry>,
    /// With `PART`: which part of its unit the payload is.
    pub part: Option<Part>,
    /// Which units beyond `ack` have arrived.
    pub sack: Sack<'a>,
    /// A unit of a message, or the body that the kind calls for.
    pub payload: &'a [u8],
    /// With `SEALED`: the authentication tag behind the payload.
    pub seal: Option<&'a [u8; SEAL]>,
}

impl<'a> Packet<'a> {
    /// Reads a packet and checks what can be checked without the connection.
    #[inline]
    pub fn parse(b: &'a [u8]) -> Result<Packet<'a>, ParseError> {
        // What few have is looked for elsewhere, so that the others are read without a thought of it.
        match b.first_chunk::<4>() {
            Some(start) if u32::from_be_bytes(*start) & RARE != 0 => Packet::parse_uncommon(b),
            _ => Packet::read::<false>(b),
        }
    }

    #[cold]
    fn parse_uncommon(b: &'a [u8]) -> Result<Packet<'a>, ParseError> {
        Packet::read::<true>(b)
    }

    /// Reads a packet; `UNCOMMON`: one with any of [`RARE`].
    #[inline(always)]
    fn read<const UNCOMMON: bool>(b: &'a [u8]) -> Result<Packet<'a>, ParseError> {
        let (h, rest) = field::split::<LEN>("machnet header", b)?;
        let refuse = |what, value: u32| Err(ParseError::Field { what, value });
        let start = field::u32_at(h, at::START);
        let version = start >> 28;
        if version != VERSION.into() {
            return refuse("machnet version", version);
        }
        let number = start >> 24 & 0xf;
        let Some(kind) = Kind::from_wire(number as u8) else { return refuse("machnet kind", number) };
        let words = (start >> 16 & 0x1f) as usize;
        if words > SACK_WORDS_MAX {
            return refuse("machnet sack words", words as u32);
        }
        let (flags, lane) = (Flags(start as u16), (start >> 21 & 7) as u8);
        let Around { hit, part, sack, payload, seal } = if !UNCOMMON {
            let (sack, payload) = split_sack(rest, words)?;
            if kind == Kind::Ack && !payload.is_empty() {
                return refuse("machnet acknowledgement with a payload", payload.len() as u32);
            }
            Around { hit: None, part: None, sack, payload, seal: None }
        } else {
            uncommon(kind, flags, lane, words, rest)?
        };
        let message_len = field::u32_at(h, at::MESSAGE_LEN);
        let unit_len = part.map_or(payload.len(), |part| part.unit_len.into());
        check_unit(kind, flags, message_len, payload.len(), unit_len)?;
        // Read when nothing can go wrong any more, or most of it would be put aside until then.
        let header = Header {
            kind,
            flags,
            lane,
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
            message_len,
        };
        Ok(Packet { header, hit, part, sack, payload, seal })
    }
}

/// What follows the header.
struct Around<'a> {
    hit: Option<PathEntry>,
    part: Option<Part>,
    sack: Sack<'a>,
    payload: &'a [u8],
    seal: Option<&'a [u8; SEAL]>,
}

/// What few packets have, as bits of the header's first four bytes: a lane, and flags that say that something stands before or
/// behind the payload or that the SACK words are ranges.
const RARE: u32 = 0xe0_0000
    | RESERVED as u32
    | (Flags::HIT.0 | Flags::RANGES.0 | Flags::SEALED.0 | Flags::PART.0 | Flags::HELLO.0) as u32;

/// Flags that mean nothing.
const RESERVED: u16 = 0xc000;

/// What follows a header with any of [`RARE`].
fn uncommon(
    kind: Kind,
    flags: Flags,
    lane: u8,
    words: usize,
    mut rest: &[u8],
) -> Result<Around<'_>, ParseError> {
    let connected = matches!(kind, Kind::Data | Kind::Ack | Kind::Ping | Kind::Paths);
    let allowed = !RESERVED
        & match kind {
            _ if !connected => !(Flags::HIT.0 | Flags::SEALED.0 | Flags::PART.0 | Flags::HELLO.0),
            Kind::Data => !Flags::HELLO.0,
            Kind::Ack => !Flags::PART.0,
            _ => !(Flags::PART.0 | Flags::HELLO.0),
        };
    if flags.0 & !allowed != 0 {
        return Err(ParseError::Field { what: "machnet flags", value: flags.0.into() });
    }
    if lane != 0 && !connected {
        return Err(ParseError::Field { what: "machnet lane", value: lane.into() });
    }
    let mut word = |flag, what| {
        if !flags.has(flag) {
            return Ok(None);
        }
        let (word, behind) = field::split::<WORD>(what, rest)?;
        rest = behind;
        Ok(Some(u64::from_be_bytes(*word)))
    };
    let hit = word(Flags::HIT, "machnet path word")?.map(PathEntry::from_word).transpose()?;
    let part = word(Flags::PART, "machnet part word")?;
    let (sack, mut payload) = split_sack(rest, words)?;
    let mut seal = None;
    if flags.has(Flags::SEALED) {
        let have = payload.len();
        let (before, tag) = payload.split_last_chunk::<SEAL>().ok_or(ParseError::Short {
            what: "machnet seal",
            have,
            need: SEAL,
        })?;
        (payload, seal) = (before, Some(tag));
    }
    let part = part.map(|word| Part::from_word(word, payload.len())).transpose()?;
    if flags.has(Flags::RANGES) {
        sack.check_ranges()?;
    }
    let body = if flags.has(Flags::HELLO) { Hello::LEN } else { 0 };
    if kind == Kind::Ack && payload.len() != body {
        return Err(ParseError::Field {
            what: "machnet acknowledgement with a payload",
            value: payload.len() as u32,
        });
    }
    Ok(Around { hit, part, sack, payload, seal })
}

/// The SACK words, and what follows them.
#[inline]
fn split_sack(b: &[u8], words: usize) -> Result<(Sack<'_>, &[u8]), ParseError> {
    let need = WORD * words;
    let (sack, payload) = b.split_at_checked(need).ok_or(ParseError::Short {
        what: "machnet sack words",
        have: b.len(),
        need,
    })?;
    Ok((Sack(sack.as_chunks::<WORD>().0), payload))
}

/// Flags that make a unit, the payload that goes with them, and the length of the whole unit.
#[inline(always)]
fn check_unit(
    kind: Kind,
    flags: Flags,
    message_len: u32,
    payload: usize,
    unit_len: usize,
) -> Result<(), ParseError> {
    const UNIT: u16 = Flags::BEGIN.0 | Flags::END.0 | Flags::ABORT.0 | Flags::FIN.0;
    let unit = flags.0 & UNIT;
    let flags_fit = match kind {
        Kind::Data => {
            unit & (Flags::ABORT.0 | Flags::FIN.0) == 0
                || (unit == Flags::ABORT.0 || unit == Flags::FIN.0) && payload == 0
        }
        _ => unit == 0,
    };
    if !flags_fit {
        return Err(ParseError::Field { what: "machnet unit flags", value: flags.0.into() });
    }
    let begin = flags.has(Flags::BEGIN);
    let length_fits = match (begin, flags.has(Flags::END)) {
        (true, true) => message_len as usize == unit_len,
        (true, false) => message_len as usize > unit_len,
        _ => message_len == 0,
    };
    if !length_fits {
        return Err(ParseError::Field { what: "machnet message length", value: message_len });
    }
    Ok(())
}
