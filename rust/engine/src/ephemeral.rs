//! The search for a free local port of an engine's share.

use crate::random::Random;

/// How far the search has come.
///
/// Ports are given in turn, so that one is given again as late as can be. Where the next is in use, others are tried at random: a
/// program that has opened ten thousand connections leaves a run of ports in use, and to pass it step by step would hold up the
/// engine for most of a millisecond.
#[derive(Debug)]
pub(crate) struct Ephemeral {
    last: u16,
    random: Random,
}

impl Ephemeral {
    /// Begins somewhere.
    pub fn new(mut random: Random) -> Self {
        Self { last: random.draw() as u16 & 0x3fff, random }
    }

    /// A number below `share` that is free; `None` if none is.
    pub fn find(&mut self, share: u16, mut is_free: impl FnMut(u16) -> bool) -> Option<u16> {
        let share = share.max(1);
        for tried in 0..=JUMPS + u32::from(share) {
            self.last = match tried {
                1..=JUMPS => (self.random.draw() % u64::from(share)) as u16,
                _ => (self.last + 1) % share,
            };
            if is_free(self.last) {
                return Some(self.last);
            }
        }
        None
    }
}

/// Ports tried at random before all are tried in turn: with two thirds of them in use, one search in 600 gets as far.
const JUMPS: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn ports() -> Ephemeral {
        Ephemeral::new(Random::new([1, 2], 3))
    }

    #[test]
    fn ports_are_given_in_turn() {
        let mut ports = Ephemeral { last: 2, ..ports() };
        let given: Vec<_> = (0..5).filter_map(|_| ports.find(4, |_| true)).collect();
        assert_eq!(given, [3, 0, 1, 2, 3]);
    }

    #[test]
    fn a_run_of_ports_in_use_is_passed_in_a_few_steps() {
        let mut ports = ports();
        let mut tried = 0;
        for _ in 0..1000 {
            ports.last = 0;
            let found = ports.find(16_000, |port| {
                tried += 1;
                port > 10_000
            });
            assert!(found.is_some_and(|port| port > 10_000));
        }
        assert!(tried < 20_000, "{tried} tries of 1000 searches; step by step it would be ten million");
    }

    #[test]
    fn the_only_free_port_is_found_and_none_where_there_is_none() {
        let mut ports = ports();
        for only in 0..50 {
            assert_eq!(ports.find(50, |port| port == only), Some(only));
            assert_eq!(ports.find(50, |_| false), None);
        }
    }
}
