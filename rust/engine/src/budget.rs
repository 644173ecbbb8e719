//! What the peers of one engine may send at once: no more than its receive ring holds.
//!
//! A ring of 256 descriptors is full after 126 us at 25 Gb/s, and a vCPU is taken away for longer than that. So the ring never
//! has to hold more than was promised to be sent to it: all promises together stay within three quarters of it, and a
//! quarter is left for packets that need no promise (acknowledgements, first units of flows that were idle).
//!
//! A flow alone may have it all. Several share it evenly, and what small ones leave is the others'. When it is spent,
//! only units that peers are known to have ready are promised, flows that wait are served in turn, and one that never
//! said that it has something gets nothing in advance.

use std::collections::VecDeque;

use crate::ids::ConnHandle;

/// The promises of one engine.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: u32,
    promised: u32,
    /// Flows that hold promises.
    holders: u32,
    /// Handles of flows whose peers wait for a promise, longest first.
    hungry: VecDeque<ConnHandle>,
    /// One of those is being served.
    feeding: bool,
}

/// What one flow has of it.
#[derive(Debug, Default)]
pub(crate) struct Promise {
    held: u32,
    /// The budget, not the channel, was what had nothing to give when the flow last asked.
    denied: bool,
    /// It is among those that wait.
    queued: bool,
}

impl Promise {
    /// Whether it is the budget that the flow waits for.
    pub fn is_denied(&self) -> bool {
        self.denied
    }

    /// It has had its turn.
    pub fn served(&mut self) {
        self.queued = false;
    }
}

impl Budget {
    /// For a receive ring of so many descriptors.
    pub fn new(descriptors: u16) -> Self {
        let limit = (u32::from(descriptors) * 3 / 4).max(1);
        Self { limit, promised: 0, holders: 0, hungry: VecDeque::new(), feeding: false }
    }

    /// How many of `more` units may be promised to a flow; its peer has `known` of them ready.
    #[inline]
    pub fn allow(&self, promise: &mut Promise, more: u32, known: u32) -> u32 {
        let free = self.limit.saturating_sub(self.promised);
        let spent = free * 4 < self.limit || !self.hungry.is_empty();
        let wanted = if spent { known } else { more };
        let flows = self.holders + self.hungry.len() as u32 + u32::from(promise.held == 0);
        let share = (self.limit / flows.max(1)).max(1);
        let most = match (self.hungry.is_empty(), self.feeding) {
            (true, _) => share.max(free),
            (false, true) => share,
            // Others have waited longer.
            (false, false) => 0,
        };
        let allowed = wanted.min(free).min(most.saturating_sub(promise.held));
        promise.denied = allowed == 0;
        allowed
    }

    /// `n` units are promised to a flow.
    #[inline]
    pub fn add(&mut self, promise: &mut Promise, n: u32) {
        self.holders += u32::from(promise.held == 0 && n > 0);
        promise.held += n;
        self.promised += n;
    }

    /// `n` promised units came, or are not promised any more.
    #[inline]
    pub fn sub(&mut self, promise: &mut Promise, n: u32) {
        // Of units that are not promised any more some may have come, out of their turn.
        let n = n.min(promise.held);
        self.holders -= u32::from(promise.held == n && n > 0);
        promise.held -= n;
        self.promised -= n;
    }

    /// Whether more is under way than the ring is meant for.
    #[inline]
    pub fn is_exceeded(&self) -> bool {
        self.promised > self.limit
    }

    /// Units promised and not yet come.
    pub fn promised(&self) -> u32 {
        self.promised
    }

    /// A flow waits for its turn.
    pub fn wait(&mut self, promise: &mut Promise, handle: ConnHandle) {
        if !promise.queued {
            promise.queued = true;
            self.hungry.push_back(handle);
        }
    }

    /// Whether there is room, and somebody who waits for it.
    pub fn is_due(&self) -> bool {
        self.promised < self.limit && !self.hungry.is_empty()
    }

    /// The flow whose turn it is, if there is anything to give. To be followed by [`Budget::fed`].
    #[inline]
    pub fn feed(&mut self) -> Option<ConnHandle> {
        if self.promised >= self.limit {
            return None;
        }
        let handle = self.hungry.pop_front()?;
        self.feeding = true;
        Some(handle)
    }

