//! What the peer lets us send: credit in units, and the one unit that may go without.

use machnet_wire::{Nanos, Seq};

use crate::Config;
use crate::spread::Spread;

/// The sender's side of credit. The newest packet of the peer counts; older ones that come late do not.
///
/// A flow without credit may have one unit in flight: it costs one packet to learn that a buffer is free, where an
/// update that was lost would cost a deadlock. A flow that has told the peer of nothing that waits sends that unit
/// at once. One that has will hear from the peer when it may go on, so it tries only after a pause, longer each time: else a
/// thousand waiting flows, a unit each, would overrun the peer's receive ring.
#[derive(Debug, Clone, Hash)]
pub(crate) struct Allowance {
    /// First unit that may not be sent.
    edge: Seq,
    /// How many units the promise was beyond those that have come, and how they are spread over the round trip.
    promised: u16,
    spread: Spread,
    /// When the peer last promised, or we last used a promise.
    used_at: Nanos,
    /// Our last packet said that units wait here, so the peer will tell us when they may go.
    announced: bool,
    /// Before this a unit without credit is not tried.
    try_at: Nanos,
    pause: Nanos,
}

/// What a packet says of our units, beside the credit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Nothing new.
    None,
    /// Units arrived.
    Acked,
    /// A unit was refused; [`Allowance::refused`] follows if it is one of ours.
    Refused,
}

impl Allowance {
    pub fn new(first: Seq) -> Self {
        Allowance {
            edge: first,
            promised: 0,
            spread: Spread::new(),
            used_at: Nanos::ZERO,
            announced: false,
            try_at: Nanos::ZERO,
            pause: Nanos::ZERO,
        }
    }

    /// A packet goes out, and says whether units wait.
    #[inline]
    pub fn announce(&mut self, waiting: bool) {
        self.announced = waiting;
    }

    /// The peer's newest packet: `credit` units from `ack` on, of which `come` have come already.
    #[inline]
    #[allow(clippy::too_many_arguments)]
    pub fn update(
        &mut self,
        now: Nanos,
        ack: Seq,
        credit: u16,
        come: u32,
        progress: Progress,
        rtt: Nanos,
        config: &Config,
    ) {
        self.edge = ack + u32::from(credit);
        self.promised = u32::from(credit).saturating_sub(come) as u16;
        self.used_at = now;
        match progress {
            // Even if the peer has credit: a unit may lie beyond it.
            Progress::Refused => {}
            _ if credit > 0 || !self.announced => {
                self.try_at = Nanos::ZERO;
                self.pause = Nanos::ZERO;
            }
            Progress::Acked => self.wait(now, rtt, config),
            Progress::None => {}
        }
    }

    /// A unit was refused.
    pub fn refused(&mut self, now: Nanos, rtt: Nanos, config: &Config) {
        self.announced = true;
        self.wait(now, rtt, config);
    }

    fn wait(&mut self, now: Nanos, rtt: Nanos, config: &Config) {
        self.pause = (self.pause * 2).max(rtt * 2).max(PAUSE).min(config.rto_max);
        self.try_at = now + self.pause;
    }

    /// Whether `unit` is within credit.
    #[inline]
    pub fn covers(&self, unit: Seq) -> bool {
        unit.before(self.edge)
    }

    /// Units within credit from `next` on.
    pub fn beyond(&self, next: Seq) -> u32 {
        if self.covers(next) { self.edge.since(next) as u32 } else { 0 }
    }

    /// A unit goes out. `round`: the least round trip.
    #[inline]
    pub fn used(&mut self, now: Nanos, round: Nanos) {
        self.used_at = now;
        self.spread.sent(now, self.promised.into(), round);
    }

    /// When the next unit may go of what was promised, so that over a long path it comes spread.
    #[inline]
    pub fn ready_at(&self, round: Nanos) -> Nanos {
        self.spread.ready_at(self.promised.into(), round)
    }

    /// What an idle flow was promised is void after a while: the receiver takes it back after `credit_lapse` and two
    /// round trips from the last unit that arrived. Here one round trip is counted, so that a unit sent in the last
    /// moment still arrives in time.
    #[inline]
    pub fn lapse(&mut self, now: Nanos, next: Seq, rtt: Nanos, config: &Config) {
        if now - self.used_at > config.credit_lapse + rtt.min(config.lapse_rtt()) && self.covers(next) {
            self.edge = next;
        }
    }

    /// Whether neither end has said or sent anything for so long that nothing of ours can be under way.
    #[inline]
    pub fn is_idle(&self, now: Nanos, rtt: Nanos, config: &Config) -> bool {
        now - self.used_at > config.credit_lapse + rtt
    }

    /// When a unit without credit may be tried.
    #[inline]
    pub fn try_at(&self) -> Nanos {
        self.try_at
    }
}

/// Least pause before a unit is tried without credit.
const PAUSE: Nanos = Nanos::micros(200);
