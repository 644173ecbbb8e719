//! Numbers of transmissions. Each packet has one of its own, repetitions too, so that an echo says which packet it answers, and
//! the newest packet of the peer is known from those that come late.

use machnet_wire::header::delay_of;
use machnet_wire::{Flags, Header, Nanos, Seq};

/// Where the numbers of both directions are.
#[derive(Debug, Clone, Hash)]
pub(crate) struct Numbering {
    /// Number of the next transmission.
    next: Seq,
    /// Newest transmission of the peer's that arrived.
    newest: Seq,
    /// The latest of our transmissions whose round trip was measured, or is not to be because a stall of ours falsifies it.
    measured: Seq,
}

impl Numbering {
    pub fn new(first: Seq) -> Self {
        Numbering { next: first, newest: Seq(0), measured: Seq(first.0.wrapping_sub(1)) }
    }

    /// Number of the next transmission.
    #[inline]
    pub fn next(&self) -> Seq {
        self.next
    }

    /// A packet goes out: its number.
    #[inline]
    pub fn take(&mut self) -> Seq {
        let tx = self.next;
        self.next = tx + 1;
        tx
    }

    /// Whether transmission `tx` has gone out.
    #[inline]
    pub fn was_sent(&self, tx: Seq) -> bool {
        tx.before(self.next)
    }

    /// The peer's first packet came.
    pub fn begin(&mut self, tx: Seq) {
        self.newest = tx;
    }

    /// The peer's transmission `tx` came: whether it is newer than all before it.
    #[inline]
    pub fn is_newest(&mut self, tx: Seq) -> bool {
        let newer = self.newest.before(tx);
        if newer {
            self.newest = tx;
        }
        newer
    }

    /// Transmissions since the latest that was measured.
    #[inline]
    pub fn unmeasured(&self) -> u32 {
        (self.next.since(self.measured) - 1).max(0) as u32
    }

    /// What is under way is not to be measured.
    pub fn skip_measuring(&mut self) {
        self.measured = Seq(self.next.0.wrapping_sub(1));
    }

    /// The round trip that an echo ends, the peer's delay taken out (RFC 7323 with a number that makes it unambiguous). Once for
    /// each transmission.
    #[inline]
    pub fn round_trip(&mut self, now: Nanos, header: &Header) -> Option<Nanos> {
        let echoed = header.ack_tx;
        if !header.flags.has(Flags::ECHO) || !self.measured.before(echoed) || !self.was_sent(echoed) {
            return None;
        }
        self.measured = echoed;
        let elapsed = (now.0 as u32).wrapping_sub(header.ts_echo);
        let held = delay_of(header.ack_delay)?;
        // A peer that claims to have waited longer than all of it, or an echo from another age.
        if elapsed > i32::MAX as u32 || held.0 > u64::from(elapsed) {
            return None;
        }
        Some(Nanos(u64::from(elapsed)) - held)
    }
}
