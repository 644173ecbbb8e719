//! Whether a thread that keeps the core busy runs beside those that wait on a channel. A yield goes behind such a *hog* and returns when its
//! time slice is over, some 4 ms later; a thread that sleeps and is woken preempts it. So beside a hog waits sleep at once.
//!
//! The rule is the sidecar's (`rust/engine/src/idle.rs`): two long yields raise the alarm, for a time that doubles as long as the hog is still
//! there. Both directions of a channel may wait at once; they share what they know, and what gets lost between them costs one yield more.
use crate::types::machnet_waits_t;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicU32, AtomicU64};

/// What the waits on one channel know of hogs. Times are nanoseconds of the monotonic clock.
#[derive(Default)]
pub struct Hogs {
    /// The alarm lasts until then.
    until: AtomicU64,
    /// How long the next alarm lasts; 0 is [`MEMORY`].
    memory: AtomicU64,
    /// Yields that are still to be short before the hog is forgotten.
    trial: AtomicU32,
    /// When the first of them ended; 0: none has.
    trial_began: AtomicU64,
    /// When the last long yield ended; 0: there was none.
    suspected: AtomicU64,
    alarms: AtomicU64,
    hogged: AtomicU64,
    waited: AtomicU64,
}

impl Hogs {
    /// Whether to sleep instead of yielding.
    pub fn alarmed(&self, now: u64) -> bool {
        now < self.until.load(Relaxed)
    }

    /// What was met so far.
    pub fn counted(&self) -> machnet_waits_t {
        machnet_waits_t {
            hog_alarms: self.alarms.load(Relaxed),
            hogged_ns: self.hogged.load(Relaxed),
            core_wait_ns: self.waited.load(Relaxed),
        }
    }

    /// A yield began and ended at these times.
    pub fn yielded(&self, began: u64, ended: u64) {
        if ended.saturating_sub(began) > LONG {
            self.met(began, ended);
        } else if self.trial.load(Relaxed) > 0 {
            self.pass(ended);
        }
    }

    /// A long yield.
    #[cold]
    fn met(&self, began: u64, ended: u64) {
        self.waited.fetch_add(ended.saturating_sub(began), Relaxed);
        let before = self.suspected.swap(ended, Relaxed);
        let again = before != 0 && began <= before.saturating_add(APART);
        if self.trial.load(Relaxed) == 0 && !again {
            return;
        }
        let memory = self.memory.load(Relaxed).max(MEMORY);
        self.alarms.fetch_add(1, Relaxed);
        self.hogged.fetch_add(memory, Relaxed);
        self.until.store(ended.saturating_add(memory), Relaxed);
        self.memory.store((memory * 2).min(LONGEST), Relaxed);
        self.trial.store(TRIAL, Relaxed);
        self.trial_began.store(0, Relaxed);
        self.suspected.store(0, Relaxed);
    }

    /// A short one after an alarm.
    #[cold]
    fn pass(&self, ended: u64) {
        if self.trial_began.load(Relaxed) == 0 {
            self.trial_began.store(ended, Relaxed);
        }
        let left = self.trial.load(Relaxed);
        let began = self.trial_began.load(Relaxed);
        // A hog that has just had a slice lets others run for as long.
        if left > 1 || ended.saturating_sub(began) >= APART {
            self.trial.store(left.saturating_sub(1), Relaxed);
        }
        if left == 1 && self.trial.load(Relaxed) == 0 {
            self.memory.store(MEMORY, Relaxed);
        }
    }
}

/// A yield longer than this may have met a hog.
const LONG: u64 = 2_000_000;
/// Two such, no further apart than this, have.
const APART: u64 = 2 * LONG;
/// How long the first alarm lasts, and the longest.
const MEMORY: u64 = 8_000_000;
const LONGEST: u64 = 1_024_000_000;
/// So many yields after an alarm, over [`APART`], tell whether the hog is still there.
const TRIAL: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const SLICE: u64 = 4 * MS;

    /// Two yields of a time slice each, that end at `now`.
    fn meet(hogs: &Hogs, now: u64) {
        hogs.yielded(now - 2 * SLICE, now - SLICE);
        hogs.yielded(now - SLICE, now);
    }

    #[test]
    fn one_long_yield_is_no_evidence_and_two_are() {
        let hogs = Hogs::default();
        for at in [10, 30, 50].map(|ms| ms * MS) {
            hogs.yielded(at - SLICE, at);
            hogs.yielded(at, at + 1000);
            assert!(!hogs.alarmed(at + 2000));
        }
        meet(&hogs, 100 * MS);
        assert!(hogs.alarmed(100 * MS) && hogs.alarmed(108 * MS - 1) && !hogs.alarmed(108 * MS));
    }

    #[test]
    fn alarms_last_twice_as_long_while_the_hog_is_still_there() {
        let hogs = Hogs::default();
        let mut now = 100 * MS;
        meet(&hogs, now);
        for memory in [8, 16, 32, 64, 128, 256, 512, 1024, 1024].map(|ms| ms * MS) {
            assert!(hogs.alarmed(now + memory - 1) && !hogs.alarmed(now + memory), "{memory}");
            now += memory;
            (0..100).for_each(|i| hogs.yielded(now + i, now + i + 1));
            hogs.yielded(now + 100, now + SLICE);
            now += SLICE;
        }
        let counted = hogs.counted();
        let all = (8 + 16 + 32 + 64 + 128 + 256 + 512 + 3 * 1024) * MS;
        assert_eq!((counted.hog_alarms, counted.hogged_ns), (10, all));
        assert_eq!(counted.core_wait_ns, 11 * SLICE - 900);
    }

    #[test]
    fn a_hog_that_lets_sixteen_yields_pass_in_4_ms_is_forgotten() {
        let hogs = Hogs::default();
        meet(&hogs, 100 * MS);
        (0..16).for_each(|i| hogs.yielded((110 + i) * MS, (110 + i) * MS + 1));
        hogs.yielded(130 * MS, 134 * MS);
        assert!(!hogs.alarmed(134 * MS));
        meet(&hogs, 200 * MS);
        assert!(hogs.alarmed(208 * MS - 1) && !hogs.alarmed(208 * MS), "a new one is not known yet");
    }
}
