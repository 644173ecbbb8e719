//! What there is to send: units in order, cut from the payloads that the application gave, kept until they are acknowledged.

use alloc::vec::Vec;

use machnet_wire::{Flags, Fragment, Nanos, Seq};

use crate::message::Assembly;
use crate::slots::Slots;
use crate::{Io, NotSent, QUEUE_MAX, REACH, SendError, Unit};

/// Units of one direction, `first <= next <= end`: sent and not acknowledged up to `next`, waiting up to `end`.
#[derive(Debug, Clone, Hash)]
pub(crate) struct Queue<T> {
    /// What is known of each unit; apart from the tokens, because loss detection walks it.
    meta: Slots<Meta>,
    tokens: Slots<Option<T>>,
    first: Seq,
    next: Seq,
    end: Seq,
    /// The message being queued.
    open: Assembly,
    /// Nothing more is taken: a FIN is queued, or the end comes without one.
    sealed: bool,
    /// A FIN is queued.
    fin: bool,
}

/// One unit on the wire.
#[derive(Debug, Clone, Copy, Hash, Default)]
pub(crate) struct Meta {
    pub sent: Nanos,
    /// The latest transmission.
    pub tx: Seq,
    pub message_len: u32,
    /// First byte within the token's payload, which may go as several units.
    pub offset: u32,
    pub len: u16,
    /// How many units ahead the token lies: with the last piece of its payload, which is acknowledged last.
    pub token: u8,
    pub flags: Flags,
    pub state: UnitState,
    /// It was sent more than once.
    pub retransmitted: bool,
    /// A timeout found it lost, which may yet prove needless.
    pub timed_out: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum UnitState {
    /// Never sent.
    #[default]
    Waiting,
    InFlight,
    /// To be retransmitted.
    Lost,
    Arrived,
}

impl<T> Queue<T> {
    pub fn new(first: Seq) -> Self {
        Queue {
            meta: Slots::new(),
            tokens: Slots::new(),
            first,
            next: first,
            end: first,
            open: Assembly::default(),
            sealed: false,
            fin: false,
        }
    }

    /// The first unit that is not acknowledged.
    #[inline]
    pub fn first(&self) -> Seq {
        self.first
    }

    /// The next unit to be numbered on the wire.
    #[inline]
    pub fn next(&self) -> Seq {
        self.next
    }

    /// Behind the last unit.
    #[inline]
    pub fn end(&self) -> Seq {
        self.end
    }

    /// Units that are not acknowledged, sent or not.
    #[inline]
    pub fn len(&self) -> u32 {
        self.end.since(self.first) as u32
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.end == self.first
    }

    /// Units that come behind one.
    #[inline]
    pub fn behind(&self, unit: Seq) -> u32 {
        (self.end.since(unit) - 1).max(0) as u32
    }

    /// Units never sent.
    #[inline]
    pub fn waiting(&self) -> u32 {
        self.end.since(self.next) as u32
    }

    /// Whether a unit waits that SACK words could speak of.
    #[inline]
    pub fn has_next(&self) -> bool {
        self.next.before(self.end) && (self.next.since(self.first) as u32) < REACH
    }

    /// The next unit goes out for the first time.
    #[inline]
    pub fn number_next(&mut self) {
        self.next = self.next + 1;
    }

    /// The first unit is acknowledged: its token goes back.
    #[inline]
    pub fn complete_first<I: Io<Tx = T>>(&mut self, io: &mut I) {
        if let Some(tx) = self.tokens.at_mut(self.first).take() {
            io.complete(tx);
        }
        self.first = self.first + 1;
    }

    #[inline]
    pub fn meta(&self, unit: Seq) -> &Meta {
        self.meta.at(unit)
    }

    #[inline]
    pub fn meta_mut(&mut self, unit: Seq) -> &mut Meta {
        self.meta.at_mut(unit)
    }

    /// The token that `unit` is a piece of.
    #[inline]
    pub fn token(&self, unit: Seq) -> Option<&T> {
        self.tokens.at(unit + u32::from(self.meta.at(unit).token)).as_ref()
    }

