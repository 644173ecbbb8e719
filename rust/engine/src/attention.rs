//! Which channels an engine polls in every round, and whose doorbells it listens to.
//!
//! To poll a channel costs three cache lines that an application may have written. A few channels are polled in every round. Where
//! there are more, those that have been quiet *rest*: they are armed as if the engine slept, so that their applications ring the
//! doorbell. The engine waits on the set of all doorbells when it sleeps, and asks it now and then while it does not. So a
//! thousand quiet applications cost what one does.
//!
//! An honest application rings once each time that the engine has armed its channel, and then there is something to do, but for rare
//! races. A doorbell that rings for nothing is *muted* for a while: taken out of the set, and its channel polled when the time is
//! over. If it still rings for nothing then, it is muted for longer.

use machnet_shm::{Bells, Rung};
use machnet_wire::Nanos;

use crate::admission::Admission;
use crate::channel::Channel;
use crate::channels::Channels;
use crate::ids::ChannelIndex;
use crate::random::Limit;

/// Which of an engine's channels are polled, and when to ask for the others' doorbells.
pub(crate) struct Attention {
    /// The channels that are polled in every round.
    pub polled: Vec<ChannelIndex>,
    /// How many others there are, which rest.
    resting: usize,
    /// Channels whose doorbells are muted.
    muted: Vec<ChannelIndex>,
    /// When the set of doorbells was last asked.
    asked: Nanos,
    /// The engine has slept since then.
    slept: bool,
    /// A round has passed since then.
    passed: bool,
    /// When channels were last looked through for some that may rest.
    rested: Nanos,
}

/// Whether a channel is polled, and what is known of its doorbell.
pub(crate) struct Watch {
    /// It is polled in every round.
    pub polled: bool,
    /// When there was last something to do for it.
    pub worked: Nanos,
    /// How many rings for nothing are taken for races.
    races: Limit,
    /// How long its doorbell is muted; zero if it is not.
    muted_for: Nanos,
    muted_until: Nanos,
}

impl Attention {
    pub fn new(now: Nanos) -> Self {
        let (polled, muted) = (Vec::new(), Vec::new());
        Self { polled, resting: 0, muted, asked: now, slept: false, passed: false, rested: now }
    }

    /// There may be something to publish to a channel's application when the round ends, so it must not rest.
    #[inline]
    pub fn touch(&mut self, at: ChannelIndex, channel: &mut Channel) {
        if !channel.watch.polled {
            self.poll(at, channel);
        }
    }

    /// Has a channel polled in every round from now on.
    #[cold]
    fn poll(&mut self, at: ChannelIndex, channel: &mut Channel) {
        channel.watch.polled = true;
        channel.end.disarm();
        self.resting -= 1;
        self.polled.push(at);
    }

    /// A channel is over.
    pub fn forget(&mut self, at: ChannelIndex, watch: &Watch) {
        if watch.polled {
            self.polled.retain(|&polled| polled != at);
        } else {
            self.resting -= 1;
        }
        self.muted.retain(|&muted| muted != at);
    }

    /// The engine goes to sleep on the set of doorbells, and asks it when it wakes.
    pub fn sleep(&mut self) {
        self.slept = true;
        self.passed = false;
    }
}

impl Watch {
    pub fn new(now: Nanos) -> Self {
        let races = Limit::new(RACES, now);
        Self { polled: true, worked: now, races, muted_for: Nanos::ZERO, muted_until: Nanos::ZERO }
    }
}

impl Channels {
    /// The doorbells of the channels.
    pub fn bells(&self) -> &Bells {
        &self.own.inbox().doorbells
    }

    /// The channels that are polled in every round, and where they are.
    pub fn polled(&self) -> impl Iterator<Item = (ChannelIndex, &Channel)> {
        self.attention.polled.iter().filter_map(|&at| Some((at, self.get(at)?)))
    }

    /// A channel has come.
    pub(crate) fn attend_to(&mut self, at: ChannelIndex, now: Nanos) {
        self.attention.polled.push(at);
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
        if !self.attention.muted.is_empty() {
            self.unmute_due(now);
        }
        if self.attention.polled.len() > POLLED && now - self.attention.rested >= QUIET {
            self.let_quiet_ones_rest(admission, now);
        }
    }

    /// When [`Channels::attend`] has something to do though nothing arrives.
    pub fn attention_due(&self) -> Option<Nanos> {
        let attention = &self.attention;
        let asks = (attention.resting > 0 && attention.passed).then_some(attention.asked + ASK_EVERY);
        let muted = attention.muted.iter().filter_map(|&at| self.get(at));
        muted.map(|channel| channel.watch.muted_until).chain(asks).min()
    }

