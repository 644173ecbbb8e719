//! The rings' slots and the connections' words where they lie in the shared memory: the places are checked once, when they are
//! made; after that each access is by an index that cannot leave them.

use crate::channel::ChannelRef;
use crate::copy;
use crate::memory::SystemError;
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
    /// `count` words from byte `at` on; an error where they do not lie within the memory, each aligned.
    pub(crate) fn new(owner: &ChannelRef, at: usize, count: u32) -> Result<SharedWords, SystemError> {
        let base = owner.region().part(at, count as usize * size_of::<u32>(), align_of::<u32>())?;
        Ok(SharedWords { base, count, _owner: owner.clone() })
    }

    /// The word of connection `i`, if there is such a connection.
    #[inline]
    pub fn get(&self, i: u32) -> Option<&AtomicU32> {
        // SAFETY: `i < count`, and `new` has checked that `count` aligned words are mapped there; only ever accessed atomically;
        // `_owner` outlives the borrow.
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
    /// `slots` slots, a power of two, from byte `at` on; an error where they do not lie within the memory, each aligned.
    pub(crate) fn new(owner: &ChannelRef, at: usize, slots: u32) -> Result<SharedSlots, SystemError> {
        let mask = slots.checked_sub(1).filter(|mask| slots & mask == 0).ok_or(NO_RING)?;
        let base = owner.region().part(at, slots as usize * SLOT, align_of::<u64>())?;
        Ok(SharedSlots { base, mask, _owner: owner.clone() })
    }

    pub(crate) fn base(&self) -> *const u8 {
        self.base
    }

    #[inline]
    fn word32(&self, i: u32, word: usize) -> &AtomicU32 {
        // SAFETY: `i & mask` is below the number of slots, which `new` has checked to be mapped, and `word` is one of the slot's 32
        // words; aligned, since the first slot is and each has 128 bytes; accessed atomically only.
        unsafe { AtomicU32::from_ptr(self.base.add((i & self.mask) as usize * SLOT + word * 4).cast()) }
    }

    #[inline]
    fn inline_at(&self, i: u32) -> *mut u8 {
        // SAFETY: `i & mask` is below the number of slots, which `new` has checked to be mapped.
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

const NO_RING: SystemError =
    SystemError { what: "a ring whose number of slots is no power of two", errno: libc::EINVAL };

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
        // Sixteen at a time, so that whoever moves the bytes on meets stores that forward.
        let len = len.next_multiple_of(16).min(INLINE);
        // SAFETY: the slot has INLINE bytes from `inline_at` on.
        unsafe { copy::from_shared(self.inline_at(i), &mut out[..len]) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::{Parts, Side};
    use crate::layout::Geometry;
    use crate::memory::Region;

    #[test]
    fn no_place_beyond_the_memory_or_unaligned_is_given_out() {
        let geometry = Geometry { units: 16, flows: 4, unit_size: 100 };
        let parts = Parts::new(geometry).expect("memory");
        let region = Region::map(&parts.memfd, geometry.len()).expect("a mapping");
        let (bell, peer_bell, sender_bell) = (parts.engine_bell.0, parts.app_bell.1, parts.sender_bell.1);
        let channel =
            ChannelRef::new(Side::Engine, region, geometry, bell, peer_bell, sender_bell).expect("a page");
        let (len, slots) = (geometry.len(), 4 * SLOT);
        for (at, words) in [(len, 1), (len - 12, 4), (usize::MAX, 1), (0, u32::MAX), (2, 1)] {
            assert!(SharedWords::new(&channel, at, words).is_err(), "{words} words from {at}");
        }
        for (at, count) in
            [(len, 1), (len - slots + 8, 4), (usize::MAX, 4), (0, 1 << 31), (4, 4), (0, 0), (0, 3)]
        {
            assert!(SharedSlots::new(&channel, at, count).is_err(), "{count} slots from {at}");
        }
        assert!(SharedWords::new(&channel, len - 16, 4).is_ok());
        assert!(SharedSlots::new(&channel, len - slots, 4).is_ok());
    }
}
