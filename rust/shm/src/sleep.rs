//! The sleep protocol. A sleeper stores its word, fences, and looks at the rings; a producer stores its slot, fences, and
//! looks at the word. With a fence on both sides at least one of the two sees the other's store, so that nobody sleeps on
//! a ring that holds something. Fences and not SeqCst accesses, because those are what loom checks (tests/loom_ring.rs).

use crate::sync::{Ordering, fence};

/// The sleeper waits for deliveries and replies (the application), for submissions and requests (the engine).
pub const EVENTS: u32 = 1;
/// The sleeper waits for tokens: completions (the application), returns (the engine).
pub const TOKENS: u32 = 2;
/// The sleeper waits for room in the control ring that it writes: of requests (the application), of replies (the engine).
pub const ROOM: u32 = 16;

/// A sleep word: in shared memory, or loom's. Every access is relaxed; the order comes of the fences here.
pub trait Word {
    /// Loads it.
    fn load(&self) -> u32;
    /// Stores it, and says what was there.
    fn swap(&self, value: u32) -> u32;
}

impl Word for core::sync::atomic::AtomicU32 {
    #[inline]
    fn load(&self) -> u32 {
        self.load(core::sync::atomic::Ordering::Relaxed)
    }

    #[inline]
    fn swap(&self, value: u32) -> u32 {
        self.swap(value, core::sync::atomic::Ordering::Relaxed)
    }
}

/// The sleeper, before it sleeps: true when the word says `wants` and `pending` found nothing, so that the next thing
/// wanted will ring. False: there is something, and the word is taken back.
///
/// It swaps though it only stores: a store that is blind to the producer's swaps has, in loom's eyes, no place among
/// them, and loom finds lost bells that no machine loses. Nobody who is about to sleep minds the price.
#[inline]
pub fn arm(own: &impl Word, wants: u32, pending: impl FnOnce() -> bool) -> bool {
    own.swap(wants);
    fence(Ordering::SeqCst);
    if pending() {
        own.swap(0);
        return false;
    }
    true
}

/// A producer, after its slots: whether it has to ring. Of several producers one rings for each `arm`.
#[inline]
pub fn must_ring(peer: &impl Word, what: u32) -> bool {
    fence(Ordering::SeqCst);
    if peer.load() & what == 0 {
        return false;
    }
    // Between load and swap the sleeper may have been woken by another and have armed again, for something else. The swap took
    // that away, so whatever was there is answered by the bell.
    peer.swap(0) != 0
}
