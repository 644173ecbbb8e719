//! Units in flight that were sent more than once, in the order of their latest transmissions: loss detection asks for the oldest, and a
//! window of thousands is too long to be walked for each acknowledgement (RFC 8985 section 6.2 keeps such a list, too).

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use core::hash::{Hash, Hasher};

use machnet_wire::Seq;

/// A list in the order of `tx`. Without repetitions it has no memory.
#[derive(Debug, Clone)]
pub(crate) struct Repeats {
    /// Boxed, because most connections never have one, and are small for that.
    #[allow(clippy::box_collection)]
    list: Option<Box<VecDeque<Repeat>>>,
}

/// One unit, and its latest transmission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Repeat {
    pub unit: Seq,
    pub tx: Seq,
}

impl Repeats {
    pub fn new() -> Self {
        Repeats { list: None }
    }

    #[inline]
    pub fn len(&self) -> u32 {
        self.list.as_ref().map_or(0, |list| list.len() as u32)
    }

    /// The one whose latest transmission is the oldest.
    #[inline]
    pub fn first(&self) -> Option<Repeat> {
        self.list.as_ref()?.front().copied()
    }

    /// A unit goes out once more. Later than all that are here, but for units of which a timeout is undone.
    pub fn add(&mut self, repeat: Repeat) {
        let list = self.list.get_or_insert_default();
        let mut at = list.len();
        while at > 0 && repeat.tx.before(list[at - 1].tx) {
            at -= 1;
        }
        list.insert(at, repeat);
    }

    /// The unit whose latest transmission is `tx` is not in flight any more.
    pub fn remove(&mut self, tx: Seq) {
        let Some(list) = &mut self.list else { return };
        if let Ok(at) = list.binary_search_by(|repeat| repeat.tx.since(tx).cmp(&0)) {
            list.remove(at);
        }
    }

    /// Gives the memory back, if there are none.
    pub fn rest(&mut self) {
        if self.len() == 0 {
            self.list = None;
        }
    }
}

/// Memory that is kept for later decides nothing.
impl Hash for Repeats {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.list.iter().flat_map(|list| list.iter()).for_each(|repeat| repeat.hash(state));
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn the_oldest_comes_first_whatever_leaves_from_the_middle() {
        let repeat = |i: u32| Repeat { unit: Seq(1000 - i), tx: Seq(u32::MAX - 5) + i };
        let mut repeats = Repeats::new();
        (0..20).filter(|i| *i != 7).for_each(|i| repeats.add(repeat(i)));
        for gone in [0, 3, 19, 3, 12] {
            repeats.remove(repeat(gone).tx);
        }
        repeats.add(repeat(7));
        let mut left = Vec::new();
        while let Some(first) = repeats.first() {
            left.push(first);
            repeats.remove(first.tx);
        }
        let expected: Vec<Repeat> = (1..19).filter(|i| ![3, 12].contains(i)).map(repeat).collect();
        assert_eq!(left, expected);
        repeats.rest();
        assert!(repeats.list.is_none());
    }
}
