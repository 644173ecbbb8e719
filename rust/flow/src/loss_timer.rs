//! How long what is in flight may stay unanswered: the tail-loss probe's timeout and the retransmission timeout.

use machnet_wire::{Nanos, Seq};

use crate::Config;
use crate::rtt::Rtt;
use crate::sender::Tail;

/// From when the timeouts count, and how often they have passed.
#[derive(Debug, Clone, Hash)]
pub(crate) struct LossTimer {
    /// The last transmission or progress.
    base: Nanos,
    /// Retransmission timeouts since the last progress.
    backoff: u16,
    /// Stalls that the present timeout was put off for.
    excused: u16,
    /// Looks at the peer's silence since the first unit under way is the same, and the end of its number.
    stuck: u16,
    stuck_at: u16,
}

impl LossTimer {
    pub fn new(now: Nanos) -> Self {
        LossTimer { base: now, backoff: 0, excused: 0, stuck: 0, stuck_at: 0 }
    }

    /// The timeouts count from now.
    #[inline]
    pub fn restart(&mut self, now: Nanos) {
        self.base = now;
    }

    /// This end did not run until now: the answer may be in the ring, so the timeout counts anew. But not again and again: an end that is late
    /// more often than the timeout is long would never send again what was lost.
    pub fn stalled(&mut self, now: Nanos) {
        if self.excused < EXCUSED_MAX {
            self.excused += 1;
            self.base = now;
        }
    }

    /// Units were acknowledged.
    #[inline]
    pub fn progress(&mut self, now: Nanos) {
        self.base = now;
        (self.backoff, self.excused) = (0, 0);
    }

    /// A timeout passed, and the next counts from now.
    pub fn expired(&mut self, now: Nanos) {
        self.base = now;
        self.excused = 0;
    }

    /// Retransmission timeouts since the last progress.
    pub fn in_row(&self) -> u32 {
        self.backoff.into()
    }

    /// It was a retransmission timeout.
    pub fn back_off(&mut self) {
        self.backoff = self.backoff.saturating_add(1);
    }

    /// The peer's silence was looked at while `first` was the first unit under way (`None`: there is none): how often in a row it was that one.
    pub fn looked(&mut self, first: Option<Seq>) -> u16 {
        match first {
            Some(first) if first.0 as u16 == self.stuck_at => self.stuck = self.stuck.saturating_add(1),
            first => (self.stuck, self.stuck_at) = (0, first.map_or(0, |first| first.0 as u16)),
        }
        self.stuck
    }

    /// The peer has no room for a unit that it would take otherwise: it gets through.
    pub fn refused(&mut self) {
        self.stuck = 0;
    }

    /// Whether the tail is probed next, before all of it counts as lost.
    #[inline]
    pub fn probes_next(&self, tail: Tail, rtt: &Rtt) -> bool {
        tail == Tail::Quiet && self.backoff == 0 && rtt.smoothed().is_some()
    }

    /// When the tail is probed, or everything in flight is taken for lost.
    #[inline]
    pub fn expires_at(&self, tail: Tail, rtt: &Rtt, config: &Config) -> Nanos {
        let wait = if self.probes_next(tail, rtt) {
            rtt.probe_timeout(config).min(rtt.timeout(config))
        } else {
            self.timeout(rtt, config)
        };
        self.base + wait
    }

    /// The retransmission timeout, back-off included.
    pub fn timeout(&self, rtt: &Rtt, config: &Config) -> Nanos {
        (rtt.timeout(config) * (1 << self.backoff.min(BACKOFF_MAX))).min(config.rto_max)
    }
}

const BACKOFF_MAX: u16 = 16;
/// A timeout is put off for so many stalls: it passes after five times its length and the stalls at the latest.
const EXCUSED_MAX: u16 = 4;
