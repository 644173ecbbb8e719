//! Many connections of several channels and receive rings at once: what each may count on, whatever the others do.

use std::collections::BTreeMap;

use super::*;
use crate::ids::ConnIndex;

/// The channel of most tests.
const FIRST: ChannelIndex = ChannelIndex(0);

/// The receive queues of a world: those of an engine need not be a host's first.
fn queue(at: u16) -> QueueIndex {
    QueueIndex(5 + at)
}

/// Connections with their claims, by handle, and channels that have units to give.
struct World {
    admission: Admission,
    claims: BTreeMap<ConnHandle, Claim>,
    /// Free units of each channel, and how many there are.
    free: Vec<u32>,
    units: u32,
    /// Units of each connection that came and were not read.
    unread: BTreeMap<ConnHandle, u32>,
    /// Handles in the order in which their turns ought to come: by ring, and by channel.
    rings: Vec<Vec<ConnHandle>>,
    channels: Vec<Vec<ConnHandle>>,
    begun: usize,
}

impl World {
    fn new(descriptors: &[u16], channels: usize, units: u32) -> Self {
        let queues: Vec<_> =
            descriptors.iter().enumerate().map(|(at, &ring)| (queue(at as u16), ring)).collect();
        let mut admission = Admission::new(&queues);
        (0..channels).for_each(|channel| admission.open(ChannelIndex(channel as u32)));
        Self {
            admission,
            claims: BTreeMap::new(),
            free: vec![units; channels],
            units,
            unread: BTreeMap::new(),
            rings: vec![Vec::new(); descriptors.len()],
            channels: vec![Vec::new(); channels],
            begun: 0,
        }
    }

    fn begin(&mut self, channel: u32, ring: Option<u16>) -> ConnHandle {
        let handle = ConnHandle { index: ConnIndex::new(self.begun), generation: 0 };
        self.begun += 1;
        self.claims.insert(handle, Claim::new(ChannelIndex(channel), ring.map(queue)));
        self.unread.insert(handle, 0);
        handle
    }

    /// A connection asks for `more`, all of it known; if it gets nothing, it waits.
    fn ask(&mut self, handle: ConnHandle, more: u32) -> u32 {
        let claim = self.claims.get_mut(&handle).expect("a connection");
        let free = &mut self.free[claim.channel.place()];
        let got = self.admission.grant(claim, Arriving::ALL, more, more, |n| {
            let n = n.min(*free);
            *free -= n;
            n
        });
        if got == 0 && more > 0 {
            self.wait(handle, CreditWait::Units);
        }
        got
    }

    /// One unit comes that nobody was promised. Whether the ring's budget was spent.
    fn take(&mut self, handle: ConnHandle) -> bool {
        let claim = self.claims.get_mut(&handle).expect("a connection");
        let free = &mut self.free[claim.channel.place()];
        let (got, exceeds) = self.admission.take(claim, 1, |n| n.min(*free));
        *free -= got;
        exceeds
    }

    fn wait(&mut self, handle: ConnHandle, wait: CreditWait) {
        let claim = self.claims.get_mut(&handle).expect("a connection");
        if !claim.has_to_wait(wait) {
            return;
        }
        Self::strike(&mut self.rings, &mut self.channels, handle);
        let free = self.free[claim.channel.place()];
        match self.admission.wait(claim, handle, wait, free) {
            Some(Waiting::ReceiveRing) => {
                let ring = claim.queue.expect("a ring, as it is waited for");
                self.rings[usize::from(ring.0 - queue(0).0)].push(handle);
            }
            Some(Waiting::Units) => self.channels[claim.channel.place()].push(handle),
            Some(Waiting::Reader) => {}
            None => panic!("{wait:?} is not waited for"),
        }
    }

    fn strike(rings: &mut [Vec<ConnHandle>], channels: &mut [Vec<ConnHandle>], handle: ConnHandle) {
        rings.iter_mut().chain(channels).for_each(|queue| queue.retain(|&waits| waits != handle));
    }

    /// Promised units come, and lie unread.
    fn arrive(&mut self, handle: ConnHandle, n: u32) {
        let claim = self.claims.get_mut(&handle).expect("a connection");
        let n = n.min(claim.promised);
        self.admission.came(claim, n);
        *self.unread.get_mut(&handle).expect("a connection") += n;
    }

