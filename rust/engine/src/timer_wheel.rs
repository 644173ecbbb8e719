//! Deadlines of connections: a hierarchical timer wheel (Varghese and Lauck, 1987) with slots of 4.1 us.
//!
//! An entry is never moved. A deadline moves to a later time with nearly every packet, and its entry stays where it is; when that fires,
//! the engine asks the flow for its deadline and makes a new entry. So entries are made once for each that fires, not once for each packet.

use machnet_wire::Nanos;

/// Fires each key (a connection's handle) when it is asked at the key's time or later, never earlier.
#[derive(Debug)]
pub struct TimerWheel<K> {
    levels: [Level<K>; LEVELS],
    /// Everything before this tick has fired. In units of 2^SHIFT ns.
    tick: u64,
    len: usize,
    spare: Vec<Entry<K>>,
}

#[derive(Debug)]
struct Level<K> {
    slots: Vec<Vec<Entry<K>>>,
    occupied: [u64; SLOTS / 64],
}

#[derive(Debug, Clone, Copy)]
struct Entry<K> {
    at: Nanos,
    key: K,
}

impl<K: Copy> TimerWheel<K> {
    /// An empty wheel that begins at `now`.
    pub fn new(now: Nanos) -> Self {
        let level = || Level { slots: (0..SLOTS).map(|_| Vec::new()).collect(), occupied: [0; SLOTS / 64] };
        Self { levels: core::array::from_fn(|_| level()), tick: now.0 >> SHIFT, len: 0, spare: Vec::new() }
    }

    /// Files `key` for `at`; a time in the past fires in the next [`TimerWheel::expire`].
    #[inline]
    pub fn insert(&mut self, at: Nanos, key: K) {
        self.len += 1;
        self.file(Entry { at, key });
    }

    /// Shows each entry due by `now` to `fire`, with the time it was filed for.
    #[inline]
    pub fn expire(&mut self, now: Nanos, mut fire: impl FnMut(Nanos, K)) {
        let target = now.0 >> SHIFT;
        if self.len == 0 {
            self.tick = self.tick.max(target);
            return;
        }
        loop {
            self.expire_slot(now, &mut fire);
            if self.tick >= target {
                return;
            }
            self.advance(target);
        }
    }

    /// When [`TimerWheel::expire`] should be called next: exact for a near deadline, earlier than a far one.
    pub fn next_deadline(&self) -> Option<Nanos> {
        if self.len == 0 {
            return None;
        }
        let here = self.tick as usize % SLOTS;
        let near = self.levels[0]
            .next_occupied(here)
            .and_then(|distance| self.levels[0].slots[(here + distance) % SLOTS].iter().map(|e| e.at).min());
        let far = self.next_cascade().map(|tick| Nanos(tick << SHIFT));
        near.into_iter().chain(far).min()
    }

    #[inline]
    fn file(&mut self, entry: Entry<K>) {
        let when = (entry.at.0 >> SHIFT).max(self.tick);
        let distance = when - self.tick;
        // The lowest level whose wheel does not go round once before `when`, so that all entries of a slot belong to one round of it.
        let mut level = 0;
        while level + 1 < LEVELS && distance >= 1 << (BITS * (level as u32 + 1)) {
            level += 1;
        }
        let shift = BITS * level as u32;
        let turn = (1u64 << (BITS * (LEVELS as u32))) - (1 << shift);
        let slot = ((self.tick + distance.min(turn)) >> shift) as usize % SLOTS;
        self.levels[level].push(slot, entry);
    }

    fn expire_slot(&mut self, now: Nanos, fire: &mut impl FnMut(Nanos, K)) {
        let slot = self.tick as usize % SLOTS;
        if !self.levels[0].has(slot) {
            return;
        }
        let entries = &mut self.levels[0].slots[slot];
        let mut i = 0;
        while i < entries.len() {
            if entries[i].at <= now {
                let entry = entries.swap_remove(i);
                self.len -= 1;
                fire(entry.at, entry.key);
            } else {
                i += 1;
            }
        }
        if entries.is_empty() {
            self.levels[0].clear(slot);
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
            let spare = core::mem::take(&mut self.spare);
            let mut moving = core::mem::replace(&mut self.levels[n].slots[slot], spare);
            self.levels[n].clear(slot);
            for entry in moving.drain(..) {
                self.file(entry);
            }
            self.spare = moving;
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

impl<K> Level<K> {
    #[inline]
    fn push(&mut self, slot: usize, entry: Entry<K>) {
        self.slots[slot].push(entry);
        self.occupied[slot / 64] |= 1 << (slot % 64);
    }

    #[inline]
    fn has(&self, slot: usize) -> bool {
        self.occupied[slot / 64] & (1 << (slot % 64)) != 0
    }

    fn clear(&mut self, slot: usize) {
        self.occupied[slot / 64] &= !(1 << (slot % 64));
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
