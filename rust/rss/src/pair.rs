//! A pair of UDP ports, and where random ones come from.

use core::ops::RangeInclusive;

/// The UDP ports of a packet, as its sender writes them. They decide on which queue of the receiver's NIC it lands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Pair {
    /// UDP source port; 0 only in [`Pair::NONE`].
    pub src: u16,
    /// UDP destination port; 0 only in [`Pair::NONE`].
    pub dst: u16,
}

/// Where random bits come from.
pub trait Draw {
    /// 64 random bits.
    fn draw(&mut self) -> u64;
}

impl Pair {
    /// No pair.
    pub const NONE: Pair = Pair { src: 0, dst: 0 };

    /// A random pair with both ports out of `ports`, which is not empty.
    pub fn draw(random: &mut impl Draw, ports: &RangeInclusive<u16>) -> Pair {
        let count = u64::from(ports.end().saturating_sub(*ports.start())) + 1;
        let bits = random.draw();
        let port = |bits: u64| ports.start() + ((bits & 0xffff_ffff) % count) as u16;
        Pair { src: port(bits), dst: port(bits >> 32) }
    }

    /// Whether this is a pair at all.
    pub const fn is_some(self) -> bool {
        self.src != 0 || self.dst != 0
    }

    /// The pair with its ports exchanged, on which a mirrored answer goes.
    pub const fn mirrored(self) -> Pair {
        Pair { src: self.dst, dst: self.src }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::collections::BTreeSet;

    struct Count(u64);
    impl Draw for Count {
        fn draw(&mut self) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            self.0 ^ self.0 >> 29
        }
    }

    #[test]
    fn pairs_fill_their_range_and_nothing_else() {
        let mut random = Count(1);
        for ports in [65533..=65535, 7..=7, 0..=65535] {
            let drawn: BTreeSet<Pair> = (0..1000).map(|_| Pair::draw(&mut random, &ports)).collect();
            assert!(
                drawn.iter().all(|pair| ports.contains(&pair.src) && ports.contains(&pair.dst)),
                "{ports:?}"
            );
            let ports = usize::from(ports.end() - ports.start()) + 1;
            assert!(drawn.len() >= (ports * ports).min(990), "{} of {ports} ports", drawn.len());
        }
    }

    #[test]
    fn the_mirror_of_a_mirror_is_the_pair() {
        let pair = Pair { src: 1, dst: 2 };
        assert_eq!((pair.mirrored(), pair.mirrored().mirrored()), (Pair { src: 2, dst: 1 }, pair));
        assert!(pair.is_some() && !Pair::NONE.is_some());
    }
}