    fn read(&mut self, handle: ConnHandle) {
        let n = std::mem::take(self.unread.get_mut(&handle).expect("a connection"));
        let claim = self.claims.get_mut(&handle).expect("a connection");
        self.free[claim.channel.place()] += n;
        self.admission.has_read(claim);
    }

    /// Everybody whose turn it is on a channel has it, and asks for `more`.
    fn unit_turns(&mut self, channel: u32, more: u32) {
        let (at, channel) = (channel as usize, ChannelIndex(channel));
        if !self.admission.begin_unit_turns(channel, self.free[at]) {
            return;
        }
        let waiting = self.channels[at].len();
        for _ in 0..waiting {
            let Some(handle) = self.admission.next_for_units(channel) else { break };
            assert_eq!(handle, self.channels[at].remove(0), "in the order in which they came");
            self.turn(handle, more);
        }
        assert!(!self.admission.units_due(channel), "one turn for each");
        self.admission.end_unit_turns(channel, self.free[at]);
    }

    /// One connection that waits for a ring has its turn.
    fn ring_turn(&mut self, more: u32) {
        let due: Vec<ConnHandle> = self
            .rings
            .iter()
            .zip(&self.admission.budgets)
            .filter(|(_, (_, budget))| budget.is_due())
            .map(|(queue, _)| queue[0])
            .collect();
        let next = self.admission.next_for_ring();
        assert_eq!(next.is_some(), !due.is_empty());
        if let Some(handle) = next {
            assert!(due.contains(&handle), "one that has waited longest");
            Self::strike(&mut self.rings, &mut self.channels, handle);
            self.turn(handle, more);
        }
    }

    fn turn(&mut self, handle: ConnHandle, more: u32) {
        self.admission.begin_turn(self.claims.get_mut(&handle).expect("nobody waits who is gone"));
        self.ask(handle, more);
        self.admission.end_turn(self.claims.get_mut(&handle).expect("a connection"));
    }

    fn end(&mut self, handle: ConnHandle) {
        Self::strike(&mut self.rings, &mut self.channels, handle);
        let mut claim = self.claims.remove(&handle).expect("a connection");
        let unread = self.unread.remove(&handle).expect("a connection");
        self.free[claim.channel.place()] += claim.promised + unread;
        self.admission.end(&mut claim);
        assert_eq!((claim.promised, claim.waiting), (0, None));
    }

    /// What must be so at any time.
    fn check(&self) {
        for (ring, (queue, budget)) in self.admission.budgets.iter().enumerate() {
            let here = || self.claims.values().filter(|claim| claim.queue == Some(*queue));
            let promised: u32 = here().map(|claim| claim.promised).sum();
            assert_eq!(budget.promised(), promised, "of ring {ring}");
            let waiting = here().filter(|claim| claim.waiting == Some(Waiting::ReceiveRing)).count();
            assert_eq!(budget.waiting.len() as usize, waiting, "for ring {ring}");
            assert_eq!(waiting, self.rings[ring].len());
        }
        for (at, channel) in self.admission.channels.iter().enumerate() {
            let count = |waiting: Waiting| {
                self.claims.values().filter(|c| c.channel.place() == at && c.waiting == Some(waiting)).count()
            };
            assert_eq!(channel.units.len() as usize, count(Waiting::Units), "for units of channel {at}");
            assert_eq!(channel.readers as usize, count(Waiting::Reader), "for readers of channel {at}");
            let waits = count(Waiting::Units) + count(Waiting::Reader) > 0;
            assert_eq!(self.admission.awaits_returns(ChannelIndex(at as u32)), waits);
        }
    }
}

fn random(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |n| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % n
    }
}

