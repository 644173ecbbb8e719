//! Bodies of the packets that make and end connections: SYN and SYN-ACK, RST, PATHS.

use crate::header::LANES_MAX;
use crate::packet::SEAL;
use crate::{ParseError, field};

/// Body of a SYN, of a SYN-ACK, and of an ACK with `HELLO`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Hello {
    /// The sender's own tag: every packet to it carries this.
    pub tag: u32,
    /// Drawn when the sender's sidecar started; another one means that all it knew is gone.
    pub epoch: u64,
    /// The largest IP packet that the sender takes, bytes.
    pub mtu: u16,
    /// The sender's receive queues, 1 or more.
    pub queues: u16,
    /// The queue on which it wants this connection's packets, below `queues`.
    pub queue: u16,
    /// UDP ports of a packet of the receiver's, and the sender's queue that they led to: of a SYN-ACK, those of the SYN that it
    /// answers. All zero is none.
    pub hit: Option<PathEntry>,
    /// UDP destination port that leads to `queue` whatever the source port; 0: none is known to.
    pub steer: u16,
    /// Bytes of the authentication tag with which the sender wants packets sealed, 0 or 16. The smaller of both ends' is agreed.
    pub seal: u8,
    /// Lanes that the sender takes, 1 to 8. The smaller of both ends' is agreed.
    pub lanes: u8,
    /// Answer each packet by its own UDP ports, exchanged.
    pub mirrored: bool,
    /// The sender puts units together that come in parts.
    pub parts: bool,
    /// In a SYN-ACK: what the caller is to say back in an ACK with `HELLO`, which has it, too. 0: nothing.
    pub cookie: u64,
}

impl Hello {
    /// Bytes of the body.
    pub const LEN: usize = 40;

    /// What an end with one receive queue says that asks for nothing in particular.
    pub const fn new(tag: u32, epoch: u64, mtu: u16) -> Hello {
        Hello {
            tag,
            epoch,
            mtu,
            queues: 1,
            queue: 0,
            hit: None,
            steer: 0,
            seal: 0,
            lanes: 1,
            mirrored: false,
            parts: false,
            cookie: 0,
        }
    }

    /// Reads a body, which must end with it.
    pub fn parse(b: &[u8]) -> Result<Hello, ParseError> {
        let h = exact::<{ Self::LEN }>("machnet hello", b)?;
        let flags = field::u16_at(h, 28);
        let hit =
            PathEntry { src: field::u16_at(h, 18), dst: field::u16_at(h, 20), queue: field::u16_at(h, 22) };
        let hello = Hello {
            tag: field::u32_at(h, 0),
            epoch: field::u64_at(h, 4),
            mtu: field::u16_at(h, 12),
            queues: field::u16_at(h, 14),
            queue: field::u16_at(h, 16),
            hit: (hit != PathEntry::NONE).then_some(hit),
            steer: field::u16_at(h, 24),
            seal: h[26],
            lanes: h[27],
            mirrored: flags & MIRRORED != 0,
            parts: flags & PARTS != 0,
            cookie: field::u64_at(h, 32),
        };
        for (fits, what, value) in [
            ((crate::MTU_MIN..=crate::MTU_MAX).contains(&hello.mtu), "machnet hello mtu", hello.mtu),
            (hello.queue < hello.queues, "machnet hello queue", hello.queue),
            (hit.queue < hello.queues, "machnet hello hit queue", hit.queue),
            (matches!(hello.seal.into(), 0 | SEAL), "machnet hello seal", hello.seal.into()),
            ((1..=LANES_MAX).contains(&hello.lanes), "machnet hello lanes", hello.lanes.into()),
            (flags & !(MIRRORED | PARTS) == 0, "machnet hello flags", flags),
            (field::u16_at(h, 30) == 0, "machnet hello reserved", field::u16_at(h, 30)),
        ] {
            if !fits {
                return Err(ParseError::Field { what, value: value.into() });
            }
        }
        Ok(hello)
    }

    /// The body's bytes.
    pub fn emit(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        field::put32(&mut out, 0, self.tag);
        field::put64(&mut out, 4, self.epoch);
        field::put16(&mut out, 12, self.mtu);
        field::put16(&mut out, 14, self.queues);
        field::put16(&mut out, 16, self.queue);
        let hit = self.hit.unwrap_or(PathEntry::NONE);
        field::put16(&mut out, 18, hit.src);
        field::put16(&mut out, 20, hit.dst);
        field::put16(&mut out, 22, hit.queue);
        field::put16(&mut out, 24, self.steer);
        out[26] = self.seal;
        out[27] = self.lanes;
        let flags = if self.mirrored { MIRRORED } else { 0 } | if self.parts { PARTS } else { 0 };
        field::put16(&mut out, 28, flags);
        field::put64(&mut out, 32, self.cookie);
        out
    }
}

// Flags of a hello.
const MIRRORED: u16 = 1;
const PARTS: u16 = 2;

/// Why there is no connection (any more).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Reason {
    /// Nobody listens on the port.
    Refused,
    /// The port pair belongs to a connection that lives.
    PortInUse,
    /// No such connection here.
    Closed,
    /// The application is gone.
    AppGone,
    /// Nothing was heard for too long.
    Timeout,
    /// The peer broke the protocol.
    Protocol,
    /// The application reset the connection.
    Aborted,
    /// More was asked of one connection than there is room for.
    NoResources,
    /// The application that listens has as many connections as it may.
    AppFull {
        /// How many that is, at most [`Reason::MOST`].
        limit: u32,
    },
    /// The engine of the application that listens has as many connections as it can.
    EngineFull {
        /// As above.
        limit: u32,
    },
    /// The sidecar is ending and takes no more.
    Ending,
}

