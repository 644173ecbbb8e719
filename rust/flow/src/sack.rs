//! Which units beyond the next one have arrived: the receiver tells, the sender remembers what it was told.

use alloc::boxed::Box;
use core::hash::{Hash, Hasher};

use machnet_wire::{SackRange, Seq, header::SACK_WORDS_MAX};

use crate::REACH;

/// A set of units of which none lies before a first one, and none as far as [`REACH`] behind it. The first one only moves forward.
#[derive(Debug, Clone)]
pub(crate) struct Arrived {
    /// There from the first unit on that is put in.
    set: Option<Box<Set>>,
}

/// It has as many bits as its units are apart, a power of two of words that grows by doubling: a connection over a short path
/// does not pay for what a long one needs.
#[derive(Debug, Clone, Hash)]
struct Set {
    /// Unit `n` is bit `n` modulo their number.
    bits: Box<[u64]>,
    count: u32,
    /// Highest unit ever set; means something while `count > 0`.
    highest: Seq,
}

impl Arrived {
    pub fn new() -> Self {
        Arrived { set: None }
    }

    /// What there is, if there is any.
    #[inline]
    fn some(&self) -> Option<&Set> {
        self.set.as_deref().filter(|set| set.count > 0)
    }

    /// Gives the memory back, if the set is empty.
    pub fn rest(&mut self) {
        if self.count() == 0 {
            self.set = None;
        }
    }

    #[inline]
    pub fn count(&self) -> u32 {
        self.set.as_ref().map_or(0, |set| set.count)
    }

    /// The highest unit in the set, if there is one.
    #[inline]
    pub fn highest(&self) -> Option<Seq> {
        self.some().map(|set| set.highest)
    }

    /// Whether a unit is in the set, which does not lie before the first one.
    #[inline]
    pub fn has(&self, unit: Seq) -> bool {
        self.some().is_some_and(|set| set.has(unit))
    }

    /// Adds a unit; false if it was there. `first`: none that is there lies before it.
    #[inline]
    pub fn set(&mut self, first: Seq, unit: Seq) -> bool {
        let new = || Box::new(Set { bits: Box::default(), count: 0, highest: unit });
        self.set.get_or_insert_with(new).set(first, unit)
    }

    /// Takes a unit out, the lowest first; false if it was not there.
    #[inline]
    pub fn clear(&mut self, unit: Seq) -> bool {
        self.set.as_mut().is_some_and(|set| set.clear(unit))
    }

    /// The 64 units from `from` on, lowest in bit 0.
    #[inline]
    pub fn from(&self, from: Seq) -> u64 {
        self.some().map_or(0, |set| set.from(from))
    }

    /// SACK words for a receiver that expects `ack` next, as bits. How many of `out` were written.
    pub fn words(&self, ack: Seq, out: &mut [u64; SACK_WORDS_MAX]) -> usize {
        let n = self.word_count(ack);
        for (i, word) in out.iter_mut().enumerate().take(n) {
            *word = self.from(ack + (1 + 64 * i as u32));
        }
        n
    }

    /// The same as ranges: those from `from` on, and where there are more than find room, the highest in place of the last. How many words,
    /// and from where on to tell the next time, so that packet by packet all are told.
    pub fn ranges(&self, ack: Seq, from: Seq, out: &mut [u64; SACK_WORDS_MAX]) -> (usize, Seq) {
        self.some().map_or((0, ack), |set| set.ranges(ack, from, out))
    }

    /// How far the highest unit lies behind `ack`.
    #[inline]
    fn span(&self, ack: Seq) -> usize {
        self.highest().map_or(0, |highest| highest.since(ack).max(0) as usize)
    }

    /// Whether bits do not reach to the highest unit.
    #[inline]
    pub fn needs_ranges(&self, ack: Seq) -> bool {
        self.span(ack) > 64 * SACK_WORDS_MAX
    }

    /// How many SACK words there are for `ack`; of ranges as many as there may be.
    #[inline]
    pub fn word_count(&self, ack: Seq) -> usize {
        self.span(ack).div_ceil(64).min(SACK_WORDS_MAX)
    }
}

impl Set {
    #[inline]
    fn has(&self, unit: Seq) -> bool {
        self.count > 0 && unit.at_or_before(self.highest) && self.bits[self.word(unit)] & bit(unit) != 0
    }

    #[inline]
    fn set(&mut self, first: Seq, unit: Seq) -> bool {
        if self.has(unit) {
            return false;
        }
        let need = unit.since(first) as usize + 1;
        if need > self.bits.len() * 64 {
            self.grow(first, need);
        }
        if self.count == 0 || self.highest.before(unit) {
            self.highest = unit;
        }
        let word = self.word(unit);
        self.bits[word] |= bit(unit);
        self.count += 1;
        true
    }

