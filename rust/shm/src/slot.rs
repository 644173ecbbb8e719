//! What a slot of a ring holds: eight 32-bit words, the first of them the sequence number, and 96 bytes.

use crate::fault::PeerFault;
use crate::{FlowId, Fragment};

/// Bytes of a slot.
pub const SLOT: usize = 128;
/// Bytes of a message that a slot carries itself.
pub const INLINE: usize = 96;

/// Words 1 to 7 of a slot. What `a` to `d` mean depends on the kind; docs/channel.md has the table.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Head {
    /// What the slot is, one of [`kind`].
    pub kind: u8,
    /// Flags of the kind.
    pub flags: u8,
    /// Bytes of the unit, or entries.
    pub len: u16,
    /// Connection.
    pub flow: u32,
    /// Generation of the connection's index.
    pub generation: u32,
    /// First argument.
    pub a: u32,
    /// Second argument.
    pub b: u32,
    /// Third argument.
    pub c: u32,
    /// Fourth argument.
    pub d: u32,
}

impl Head {
    /// Of a slot about this connection; the rest is 0.
    #[inline]
    pub(crate) fn of(flow: FlowId) -> Head {
        Head { flow: flow.index, generation: flow.generation, ..Head::default() }
    }

    /// The connection that a slot names.
    #[inline]
    pub(crate) fn flow_id(&self) -> FlowId {
        FlowId { index: self.flow, generation: self.generation }
    }

    /// Of a DATA slot with `len` bytes, which are in the buffer, or in the slot itself ([`NO_BUFFER`]).
    #[inline]
    pub(crate) fn data(flow: FlowId, fragment: Fragment, buffer: u32, len: usize) -> Head {
        let flags = if fragment.begin { BEGIN } else { 0 } | if fragment.end { END } else { 0 };
        Head {
            kind: kind::DATA,
            flags,
            len: len as u16,
            a: buffer,
            b: fragment.message_len,
            ..Head::of(flow)
        }
    }

    /// The place in its message of a DATA slot's unit.
    #[inline]
    pub(crate) fn fragment(&self) -> Fragment {
        Fragment { begin: self.flags & BEGIN != 0, end: self.flags & END != 0, message_len: self.b }
    }
}

/// A slot as copied out.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// Words 1 to 7.
    pub head: Head,
    /// As many bytes as the slot holds inline, rounded up to sixteen; the rest is zero.
    pub inline: [u8; INLINE],
}

impl Record {
    /// Bytes worth copying, given what the words say; never more than there are.
    #[inline]
    pub(crate) fn inline_len(head: &Head) -> usize {
        match head.kind {
            kind::DATA if head.a == NO_BUFFER => (head.len as usize).min(INLINE),
            kind::ENTRIES => (head.len as usize * 8).min(INLINE),
            _ => 0,
        }
    }
}

/// `a` of a DATA slot that carries its bytes itself.
pub const NO_BUFFER: u32 = u32::MAX;
/// Entries in one slot of the complete and return rings.
pub const ENTRIES: usize = INLINE / 8;
/// The highest kind.
pub(crate) const KINDS: u8 = 15;

/// Kinds of slots.
pub mod kind {
    /// One unit of a message (submit, deliver). `a` buffer or NO_BUFFER, `b` length of the message where it begins.
    pub const DATA: u8 = 1;
    /// The message under way is given up (submit, deliver). Takes a token.
    pub const ABORT: u8 = 2;
    /// No more data in this direction (submit, deliver). Takes a token.
    pub const FIN: u8 = 3;
    /// The application forgets the connection (submit).
    pub const CLOSE: u8 = 4;
    /// The connection is over at once (submit, deliver). `a`, `b` reason.
    pub const RESET: u8 = 5;
    /// A connection is there (deliver). Flag 1: accepted; `a` dial or listener, `b` own, `c` peer's address, `d` ports.
    pub const ESTABLISHED: u8 = 6;
    /// Up to 12 tokens (complete, return).
    pub const ENTRIES: u8 = 7;
    /// Listen, or: listening (control). `a` listener, `b` address, `c` port, `d` backlog.
    pub const LISTEN: u8 = 8;
    /// Listen no more, or: does not listen (control). `a` listener.
    pub const UNLISTEN: u8 = 9;
    /// Connect (control). `a` dial, `b` address, `c` ports, `d` milliseconds.
    pub const CONNECT: u8 = 10;
    /// Give a dial up, or: a dial has failed (control). `a` dial, `b`, `c` reason.
    pub const CANCEL: u8 = 11;
    /// Cannot listen (control reply). `a` listener, `b`, `c` reason.
    pub const LISTEN_FAILED: u8 = 12;
    /// The application has accepted a connection that was announced to its listener (return): a place in the backlog is free.
    pub const ACCEPTED: u8 = 13;
    /// Tell about a connection, or: what there is to tell (control). `a` query; the answer carries a record.
    pub const STATS: u8 = 14;
    /// Set an option of a connection (control). `a` option, `b` value.
    pub const OPTION: u8 = 15;
}

