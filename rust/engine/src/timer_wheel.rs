//! Deadlines of connections: a hierarchical timer wheel (Varghese and Lauck, 1987) with slots of 4.1 us.
//!
//! An entry is never moved. A deadline moves to a later time with nearly every packet, and its entry stays where it is; when that fires,
//! the engine asks the flow for its deadline and makes a new entry. So entries are made once for each that fires, not once for each packet.
//!
//! A slot is a chain of entries in one pool, so that memory is as much as there were entries at a time: deadlines of idle connections go
//! through hundreds of slots, and each would keep what its fullest moment needed.

use machnet_wire::Nanos;

/// Fires each key (a connection's index) when it is asked at the key's time or later, never earlier.
#[derive(Debug)]
pub struct TimerWheel<K> {
    levels: [Level; LEVELS],
    /// Everything before this tick has fired. In units of 2^SHIFT ns.
    tick: u64,
    /// Nothing is to be done before: an entry of the lowest level fires then, or a slot of a higher one begins. `Nanos::MAX`: there is none.
    due: Nanos,
    len: usize,
    entries: Vec<Entry<K>>,
    /// The first of the chain of entries that are free.
    free: u32,
}

#[derive(Debug)]
struct Level {
    /// Of each slot the first entry, or [`END`].
    slots: Box<[u32; SLOTS]>,
    occupied: [u64; SLOTS / 64],
}

#[derive(Debug, Clone, Copy)]
struct Entry<K> {
    at: Nanos,
    key: K,
    /// The next of its chain, or [`END`].
    next: u32,
}

impl<K: Copy> TimerWheel<K> {
    /// An empty wheel that begins at `now`.
    pub fn new(now: Nanos) -> Self {
        let level = || Level { slots: Box::new([END; SLOTS]), occupied: [0; SLOTS / 64] };
        let levels = core::array::from_fn(|_| level());
        Self { levels, tick: now.0 >> SHIFT, due: Nanos::MAX, len: 0, entries: Vec::new(), free: END }
    }

