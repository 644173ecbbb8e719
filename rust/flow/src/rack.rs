//! Loss detection by time: a unit is lost when one sent later has arrived and it itself should have (RFC 8985). The
//! transmission numbers make "sent later" exact, also for repetitions.

use alloc::boxed::Box;

use machnet_wire::{Nanos, Seq};

use crate::rtt::Rtt;

#[derive(Debug, Clone, Hash)]
pub(crate) struct Rack {
    /// Latest transmission that is known to have arrived.
    newest: Seq,
    /// Highest unit that has arrived.
    highest: Seq,
    /// Round trip of the latest arrival.
    rtt: Nanos,
    /// Units have been seen to arrive out of order, and not for being repeated.
    reordering: bool,
    /// There from the first needless repetition on.
    window: Option<Box<Window>>,
}

/// The window for reordering. Needless repetitions widen it; RFC 8985 section 6.2.
#[derive(Debug, Clone, Hash)]
struct Window {
    steps: u32,
    widen_next_at: Nanos,
    narrow_at: Nanos,
}

impl Rack {
    pub fn new(first: Seq) -> Self {
        let before = Seq(first.0.wrapping_sub(1));
        Rack { newest: before, highest: before, rtt: Nanos::ZERO, reordering: false, window: None }
    }

    /// The latest transmission known to have arrived.
    #[inline]
    pub fn newest(&self) -> Seq {
        self.newest
    }

    /// A unit arrived. `trustworthy`: it is clear that it was transmission `tx` of it.
    #[inline]
    #[allow(clippy::too_many_arguments)]
    pub fn arrived(
        &mut self,
        now: Nanos,
        unit: Seq,
        tx: Seq,
        sent: Nanos,
        retransmitted: bool,
        needless: bool,
        trustworthy: bool,
    ) {
        if self.highest.before(unit) {
            self.highest = unit;
        } else if !retransmitted {
            self.reordering = true;
        }
        if needless || self.window.is_some() {
            self.adapt(now, needless);
        }
        if trustworthy && self.newest.before(tx) {
            self.newest = tx;
            self.rtt = now - sent;
        }
    }

    /// Widens the window for reordering, or narrows it.
    #[cold]
    fn adapt(&mut self, now: Nanos, needless: bool) {
        let narrow = || Box::new(Window { steps: 1, widen_next_at: Nanos::ZERO, narrow_at: Nanos::ZERO });
        let window = self.window.get_or_insert_with(narrow);
        if needless && now >= window.widen_next_at {
            self.reordering = true;
            window.steps = (window.steps + 1).min(STEPS_MAX);
            window.widen_next_at = now + self.rtt;
            window.narrow_at = now + self.rtt * NARROW_AFTER;
        } else if window.steps > 1 && now >= window.narrow_at {
            window.steps = 1;
        }
    }

    /// How long after its transmission a unit is lost, once a later one has arrived.
    pub fn loss_delay(&self, rtt: &Rtt, holes: u32) -> Nanos {
        // Where nothing was ever reordered, three later arrivals are proof enough (RFC 8985 section 6.2 step 4).
        if !self.reordering && holes >= 3 {
            return self.rtt;
        }
        let step = (rtt.least() / 4).max(STEP_MIN);
        self.rtt
            + (step * u64::from(self.window.as_ref().map_or(1, |window| window.steps)))
                .min(rtt.or_zero().max(STEP_MIN))
    }
}

const STEP_MIN: Nanos = Nanos::micros(10);
const STEPS_MAX: u32 = 8;
/// Round trips without a needless repetition after which the window for reordering narrows.
const NARROW_AFTER: u64 = 256;
