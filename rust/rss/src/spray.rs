//! How many pairs to try at once.
//!
//! A random pair reaches one of `n` queues with probability `1/n`, so `l` of them miss it together with `(1 - 1/n)^l`. A connection has
//! two directions, and both have to hit: `(1-(1-1/n)^l) (1-(1-1/m)^k)`. With the same chance for both, each takes the root of the whole.

/// The chance that a set-up has a pair for both directions after its first batches: the paper's, and ours.
pub const SUCCESS: f64 = 0.95;

/// No batch is larger, whatever number of queues a peer claims to have. Enough for [`SUCCESS`] up to 35 queues (mirrored: 43 pairs of
/// queues); beyond, more set-ups take a second batch.
pub const BATCH_MAX: u16 = 128;

/// The least number of random pairs of which one reaches one of `queues` queues with probability √[`SUCCESS`], so that both directions
/// do with [`SUCCESS`]: 13 for 4 queues, 28 for 8. 1 for 1 queue (and for 0), at most [`BATCH_MAX`].
pub fn batch(queues: u16) -> u16 {
    // (1 - x)^2 >= SUCCESS, without a root.
    least(u32::from(queues), |miss| (1.0 - miss) * (1.0 - miss) >= SUCCESS)
}

/// The least number of random pairs of which one reaches one of `n` queues and, with its ports exchanged, one of `m` queues on the way
/// back, with probability [`SUCCESS`]: 47 for 4 and 4. 1 for 1 and 1, at most [`BATCH_MAX`].
pub fn mirrored_batch(n: u16, m: u16) -> u16 {
    least(u32::from(n) * u32::from(m), |miss| 1.0 - miss >= SUCCESS)
}

/// The probability that `l` random pairs reach one of `n` queues, and `k` others one of `m`; 0 queues count as 1.
pub fn success(l: u32, n: u16, k: u32, m: u16) -> f64 {
    (1.0 - all_miss(l, n)) * (1.0 - all_miss(k, m))
}

/// The probability that `tries` random pairs all miss one of `queues` queues.
fn all_miss(tries: u32, queues: u16) -> f64 {
    let miss = 1.0 - 1.0 / f64::from(queues.max(1));
    let (mut power, mut square, mut left) = (1.0, miss, tries);
    while left > 0 {
        if left & 1 == 1 {
            power *= square;
        }
        square *= square;
        left >>= 1;
    }
    power
}

/// The least number of tries whose chance to miss one of `targets` together is small `enough`.
fn least(targets: u32, enough: impl Fn(f64) -> bool) -> u16 {
    let miss = 1.0 - 1.0 / f64::from(targets.max(1));
    let mut all = miss;
    let mut tries = 1;
    while tries < BATCH_MAX && !enough(all) {
        all *= miss;
        tries += 1;
    }
    tries
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    #[test]
    fn batches_are_the_least_that_suffice() {
        for queues in 1..=64u16 {
            let naive = (1u32..).find(|&tries| {
                let hit = 1.0 - (1.0 - 1.0 / f64::from(queues)).powi(tries as i32);
                hit * hit >= SUCCESS
            });
            assert_eq!(u32::from(batch(queues)), naive.unwrap().min(u32::from(BATCH_MAX)), "{queues} queues");
            let b = u32::from(batch(queues));
            if batch(queues) < BATCH_MAX {
                assert!(success(b, queues, b, queues) >= SUCCESS, "{queues} queues");
            }
        }
        assert_eq!((batch(35), batch(36), batch(0), batch(u16::MAX)), (127, BATCH_MAX, 1, BATCH_MAX));
        assert!(success(128, 36, 128, 36) < SUCCESS, "36 queues are one too many");
    }

    /// The paper's figures for 4 and 8 queues are the next lower ones, 25 and 55 packets together, which are just short of 0.95.
    #[test]
    fn packets_of_a_set_up_are_those_of_the_formula() {
        let packets: Vec<u16> = [1, 2, 4, 8].iter().map(|&queues| 2 * batch(queues)).collect();
        assert_eq!(packets, [2, 12, 26, 56]);
        assert!(success(13, 4, 12, 4) < SUCCESS && success(13, 4, 13, 4) > SUCCESS);
        assert!(success(28, 8, 27, 8) < SUCCESS && success(28, 8, 28, 8) > SUCCESS);
    }

    #[test]
    fn mirrored_batches_are_the_least_that_suffice() {
        for n in 1..=9u16 {
            for m in 1..=9u16 {
                let naive = (1u32..).find(|&tries| {
                    1.0 - (1.0 - 1.0 / (f64::from(n) * f64::from(m))).powi(tries as i32) >= SUCCESS
                });
                assert_eq!(u32::from(mirrored_batch(n, m)), naive.unwrap().min(128), "{n} x {m}");
            }
        }
        assert_eq!(
            (mirrored_batch(1, 1), mirrored_batch(4, 4), mirrored_batch(u16::MAX, u16::MAX)),
            (1, 47, 128)
        );
    }

    #[test]
    fn success_is_a_naive_products() {
        for (l, n, k, m) in
            [(13, 4, 13, 4), (0, 4, 9, 2), (128, 64, 1, 1), (32, 8, 32, 8), (1, 3, 1, 5), (3, 0, 3, 1)]
        {
            let hit = |tries: i32, queues: u16| 1.0 - (1.0 - 1.0 / f64::from(queues.max(1))).powi(tries);
            let naive = hit(l as i32, n) * hit(k as i32, m);
            assert!((success(l, n, k, m) - naive).abs() < 1e-12, "{l} {n} {k} {m}");
        }
    }
}
