//! Which channels an engine looks at in every round, and whose doorbells it believes.
//!
//! A look at a channel costs three cache lines that an application may have written. A few are looked at in every round; where
//! there are more, those that have been quiet *rest*: they are armed as if the engine slept, so that their applications ring, and
//! the set of doorbells is asked now and then, and slept on. So a thousand quiet applications cost what one does.
//!
//! An honest application rings once for each time that the engine has armed its channel, and there is something then, but for rare
//! races. One that rings for nothing is left *unheard* for a while, and looked at when that is over: longer each time that it still rings.

use machnet_shm::{Bells, Rung};
use machnet_wire::Nanos;

use crate::admission::Admission;
use crate::channel::Channel;
use crate::channels::Channels;
use crate::ids::ChannelIndex;
use crate::random::Limit;

/// Of one engine: who is looked at, and when to ask for the others.
pub(crate) struct Attention {
    /// Places of the channels that are looked at in every round.
    pub busy: Vec<ChannelIndex>,
    /// How many others there are.
    resting: usize,
    /// Places of channels whose doorbells are not listened to.
    unheard: Vec<ChannelIndex>,
    /// When the set of doorbells was asked last.
    asked: Nanos,
    /// The engine has slept since.
    slept: bool,
    /// A round has passed since.
    passed: bool,
    tidied: Nanos,
}

/// Of one channel: how it is attended to.
pub(crate) struct Ear {
    /// It is looked at in every round.
    pub busy: bool,
    /// When there was something to do for it.
    pub worked: Nanos,
    /// Rings for nothing that are forgiven: they come of races.
    mistakes: Limit,
    /// How long it was not listened to for the last time; zero: it is.
    deaf_for: Nanos,
    deaf_until: Nanos,
}

impl Attention {
    pub fn new(now: Nanos) -> Self {
        let (busy, unheard) = (Vec::new(), Vec::new());
        Self { busy, resting: 0, unheard, asked: now, slept: false, passed: false, tidied: now }
    }

    /// Something may have to be told to a channel's application when the round ends.
    #[inline]
    pub fn touch(&mut self, at: ChannelIndex, channel: &mut Channel) {
        if !channel.ear.busy {
            self.rouse(at, channel);
        }
    }

    /// Has a channel looked at in every round from now on.
    #[cold]
    fn rouse(&mut self, at: ChannelIndex, channel: &mut Channel) {
        channel.ear.busy = true;
        channel.end.disarm();
        self.resting -= 1;
        self.busy.push(at);
    }

    /// A channel leaves.
    pub fn forget(&mut self, at: ChannelIndex, ear: &Ear) {
        if ear.busy {
            self.busy.retain(|&busy| busy != at);
        } else {
            self.resting -= 1;
        }
        self.unheard.retain(|&unheard| unheard != at);
    }

    /// The engine goes to sleep on the set, and asks it when it wakes.
    pub fn sleep(&mut self) {
        self.slept = true;
        self.passed = false;
    }
}

impl Ear {
    pub fn new(now: Nanos) -> Self {
        let mistakes = Limit::new(MISTAKES, now);
        Self { busy: true, worked: now, mistakes, deaf_for: Nanos::ZERO, deaf_until: Nanos::ZERO }
    }
}

impl Channels {
    /// The doorbells of the channels.
    pub fn bells(&self) -> &Bells {
        &self.own.inbox().doorbells
    }

    /// The channels that are looked at in every round, and where they are.
    pub fn busy(&self) -> impl Iterator<Item = (ChannelIndex, &Channel)> {
        self.attention.busy.iter().filter_map(|&at| Some((at, self.get(at)?)))
    }

    /// A channel has come.
    pub(crate) fn attend_to(&mut self, at: ChannelIndex, now: Nanos) {
        self.attention.busy.push(at);
        self.listen_to(at, now);
    }

    /// Once a round, before the channels are served.
    #[inline]
    pub fn attend(&mut self, admission: &Admission, now: Nanos) {
        let attention = &self.attention;
        if attention.slept || attention.resting > 0 && now - attention.asked >= ASK_EVERY {
            self.ask_bells(now);
        } else {
            self.attention.passed = true;
        }
        if !self.attention.unheard.is_empty() {
            self.hear_again(now);
        }
        if self.attention.busy.len() > BUSY && now - self.attention.tidied >= QUIET {
            self.tidy(admission, now);
        }
    }

    /// When that is due though nothing arrives.
    pub fn attention_due(&self) -> Option<Nanos> {
        let attention = &self.attention;
        let asks = (attention.resting > 0 && attention.passed).then_some(attention.asked + ASK_EVERY);
        let ears = attention.unheard.iter().filter_map(|&at| self.get(at));
        ears.map(|channel| channel.ear.deaf_until).chain(asks).min()
    }