impl Reason {
    /// The largest limit that can be told; a larger one is told as this.
    pub const MOST: u32 = 0xff_ffff;

    /// The number on the wire, and the limit that goes with it, or 0.
    fn to_wire(self) -> (u8, u32) {
        match self {
            Reason::Refused => (1, 0),
            Reason::PortInUse => (2, 0),
            Reason::Closed => (3, 0),
            Reason::AppGone => (4, 0),
            Reason::Timeout => (5, 0),
            Reason::Protocol => (6, 0),
            Reason::Aborted => (7, 0),
            Reason::NoResources => (8, 0),
            Reason::AppFull { limit } => (9, limit.min(Self::MOST)),
            Reason::EngineFull { limit } => (10, limit.min(Self::MOST)),
            Reason::Ending => (11, 0),
        }
    }

    fn from_wire(number: u8, limit: u32) -> Result<Reason, ParseError> {
        let reason = match number {
            1 => Reason::Refused,
            2 => Reason::PortInUse,
            3 => Reason::Closed,
            4 => Reason::AppGone,
            5 => Reason::Timeout,
            6 => Reason::Protocol,
            7 => Reason::Aborted,
            8 => Reason::NoResources,
            9 => return Ok(Reason::AppFull { limit }),
            10 => return Ok(Reason::EngineFull { limit }),
            11 => Reason::Ending,
            _ => return Err(ParseError::Field { what: "machnet reset reason", value: number.into() }),
        };
        if limit != 0 {
            return Err(ParseError::Field { what: "machnet reset limit", value: limit });
        }
        Ok(reason)
    }
}

/// Body of an RST.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Reset {
    /// The sender's epoch.
    pub epoch: u64,
    /// The tag that the refused packet carried (of a SYN, the tag in its body): proof that the sender of the RST saw
    /// it, where it does not know the receiver's tag and the header's is 0.
    pub echo: u32,
    /// Why.
    pub reason: Reason,
}

impl Reset {
    /// Bytes of the body.
    pub const LEN: usize = 16;

    /// Reads a body, which must end with it.
    pub fn parse(b: &[u8]) -> Result<Reset, ParseError> {
        let h = exact::<{ Self::LEN }>("machnet reset", b)?;
        let reason = Reason::from_wire(h[12], field::u32_at(h, 12) & Reason::MOST)?;
        Ok(Reset { epoch: field::u64_at(h, 0), echo: field::u32_at(h, 8), reason })
    }

    /// The body's bytes.
    pub fn emit(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        field::put64(&mut out, 0, self.epoch);
        field::put32(&mut out, 8, self.echo);
        let (number, limit) = self.reason.to_wire();
        field::put32(&mut out, 12, u32::from(number) << 24 | limit);
        out
    }
}

/// One packet's way: the UDP ports it had, and the receive queue it reached.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PathEntry {
    /// UDP source port.
    pub src: u16,
    /// UDP destination port.
    pub dst: u16,
    /// Receive queue.
    pub queue: u16,
}

impl PathEntry {
    const NONE: PathEntry = PathEntry { src: 0, dst: 0, queue: 0 };

    /// The path word on the wire.
    pub(crate) fn to_word(self) -> u64 {
        u64::from(self.src) << 48 | u64::from(self.dst) << 32 | u64::from(self.queue) << 16
    }

    /// Reads the path word.
    pub(crate) fn from_word(word: u64) -> Result<PathEntry, ParseError> {
        match word as u16 {
            0 => Ok(PathEntry {
                src: (word >> 48) as u16,
                dst: (word >> 32) as u16,
                queue: (word >> 16) as u16,
            }),
            reserved => Err(ParseError::Field { what: "machnet path word reserved", value: reserved.into() }),
        }
    }
}

/// Body of PATHS: 1 to 32 entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Paths<'a>(&'a [[u8; 6]]);

impl<'a> Paths<'a> {
    /// The most entries.
    pub const MAX: usize = 32;
    /// Bytes of an entry.
    pub const ENTRY: usize = 6;

    /// Reads a body, which must be whole entries.
    pub fn parse(b: &'a [u8]) -> Result<Paths<'a>, ParseError> {
        let (entries, rest) = b.as_chunks::<{ Paths::ENTRY }>();
        if entries.is_empty() || entries.len() > Paths::MAX || !rest.is_empty() {
            return Err(ParseError::Field { what: "machnet paths length", value: b.len() as u32 });
        }
        Ok(Paths(entries))
    }

    /// The entries in order.
    pub fn iter(&self) -> impl Iterator<Item = PathEntry> + 'a {
        self.0.iter().map(|e| PathEntry {
            src: field::u16_at(e, 0),
            dst: field::u16_at(e, 2),
            queue: field::u16_at(e, 4),
        })
    }

    /// Writes at most 32 entries at the start of `out` and gives the bytes written.
    pub fn emit(entries: &[PathEntry], out: &mut [u8]) -> usize {
        let entries = &entries[..entries.len().min(Self::MAX)];
        for (e, out) in entries.iter().zip(out.as_chunks_mut::<{ Paths::ENTRY }>().0) {
            field::put16(out, 0, e.src);
            field::put16(out, 2, e.dst);
            field::put16(out, 4, e.queue);
        }
        entries.len() * Self::ENTRY
    }
}

fn exact<'a, const N: usize>(what: &'static str, b: &'a [u8]) -> Result<&'a [u8; N], ParseError> {
    match field::split::<N>(what, b)? {
        (h, []) => Ok(h),
        (_, rest) => Err(ParseError::Field { what, value: (N + rest.len()) as u32 }),
    }
}