    /// Asks which applications have rung, and polls their channels from now on.
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
                // Nobody rings any more. Its connections keep it going until they are over.
                self.own.inbox().doorbells.remove(&channel.end);
                continue;
            }
            self.attention.touch(at, channel);
            match found {
                // The control thread will say that the application is gone. Until then its closed pipe would keep us awake.
                Rung::HungUp => self.mute(at, MUTED_LONGEST, now),
                Rung::Rang if !channel.end.pending() => self.rang_for_nothing(at, now),
                _ => {}
            }
        }
    }

    /// An application has rung, and there is nothing to do for it.
    #[cold]
    fn rang_for_nothing(&mut self, at: ChannelIndex, now: Nanos) {
        self.own.counters().bells_empty.add(1);
        let Some(channel) = self.get_mut(at) else { return };
        if channel.watch.muted_for == Nanos::ZERO && channel.watch.races.allow(now) {
            return;
        }
        if channel.watch.muted_for == Nanos::ZERO {
            log::warn!(
                "channel {}: its application rings for nothing; looked at by time instead",
                channel.number
            );
        }
        let longer = (channel.watch.muted_for * 2).clamp(MUTED, MUTED_LONGEST);
        self.mute(at, longer, now);
    }

    /// Takes a doorbell out of the set for this time.
    #[cold]
    fn mute(&mut self, at: ChannelIndex, time: Nanos, now: Nanos) {
        let until = now.saturating_add(time);
        let Some(Some(channel)) = self.slots.get_mut(at.place()) else { return };
        self.own.inbox().doorbells.remove(&channel.end);
        channel.watch.muted_for = time;
        channel.watch.muted_until = until;
        if !self.attention.muted.contains(&at) {
            self.attention.muted.push(at);
        }
        self.own.counters().bells_unheard.add(1);
    }

    /// Polls the channels whose doorbells have been muted for their time, and listens to those that no longer ring for nothing.
    #[cold]
    fn unmute_due(&mut self, now: Nanos) {
        for i in (0..self.attention.muted.len()).rev() {
            let at = self.attention.muted[i];
            let Some(channel) = self.get_mut(at) else { continue };
            if channel.watch.muted_until > now {
                continue;
            }
            let found = if channel.gone { Rung::Silent } else { channel.end.drain_doorbell() };
            match found {
                Rung::HungUp => self.mute(at, MUTED_LONGEST, now),
                Rung::Rang if !channel.end.pending() => self.rang_for_nothing(at, now),
                Rung::Rang | Rung::Silent => {
                    channel.watch.muted_for = Nanos::ZERO;
                    let listens = !channel.gone;
                    self.attention.muted.swap_remove(i);
                    if listens {
                        self.listen_to(at, now);
                    }
                }
            }
        }
    }

    /// Puts a channel's doorbell into the set.
    fn listen_to(&mut self, at: ChannelIndex, now: Nanos) {
        let Some(channel) = self.get(at) else { return };
        if let Err(error) = self.bells().add(&channel.end, at.0.into()) {
            log::warn!("channel {}: {error}; looked at by time instead", channel.number);
            self.mute(at, MUTED_LONGEST, now);
        }
    }

    /// Lets channels rest that have been quiet, as long as more are polled than there are to be.
    #[cold]
    fn let_quiet_ones_rest(&mut self, admission: &Admission, now: Nanos) {
        self.attention.rested = now;
        for i in (0..self.attention.polled.len()).rev() {
            if self.attention.polled.len() <= POLLED {
                return;
            }
            let at = self.attention.polled[i];
            let Some(channel) = self.get_mut(at) else { continue };
            let quiet =
                now - channel.watch.worked >= QUIET && !admission.units_due(at) && !channel.end.has_news();
            // One whose doorbell is muted has to be polled.
            let heard = channel.watch.muted_for == Nanos::ZERO;
            if quiet && heard && (channel.gone || channel.end.arm()) {
                channel.watch.polled = false;
                self.attention.resting += 1;
                self.attention.polled.swap_remove(i);
            }
        }
    }
}

/// So many channels are polled in every round, however quiet they are.
const POLLED: usize = 16;
/// How long a channel beyond those must have been quiet to rest.
const QUIET: Nanos = Nanos::millis(1);
/// How often an engine that does not sleep asks for the doorbells of channels that rest, which takes a system call.
const ASK_EVERY: Nanos = Nanos::micros(50);
/// So many rings for nothing a second are taken for races; a tenth of them may come at once.
const RACES: u32 = 1000;
/// How long a doorbell is muted that rings for nothing more often: at first, and at most.
const MUTED: Nanos = Nanos::millis(1);
const MUTED_LONGEST: Nanos = Nanos::millis(10);