    /// It has had its turn.
    pub fn fed(&mut self) {
        self.feeding = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ConnIndex;

    fn handle(place: usize) -> ConnHandle {
        ConnHandle { index: ConnIndex::new(place), generation: 0 }
    }

    fn ask(budget: &mut Budget, promise: &mut Promise, more: u32, known: u32) -> u32 {
        let n = budget.allow(promise, more, known);
        budget.add(promise, n);
        n
    }

    #[test]
    fn a_flow_alone_has_it_all_and_makes_room_for_the_next() {
        let mut budget = Budget::new(256);
        let (mut a, mut b) = (Promise::default(), Promise::default());
        assert_eq!(ask(&mut budget, &mut a, 256, 256), 192);
        assert_eq!((ask(&mut budget, &mut b, 16, 16), b.is_denied()), (0, true));
        budget.wait(&mut b, handle(7));
        // What comes is not promised to the first again, but to the one that waits.
        budget.sub(&mut a, 10);
        assert_eq!((ask(&mut budget, &mut a, 10, 10), a.is_denied()), (0, true));
        assert_eq!(budget.feed(), Some(handle(7)));
        assert_eq!(ask(&mut budget, &mut b, 16, 16), 10);
        budget.fed();
        budget.sub(&mut a, 100);
        assert_eq!(ask(&mut budget, &mut b, 256, 256), 90, "as much as is free");
        assert_eq!(ask(&mut budget, &mut a, 256, 256), 10);
    }

    #[test]
    fn what_small_flows_leave_is_the_others() {
        let mut budget = Budget::new(256);
        let mut small: Vec<Promise> = (0..60).map(|_| Promise::default()).collect();
        assert!(small.iter_mut().all(|p| ask(&mut budget, p, 1, 1) == 1));
        let mut bulk = Promise::default();
        assert_eq!(ask(&mut budget, &mut bulk, 256, 256), 132);
        // As it is used up it is asked for again, until as much is free as the flow holds: room for the next that comes.
        for _ in 0..1000 {
            budget.sub(&mut bulk, 1);
            ask(&mut budget, &mut bulk, 1, 1);
        }
        assert_eq!((bulk.held, budget.limit - budget.promised), (66, 66));
    }

    #[test]
    fn when_it_is_nearly_spent_only_known_units_are_promised() {
        let mut budget = Budget::new(256);
        let (mut bulk, mut idle) = (Promise::default(), Promise::default());
        assert_eq!(ask(&mut budget, &mut bulk, 150, 150), 150);
        assert_eq!(ask(&mut budget, &mut idle, 16, 0), 0);
        assert_eq!(ask(&mut budget, &mut idle, 16, 2), 2);
    }

    /// The holders' count and the sums stay right, and nobody ever gets the ring beyond its limit.
    #[test]
    fn random_flows_never_exceed_it() {
        for seed in 1..200u64 {
            let mut state = seed;
            let mut random = |n: u64| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) % n
            };
            let mut budget = Budget::new([64, 256, 1024][random(3) as usize]);
            let mut flows: Vec<Promise> = (0..1 + random(100)).map(|_| Promise::default()).collect();
            for _ in 0..1000 {
                let at = random(flows.len() as u64) as usize;
                let flow = &mut flows[at];
                match random(4) {
                    0 => {
                        let more = random(300) as u32;
                        let known = random(u64::from(more) + 1) as u32;
                        ask(&mut budget, flow, more, known);
                    }
                    1 => {
                        let n = random(u64::from(flow.held) + 1) as u32;
                        budget.sub(flow, n);
                    }
                    2 if budget.hungry.len() < 5 => budget.wait(flow, handle(at)),
                    _ => {
                        if let Some(at) = budget.feed() {
                            let at = at.index.place();
                            let flow = &mut flows[at];
                            flow.served();
                            let more = random(50) as u32;
                            let got = ask(&mut budget, flow, more, more);
                            budget.fed();
                            assert!(got > 0 || more == 0 || flows[at].held > 0, "seed {seed}: fed nothing");
                        }
                    }
                }
                let held: u32 = flows.iter().map(|f| f.held).sum();
                let holders = flows.iter().filter(|f| f.held > 0).count() as u32;
                assert_eq!((budget.promised, budget.holders), (held, holders), "seed {seed}");
                assert!(held <= budget.limit, "seed {seed}");
            }
        }
    }
}
