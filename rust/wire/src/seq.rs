//! Serial numbers that wrap.

use core::ops::Add;

/// A number of the unit or transmission space, modulo 2^32. Of two numbers less than 2^31 apart one is before the
/// other (RFC 1982); there is no total order, hence no `Ord`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Seq(pub u32);

impl Seq {
    /// How far this is ahead of `earlier`; negative when it is behind.
    #[inline]
    pub const fn since(self, earlier: Seq) -> i32 {
        self.0.wrapping_sub(earlier.0) as i32
    }

    /// Strictly earlier than `other`.
    #[inline]
    pub const fn before(self, other: Seq) -> bool {
        self.since(other) < 0
    }

    /// Earlier than `other`, or the same.
    #[inline]
    pub const fn at_or_before(self, other: Seq) -> bool {
        self.since(other) <= 0
    }
}

impl Add<u32> for Seq {
    type Output = Seq;
    #[inline]
    fn add(self, n: u32) -> Seq {
        Seq(self.0.wrapping_add(n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_holds_across_the_wrap_and_ends_half_way_round() {
        let (before, after) = (Seq(u32::MAX), Seq(u32::MAX) + 3);
        assert_eq!((after, after.since(before), before.since(after)), (Seq(2), 3, -3));
        assert!(before.before(after) && !after.before(before) && before.at_or_before(before));
        assert!(Seq(0).before(Seq(0x7fff_ffff)) && !Seq(0).before(Seq(0x8000_0001)));
    }
}