    #[cold]
    fn grow(&mut self, first: Seq, need: usize) {
        debug_assert!(need <= REACH as usize);
        let words = need.div_ceil(64).next_power_of_two().max(WORDS_MIN);
        let mut bits: Box<[u64]> = core::iter::repeat_n(0, words).collect();
        let mut unit = first;
        while self.count > 0 && unit.at_or_before(self.highest) {
            if self.has(unit) {
                bits[(unit.0 as usize / 64) & (words - 1)] |= bit(unit);
            }
            unit = unit + 1;
        }
        self.bits = bits;
    }

    #[inline]
    fn clear(&mut self, unit: Seq) -> bool {
        let there = self.has(unit);
        if there {
            let word = self.word(unit);
            self.bits[word] &= !bit(unit);
            self.count -= 1;
        }
        there
    }

    #[inline]
    fn from(&self, from: Seq) -> u64 {
        if self.count == 0 || self.highest.before(from) {
            return 0;
        }
        // What lies beyond the highest unit are the bits of others.
        let there = u64::MAX >> 63u32.saturating_sub(self.highest.since(from) as u32);
        let (w, shift) = (self.word(from), from.0 % 64);
        let low = self.bits[w] >> shift;
        let high = match shift {
            0 => 0,
            _ => self.bits[(w + 1) & (self.bits.len() - 1)] << (64 - shift),
        };
        (low | high) & there
    }

    fn ranges(&self, ack: Seq, from: Seq, out: &mut [u64; SACK_WORDS_MAX]) -> (usize, Seq) {
        let mut ranges = [SackRange::default(); 2 * SACK_WORDS_MAX];
        let (mut n, mut at) = (0, if ack.before(from) { from } else { ack + 1 });
        if self.highest.before(at) {
            at = ack + 1;
        }
        while let Some((first, behind)) = self.run(at) {
            let (mut first, mut behind) = (first, behind);
            n += 1;
            if n == ranges.len() && behind.at_or_before(self.highest) {
                let ones = self.from(Seq(self.highest.0.wrapping_sub(63))).leading_ones();
                (first, behind) = (Seq(self.highest.0.wrapping_sub(ones - 1)), self.highest + 1);
            } else {
                at = behind;
            }
            ranges[n - 1] =
                SackRange { first: (first.since(ack) - 1) as u16, count: behind.since(first) as u16 };
            if n == ranges.len() {
                break;
            }
        }
        (SackRange::to_words(&ranges[..n], out), at)
    }

    /// The first units from `at` on that are there in a row: the first of them, and the one behind the last.
    fn run(&self, mut at: Seq) -> Option<(Seq, Seq)> {
        let mut word = self.from(at);
        while word == 0 {
            at = at + 64;
            if self.count == 0 || self.highest.before(at) {
                return None;
            }
            word = self.from(at);
        }
        let first = at + word.trailing_zeros();
        let mut behind = first;
        loop {
            let ones = self.from(behind).trailing_ones();
            behind = behind + ones;
            if ones < 64 {
                return Some((first, behind));
            }
        }
    }

    #[inline]
    fn word(&self, unit: Seq) -> usize {
        (unit.0 as usize / 64) & self.bits.len().wrapping_sub(1)
    }
}

/// Memory that is kept for later decides nothing.
impl Hash for Arrived {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.some().hash(state);
    }
}

/// Words of the smallest set: 256 units.
const WORDS_MIN: usize = 4;