    /// Nothing more is taken.
    pub fn seal(&mut self) {
        self.sealed = true;
    }

    #[inline]
    pub fn is_sealed(&self) -> bool {
        self.sealed
    }

    #[inline]
    pub fn has_fin(&self) -> bool {
        self.fin
    }

    /// Whether nothing more is taken, and everything was acknowledged, with the FIN if there is one.
    #[inline]
    pub fn finish_acked(&self) -> bool {
        self.sealed && self.first == self.end
    }

    /// Whether the FIN is all that is not acknowledged.
    pub fn only_finish_left(&self) -> bool {
        self.fin && self.end.since(self.first) <= 1 && self.next == self.end
    }

    #[inline]
    pub fn message_open(&self) -> bool {
        self.open.is_open()
    }

    /// Queues a unit, in pieces where the path takes less than it holds.
    pub fn push(&mut self, unit: Unit<T>, unit_size: u32) -> Result<(), NotSent<T>> {
        let Unit { fragment, len, tx } = unit;
        if self.sealed {
            return Err(NotSent { tx, why: SendError::NotOpen });
        }
        let open = match self.open.after(fragment, len) {
            Ok(open) => open,
            Err(what) => return Err(NotSent { tx, why: SendError::Malformed(what) }),
        };
        // Nearly always one: a division would be felt.
        let pieces = if len <= unit_size { 1 } else { len.div_ceil(unit_size) };
        if pieces > PIECES_MAX {
            return Err(NotSent { tx, why: SendError::Malformed("a unit is longer than any packet") });
        }
        if !self.make_room(pieces, QUEUE_MAX) {
            return Err(NotSent { tx, why: SendError::Full });
        }
        self.open = open;
        for (i, piece) in (0..).zip(pieces_of(fragment, len, unit_size, pieces)) {
            *self.meta.at_mut(self.end + i) = piece;
        }
        *self.tokens.at_mut(self.end + (pieces - 1)) = Some(tx);
        self.end = self.end + pieces;
        Ok(())
    }

    /// Cuts payloads that wait as a whole into pieces of `size` bytes at most. A payload of which a piece has been sent stays as it is: its units have
    /// their numbers.
    #[cold]
    pub fn cut_anew(&mut self, size: u32) {
        let mut waiting = Vec::new();
        let mut unit = self.next;
        while unit.before(self.end) {
            waiting.push((*self.meta.at(unit), self.tokens.at_mut(unit).take()));
            unit = unit + 1;
        }
        let mut cut = Vec::with_capacity(waiting.len());
        let mut pieces = waiting.into_iter().peekable();
        while let Some((first, mut tx)) = pieces.next() {
            let (mut len, mut flags) = (u32::from(first.len), first.flags);
            let mut of = Vec::from([first]);
            while tx.is_none()
                && let Some((piece, token)) = pieces.next()
            {
                len += u32::from(piece.len);
                flags |= piece.flags;
                of.push(piece);
                tx = token;
            }
            let longest = of.iter().map(|piece| u32::from(piece.len)).max().unwrap_or(0);
            if first.offset != 0 || longest <= size {
                let last = of.len() - 1;
                let mut tx = tx;
                cut.extend(
                    of.into_iter()
                        .enumerate()
                        .map(|(i, piece)| (piece, if i == last { tx.take() } else { None })),
                );
                continue;
            }
            let fragment = Fragment {
                begin: flags.has(Flags::BEGIN),
                end: flags.has(Flags::END),
                message_len: first.message_len,
            };
            let count = len.div_ceil(size).min(PIECES_MAX);
            for (i, piece) in pieces_of(fragment, len, size, count).enumerate() {
                cut.push((piece, if i as u32 + 1 == count { tx.take() } else { None }));
            }
        }
        self.end = self.next;
        for (meta, token) in cut {
            let live = self.len();
            if self.meta.reserve(self.first, live, live + 1) {
                self.tokens.reserve(self.first, live, live + 1);
            }
            *self.meta.at_mut(self.end) = meta;
            *self.tokens.at_mut(self.end) = token;
            self.end = self.end + 1;
        }
    }

