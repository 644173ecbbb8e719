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

    /// A number of at least 1.0, of which a share `x.powf(-shape)` are above `x`: a Pareto distribution.
    pub fn pareto(&mut self, shape: f64) -> f64 {
        // The inverse of the distribution's tail at an even number above 0.0. Not `powf`: C libraries round it differently, and what is
        // drawn is to be the same everywhere.
        exp(-ln(1.0 - self.fraction()) / shape)
    }

    /// A number of 0.0 to 1.0, the latter never.
    pub fn fraction(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The natural logarithm of a positive number.
fn ln(x: f64) -> f64 {
    // x = m 2^e with m in 1.0..2.0, and ln m = 2 atanh((m - 1) / (m + 1)), whose series falls ninefold with each term.
    let bits = x.to_bits();
    let e = (bits >> 52) as i32 - 1023;
    let m = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52);
    let z = (m - 1.0) / (m + 1.0);
    let series = (0..17).rev().fold(0.0, |sum, n| sum * z * z + 1.0 / f64::from(2 * n + 1));
    2.0 * z * series + f64::from(e) * std::f64::consts::LN_2
}

/// e to the power of a number of at least 0.0.
fn exp(x: f64) -> f64 {
    let e = (x / std::f64::consts::LN_2).min(1000.0) as u32;
    let rest = x.min(700.0) - f64::from(e) * std::f64::consts::LN_2;
    let series = (1..20).rev().fold(1.0, |sum, n| 1.0 + sum * rest / f64::from(n));
    series * f64::from_bits(u64::from(e + 1023) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_are_those_of_the_c_library() {
        for x in [1e-16, 1e-9, 0.001, 0.3, 0.5, 0.999, 1.0, 1.5, 77.0] {
            assert!((ln(x) - x.ln()).abs() < 1e-13, "ln {x}: {}", ln(x));
        }
        for x in [0.0, 1e-9, 0.5, 0.7, 1.0, 2.5, 36.0, 300.0] {
            assert!((exp(x) / x.exp() - 1.0).abs() < 1e-12, "exp {x}: {}", exp(x));
        }
        assert!(exp(f64::MAX) > 1e300 && exp(f64::INFINITY) > 1e300, "too much is as much as there is");
    }
}