    /// Rouses the channels whose applications have rung.
    fn ask_bells(&mut self, now: Nanos) {
        self.attention.asked = now;
        self.attention.slept = false;
        self.attention.passed = false;
        let mut room = [0; 64];
        let rung: &[u64] = self.own.inbox().doorbells.rung(&mut room);
        for &at in rung {
            let at = ChannelIndex(at as u32);
            let Some(Some(channel)) = self.slots.get_mut(at.place()) else { continue };
            let found = channel.end.drain_doorbell();
            if channel.gone {
                // Hung up for good; its flows drive it from here on.
                self.own.inbox().doorbells.remove(&channel.end);
                continue;
            }
            self.attention.touch(at, channel);
            match found {
                // Its end is told by the control thread. Until then the closed pipe would keep us awake.
                Rung::HungUp => self.stop_listening(at, UNHEARD_LONGEST, now),
                Rung::Rang if !channel.end.pending() => self.rang_for_nothing(at, now),
                _ => {}
            }
        }
    }

    #[cold]
    fn rang_for_nothing(&mut self, at: ChannelIndex, now: Nanos) {
        self.own.counters().bells_empty.add(1);
        let Some(channel) = self.get_mut(at) else { return };
        if channel.ear.deaf_for == Nanos::ZERO && channel.ear.mistakes.allow(now) {
            return;
        }
        if channel.ear.deaf_for == Nanos::ZERO {
            log::warn!(
                "channel {}: its application rings for nothing; looked at by time instead",
                channel.number
            );
        }
        let longer = (channel.ear.deaf_for * 2).clamp(UNHEARD, UNHEARD_LONGEST);
        self.stop_listening(at, longer, now);
    }

    #[cold]
    fn stop_listening(&mut self, at: ChannelIndex, time: Nanos, now: Nanos) {
        let until = now.saturating_add(time);
        let Some(Some(channel)) = self.slots.get_mut(at.place()) else { return };
        self.own.inbox().doorbells.remove(&channel.end);
        channel.ear.deaf_for = time;
        channel.ear.deaf_until = until;
        if !self.attention.unheard.contains(&at) {
            self.attention.unheard.push(at);
        }
        self.own.counters().bells_unheard.add(1);
    }

    /// Looks again at the channels that were not listened to.
    #[cold]
    fn hear_again(&mut self, now: Nanos) {
        for i in (0..self.attention.unheard.len()).rev() {
            let at = self.attention.unheard[i];
            let Some(channel) = self.get_mut(at) else { continue };
            if channel.ear.deaf_until > now {
                continue;
            }
            let found = if channel.gone { Rung::Silent } else { channel.end.drain_doorbell() };
            match found {
                Rung::HungUp => self.stop_listening(at, UNHEARD_LONGEST, now),
                Rung::Rang if !channel.end.pending() => self.rang_for_nothing(at, now),
                Rung::Rang | Rung::Silent => {
                    channel.ear.deaf_for = Nanos::ZERO;
                    let listens = !channel.gone;
                    self.attention.unheard.swap_remove(i);
                    if listens {
                        self.listen_to(at, now);
                    }
                }
            }
        }
    }

    fn listen_to(&mut self, at: ChannelIndex, now: Nanos) {
        let Some(channel) = self.get(at) else { return };
        if let Err(error) = self.bells().add(&channel.end, at.0.into()) {
            log::warn!("channel {}: {error}; looked at by time instead", channel.number);
            self.stop_listening(at, UNHEARD_LONGEST, now);
        }
    }

    /// Lets channels rest that have been quiet, where there are many.
    #[cold]
    fn tidy(&mut self, admission: &Admission, now: Nanos) {
        self.attention.tidied = now;
        for i in (0..self.attention.busy.len()).rev() {
            if self.attention.busy.len() <= BUSY {
                return;
            }
            let at = self.attention.busy[i];
            let Some(channel) = self.get_mut(at) else { continue };
            let quiet =
                now - channel.ear.worked >= QUIET && !admission.units_due(at) && !channel.end.has_news();
            // One that is not listened to must be looked at.
            let heard = channel.ear.deaf_for == Nanos::ZERO;
            if quiet && heard && (channel.gone || channel.end.arm()) {
                channel.ear.busy = false;
                self.attention.resting += 1;
                self.attention.busy.swap_remove(i);
            }
        }
    }
}

/// Channels that are looked at in every round whatever they do.
const BUSY: usize = 16;
/// How long a channel beyond them must have been quiet to rest.
const QUIET: Nanos = Nanos::millis(1);
/// How often an engine that does not sleep asks for the doorbells of those that rest: a system call.
const ASK_EVERY: Nanos = Nanos::micros(50);
/// Rings for nothing that a channel has free, a second; a tenth of them at once.
const MISTAKES: u32 = 1000;
/// How long a channel that has had its share of those is not listened to at first, and at most.
const UNHEARD: Nanos = Nanos::millis(1);
const UNHEARD_LONGEST: Nanos = Nanos::millis(10);