fn random_world(seed: u64, random: &mut impl FnMut(u64) -> u64) -> World {
    let rings: Vec<u16> = (0..1 + random(4)).map(|_| [8, 64, 256][random(3) as usize]).collect();
    let mut w = World::new(&rings, 1 + random(3) as usize, [16, 200, 2000][random(3) as usize]);
    for _ in 0..1 + random(40) {
        w.begin(random(w.free.len() as u64) as u32, Some(random(rings.len() as u64) as u16));
    }
    for _ in 0..2000 {
        let handles: Vec<ConnHandle> = w.claims.keys().copied().collect();
        let Some(&handle) = handles.get(random(handles.len().max(1) as u64) as usize) else { break };
        let n = random(100) as u32;
        match random(20) {
            0 => w.end(handle),
            1 => {
                w.begin(random(w.free.len() as u64) as u32, Some(random(rings.len() as u64) as u16));
            }
            2 => w.wait(handle, CreditWait::Reader),
            3..8 => _ = w.ask(handle, n),
            8..12 => w.arrive(handle, n),
            12..15 => w.read(handle),
            15..17 => w.unit_turns(random(w.free.len() as u64) as u32, n),
            _ => w.ring_turn(n),
        }
        w.check();
        for (_, budget) in &w.admission.budgets {
            assert!(!budget.is_exceeded(), "seed {seed}");
        }
    }
    w
}

#[test]
fn no_ring_is_promised_more_than_its_limit_and_everybody_is_called_in_order() {
    for seed in 1..300 {
        random_world(seed, &mut random(seed));
    }
}

/// Once applications read and packets come, all who wait are called, and get what they wait for.
#[test]
fn everybody_who_waits_is_served() {
    for seed in 1..300 {
        let mut random = random(seed);
        let mut w = random_world(seed, &mut random);
        for _ in 0..100 {
            let handles: Vec<ConnHandle> = w.claims.keys().copied().collect();
            for &handle in &handles {
                w.arrive(handle, u32::MAX);
                w.read(handle);
            }
            (0..w.free.len()).for_each(|channel| w.unit_turns(channel as u32, 1));
            (0..TURNS).for_each(|_| w.ring_turn(1));
            w.check();
            if w.claims.values().all(|claim| claim.waiting.is_none()) {
                break;
            }
        }
        let waiting = w.claims.values().filter(|claim| claim.waiting.is_some()).count();
        assert_eq!(waiting, 0, "seed {seed}");
    }
}

#[test]
fn who_ends_leaves_nothing_behind() {
    for seed in 1..300 {
        let mut w = random_world(seed, &mut random(seed));
        for handle in w.claims.keys().copied().collect::<Vec<_>>() {
            w.end(handle);
            w.check();
        }
        assert_eq!(w.admission.promised(), 0, "seed {seed}");
        assert!(w.free.iter().all(|&free| free == w.units), "seed {seed}: {:?} of {}", w.free, w.units);
        assert!(!w.admission.rings_due() && w.admission.next_for_ring().is_none(), "seed {seed}");
        for channel in (0..w.free.len() as u32).map(ChannelIndex) {
            w.admission.begin_unit_turns(channel, w.units);
            assert!(!w.admission.units_due(channel) && !w.admission.awaits_returns(channel), "seed {seed}");
        }
    }
}

#[test]
fn promises_of_one_ring_take_nothing_from_another() {
    let mut w = World::new(&[256, 64], 1, 10_000);
    let (large, small, late) = (w.begin(0, Some(0)), w.begin(0, Some(1)), w.begin(0, Some(0)));
    assert_eq!(w.ask(large, 1000), 192);
    assert_eq!((w.ask(late, 10), w.claims[&late].waiting), (0, Some(Waiting::ReceiveRing)));
    // That somebody waits for the first ring is nothing to the second.
    assert_eq!(w.ask(small, 1000), 48);
    // Nor is what comes by the second anything to the first.
    w.arrive(small, 48);
    assert!(!w.admission.rings_due());
    w.arrive(large, 1);
    assert!(w.admission.rings_due());
    w.ring_turn(10);
    assert_eq!((w.claims[&late].promised, w.claims[&late].waiting), (1, None));
    assert_eq!(w.admission.promised(), 192);
}

#[test]
fn rings_with_waiting_connections_take_turns() {
    let mut w = World::new(&[64, 64], 1, 10_000);
    for ring in [0, 1] {
        let first = w.begin(0, Some(ring));
        assert_eq!(w.ask(first, 48), 48);
        for _ in 0..3 {
            let late = w.begin(0, Some(ring));
            assert_eq!(w.ask(late, 1), 0);
        }
        w.arrive(first, 48);
    }
    let turns: Vec<QueueIndex> = core::iter::from_fn(|| {
        let handle = w.admission.next_for_ring()?;
        w.claims[&handle].queue
    })
    .collect();
    let [first, second] = [0, 1].map(queue);
    assert!(turns == [first, second].repeat(3) || turns == [second, first].repeat(3), "{turns:?}");
}

