//! What the peers that send to one receive ring may send at once: no more than it holds.
//!
//! A ring of 256 descriptors is full after 126 us at 25 Gb/s, and a vCPU is taken away for longer than that. So the ring never
//! has to hold more than was promised to be sent to it: all promises together stay within three quarters of it, and a
//! quarter is left for packets that need no promise (acknowledgements, first units of connections that were idle).
//!
//! A connection alone may have it all. Several share it evenly, and what small ones leave is the others'. When it is spent,
//! only units that peers are known to have ready are promised, connections that wait are served in turn, and one whose peer never
//! said that it has something gets nothing in advance.

use super::Claim;
use super::waiting_list::WaitingList;

/// The promises of one receive ring. What each connection holds of them is in its claim.
#[derive(Debug)]
pub(super) struct Budget {
    limit: u32,
    promised: u32,
    /// Connections that hold promises.
    holders: u32,
    /// Connections whose peers wait for a promise.
    pub waiting: WaitingList,
}

impl Budget {
    /// For a receive ring of so many descriptors.
    pub fn new(descriptors: u16) -> Self {
        let limit = (u32::from(descriptors) * 3 / 4).max(1);
        Self { limit, promised: 0, holders: 0, waiting: WaitingList::default() }
    }

    /// How many of `more` units may be promised to a connection; its peer has `known` of them ready.
    #[inline]
    pub fn allow(&self, claim: &mut Claim, more: u32, known: u32) -> u32 {
        let free = self.limit.saturating_sub(self.promised);
        let spent = free * 4 < self.limit || !self.waiting.is_empty();
        let wanted = if spent { known } else { more };
        let sharing = self.holders + self.waiting.len() + u32::from(claim.promised == 0);
        let share = (self.limit / sharing.max(1)).max(1);
        let most = match (self.waiting.is_empty(), claim.turn) {
            (true, _) => share.max(free),
            (false, true) => share,
            // Others have waited longer.
            (false, false) => 0,
        };
        let allowed = wanted.min(free).min(most.saturating_sub(claim.promised));
        claim.denied = allowed == 0;
        allowed
    }

    /// `n` units are promised to a connection's peer.
    #[inline]
    pub fn add(&mut self, claim: &mut Claim, n: u32) {
        self.holders += u32::from(claim.promised == 0 && n > 0);
        claim.promised += n;
        self.promised += n;
    }

    /// `n` promised units came, or are not promised any more.
    #[inline]
    pub fn sub(&mut self, claim: &mut Claim, n: u32) {
        // Of units that are not promised any more some may have come, out of their turn.
        let n = n.min(claim.promised);
        self.holders -= u32::from(claim.promised == n && n > 0);
        claim.promised -= n;
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

    /// Whether there is room, and somebody who waits for it.
    #[inline]
    pub fn is_due(&self) -> bool {
        self.promised < self.limit && !self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Waiting;
    use super::*;
    use crate::ids::{ChannelIndex, ConnHandle, ConnIndex};

    fn handle(place: usize) -> ConnHandle {
        ConnHandle { index: ConnIndex::new(place), generation: 0 }
    }

    fn claim() -> Claim {
        Claim::new(ChannelIndex(0), None)
    }

    fn ask(budget: &mut Budget, claim: &mut Claim, more: u32, known: u32) -> u32 {
        let n = budget.allow(claim, more, known);
        budget.add(claim, n);
        n
    }

    #[test]
    fn a_flow_alone_has_it_all_and_makes_room_for_the_next() {
        let mut budget = Budget::new(256);
        let (mut a, mut b) = (claim(), claim());
        assert_eq!(ask(&mut budget, &mut a, 256, 256), 192);
        assert_eq!((ask(&mut budget, &mut b, 16, 16), b.denied), (0, true));
        budget.waiting.join(handle(7));
        // What comes is not promised to the first again, but to the one that waits.
        budget.sub(&mut a, 10);
        assert_eq!((ask(&mut budget, &mut a, 10, 10), a.denied), (0, true));
        assert!(budget.is_due());
        assert_eq!(budget.waiting.pop(), Some(handle(7)));
        b.turn = true;
        assert_eq!(ask(&mut budget, &mut b, 16, 16), 10);
        b.turn = false;
        budget.sub(&mut a, 100);
        assert_eq!(ask(&mut budget, &mut b, 256, 256), 90, "as much as is free");
        assert_eq!(ask(&mut budget, &mut a, 256, 256), 10);
    }

    #[test]
    fn what_small_flows_leave_is_the_others() {
        let mut budget = Budget::new(256);
        let mut small: Vec<Claim> = (0..60).map(|_| claim()).collect();
        assert!(small.iter_mut().all(|claim| ask(&mut budget, claim, 1, 1) == 1));
        let mut bulk = claim();
        assert_eq!(ask(&mut budget, &mut bulk, 256, 256), 132);
        // As it is used up it is asked for again, until as much is free as the flow holds: room for the next that comes.
        for _ in 0..1000 {
            budget.sub(&mut bulk, 1);
            ask(&mut budget, &mut bulk, 1, 1);
        }
        assert_eq!((bulk.promised, budget.limit - budget.promised), (66, 66));
    }

    #[test]
    fn when_it_is_nearly_spent_only_known_units_are_promised() {
        let mut budget = Budget::new(256);
        let (mut bulk, mut idle) = (claim(), claim());
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
            let mut flows: Vec<Claim> = (0..1 + random(100)).map(|_| claim()).collect();
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
                        let n = random(u64::from(flow.promised) + 1) as u32;
                        budget.sub(flow, n);
                    }
                    2 if budget.waiting.len() < 5 && flow.waiting.is_none() => {
                        flow.waiting = Some(Waiting::ReceiveRing);
                        budget.waiting.join(handle(at));
                    }
                    _ if budget.is_due() => {
                        let flow = &mut flows[budget.waiting.pop().expect("one that waits").index.place()];
                        (flow.waiting, flow.turn) = (None, true);
                        let more = random(50) as u32;
                        let got = ask(&mut budget, flow, more, more);
                        flow.turn = false;
                        assert!(got > 0 || more == 0 || flow.promised > 0, "seed {seed}: a turn for nothing");
                    }
                    _ => {}
                }
                let held: u32 = flows.iter().map(|f| f.promised).sum();
                let holders = flows.iter().filter(|f| f.promised > 0).count() as u32;
                assert_eq!((budget.promised, budget.holders), (held, holders), "seed {seed}");
                assert!(held <= budget.limit, "seed {seed}");
            }
        }
    }
}
