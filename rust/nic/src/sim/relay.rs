//! A program in user space that passes frames on, and the cores that such programs share with hosts.

use super::dice::Dice;
use machnet_wire::Nanos;

/// A thread in user space that frames pass on their way, those of every link that leads through it. It takes each frame, keeps it as long as
/// the link says, and sends it on; it does one thing after the other, what comes first first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Relay {
    /// Its core's time to take a frame.
    pub take: Nanos,
    /// Its core's time to send one.
    pub send: Nanos,
    /// What finds it asleep, because it has nothing to do, waits for this long until it runs, drawn evenly from nothing to twice this.
    pub wake: Nanos,
    /// Bit n: it may run on core n of those of [`super::Net::add_core`]: when it wakes it takes the one that is free first, and keeps that until
    /// it sleeps again. 0: it has one of its own.
    pub cores: u64,
}

/// The state of a relay.
pub(crate) struct Passing {
    relay: Relay,
    dice: Dice,
    /// When it has done what there was to do so far.
    free_at: Nanos,
    /// The core that it runs on, or ran on last.
    on: Option<usize>,
}

impl Passing {
    pub fn new(relay: Relay, dice: Dice) -> Passing {
        Passing { relay, dice, free_at: Nanos::ZERO, on: None }
    }

    /// When a frame that comes at `now` has been taken. `cores`: until when each is busy.
    pub fn take(&mut self, now: Nanos, cores: &mut [Nanos]) -> Nanos {
        self.work(now, self.relay.take, cores)
    }

    /// When a frame that is due at `now` has been sent.
    pub fn send(&mut self, now: Nanos, cores: &mut [Nanos]) -> Nanos {
        self.work(now, self.relay.send, cores)
    }

    fn work(&mut self, now: Nanos, length: Nanos, cores: &mut [Nanos]) -> Nanos {
        let Relay { wake, cores: allowed, .. } = self.relay;
        let asleep = self.free_at < now;
        let mut start = self.free_at.max(now);
        if asleep && wake > Nanos::ZERO {
            start += Nanos(self.dice.below(2 * wake.0 + 1));
        }
        if asleep || self.on.is_none() {
            let may = (0..cores.len().min(64)).filter(|n| allowed >> n & 1 != 0);
            self.on = may.min_by_key(|n| cores[*n]);
        }
        if let Some(on) = self.on {
            // Others may run while it wakes, but what it does then is their loss.
            start = start.max(cores[on]);
            cores[on] = now.max(cores[on]) + length;
        }
        self.free_at = start + length;
        self.free_at
    }
}