/// Once it has had its turn, a connection comes behind those that wait, though it has less than they.
#[test]
fn a_turn_ends() {
    let mut w = World::new(&[64], 1, 1000);
    let [first, second, third] = [0; 3].map(|channel| w.begin(channel, Some(0)));
    assert_eq!((w.ask(first, 48), w.ask(second, 2), w.ask(third, 2)), (48, 0, 0));
    w.arrive(first, 4);
    w.ring_turn(2);
    assert_eq!((w.claims[&second].promised, w.ask(second, 2)), (2, 0));
    w.ring_turn(2);
    assert_eq!(w.claims[&third].promised, 2);
}

/// One that others leave something to, while its application does not read, would not be helped: it waits for that alone.
#[test]
fn a_reader_is_waited_for_in_no_queue() {
    let mut w = World::new(&[64], 1, 48);
    let (first, late) = (w.begin(0, Some(0)), w.begin(0, Some(0)));
    assert_eq!((w.ask(first, 48), w.ask(late, 1)), (48, 0));
    assert_eq!(w.claims[&late].waiting, Some(Waiting::ReceiveRing));
    w.wait(late, CreditWait::Reader);
    w.check();
    assert_eq!(w.claims[&late].waiting, Some(Waiting::Reader));
    w.wait(late, CreditWait::Units);
    assert_eq!(w.claims[&late].waiting, Some(Waiting::Reader), "until it has read");
    w.arrive(first, 48);
    assert!(!w.admission.rings_due() && w.admission.awaits_returns(FIRST));
    w.read(late);
    assert!(!w.admission.awaits_returns(FIRST));
}

/// A connection may find nothing for it though units are free: others have a share in them.
#[test]
fn only_units_that_become_free_call_those_that_wait() {
    let mut w = World::new(&[256], 1, 100);
    let (a, b) = (w.begin(0, Some(0)), w.begin(0, Some(0)));
    assert!(w.admission.begin_unit_turns(FIRST, 9) && !w.admission.units_due(FIRST), "nobody waits");
    w.free[0] = 3;
    w.wait(a, CreditWait::Units);
    w.admission.begin_unit_turns(FIRST, 4);
    assert!(w.admission.units_due(FIRST), "more than it has seen, though fewer than there were before");
    // One that begins to wait after that has seen all of them.
    w.free[0] = 4;
    w.wait(b, CreditWait::Units);
    assert_eq!(w.admission.next_for_units(FIRST), Some(a));
    w.admission.end_unit_turns(FIRST, 2);
    assert!(!w.admission.units_due(FIRST) && w.admission.awaits_units(FIRST), "what was left is no news");
    w.admission.begin_unit_turns(FIRST, 3);
    assert_eq!(w.admission.next_for_units(FIRST), Some(b));
    let late = w.begin(0, Some(0));
    w.wait(late, CreditWait::Units);
    w.admission.begin_unit_turns(FIRST, 3);
    assert!(!w.admission.units_due(FIRST), "no more than before");
}

/// What comes without being asked for is counted, and leaves less for those that ask.
#[test]
fn units_that_come_unasked_count_against_the_ring() {
    let mut w = World::new(&[64], 1, 1000);
    let (first, second) = (w.begin(0, Some(0)), w.begin(0, Some(0)));
    assert_eq!(w.ask(first, 48), 48);
    assert!(w.take(second), "the budget was spent");
    assert_eq!(w.admission.promised(), 49);
    w.arrive(first, 1);
    assert_eq!(w.ask(first, 1), 0, "still spent");
    w.arrive(second, 1);
    w.check();
    w.end(first);
    w.end(second);
    assert_eq!((w.admission.promised(), w.free[0]), (0, 1000));
}

/// Connections of this host send nothing to a ring: only their channel bounds them.
#[test]
fn packets_that_see_no_ring_need_no_budget() {
    let mut w = World::new(&[8], 1, 100);
    let (local, second) = (w.begin(0, None), w.begin(0, None));
    assert_eq!((w.ask(local, 100), w.admission.promised()), (100, 0));
    assert_eq!((w.ask(second, 1), w.claims[&second].waiting), (0, Some(Waiting::Units)));
    w.check();
}