    /// Files `key` for `at`; a time in the past fires in the next [`TimerWheel::expire`].
    #[inline]
    pub fn insert(&mut self, at: Nanos, key: K) {
        self.len += 1;
        let entry = Entry { at, key, next: END };
        let place = self.free;
        let place = match self.entries.get_mut(place as usize) {
            Some(spare) => {
                self.free = spare.next;
                *spare = entry;
                place
            }
            None => {
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
        };
        self.file(place);
    }

    /// Shows each entry due by `now` to `fire`, with the time it was filed for.
    #[inline]
    pub fn expire(&mut self, now: Nanos, mut fire: impl FnMut(Nanos, K)) {
        let target = now.0 >> SHIFT;
        if now < self.due {
            self.tick = self.tick.max(target);
            return;
        }
        loop {
            self.expire_slot(now, &mut fire);
            if self.tick >= target {
                break;
            }
            self.advance(target);
        }
        self.due = self.find_due().unwrap_or(Nanos::MAX);
    }

    /// When [`TimerWheel::expire`] should be called next: exact for a near deadline, earlier than a far one.
    #[inline]
    pub fn next_deadline(&self) -> Option<Nanos> {
        (self.due != Nanos::MAX).then_some(self.due)
    }

    /// Looks for what is to be done next.
    fn find_due(&self) -> Option<Nanos> {
        if self.len == 0 {
            return None;
        }
        let here = self.tick as usize % SLOTS;
        let near = self.levels[0]
            .next_occupied(here)
            .and_then(|distance| self.chain(self.levels[0].slots[(here + distance) % SLOTS]).min());
        let far = self.next_cascade().map(|tick| Nanos(tick << SHIFT));
        near.into_iter().chain(far).min()
    }

    /// The times of a chain of entries.
    fn chain(&self, first: u32) -> impl Iterator<Item = Nanos> {
        let next = |entry: &&Entry<K>| self.entries.get(entry.next as usize);
        core::iter::successors(self.entries.get(first as usize), next).map(|entry| entry.at)
    }

    /// Puts the entry at a place of the pool into the slot where its time lies.
    #[inline]
    fn file(&mut self, place: u32) {
        let entry = &mut self.entries[place as usize];
        let when = (entry.at.0 >> SHIFT).max(self.tick);
        let distance = when - self.tick;
        // The lowest level whose wheel does not go round once before `when`, so that all entries of a slot belong to one round of it.
        let mut level = 0;
        while level + 1 < LEVELS && distance >= 1 << (BITS * (level as u32 + 1)) {
            level += 1;
        }
        let shift = BITS * level as u32;
        let turn = (1u64 << (BITS * (LEVELS as u32))) - (1 << shift);
        let slot = (self.tick + distance.min(turn)) >> shift;
        let begins = if level == 0 { entry.at } else { Nanos(slot << shift << SHIFT) };
        self.due = self.due.min(begins);
        entry.next = self.levels[level].push(slot as usize % SLOTS, place);
    }

    fn expire_slot(&mut self, now: Nanos, fire: &mut impl FnMut(Nanos, K)) {
        let slot = self.tick as usize % SLOTS;
        if !self.levels[0].has(slot) {
            return;
        }
        let mut place = self.levels[0].take(slot);
        while let Some(entry) = self.entries.get_mut(place as usize) {
            let next = entry.next;
            if entry.at <= now {
                entry.next = core::mem::replace(&mut self.free, place);
                self.len -= 1;
                fire(entry.at, entry.key);
            } else {
                entry.next = self.levels[0].push(slot, place);
            }
            place = next;
        }
    }

    /// Moves on to the next tick at which there is an entry, at most to `target`. The slots of higher levels that begin there are filed
    /// anew at lower levels.
    fn advance(&mut self, target: u64) {
        let next =
            self.levels[0].next_occupied((self.tick + 1) as usize % SLOTS).map(|d| self.tick + 1 + d as u64);
        self.tick = next.into_iter().chain(self.next_cascade()).fold(target, u64::min);
        for n in (1..LEVELS).rev() {
            let shift = BITS * n as u32;
            let slot = (self.tick >> shift) as usize % SLOTS;
            if !self.tick.is_multiple_of(1 << shift) || !self.levels[n].has(slot) {
                continue;
            }
            let mut place = self.levels[n].take(slot);
            while let Some(entry) = self.entries.get(place as usize) {
                let next = entry.next;
                self.file(place);
                place = next;
            }
        }
    }

    /// The next tick at which an occupied slot of a higher level begins. The slots of the present tick have been filed anew already, so
    /// entries in them are a whole round of that wheel away.
    fn next_cascade(&self) -> Option<u64> {
        let begins = |n: usize| {
            let shift = BITS * n as u32;
            let next = (self.tick >> shift) + 1;
            let distance = self.levels[n].next_occupied(next as usize % SLOTS)?;
            Some((next + distance as u64) << shift)
        };
        (1..LEVELS).filter_map(begins).min()
    }
}

impl Level {
    /// Puts an entry in front of a slot's chain; which was the first before.
    #[inline]
    fn push(&mut self, slot: usize, place: u32) -> u32 {
        self.occupied[slot / 64] |= 1 << (slot % 64);
        core::mem::replace(&mut self.slots[slot], place)
    }

    /// Takes a slot's chain out; its first entry.
    #[inline]
    fn take(&mut self, slot: usize) -> u32 {
        self.occupied[slot / 64] &= !(1 << (slot % 64));
        core::mem::replace(&mut self.slots[slot], END)
    }

    #[inline]
    fn has(&self, slot: usize) -> bool {
        self.occupied[slot / 64] & (1 << (slot % 64)) != 0
    }

    /// The distance from `from` to the next occupied slot; after the last slot comes the first.
    fn next_occupied(&self, from: usize) -> Option<usize> {
        let words = self.occupied.len();
        let first = self.occupied[from / 64] & (u64::MAX << (from % 64));
        if first != 0 {
            return Some((from / 64) * 64 + first.trailing_zeros() as usize - from);
        }
        for i in 1..=words {
            let at = (from / 64 + i) % words;
            let mut word = self.occupied[at];
            if i == words {
                word &= !(u64::MAX << (from % 64));
            }
            if word != 0 {
                let slot = at * 64 + word.trailing_zeros() as usize;
                return Some((slot + SLOTS - from) % SLOTS);
            }
        }
        None
    }
}

const SHIFT: u32 = 12;
const BITS: u32 = 8;
const SLOTS: usize = 1 << BITS;
const LEVELS: usize = 4;
/// No entry.
const END: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn fired(wheel: &mut TimerWheel<u64>, now: Nanos) -> Vec<u64> {
        let mut out = Vec::new();
        wheel.expire(now, |_, key| out.push(key));
        out.sort_unstable();
        out
    }