/// Flags of a DATA slot.
const BEGIN: u8 = 1;
const END: u8 = 2;
/// Flag of an ESTABLISHED slot.
pub(crate) const ACCEPTED: u8 = 1;

/// A token as it travels back: a buffer, or a number of a connection's units that had none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Entry {
    Buffer(u32),
    Inline { flow: u32, count: u32 },
}

impl Entry {
    #[inline]
    pub fn encode(self) -> u64 {
        match self {
            Entry::Buffer(index) => 1 << 63 | u64::from(index),
            Entry::Inline { flow, count } => u64::from(flow) << 32 | u64::from(count),
        }
    }

    /// Every bit pattern means something; whether it is true is for the receiver to check.
    #[inline]
    pub fn decode(word: u64) -> Entry {
        if word >> 63 != 0 {
            Entry::Buffer(word as u32)
        } else {
            Entry::Inline { flow: (word >> 32) as u32, count: word as u32 }
        }
    }
}

/// Entries on their way into a slot.
pub(crate) struct Batch {
    entries: [u64; ENTRIES],
    len: usize,
}

impl Batch {
    pub const fn new() -> Batch {
        Batch { entries: [0; ENTRIES], len: 0 }
    }

    #[cfg(feature = "engine")]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds an entry; true when the batch should go. Units without a buffer of one connection add up in one entry.
    #[inline]
    pub fn add(&mut self, entry: Entry) -> bool {
        if let (Entry::Inline { flow, count }, Some(last)) = (entry, self.len.checked_sub(1))
            && let Entry::Inline { flow: same, count: before } = Entry::decode(self.entries[last])
            && same == flow
        {
            self.entries[last] = Entry::Inline { flow, count: before + count }.encode();
            return false;
        }
        self.entries[self.len] = entry.encode();
        self.len += 1;
        self.len == ENTRIES
    }

    /// The slot for what was added; empties the batch.
    #[inline]
    pub fn take(&mut self) -> (Head, [u8; INLINE]) {
        let mut inline = [0; INLINE];
        for (bytes, entry) in inline.as_chunks_mut::<8>().0.iter_mut().zip(&self.entries[..self.len]) {
            *bytes = entry.to_le_bytes();
        }
        let head = Head { kind: kind::ENTRIES, len: self.len as u16, ..Head::default() };
        self.len = 0;
        (head, inline)
    }
}

/// The entries of a slot of `ring`. There is at least one, so that a slot never costs its reader more than its writer: tokens are few, but slots
/// that give none back would be without end.
pub(crate) fn entries<'a>(
    record: &'a Record,
    ring: &'static str,
) -> Result<impl Iterator<Item = Entry> + 'a, PeerFault> {
    if record.head.kind != kind::ENTRIES {
        return Err(PeerFault::Kind { ring, kind: record.head.kind });
    }
    let count = usize::from(record.head.len);
    match record.inline.as_chunks::<8>().0.get(..count) {
        Some(entries) if count > 0 => {
            Ok(entries.iter().map(|bytes| Entry::decode(u64::from_le_bytes(*bytes))))
        }
        _ => Err(PeerFault::Bound { what: "entries of a slot", value: count as u32, bound: ENTRIES as u32 }),
    }
}
