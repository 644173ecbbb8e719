//! A single-producer single-consumer ring whose slots announce themselves: the sequence word travels with the data, so
//! that a message costs the move of one pair of cache lines. No index is shared. That there is room is known to the
//! producer from its tokens (docs/channel.md, "Tokens").

use crate::slot::{Head, INLINE, Record};

/// The memory of a ring's slots: shared memory, or a model of it for loom.
pub trait Slots {
    /// Slots - 1.
    fn mask(&self) -> u32;
    /// The sequence word of slot `i`, acquired.
    fn sequence(&self, i: u32) -> u32;
    /// Writes the sequence word of slot `i`, releasing what was stored before.
    fn announce(&self, i: u32, sequence: u32);
    /// Writes words and bytes of slot `i`.
    fn store(&self, i: u32, head: &Head, inline: &[u8]);
    /// Copies the words of slot `i` out, once.
    fn head(&self, i: u32) -> Head;
    /// Copies the first `len` inline bytes of slot `i` out, once, or a few more.
    fn inline(&self, i: u32, len: usize, out: &mut [u8; INLINE]);
}

/// The end that writes.
pub struct Producer<S> {
    slots: S,
    next: u32,
}

impl<S: Slots> Producer<S> {
    /// The producer of a ring that nobody has written yet.
    pub fn new(slots: S) -> Self {
        Producer { slots, next: 0 }
    }

    /// Writes one slot. `inline` is at most 96 bytes.
    #[inline]
    pub fn push(&mut self, head: &Head, inline: &[u8]) {
        let i = self.next & self.slots.mask();
        self.slots.store(i, head, inline);
        self.next = self.next.wrapping_add(1);
        self.slots.announce(i, self.next);
    }

    /// Slots written so far.
    pub fn written(&self) -> u32 {
        self.next
    }
}

/// The end that reads. It writes nothing.
pub struct Consumer<S> {
    slots: S,
    next: u32,
}

impl<S: Slots> Consumer<S> {
    /// The consumer of a ring from which nothing was taken yet.
    pub fn new(slots: S) -> Self {
        Consumer { slots, next: 0 }
    }

    /// Whether a slot is there to take.
    #[inline]
    pub fn ready(&self) -> bool {
        self.slots.sequence(self.next & self.slots.mask()) == self.next.wrapping_add(1)
    }

    /// Takes the next slot: its words. Where its inline bytes are wanted, [`Consumer::inline`] of the number returned has them
    /// until the writer is given the slot's token back.
    #[inline]
    pub fn pop_head(&mut self) -> Option<(Head, u32)> {
        if !self.ready() {
            return None;
        }
        let i = self.next & self.slots.mask();
        self.next = self.next.wrapping_add(1);
        Some((self.slots.head(i), i))
    }

    /// The words of the next slot, if it is there, without taking it: they may be others when it is taken.
    #[inline]
    pub fn peek(&self) -> Option<Head> {
        self.ready().then(|| self.slots.head(self.next & self.slots.mask()))
    }

    /// Copies inline bytes of a slot just taken, at least `len` of them.
    #[inline]
    pub fn inline(&self, i: u32, len: usize, out: &mut [u8; INLINE]) {
        self.slots.inline(i, len, out);
    }

    /// Takes the next slot, all of it.
    #[inline]
    pub fn pop(&mut self) -> Option<Record> {
        let (head, i) = self.pop_head()?;
        let mut record = Record { head, inline: [0; INLINE] };
        self.slots.inline(i, Record::inline_len(&head), &mut record.inline);
        Some(record)
    }

    /// Slots taken so far.
    pub fn taken(&self) -> u32 {
        self.next
    }

    pub(crate) fn slots(&self) -> &S {
        &self.slots
    }
}
