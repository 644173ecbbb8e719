//! Where those who wait look whether a ring has something.

use crate::channel::ChannelRef;
use crate::ring::{Consumer, Slots};
use crate::slot::SLOT;
use crate::slots::SharedSlots;
use crate::sync::Ordering;

/// Where a waiter may look without a call: something waits when the 32-bit word at `slots + (*head & mask) * stride`
/// equals `*head + 1`. The addresses live as long as the half that gave them.
#[derive(Clone, Copy, Debug)]
pub struct RingView {
    /// First slot.
    pub slots: *const u8,
    /// Number of the next slot to be taken.
    pub head: *const u32,
    /// Slots - 1.
    pub mask: u32,
    /// Bytes from slot to slot.
    pub stride: u32,
}

/// The rings that a receiver waits for.
#[derive(Clone, Copy, Debug)]
pub struct WaitView {
    /// Deliveries.
    pub deliver: RingView,
    /// Replies.
    pub replies: RingView,
}

/// Whether something waits in the other half's ring.
pub(super) fn waits(channel: &ChannelRef, ring: &SharedSlots, head: usize) -> bool {
    let next = channel.head(head).load(Ordering::Relaxed);
    ring.sequence(next) == next.wrapping_add(1)
}

/// The view of a ring for those who wait without a call.
pub(super) fn view(channel: &ChannelRef, ring: &Consumer<SharedSlots>, head: usize) -> RingView {
    let slots = ring.slots();
    RingView {
        slots: slots.base(),
        head: channel.head(head).as_ptr(),
        mask: slots.mask(),
        stride: SLOT as u32,
    }
}
