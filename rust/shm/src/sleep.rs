//! The sleep protocol. A sleeper stores its word, fences, and looks at the rings; a producer stores its slot, fences, and
//! looks at the word. With a fence on both sides at least one of the two sees the other's store, so that nobody sleeps on
//! a ring that holds something. Fences and not SeqCst accesses, because those are what loom checks (tests/loom_ring.rs).

use crate::sync::{Ordering, fence};

/// The sleeper waits for deliveries and replies (the application), for submissions and requests (the engine).
pub const EVENTS: u32 = 1;
/// The sleeper waits for tokens: completions (the application), returns (the engine).
pub const TOKENS: u32 = 2;
/// The sleeper waits for room in the control ring that it writes: of requests (the application), of replies (the engine).
pub const ROOM: u32 = 4;
/// [`TOKENS`] of the application's sending half, or the end of a connection, at a doorbell of its own: its thread may be another than the
/// one that receives, and of two threads that sleep on one bell only the one that empties it is sure to wake.
pub const SENDER_TOKENS: u32 = 8;
/// [`ROOM`] of the application's sending half.
pub const SENDER_ROOM: u32 = 16;
/// All that is rung for at the bell of the engine, or of the application's receiving half.
pub const RECEIVER: u32 = EVENTS | TOKENS | ROOM;
/// All that is rung for at the bell of the application's sending half.
pub const SENDER: u32 = SENDER_TOKENS | SENDER_ROOM;

/// A sleep word: in shared memory, or loom's. Every access is relaxed; the order comes of the fences here.
pub trait Word {
    /// Loads it.
    fn load(&self) -> u32;
    /// Stores it, and says what was there.
    fn swap(&self, value: u32) -> u32;
    /// Sets bits.
    fn set(&self, bits: u32);
    /// Clears bits.
    fn clear(&self, bits: u32);
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

    #[inline]
    fn set(&self, bits: u32) {
        self.fetch_or(bits, core::sync::atomic::Ordering::Relaxed);
    }

    #[inline]
    fn clear(&self, bits: u32) {
        self.fetch_and(!bits, core::sync::atomic::Ordering::Relaxed);
    }
}

/// The sleeper, before it sleeps: true when the word says `wants` and `pending` found nothing, so that the next thing
/// wanted will ring. False: there is something, and the word is taken back. The bits of another sleeper stay.
#[inline]
pub fn arm(own: &impl Word, wants: u32, pending: impl FnOnce() -> bool) -> bool {
    own.set(wants);
    fence(Ordering::SeqCst);
    if pending() {
        own.clear(wants);
        return false;
    }
    true
}

/// A producer, after its slots: whom it has to ring, as bits; 0: nobody. Of several producers one rings for each `arm`.
#[inline]
pub fn must_ring(peer: &impl Word, what: u32) -> u32 {
    fence(Ordering::SeqCst);
    if peer.load() & what == 0 {
        return 0;
    }
    // It takes all bits, also those of a sleeper who waits for something else, or who has armed anew since the load: whatever was there
    // is answered by a bell.
    peer.swap(0)
}
