//! The rings' slots and the connections' words in the shared memory. Each is at a place of the channel's own map, which lies within the
//! memory: [`ChannelRef::new`] has checked that. Every access is by an index that cannot leave the place.

use crate::channel::ChannelRef;
use crate::copy;
use crate::layout::{Map, Place};
use crate::ring::Slots;
use crate::slot::{Head, INLINE, SLOT};
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// A 32-bit word for each connection, in shared memory.
pub struct SharedWords {
    base: *mut u8,
    count: u32,
    /// Keeps the mapping alive.
    _owner: ChannelRef,
}

// SAFETY: the memory is reached by atomics only, and `_owner` keeps it mapped.
unsafe impl Send for SharedWords {}

impl SharedWords {
    /// Why each connection is over, for its sender.
    pub(crate) fn ends(owner: &ChannelRef) -> SharedWords {
        let place = owner.map().ends;
        SharedWords { base: owner.region().at(place.at()), count: place.count(), _owner: owner.clone() }
    }

    /// The word of connection `i`, if there is such a connection.
    #[inline]
    pub fn get(&self, i: u32) -> Option<&AtomicU32> {
        // SAFETY: `i < count`, and the place of `count` aligned words is mapped as long as there is an owner; only ever accessed
        // atomically; `_owner` outlives the borrow.
        (i < self.count)
            .then(|| unsafe { AtomicU32::from_ptr(self.base.wrapping_add(i as usize * 4).cast()) })
    }
}

/// The slots of one ring in shared memory.
pub struct SharedSlots {
    base: *mut u8,
    mask: u32,
    /// Keeps the mapping alive.
    _owner: ChannelRef,
}

// SAFETY: the memory is reached by atomics only, and `_owner` keeps it mapped.
unsafe impl Send for SharedSlots {}

impl SharedSlots {
    /// The ring that `ring` picks.
    pub(crate) fn new(owner: &ChannelRef, ring: impl FnOnce(&Map) -> Place) -> SharedSlots {
        let place = ring(owner.map());
        SharedSlots { base: owner.region().at(place.at()), mask: place.count() - 1, _owner: owner.clone() }
    }

    pub(crate) fn base(&self) -> *const u8 {
        self.base
    }

    #[inline]
    fn word32(&self, i: u32, word: usize) -> &AtomicU32 {
        // SAFETY: `i & mask` is below the number of slots, all of which are mapped as long as there is an owner, and `word` is one of the
        // slot's 32 words; aligned, since the first slot is and each has 128 bytes; accessed atomically only.
        unsafe { AtomicU32::from_ptr(self.base.add((i & self.mask) as usize * SLOT + word * 4).cast()) }
    }

    #[inline]
    fn inline_at(&self, i: u32) -> *mut u8 {
        // SAFETY: `i & mask` is below the number of slots, all of which are mapped as long as there is an owner.
        unsafe { self.base.add((i & self.mask) as usize * SLOT + BYTES) }
    }

    #[inline]
    fn word64(&self, i: u32, word: usize) -> &AtomicU64 {
        // SAFETY: as `word32`; `word` is one of the slot's 16 double words.
        unsafe { AtomicU64::from_ptr(self.base.add((i & self.mask) as usize * SLOT + word * 8).cast()) }
    }
}

/// Where a slot's inline bytes begin.
const BYTES: usize = SLOT - INLINE;

impl Slots for SharedSlots {
    #[inline]
    fn mask(&self) -> u32 {
        self.mask
    }

    #[inline]
    fn sequence(&self, i: u32) -> u32 {
        self.word32(i, 0).load(Ordering::Acquire)
    }

    #[inline]
    fn announce(&self, i: u32, sequence: u32) {
        self.word32(i, 0).store(sequence, Ordering::Release);
    }

    #[inline]
    fn store(&self, i: u32, head: &Head, inline: &[u8]) {
        let first = u32::from(head.kind) | u32::from(head.flags) << 8 | u32::from(head.len) << 16;
        self.word32(i, 1).store(first, Ordering::Relaxed);
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        self.word64(i, 1).store(pair(head.flow, head.generation), Ordering::Relaxed);
        self.word64(i, 2).store(pair(head.a, head.b), Ordering::Relaxed);
        self.word64(i, 3).store(pair(head.c, head.d), Ordering::Relaxed);
        let len = inline.len().min(INLINE);
        // SAFETY: the slot has INLINE bytes from `inline_at` on.
        unsafe { copy::to_shared(self.inline_at(i), &inline[..len]) };
    }

    #[inline]
    fn head(&self, i: u32) -> Head {
        let first = self.word32(i, 1).load(Ordering::Relaxed);
        let flow = self.word64(i, 1).load(Ordering::Relaxed);
        let ab = self.word64(i, 2).load(Ordering::Relaxed);
        let cd = self.word64(i, 3).load(Ordering::Relaxed);
        Head {
            kind: first as u8,
            flags: (first >> 8) as u8,
            len: (first >> 16) as u16,
            flow: flow as u32,
            generation: (flow >> 32) as u32,
            a: ab as u32,
            b: (ab >> 32) as u32,
            c: cd as u32,
            d: (cd >> 32) as u32,
        }
    }

    #[inline]
    fn inline(&self, i: u32, len: usize, out: &mut [u8; INLINE]) {
        // Sixteen at a time: a later copy loads in the same pieces, which the processor forwards from these stores.
        let len = len.next_multiple_of(16).min(INLINE);
        // SAFETY: the slot has INLINE bytes from `inline_at` on.
        unsafe { copy::from_shared(self.inline_at(i), &mut out[..len]) };
    }
}