    #[test]
    fn fires_at_its_time_and_not_a_nanosecond_before() {
        let mut wheel = TimerWheel::new(Nanos(1_000_000_007));
        wheel.insert(Nanos(1_000_025_007), 1);
        assert_eq!(wheel.next_deadline(), Some(Nanos(1_000_025_007)));
        assert!(fired(&mut wheel, Nanos(1_000_025_006)).is_empty());
        assert_eq!(fired(&mut wheel, Nanos(1_000_025_007)), [1]);
        assert_eq!(wheel.next_deadline(), None);
    }

    /// Compared with a sorted map, with times from nanoseconds to hours, and steps both to the next deadline and past it.
    #[test]
    fn behaves_like_a_sorted_map() {
        for seed in 1..40u64 {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut random = move || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state
            };
            let mut now = random() >> 20;
            let mut wheel = TimerWheel::new(Nanos(now));
            let mut model: BTreeMap<(u64, u64), ()> = BTreeMap::new();
            for key in 0..3000u64 {
                for _ in 0..random() % 3 {
                    let far = random() % (1 << (random() % 44));
                    wheel.insert(Nanos(now + far), key);
                    model.insert((now + far, key), ());
                }
                assert_eq!(
                    wheel.next_deadline(),
                    wheel.find_due(),
                    "seed {seed}: what is kept, and what is there"
                );
                if let Some(next) = wheel.next_deadline() {
                    let true_next = model.keys().next().map(|k| k.0);
                    assert!(Some(next.0) <= true_next, "seed {seed}: late");
                } else {
                    assert!(model.is_empty());
                }
                now = match (random() % 3, wheel.next_deadline()) {
                    (0, Some(next)) => next.0.max(now),
                    (1, _) => now + random() % 5000,
                    _ => now + random() % (1 << (random() % 36)),
                };
                let due: Vec<_> = model.range(..=(now, u64::MAX)).map(|(k, ())| *k).collect();
                let mut got = Vec::new();
                wheel.expire(Nanos(now), |at, key| got.push((at.0, key)));
                got.sort_unstable();
                got.dedup();
                assert_eq!(got, due, "seed {seed} now {now}");
                for k in due {
                    model.remove(&k);
                }
            }
        }
    }

    #[test]
    fn memory_is_as_much_as_there_are_entries_at_a_time() {
        let mut wheel = TimerWheel::new(Nanos::ZERO);
        let (mut now, mut due) = (Nanos::ZERO, Vec::new());
        (0..100).for_each(|key| wheel.insert(Nanos(key * 7919), key));
        for _ in 0..1000 {
            now += Nanos::millis(90);
            wheel.expire(now, |_, key| due.push(key));
            due.drain(..).for_each(|key| wheel.insert(now + Nanos::secs(1), key));
        }
        assert_eq!((wheel.len, wheel.entries.len()), (100, 100));
    }

    /// Its slot is the one of the present tick, a round of the wheel later.
    #[test]
    fn an_entry_almost_a_turn_away_is_not_due_now() {
        let now = Nanos(255 << SHIFT);
        let at = Nanos(now.0 + (65_535 << SHIFT));
        let mut wheel = TimerWheel::new(now);
        wheel.insert(at, 1);
        assert!(wheel.next_deadline().is_some_and(|due| due > now && due <= at));
        assert!(fired(&mut wheel, Nanos(at.0 - 1)).is_empty());
        assert_eq!(fired(&mut wheel, at), [1]);
    }

    #[test]
    fn sleeping_to_the_next_deadline_always_makes_progress() {
        let mut wheel = TimerWheel::new(Nanos::ZERO);
        wheel.insert(Nanos::secs(3600 * 30), 9);
        let (mut now, mut steps) = (Nanos::ZERO, 0);
        while let Some(next) = wheel.next_deadline() {
            now = next.max(now);
            wheel.expire(now, |_, _| {});
            steps += 1;
            assert!(steps < 1000, "stuck at {now:?}");
        }
        assert!(now >= Nanos::secs(3600 * 30));
    }
}