#[inline]
fn bit(unit: Seq) -> u64 {
    1 << (unit.0 % 64)
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use machnet_wire::header::LEN;
    use machnet_wire::{Flags, Header, Kind, Packet};

    #[test]
    fn words_say_exactly_which_units_arrived_wherever_the_window_lies() {
        for ack in [0u32, 1, 63, 64, 1000, 1023, u32::MAX - 500, u32::MAX] {
            let ack = Seq(ack);
            let mut set = Arrived::new();
            let there: [u32; 8] = [1, 2, 63, 64, 65, 600, 1023, 1024];
            assert!(there.iter().all(|i| set.set(ack, ack + *i) && !set.set(ack, ack + *i)));
            let mut out = [0; SACK_WORDS_MAX];
            assert_eq!((set.words(ack, &mut out), set.needs_ranges(ack)), (SACK_WORDS_MAX, false));
            for i in 1..=1024 {
                let told = out[(i as usize - 1) / 64] >> ((i - 1) % 64) & 1 == 1;
                assert_eq!(told, there.contains(&i), "ack {ack:?} unit +{i}");
            }
            assert!(set.clear(ack + 1) && !set.clear(ack + 1) && set.count() == 7);
        }
    }

    #[test]
    fn as_many_words_as_the_highest_unit_needs() {
        let mut out = [0; SACK_WORDS_MAX];
        for (highest, words) in [(1, 1), (64, 1), (65, 2), (1024, 16)] {
            let mut set = Arrived::new();
            set.set(Seq(100), Seq(100) + highest);
            assert_eq!((set.words(Seq(100), &mut out), set.word_count(Seq(100))), (words, words));
        }
        assert_eq!(Arrived::new().words(Seq(100), &mut out), 0);
    }

    /// A window that moves on while units are put in and taken out behaves as a set of numbers does.
    #[test]
    fn it_is_a_set_however_it_grew_and_wherever_it_lies() {
        for seed in 1..50u32 {
            let mut state = u64::from(seed);
            let mut random = |n: u32| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) as u32 % n
            };
            let reach = [200, 1000, 5000, REACH][random(4) as usize];
            let (mut first, mut set) = (Seq(u32::MAX - random(20_000)), Arrived::new());
            let mut there: Vec<Seq> = Vec::new();
            for _ in 0..2000 {
                let unit = first + (1 + random(reach - 1));
                assert_eq!(set.set(first, unit), !there.contains(&unit));
                if !there.contains(&unit) {
                    there.push(unit);
                }
                for _ in 0..random(40) {
                    let had = there.contains(&first);
                    assert_eq!(set.clear(first), had, "seed {seed}");
                    there.retain(|unit| *unit != first);
                    first = first + 1;
                }
                assert_eq!(set.count() as usize, there.len());
            }
            for i in 0..reach {
                assert_eq!(set.has(first + i), there.contains(&(first + i)), "seed {seed} +{i}");
            }
        }
    }

    /// What a packet with these words says, as its reader sees it.
    fn read(ack: Seq, words: &[u64]) -> Vec<Seq> {
        let mut header = Header::new(Kind::Ack);
        header.flags = Flags::RANGES;
        let mut bytes = [0; LEN + 8 * SACK_WORDS_MAX];
        let len = header.emit(words, &mut bytes);
        let packet = Packet::parse(&bytes[..len]).expect("ranges as they ought to be");
        let units = |range: SackRange| (0..u32::from(range.count)).map(move |i| u32::from(range.first) + i);
        packet.sack.ranges().flat_map(units).map(|i| ack + (1 + i)).collect()
    }

    #[test]
    fn ranges_tell_all_units_packet_by_packet_and_the_highest_in_each() {
        for ack in [Seq(7), Seq(u32::MAX - 3000)] {
            // Holes of all sizes: more than 32 runs, as far as there may be any.
            let mut set = Arrived::new();
            let mut there = Vec::new();
            let (mut unit, mut step) = (ack + 2, 1);
            while unit.since(ack) < REACH as i32 {
                set.set(ack, unit);
                there.push(unit);
                step = step * 5 % 1031;
                unit = unit + if step % 3 > 0 { 1 } else { 1 + step % 200 };
            }
            assert!(set.needs_ranges(ack));
            let (mut told, mut from, mut packets) = (Vec::new(), ack, 0);
            while told.len() < there.len() {
                let mut out = [0; SACK_WORDS_MAX];
                let (n, next) = set.ranges(ack, from, &mut out);
                let units = read(ack, &out[..n]);
                assert!(units.iter().all(|unit| there.contains(unit)), "nothing that did not arrive");
                assert_eq!(units.last(), there.last());
                told.extend(units);
                told.sort_unstable_by_key(|unit| unit.since(ack));
                told.dedup();
                (from, packets) = (next, packets + 1);
                assert!(packets < 100, "{} of {}", told.len(), there.len());
            }
            assert!(packets > 2);
        }
    }

    #[test]
    fn few_ranges_take_few_words() {
        let mut set = Arrived::new();
        let ack = Seq(0);
        let mut out = [0; SACK_WORDS_MAX];
        (2000..3000).chain([10, 11]).for_each(|i| assert!(set.set(ack, Seq(i))));
        let (n, next) = set.ranges(ack, ack, &mut out);
        assert_eq!((n, read(ack, &out[..n]).len()), (1, 1002));
        // The next packet tells the same.
        assert_eq!(set.ranges(ack, next, &mut out).0, 1);
    }

    /// A set of 256 bits that is full: behind the last one lies the first.
    #[test]
    fn the_first_units_are_not_taken_for_some_beyond_the_last() {
        for first in [Seq(0), Seq(u32::MAX - 77)] {
            let mut set = Arrived::new();
            (1..256).for_each(|i| assert!(set.set(first, first + i)));
            for from in [1, 100, 192, 193, 200, 255] {
                let there = u64::MAX >> (from + 64u32).saturating_sub(256);
                assert_eq!(set.from(first + from), there, "{first:?} +{from}");
            }
        }
    }
}
