//! Random numbers from a seed.

use crate::toeplitz::split_mix;

/// A stream of random numbers. Each link and each host has its own, so that traffic elsewhere does not change its
/// faults.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    /// The stream `stream` of a seed.
    pub fn new(seed: u64, stream: u64) -> Dice {
        let mut state = seed;
        let first = split_mix(&mut state);
        let mut state = first ^ stream.wrapping_mul(0xa076_1d64_78bd_642f);
        split_mix(&mut state);
        Dice(state)
    }

    pub fn draw(&mut self) -> u64 {
        split_mix(&mut self.0)
    }

    /// A number below `n`; 0 if `n` is 0. The bias of the multiplication is below n / 2^64.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.draw()) * u128::from(n)) >> 64) as u64
    }

    /// True with probability `p`. Draws nothing where the outcome is certain.
    pub fn chance(&mut self, p: f64) -> bool {
        if p <= 0.0 {
            return false;
        }
        p >= 1.0 || self.fraction() <= p
    }

    /// A number of 0.0 to 1.0, the latter never.
    pub fn fraction(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1u64 << 53) as f64
    }
}
