//! What the two directions of a channel and those who wait tell each other, a word each.
use core::sync::atomic::AtomicU32;

/// Each word is written by one direction and loaded by anybody. The first three are those of `machnet_wait_view_t`.
#[derive(Default)]
pub struct Signals {
    /// Events that machnet_poll has to hand out.
    pub events: AtomicU32,
    /// Events that machnet_poll_tx has to hand out.
    pub events_tx: AtomicU32,
    /// Not 0 once the sidecar is gone, or has written what no sidecar writes.
    pub down: AtomicU32,
    /// Not 0 while a send waits for tokens.
    pub blocked: AtomicU32,
    /// Which requests wait for room in their ring: [`REFUSED`], [`KEPT`].
    pub room: AtomicU32,
}

/// A request that asks for something got MACHNET_EAGAIN, and its caller has not been told since that there is room.
pub(crate) const REFUSED: u32 = 1;
/// Requests that end something are kept until there is room.
pub(crate) const KEPT: u32 = 2;
