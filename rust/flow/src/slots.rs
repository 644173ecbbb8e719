//! A window of values by sequence number: what is at `n` stays there while there are at least as many slots as live numbers.

use alloc::boxed::Box;

use machnet_wire::Seq;

/// A power of two of values, or none at all. The caller knows which numbers are live; the slots only map them, so looking up a
/// number costs a mask. It grows by doubling and shrinks only by [`Slots::rest`]: in steady state nothing allocates.
#[derive(Debug, Clone, Hash)]
pub(crate) struct Slots<E> {
    slots: Box<[E]>,
}

impl<E: Default> Slots<E> {
    pub fn new() -> Self {
        Slots { slots: Box::default() }
    }

    /// Gives the memory back: no number is live.
    pub fn rest(&mut self) {
        self.slots = Box::default();
    }

    /// Makes room for the live numbers `first..first + len` and keeps what is at the first `live` of them. True: it had to grow.
    #[inline]
    pub fn reserve(&mut self, first: Seq, live: u32, len: u32) -> bool {
        let grows = len as usize > self.slots.len();
        if grows {
            self.grow(first, live, len);
        }
        grows
    }

    #[cold]
    fn grow(&mut self, first: Seq, live: u32, len: u32) {
        let room = (len as usize).next_power_of_two();
        let mut old = core::mem::replace(&mut self.slots, (0..room).map(|_| E::default()).collect());
        for i in 0..live.min(old.len() as u32) {
            let at = first + i;
            *self.at_mut(at) = core::mem::take(&mut old[at.0 as usize & (old.len() - 1)]);
        }
    }

    #[inline]
    pub fn at(&self, n: Seq) -> &E {
        &self.slots[n.0 as usize & self.slots.len().wrapping_sub(1)]
    }

    #[inline]
    pub fn at_mut(&mut self, n: Seq) -> &mut E {
        let mask = self.slots.len().wrapping_sub(1);
        &mut self.slots[n.0 as usize & mask]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growing_keeps_every_live_number_across_the_wrap() {
        let first = Seq(u32::MAX - 2);
        let mut slots = Slots::new();
        for len in 1..=100u32 {
            slots.reserve(first, len - 1, len);
            *slots.at_mut(first + (len - 1)) = len;
            assert!((0..len).all(|i| *slots.at(first + i) == i + 1), "after {len}");
        }
        slots.rest();
        slots.reserve(first, 0, 1);
        assert_eq!(*slots.at(first), 0, "what was given back is forgotten");
    }
}
