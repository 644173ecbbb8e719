//! The flow's alarms, few enough that the earliest is found by looking at all.

use machnet_wire::Nanos;

/// What can be awaited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Timer {
    /// An acknowledgement has waited long enough for data to ride on.
    Ack = 0,
    /// Reordering window, tail-loss probe or retransmission timeout, whichever is next.
    Loss = 1,
    /// Time to try a unit without credit.
    Probe = 2,
    /// An idle peer's credit lapses.
    Lapse = 3,
    /// The peer is asked whether it lives, or given up.
    Silence = 4,
    /// The handshake's packet goes again.
    Hello = 5,
    /// The present state ends: connecting, half-open, lingering, orphaned.
    Limit = 6,
    /// The next unit's turn, where units are paced.
    Pace = 7,
}

/// One deadline per kind; `Nanos::MAX` is none.
#[derive(Debug, Clone, Hash)]
pub(crate) struct Timers([Nanos; 8]);

impl Timers {
    pub fn new() -> Self {
        Timers([Nanos::MAX; 8])
    }

    #[inline]
    pub fn set(&mut self, timer: Timer, at: Nanos) {
        self.0[timer as usize] = at;
    }

    /// Sets it unless it is due earlier anyway.
    #[inline]
    pub fn set_by(&mut self, timer: Timer, at: Nanos) {
        let slot = &mut self.0[timer as usize];
        *slot = (*slot).min(at);
    }

    #[inline]
    pub fn clear(&mut self, timer: Timer) {
        self.0[timer as usize] = Nanos::MAX;
    }

    pub fn clear_all(&mut self) {
        *self = Timers::new();
    }

    #[inline]
    pub fn get(&self, timer: Timer) -> Nanos {
        self.0[timer as usize]
    }

    #[inline]
    pub fn is_set(&self, timer: Timer) -> bool {
        self.0[timer as usize] != Nanos::MAX
    }

    /// Whether it is due; it is cleared then.
    #[inline]
    pub fn take_due(&mut self, timer: Timer, now: Nanos) -> bool {
        let due = self.0[timer as usize] <= now;
        if due {
            self.clear(timer);
        }
        due
    }

    /// The earliest.
    #[inline]
    pub fn next(&self) -> Option<Nanos> {
        let mut least = Nanos::MAX;
        for at in self.0 {
            least = least.min(at);
        }
        (least != Nanos::MAX).then_some(least)
    }
}
