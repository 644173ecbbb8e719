//! What the engine has asked to be sent so that both ends learn which UDP ports lead to which receive queue, and what the flow sends along
//! for that. Which ports a packet has is the engine's alone; the flow only says when it goes.

use alloc::boxed::Box;

use machnet_wire::{Nanos, PathEntry, Seq};

use crate::hellos::take_one;

/// Probes, reports, and the path word of packets that the peer has not confirmed. Few connections ever need it, so it has no memory before.
#[derive(Debug, Clone, Default, Hash)]
pub(crate) struct Pairs(Option<Box<State>>);

#[derive(Debug, Clone, Default, Hash)]
struct State {
    probes_due: u16,
    feelers_due: u16,
    report_due: bool,
    hit: Option<PathEntry>,
    repeats: Repeats,
    /// Times in a row that the peer left something unanswered, where the engine has not heard of the last one.
    unanswered: u32,
}

/// The same question, again and again.
#[derive(Debug, Clone, Default, Hash)]
struct Repeats {
    count: u8,
    /// The last one, and what we expected next then.
    at: Nanos,
    next: Seq,
}

/// A packet that is due for the sake of pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// PATHS.
    Report,
    /// A PING that asks which queue it reached.
    Probe,
    /// The same, where nothing was answered.
    Feeler,
}

impl Pairs {
    /// So many more probes are to be sent.
    pub fn probe(&mut self, probes: u16) {
        let state = self.state();
        state.probes_due = state.probes_due.saturating_add(probes);
    }

    /// So many more probes are to be sent that say that nothing was answered.
    pub fn feel(&mut self, probes: u16) {
        let state = self.state();
        state.feelers_due = state.feelers_due.saturating_add(probes);
    }

    /// The engine has something to report.
    pub fn report(&mut self) {
        self.state().report_due = true;
    }

    /// Until [`Pairs::on_confirmed`] acknowledgements and data carry this.
    pub fn set_hit(&mut self, hit: PathEntry) {
        self.state().hit = Some(hit);
    }

    /// Gives the memory back, unless something is due.
    pub fn rest(&mut self) {
        self.0.take_if(|state| {
            state.probes_due == 0
                && state.feelers_due == 0
                && !state.report_due
                && state.hit.is_none()
                && state.unanswered == 0
        });
    }

    /// The peer knows of the connection, and has read what came along.
    pub fn on_confirmed(&mut self) {
        if let Some(state) = &mut self.0 {
            state.hit = None;
        }
        self.tidy();
    }

    /// What acknowledgements and data carry.
    #[inline]
    pub fn hit(&self) -> Option<PathEntry> {
        self.0.as_ref().and_then(|state| state.hit)
    }

    /// The peer asks, for what it has asked before or to see whether we live, while we expect `next`. Copies that the network made come
    /// together, and say nothing of our answers.
    pub fn on_repeat(&mut self, now: Nanos, next: Seq) {
        let repeats = &mut self.state().repeats;
        let (same, pause) = (repeats.count > 0 && next == repeats.next, now - repeats.at);
        if same && pause < COPIES {
            return;
        }
        let count = if same && pause < APART { repeats.count.saturating_add(1) } else { 1 };
        *repeats = Repeats { count, at: now, next };
    }

    /// Whether it asked `enough` times, or once more after that.
    pub fn take_repeats(&mut self, enough: u8) -> bool {
        let Some(state) = &mut self.0 else { return false };
        let taken = state.repeats.count >= enough;
        if taken {
            state.repeats.count = enough - 1;
        }
        taken
    }

    /// The peer has left something unanswered once more, `times` in a row by now.
    pub fn on_unanswered(&mut self, times: u32) {
        self.state().unanswered = times;
    }

    /// How often that was, if it has happened.
    #[inline]
    pub fn take_unanswered(&mut self) -> u32 {
        let Some(state) = &mut self.0 else { return 0 };
        let times = core::mem::take(&mut state.unanswered);
        self.tidy();
        times
    }

    /// Whether anything is due.
    #[inline]
    pub fn is_due(&self) -> bool {
        self.0.as_ref().is_some_and(|state| state.report_due || state.probes_due > 0 || state.feelers_due > 0)
    }

    /// What is due next. It goes out now.
    pub fn take(&mut self) -> Option<Due> {
        let state = self.0.as_mut()?;
        let due = if core::mem::take(&mut state.report_due) {
            Due::Report
        } else if take_one(&mut state.feelers_due) {
            Due::Feeler
        } else {
            take_one(&mut state.probes_due).then_some(Due::Probe)?
        };
        self.tidy();
        Some(due)
    }

    /// The flow is over.
    pub fn end(&mut self) {
        self.0 = None;
    }

    fn state(&mut self) -> &mut State {
        self.0.get_or_insert_default()
    }

    /// Gives the memory back when nothing is left in it.
    fn tidy(&mut self) {
        let idle = |state: &State| state.hit.is_none() && state.repeats.count == 0 && state.unanswered == 0;
        if !self.is_due() && self.0.as_deref().is_some_and(idle) {
            self.0 = None;
        }
    }
}

/// Questions closer than that are copies of one.
const COPIES: Nanos = Nanos::micros(150);
/// Questions further apart than that have nothing to do with each other.
const APART: Nanos = Nanos::millis(500);
