//! The packets of the handshake that are still to be sent, and when they go once more.

use machnet_wire::{Nanos, Seq};

use crate::Config;
use crate::timers::{Timer, Timers};

/// What this end has still to say to begin the connection.
#[derive(Debug, Clone, Hash)]
pub(crate) struct Hellos {
    syns_due: u16,
    syn_acks_due: u16,
    /// The peer's cookie is to be brought back to it.
    cookie_due: bool,
    /// The peer has not shown yet that it knows of the connection.
    unconfirmed: bool,
    /// The peer has called once more.
    asked_again: bool,
    /// How long until the packet goes once more.
    pause: Nanos,
}

impl Hellos {
    pub fn new(config: &Config) -> Self {
        Hellos {
            syns_due: 0,
            syn_acks_due: 0,
            cookie_due: false,
            unconfirmed: false,
            asked_again: false,
            pause: config.syn_retry,
        }
    }

    /// So many copies of the SYN are to be sent, or as many as still wait, if those are more: a next hop may be found late.
    pub fn call(&mut self, copies: u16) {
        self.syns_due = self.syns_due.max(copies);
    }

    /// The peer's cookie is to be brought back to it, in place of SYNs.
    pub fn bring_cookie(&mut self) {
        self.syns_due = 0;
        self.cookie_due = true;
    }

    /// Whether that is so. It goes out now.
    pub fn take_cookie(&mut self) -> bool {
        core::mem::take(&mut self.cookie_due)
    }

    /// How long it may take until the peer has answered the next packet.
    pub fn wait(&mut self, pause: Nanos) {
        self.pause = pause;
    }

    /// A SYN came, and buys so many SYN-ACKs.
    pub fn answer(&mut self, copies: u16) {
        self.syn_acks_due = self.syn_acks_due.saturating_add(copies);
    }

    /// The SYN came again, after a pause.
    pub fn on_asked_again(&mut self) {
        self.asked_again = true;
    }

    /// Whether it did since the last call.
    pub fn take_asked_again(&mut self) -> bool {
        core::mem::take(&mut self.asked_again)
    }

    /// SYN-ACKs to be sent.
    pub fn syn_acks_due(&self) -> u16 {
        self.syn_acks_due
    }

    /// The peer's SYN-ACK came: it is to be confirmed, until the peer shows that it knows. `pause`: how long its answer may take.
    pub fn confirm(&mut self, pause: Nanos) {
        self.unconfirmed = true;
        self.wait(pause);
    }

    /// The peer has said something: whether that is the first to show that it knows of the connection.
    #[inline]
    pub fn on_packet(&mut self, timers: &mut Timers) -> bool {
        let first = self.unconfirmed;
        if first {
            self.unconfirmed = false;
            timers.clear(Timer::Hello);
        }
        first
    }

    /// Whether the peer has not shown yet that it knows of the connection.
    #[inline]
    pub fn unconfirmed(&self) -> bool {
        self.unconfirmed
    }

    /// Whether a SYN is to be sent. It goes out now.
    pub fn take_syn(&mut self) -> bool {
        take_one(&mut self.syns_due)
    }

    /// Whether a SYN-ACK is to be sent. It goes out now.
    pub fn take_syn_ack(&mut self) -> bool {
        take_one(&mut self.syn_acks_due)
    }

    /// The connection is open, or over: neither SYN nor SYN-ACK goes any more.
    pub fn end(&mut self) {
        self.cookie_due = false;
        self.syns_due = 0;
        self.syn_acks_due = 0;
    }

    /// The next pause is longer, at most `rto_max` (or as long as the first): whoever waits for a place in a listener's backlog takes it soon after it is
    /// free.
    pub fn back_off(&mut self, config: &Config) {
        self.pause = (self.pause * 2).min(config.rto_max.max(config.syn_retry));
    }

    /// The packet goes once more after the pause, or up to a quarter sooner: those that were turned away together must not come
    /// back together. `tag` and `tx` are as good as random numbers for that.
    pub fn watch(&self, now: Nanos, tag: u32, tx: Seq, timers: &mut Timers) {
        let spread = (tag ^ tx.0).wrapping_mul(0x9e37_79b1) >> 24;
        let sooner = Nanos(self.pause.0 / 1024 * u64::from(spread));
        timers.set(Timer::Hello, now + self.pause - sooner);
    }
}

/// Takes one of what is due; false: nothing is.
pub(crate) fn take_one(due: &mut u16) -> bool {
    let one = *due > 0;
    *due -= u16::from(one);
    one
}
