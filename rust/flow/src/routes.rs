//! What the engine has asked to be sent so that both ends learn which UDP ports lead to which receive queue, and what the flow sends along
//! for that. Which ports a packet has is the engine's alone; the flow only says when it goes.

use machnet_wire::{Nanos, PathEntry, Seq};

use crate::hellos::take_one;

/// Probes, reports, and the route word of packets that the peer has not confirmed.
#[derive(Debug, Clone, Default, Hash)]
pub(crate) struct Routes {
    probes_due: u16,
    report_due: bool,
    hit: Option<PathEntry>,
    repeats: Repeats,
}

/// The same question, again and again.
#[derive(Debug, Clone, Default, Hash)]
struct Repeats {
    count: u8,
    /// The last one, and what we expected next then.
    at: Nanos,
    next: Seq,
}

/// A packet that is due for the sake of routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Errand {
    /// PATHS.
    Report,
    /// A PING that asks which queue it reached.
    Probe,
}

impl Routes {
    /// So many more probes are to be sent.
    pub fn probe(&mut self, probes: u16) {
        self.probes_due = self.probes_due.saturating_add(probes);
    }

    /// The engine has something to report.
    pub fn report(&mut self) {
        self.report_due = true;
    }

    /// Until [`Routes::on_confirmed`] acknowledgements and data carry this.
    pub fn set_hit(&mut self, hit: PathEntry) {
        self.hit = Some(hit);
    }

    /// The peer knows of the connection, and has read what came along.
    pub fn on_confirmed(&mut self) {
        self.hit = None;
    }

    /// What acknowledgements and data carry.
    #[inline]
    pub fn hit(&self) -> Option<PathEntry> {
        self.hit
    }

    /// The peer asks, for what it has asked before or to see whether we live, while we expect `next`. Copies that the network made come
    /// together, and a keep-alive comes alone: neither says that our answers are lost.
    pub fn on_repeat(&mut self, now: Nanos, next: Seq) {
        let Repeats { count, at, next: before } = self.repeats;
        let pause = now - at;
        if count > 0 && next == before && pause < COPIES {
            return;
        }
        let count = if next == before && pause < APART { count.saturating_add(1) } else { 1 };
        self.repeats = Repeats { count, at: now, next };
    }

    /// Whether it asked `enough` times; it is counted anew then.
    pub fn take_repeats(&mut self, enough: u8) -> bool {
        let taken = self.repeats.count >= enough;
        if taken {
            self.repeats.count = 0;
        }
        taken
    }

    /// Whether anything is due.
    #[inline]
    pub fn is_due(&self) -> bool {
        self.report_due || self.probes_due > 0
    }

    /// What is due next. It goes out now.
    pub fn take(&mut self) -> Option<Errand> {
        if core::mem::take(&mut self.report_due) {
            return Some(Errand::Report);
        }
        take_one(&mut self.probes_due).then_some(Errand::Probe)
    }

    /// The flow is over.
    pub fn end(&mut self) {
        *self = Routes::default();
    }
}

/// Questions closer than that are copies of one.
const COPIES: Nanos = Nanos::micros(150);
/// Questions further apart than that have nothing to do with each other: a keep-alive comes again after 1 s.
const APART: Nanos = Nanos::millis(500);
