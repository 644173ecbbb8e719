//! Where the choices of a random run come from: a seed, or the bytes that a fuzzer tries.

/// Small and good enough; the same everywhere.
#[derive(Debug, Clone)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
    /// True in `per_mille` of 1000 cases.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }
}

/// One interpreter of choices serves both: what a fuzzer finds is the same kind of run that a seed gives.
#[derive(Debug, Clone)]
pub enum Choices {
    Seeded(Rng),
    /// Each choice takes as few bytes as its range needs, so that a changed byte changes one choice. When all are read,
    /// every number is 0 and every chance is missed: faults end.
    Read {
        bytes: Vec<u8>,
        at: usize,
    },
}

impl Choices {
    pub fn seeded(seed: u64) -> Self {
        Choices::Seeded(Rng(seed))
    }

    pub fn read(bytes: &[u8]) -> Self {
        Choices::Read { bytes: bytes.to_vec(), at: 0 }
    }

    /// Two independent streams: the first byte says where the second begins, so that what is drawn from one (the link's
    /// faults, packet by packet) does not shift what is drawn from the other (what the applications do).
    pub fn split(bytes: &[u8]) -> (Self, Self) {
        let Some((&first, rest)) = bytes.split_first() else { return (Self::read(&[]), Self::read(&[])) };
        let (one, two) = rest.split_at(rest.len() * usize::from(first) / 255);
        (Self::read(one), Self::read(two))
    }

    /// Whether nothing is left to choose from. Never so for a seed.
    pub fn is_spent(&self) -> bool {
        matches!(self, Choices::Read { bytes, at } if *at >= bytes.len())
    }

    /// How many steps a run takes: fewer than `most` by a seed; bytes say it by ending.
    pub fn steps(&mut self, most: u64) -> u64 {
        if let Choices::Seeded(rng) = self { rng.below(most) } else { most }
    }

    pub fn next(&mut self) -> u64 {
        self.draw(8)
    }

    pub fn word(&mut self) -> u32 {
        self.draw(4) as u32
    }

    pub fn byte(&mut self) -> u8 {
        self.draw(1) as u8
    }

    pub fn below(&mut self, n: u64) -> u64 {
        let bytes = match n {
            // A seed's sequence must not depend on the range.
            0..=1 if matches!(self, Choices::Read { .. }) => return 0,
            0..=0x100 => 1,
            0x101..=0x1_0000 => 2,
            0x1_0001..=0x1_0000_0000 => 4,
            _ => 8,
        };
        self.draw(bytes) % n.max(1)
    }

    /// True in `per_mille` of 1000 cases; high bytes mean yes.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        match self {
            Choices::Seeded(rng) => rng.chance(per_mille),
            Choices::Read { .. } if per_mille == 0 => false,
            Choices::Read { .. } => (255 - self.draw(1)) * 1000 / 256 < per_mille,
        }
    }

    /// The low `bytes` bytes of a number.
    fn draw(&mut self, bytes: usize) -> u64 {
        match self {
            Choices::Seeded(rng) => rng.next(),
            Choices::Read { bytes: all, at } => {
                let from = &all[(*at).min(all.len())..];
                let from = &from[..bytes.min(from.len())];
                *at += bytes;
                from.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
            }
        }
    }
}
