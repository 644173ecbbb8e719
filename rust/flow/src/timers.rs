//! The flow's alarms, few enough that the earliest is found by looking at all. The acknowledgement's own is in `acks`.

use machnet_wire::Nanos;

/// What can be awaited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Timer {
    /// Reordering window, tail-loss probe or retransmission timeout, whichever is next.
    Loss = 0,
    /// Time to try a unit without credit.
    Probe = 1,
    /// An idle peer's credit lapses.
    Lapse = 2,
    /// The peer is asked whether it lives, or given up.
    Silence = 3,
    /// The handshake's packet is repeated.
    Hello = 4,
    /// The present state ends: connecting, half-open, lingering, orphaned.
    Limit = 5,
    /// The next unit's turn, where units are paced.
    Pace = 6,
}

/// One deadline per kind; `Nanos::MAX` is none.
#[derive(Debug, Clone, Hash)]
pub(crate) struct Timers([Nanos; 7]);

impl Timers {
    pub fn new() -> Self {
        Timers([Nanos::MAX; 7])
    }

    #[inline]
    pub fn set(&mut self, timer: Timer, at: Nanos) {
        self.0[timer as usize] = at;
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

    /// The earliest; `Nanos::MAX` if there is none.
    #[inline]
    pub fn next(&self) -> Nanos {
        let mut least = Nanos::MAX;
        for at in self.0 {
            least = least.min(at);
        }
        least
    }
}