    /// Queues a FIN.
    pub fn push_fin(&mut self, tx: T) -> Result<(), NotSent<T>> {
        if self.sealed {
            return Err(NotSent { tx, why: SendError::NotOpen });
        }
        if self.open.is_open() {
            return Err(NotSent { tx, why: SendError::Malformed("the last message is not finished") });
        }
        self.push_mark(tx, Flags::FIN)?;
        (self.sealed, self.fin) = (true, true);
        Ok(())
    }

    /// Takes back what was not sent of the open message, and queues an ABORT if something was.
    pub fn abort<I: Io<Tx = T>>(&mut self, tx: T, io: &mut I) -> Result<(), NotSent<T>> {
        if !self.open.is_open() {
            io.complete(tx);
            return Ok(());
        }
        self.open = Assembly::default();
        while self.next.before(self.end) {
            // A payload goes back whole or not at all: pieces of it that are out are read from it when they are retransmitted.
            let mut first = Seq(self.end.0.wrapping_sub(1));
            while self.meta.at(first).offset != 0 {
                first = Seq(first.0.wrapping_sub(1));
            }
            if first.before(self.next) {
                break;
            }
            if let Some(tx) = self.tokens.at_mut(Seq(self.end.0.wrapping_sub(1))).take() {
                io.complete(tx);
            }
            self.end = first;
            if self.meta.at(first).flags.has(Flags::BEGIN) {
                io.complete(tx);
                return Ok(());
            }
        }
        self.push_mark(tx, Flags::ABORT)
    }

    fn push_mark(&mut self, tx: T, flags: Flags) -> Result<(), NotSent<T>> {
        // FIN and ABORT find room behind any data.
        if !self.make_room(1, QUEUE_MAX + MARKS) {
            return Err(NotSent { tx, why: SendError::Full });
        }
        *self.meta.at_mut(self.end) = Meta { flags, ..Meta::default() };
        *self.tokens.at_mut(self.end) = Some(tx);
        self.end = self.end + 1;
        Ok(())
    }

    #[inline]
    fn make_room(&mut self, units: u32, most: u32) -> bool {
        let queued = self.len();
        if queued + units > most {
            return false;
        }
        if self.meta.reserve(self.first, queued, queued + units) {
            self.tokens.reserve(self.first, queued, queued + units);
        }
        true
    }

    /// Gives memory back that the next unit makes anew.
    pub fn rest(&mut self) {
        if self.is_empty() {
            self.meta.rest();
            self.tokens.rest();
        }
    }

    /// Gives every token back.
    pub fn clear<I: Io<Tx = T>>(&mut self, io: &mut I) {
        while self.first.before(self.end) {
            self.complete_first(io);
        }
    }
}

/// The units of a payload of `len` bytes that goes in so many pieces of `size` bytes, the last of which is what is left.
#[inline]
fn pieces_of(fragment: Fragment, len: u32, size: u32, pieces: u32) -> impl Iterator<Item = Meta> {
    (0..pieces).map(move |i| {
        let (first, last) = (i == 0, i + 1 == pieces);
        let mut flags = Flags::NONE;
        if first && fragment.begin {
            flags |= Flags::BEGIN;
        }
        if last && fragment.end {
            flags |= Flags::END;
        }
        let offset = i * size;
        Meta {
            message_len: if first { fragment.message_len } else { 0 },
            offset,
            len: (len - offset).min(size) as u16,
            token: (pieces - 1 - i) as u8,
            flags,
            ..Meta::default()
        }
    })
}

/// Pieces that one payload may go in: a 9001-byte packet's through a 576-byte path are 18.
const PIECES_MAX: u32 = 64;
/// FIN, and ABORTs behind a full queue.
const MARKS: u32 = 64;
