//! What the peers that send to one receive ring may send at once: no more than it holds.
//!
//! A ring of 256 descriptors is full after 126 us at 25 Gb/s, and a vCPU is taken away for longer than that. So the ring never
//! has to hold more than was promised to be sent to it: all promises together stay within three quarters of it, and a
//! quarter is left for packets that need no promise (acknowledgements, first units of connections that were idle).
//!
//! Over a long path more may be promised than a ring holds, since it comes spread over the round trip, and a ring has to hold only what
//! comes while nobody looks ([`Arriving`]): as long as the engine has been away lately, 1 ms at least. That much of each promise counts.
//!
//! A connection alone may have it all. Several share it evenly, and what small ones leave is the others'. When it is spent,
//! only units that peers are known to have ready are promised, connections that wait are served in turn, and one whose peer never
//! said that it has something gets nothing in advance.

use machnet_flow::Arriving;

use super::Claim;
use super::waiting_list::WaitingList;

/// The promises of one receive ring. What each connection holds of them is in its claim.
#[derive(Debug)]
pub(super) struct Budget {
    limit: u32,
    promised: u32,
    /// How many of the promised units may come while the ring goes unattended.
    arriving: u32,
    /// Connections that hold promises.
    holders: u32,
    /// It is the turn of the connection that asks to have what others wait for.
    pub turn: bool,
    /// Connections whose peers wait for a promise.
    pub waiting: WaitingList,
}

impl Budget {
    /// For a receive ring of so many descriptors.
    pub fn new(descriptors: u16) -> Self {
        let limit = (u32::from(descriptors) * 3 / 4).max(1);
        Self { limit, promised: 0, arriving: 0, holders: 0, turn: false, waiting: WaitingList::default() }
    }

    /// How many of `more` units may be promised to a connection; its peer has `known` of them ready.
    #[inline]
    pub fn allow(&self, claim: &mut Claim, more: u32, known: u32) -> u32 {
        let free = self.limit.saturating_sub(self.arriving);
        let spent = free * 4 < self.limit || !self.waiting.is_empty();
        let wanted = if spent { known } else { more };
        let sharing = self.holders + self.waiting.len() + u32::from(claim.promised == 0);
        let share = (self.limit / sharing.max(1)).max(1);
        let most = match (self.waiting.is_empty(), self.turn) {
            (true, _) => share.max(free),
            (false, true) => share,
            // Others have waited longer.
            (false, false) => 0,
        };
        let held = claim.arriving.of(claim.promised);
        let may = claim.arriving.promise(most.min(held + free));
        let allowed = wanted.min(may.saturating_sub(claim.promised));
        claim.denied = allowed == 0;
        allowed
    }

    /// Of what is promised to a connection's peer, this part may come while the ring goes unattended.
    #[inline]
    pub fn reckon(&mut self, claim: &mut Claim, arriving: Arriving) {
        if claim.arriving != arriving {
            self.arriving -= claim.arriving.of(claim.promised);
            claim.arriving = arriving;
            self.arriving += arriving.of(claim.promised);
        }
    }

    /// `n` units are promised to a connection's peer.
    #[inline]
    pub fn add(&mut self, claim: &mut Claim, n: u32) {
        self.holders += u32::from(claim.promised == 0 && n > 0);
        self.promise(claim, claim.promised + n);
    }

    /// What is promised to a connection's peer is so much now.
    #[inline]
    fn promise(&mut self, claim: &mut Claim, units: u32) {
        self.promised = self.promised - claim.promised + units;
        self.arriving = self.arriving - claim.arriving.of(claim.promised) + claim.arriving.of(units);
        claim.promised = units;
    }

    /// `n` promised units came, or are not promised any more.
    #[inline]
    pub fn sub(&mut self, claim: &mut Claim, n: u32) {
        // Of units that are not promised any more some may have come, out of their turn.
        let n = n.min(claim.promised);
        self.holders -= u32::from(claim.promised == n && n > 0);
        self.promise(claim, claim.promised - n);
    }

    /// Whether more is under way than the ring is meant for.
    #[inline]
    pub fn is_exceeded(&self) -> bool {
        self.arriving > self.limit
    }

    /// Units promised and not yet come.
    pub fn promised(&self) -> u32 {
        self.promised
    }

    /// Whether there is room, and somebody who waits for it.
    #[inline]
    pub fn is_due(&self) -> bool {
        self.arriving < self.limit && !self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use machnet_wire::Nanos;

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
        budget.turn = true;
        assert_eq!(ask(&mut budget, &mut b, 16, 16), 10);
        budget.turn = false;
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
    fn over_a_long_path_it_holds_more_and_shares_it_with_the_near_ones() {
        let mut budget = Budget::new(256);
        let (mut far, mut near) = (claim(), claim());
        budget.reckon(&mut far, Arriving::within(Nanos::millis(1), Nanos::millis(20)));
        let got = ask(&mut budget, &mut far, 16_384, 16_384);
        // 192 less the first 8, at 5/4 of the promise in 20 ms, within 2 ms.
        assert!((1400..1473).contains(&got), "{got}");
        assert_eq!(ask(&mut budget, &mut near, 16, 16), 0);
        budget.waiting.join(handle(7));
        // What comes makes room for the near one, unit for unit of what counts.
        budget.sub(&mut far, got / 2);
        assert_eq!(budget.waiting.pop(), Some(handle(7)));
        budget.turn = true;
        let free = budget.limit - budget.arriving;
        assert!((85..95).contains(&free), "{free}");
        assert_eq!(ask(&mut budget, &mut near, 256, 256), free);
        budget.turn = false;
        // The ring went unattended for longer: nothing more until that is made good for.
        budget.reckon(&mut far, Arriving::within(Nanos::millis(4), Nanos::millis(20)));
        assert!(budget.is_exceeded() && ask(&mut budget, &mut far, 100, 100) == 0);
        budget.sub(&mut far, got);
        assert_eq!((budget.arriving, budget.promised), (free, free));
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
            for flow in &mut flows {
                let round = Nanos::micros([30, 1500, 20_000, 100_000][random(4) as usize]);
                budget.reckon(flow, Arriving::within(Nanos::millis(1), round));
            }
            for _ in 0..1000 {
                let at = random(flows.len() as u64) as usize;
                let flow = &mut flows[at];
                match random(4) {
                    0 => {
                        let more = random(3000) as u32;
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
                        (flow.waiting, budget.turn) = (None, true);
                        let more = random(50) as u32;
                        let got = ask(&mut budget, flow, more, more);
                        budget.turn = false;
                        assert!(got > 0 || more == 0 || flow.promised > 0, "seed {seed}: a turn for nothing");
                    }
                    _ => {}
                }
                let held: u32 = flows.iter().map(|f| f.promised).sum();
                let arriving: u32 = flows.iter().map(|f| f.arriving.of(f.promised)).sum();
                let holders = flows.iter().filter(|f| f.promised > 0).count() as u32;
                let seen = (budget.promised, budget.arriving, budget.holders);
                assert_eq!(seen, (held, arriving, holders), "seed {seed}");
                assert!(arriving <= budget.limit, "seed {seed}");
            }
        }
    }
}
