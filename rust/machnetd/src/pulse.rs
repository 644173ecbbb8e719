//! Whether engines are alive: each says with every reading of its clock by when it moves next, and whoever asks compares that with now.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use machnet_wire::Nanos;

/// What one engine's thread says. A line of the cache of its own: the engine writes it in every round, and nobody else's counters are to
/// suffer from that.
#[derive(Debug)]
#[repr(align(64))]
pub struct Pulse(AtomicU64);

impl Pulse {
    /// Of an engine that is about to start.
    pub fn new(now: Nanos) -> Pulse {
        Pulse(AtomicU64::new(now.0))
    }

    /// The engine moves, and next at `due`: now where it works on, the end of its sleep where it sleeps, [`Nanos::MAX`] where only a
    /// doorbell ends that.
    #[inline]
    pub fn next(&self, due: Nanos) {
        self.0.store(due.0, Ordering::Relaxed);
    }

    /// How it is at `now`.
    pub fn state(&self, now: Nanos) -> EngineState {
        let due = Nanos(self.0.load(Ordering::Relaxed));
        if due > now {
            return EngineState::Asleep;
        }
        let late = now - due;
        if late > PATIENCE { EngineState::Stalled(late) } else { EngineState::Running }
    }
}

/// How an engine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineState {
    /// Its loop moves.
    Running,
    /// It sleeps until there is something to do.
    Asleep,
    /// Its loop has not moved though it should have, for so long.
    Stalled(Nanos),
}

/// The engines of a sidecar, by their numbers.
#[derive(Debug, Default, Clone)]
pub struct Pulses(Vec<Arc<Pulse>>);

impl Pulses {
    /// One more.
    pub fn add(&mut self, now: Nanos) -> Arc<Pulse> {
        let pulse = Arc::new(Pulse::new(now));
        self.0.push(Arc::clone(&pulse));
        pulse
    }

    /// How each is at `now`.
    pub fn states(&self, now: Nanos) -> impl Iterator<Item = EngineState> {
        self.0.iter().map(move |pulse| pulse.state(now))
    }

    /// Whether none is stalled.
    pub fn alive(&self, now: Nanos) -> bool {
        !self.states(now).any(|state| matches!(state, EngineState::Stalled(_)))
    }
}

/// An engine that is later than this is stalled. Its rounds take microseconds; a thousand times a round is what a machine with more to do
/// than cores makes of one, and a second is beyond that.
const PATIENCE: Nanos = Nanos::secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_engine_that_does_not_move_is_a_sidecar_that_is_not_alive() {
        let mut pulses = Pulses::default();
        let (busy, sleepy) = (pulses.add(Nanos::ZERO), pulses.add(Nanos::ZERO));
        let now = Nanos::secs(10);
        busy.next(now);
        sleepy.next(Nanos::MAX);
        let states: Vec<_> = pulses.states(now).collect();
        assert_eq!(states, [EngineState::Running, EngineState::Asleep]);
        assert!(pulses.alive(now + PATIENCE));
        let late = PATIENCE + Nanos(1);
        assert_eq!(pulses.states(now + late).next(), Some(EngineState::Stalled(late)));
        assert!(!pulses.alive(now + late));
        // It works on: a long round is forgotten.
        busy.next(now + late);
        assert!(pulses.alive(now + late));
    }

    #[test]
    fn a_sleeper_is_late_only_from_the_end_of_its_sleep_on() {
        let pulse = Pulse::new(Nanos::ZERO);
        pulse.next(Nanos::secs(60));
        assert_eq!(pulse.state(Nanos::secs(59)), EngineState::Asleep);
        assert_eq!(pulse.state(Nanos::secs(61)), EngineState::Running);
        assert_eq!(pulse.state(Nanos::secs(62)), EngineState::Stalled(Nanos::secs(2)));
    }
}
