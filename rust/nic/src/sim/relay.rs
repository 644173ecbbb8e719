//! A program in user space that passes frames on, and the cores that such programs share with hosts.

use super::dice::Dice;
use machnet_wire::Nanos;

/// A thread in user space that frames pass on their way, those of every link that leads through it: it takes them one after the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Relay {
    /// Its core's time for each frame.
    pub service: Nanos,
    /// A frame that finds it asleep waits for this long until it runs, drawn evenly from nothing to twice this.
    pub wake: Nanos,
    /// Bit n: it may run on core n of those of [`super::Net::add_core`], on whichever is free first. 0: it has one of its own.
    pub cores: u64,
}

/// The state of a relay.
pub(crate) struct Passing {
    relay: Relay,
    dice: Dice,
    /// When it has passed on what came so far.
    free_at: Nanos,
}

impl Passing {
    pub fn new(relay: Relay, dice: Dice) -> Passing {
        Passing { relay, dice, free_at: Nanos::ZERO }
    }

    /// When a frame that comes at `now` has been passed on. `cores`: until when each is busy.
    pub fn pass(&mut self, now: Nanos, cores: &mut [Nanos]) -> Nanos {
        let Relay { service, wake, cores: allowed } = self.relay;
        let asleep = self.free_at <= now;
        let mut start = self.free_at.max(now);
        if asleep && wake > Nanos::ZERO {
            start += Nanos(self.dice.below(2 * wake.0 + 1));
        }
        let own = cores.iter_mut().enumerate().filter(|(n, _)| *n < 64 && allowed >> n & 1 != 0);
        if let Some((_, busy_until)) = own.min_by_key(|(_, busy_until)| **busy_until) {
            // Others may run while it wakes, but what it does then is their loss.
            start = start.max(*busy_until);
            *busy_until = now.max(*busy_until) + service;
        }
        self.free_at = start + service;
        self.free_at
    }
}
