//! Which units beyond the next one have arrived: the receiver tells, the sender remembers what it was told.

use alloc::boxed::Box;
use core::hash::{Hash, Hasher};

use machnet_wire::{Seq, header::SACK_WORDS_MAX};

use crate::REACH;

/// A set of units of which all lie within [`REACH`] of each other.
#[derive(Debug, Clone)]
pub(crate) struct Arrived {
    /// There from the first unit on that is put in; all clear while `count` is 0.
    bits: Option<Box<[u64; SACK_WORDS_MAX]>>,
    count: u32,
    /// Highest unit ever set; means something while `count > 0`.
    highest: Seq,
}

impl Arrived {
    pub fn new() -> Self {
        Arrived { bits: None, count: 0, highest: Seq(0) }
    }

    /// Gives the memory back, if the set is empty.
    pub fn rest(&mut self) {
        if self.count == 0 {
            self.bits = None;
        }
    }

    #[inline]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The highest unit in the set, if there is one.
    #[inline]
    pub fn highest(&self) -> Option<Seq> {
        (self.count > 0).then_some(self.highest)
    }

    #[inline]
    pub fn has(&self, unit: Seq) -> bool {
        self.bits.as_ref().is_some_and(|bits| bits[word(unit)] & bit(unit) != 0)
    }

    /// Adds a unit; false if it was there.
    #[inline]
    pub fn set(&mut self, unit: Seq) -> bool {
        if self.has(unit) {
            return false;
        }
        if self.count == 0 || self.highest.before(unit) {
            self.highest = unit;
        }
        self.bits.get_or_insert_default()[word(unit)] |= bit(unit);
        self.count += 1;
        true
    }

    /// Takes a unit out; false if it was not there.
    #[inline]
    pub fn clear(&mut self, unit: Seq) -> bool {
        match &mut self.bits {
            Some(bits) if bits[word(unit)] & bit(unit) != 0 => {
                bits[word(unit)] &= !bit(unit);
                self.count -= 1;
                true
            }
            _ => false,
        }
    }

    /// The 64 units from `from` on, lowest in bit 0.
    #[inline]
    pub fn from(&self, from: Seq) -> u64 {
        let Some(bits) = &self.bits else { return 0 };
        let (w, shift) = (word(from), from.0 % 64);
        let low = bits[w] >> shift;
        match shift {
            0 => low,
            _ => low | bits[(w + 1) % SACK_WORDS_MAX] << (64 - shift),
        }
    }

    /// SACK words for a receiver that expects `ack` next. How many of `out` were written.
    pub fn words(&self, ack: Seq, out: &mut [u64; SACK_WORDS_MAX]) -> usize {
        let Some(highest) = self.highest() else { return 0 };
        let n = (highest.since(ack).max(0) as usize).div_ceil(64).min(SACK_WORDS_MAX);
        for (i, word) in out.iter_mut().enumerate().take(n) {
            *word = self.from(ack + (1 + 64 * i as u32));
        }
        n
    }

    /// How many SACK words there are for `ack`.
    #[inline]
    pub fn word_count(&self, ack: Seq) -> usize {
        match self.highest() {
            Some(highest) => (highest.since(ack).max(0) as usize).div_ceil(64).min(SACK_WORDS_MAX),
            None => 0,
        }
    }
}

/// Memory that is kept for later decides nothing.
impl Hash for Arrived {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let bits = self.bits.as_ref().filter(|_| self.count > 0);
        (self.count, self.highest, bits).hash(state);
    }
}

#[inline]
fn word(unit: Seq) -> usize {
    (unit.0 % REACH / 64) as usize
}

#[inline]
fn bit(unit: Seq) -> u64 {
    1 << (unit.0 % 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_say_exactly_which_units_arrived_wherever_the_window_lies() {
        for ack in [0u32, 1, 63, 64, 1000, 1023, u32::MAX - 500, u32::MAX] {
            let ack = Seq(ack);
            let mut set = Arrived::new();
            let there: [u32; 8] = [1, 2, 63, 64, 65, 600, 1023, 1024];
            assert!(there.iter().all(|i| set.set(ack + *i) && !set.set(ack + *i)));
            let mut out = [0; SACK_WORDS_MAX];
            assert_eq!(set.words(ack, &mut out), SACK_WORDS_MAX);
            for i in 1..=REACH {
                let told = out[(i as usize - 1) / 64] >> ((i - 1) % 64) & 1 == 1;
                assert_eq!(told, there.contains(&i), "ack {ack:?} unit +{i}");
            }
            assert!(set.clear(ack + 1024) && !set.clear(ack + 1024) && set.count() == 7);
        }
    }

    #[test]
    fn as_many_words_as_the_highest_unit_needs() {
        let mut out = [0; SACK_WORDS_MAX];
        for (highest, words) in [(1, 1), (64, 1), (65, 2), (1024, 16)] {
            let mut set = Arrived::new();
            set.set(Seq(100) + highest);
            assert_eq!((set.words(Seq(100), &mut out), set.word_count(Seq(100))), (words, words));
        }
        assert_eq!(Arrived::new().words(Seq(100), &mut out), 0);
    }
}
