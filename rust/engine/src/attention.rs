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
use crate::channel_table::ChannelTable;
use crate::ids::ChannelIndex;
use crate::shared::EngineHandle;
use crate::watch::MUTED_LONGEST;

/// Which of an engine's channels are polled, and when to ask for the others' doorbells.
pub(crate) struct Attention {
    own: EngineHandle,
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

impl Attention {
    pub fn new(own: EngineHandle, now: Nanos) -> Self {
        let (polled, muted) = (Vec::new(), Vec::new());
        Self { own, polled, resting: 0, muted, asked: now, slept: false, passed: false, rested: now }
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

    /// A channel has come.
    pub fn begin(&mut self, table: &mut ChannelTable, at: ChannelIndex, now: Nanos) {
        self.polled.push(at);
        self.listen_to(table, at, now);
    }

    /// A channel is over.
    pub fn end(&mut self, at: ChannelIndex, channel: &Channel) {
        self.doorbells().remove(&channel.end);
        if channel.watch.polled {
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

    /// The doorbells of the channels that are listened to.
    pub fn doorbells(&self) -> &Bells {
        &self.own.inbox().doorbells
    }

    /// Once a round, before the channels are served.
    #[inline]
    pub fn attend(&mut self, table: &mut ChannelTable, admission: &Admission, now: Nanos) {
        if self.slept || self.resting > 0 && now - self.asked >= ASK_EVERY {
            self.ask_bells(table, now);
        } else {
            self.passed = true;
        }
        if !self.muted.is_empty() {
            self.unmute_due(table, now);
        }
        if self.polled.len() > POLLED && now - self.rested >= QUIET {
            self.let_quiet_ones_rest(table, admission, now);
        }
    }

    /// When [`Attention::attend`] has something to do though nothing arrives.
    pub fn due(&self, table: &ChannelTable) -> Option<Nanos> {
        let asks = (self.resting > 0 && self.passed).then_some(self.asked + ASK_EVERY);
        let muted = self.muted.iter().filter_map(|&at| table.get(at));
        muted.map(|channel| channel.watch.muted_until()).chain(asks).min()
    }

    /// Asks which applications have rung, and polls their channels from now on.
    fn ask_bells(&mut self, table: &mut ChannelTable, now: Nanos) {
        self.asked = now;
        self.slept = false;
        self.passed = false;
        let mut room = [0; 64];
        let rung: &[u64] = self.own.inbox().doorbells.rung(&mut room);
        for at in rung.iter().map(|&key| ChannelIndex(key as u32)) {
            let Some(channel) = table.get_mut(at) else { continue };
            let found = channel.end.drain_doorbell();
            if channel.draining {
                // Nobody rings any more. Its connections keep it going until they are over.
                self.doorbells().remove(&channel.end);
                continue;
            }
            self.touch(at, channel);
            match found {
                // The control thread will say that the application is gone. Until then its closed pipe would keep us awake.
                Rung::HungUp => self.mute(at, channel, MUTED_LONGEST, now),
                Rung::Rang if !channel.end.pending() => self.rang_for_nothing(at, channel, now),
                _ => {}
            }
        }
    }

    /// An application has rung, and there is nothing to do for it.
    #[cold]
    fn rang_for_nothing(&mut self, at: ChannelIndex, channel: &mut Channel, now: Nanos) {
        self.own.counters().bells_empty.add(1);
        let Some(time) = channel.watch.rang_for_nothing(now) else { return };
        if !channel.watch.is_muted() {
            log::warn!(
                "channel {}: its application rings for nothing; looked at by time instead",
                channel.number
            );
        }
        self.mute(at, channel, time, now);
    }

    /// Takes a doorbell out of the set for this time.
    #[cold]
    fn mute(&mut self, at: ChannelIndex, channel: &mut Channel, time: Nanos, now: Nanos) {
        self.doorbells().remove(&channel.end);
        channel.watch.mute(time, now);
        if !self.muted.contains(&at) {
            self.muted.push(at);
        }
        self.own.counters().bells_unheard.add(1);
    }

    /// Polls the channels whose doorbells have been muted for their time, and listens to those that no longer ring for nothing.
    #[cold]
    fn unmute_due(&mut self, table: &mut ChannelTable, now: Nanos) {
        for i in (0..self.muted.len()).rev() {
            let at = self.muted[i];
            let Some(channel) = table.get_mut(at) else { continue };
            if channel.watch.muted_until() > now {
                continue;
            }
            let found = if channel.draining { Rung::Silent } else { channel.end.drain_doorbell() };
            match found {
                Rung::HungUp => self.mute(at, channel, MUTED_LONGEST, now),
                Rung::Rang if !channel.end.pending() => self.rang_for_nothing(at, channel, now),
                Rung::Rang | Rung::Silent => {
                    channel.watch.unmute();
                    let listens = !channel.draining;
                    self.muted.swap_remove(i);
                    if listens {
                        self.listen_to(table, at, now);
                    }
                }
            }
        }
    }

    /// Puts a channel's doorbell into the set.
    fn listen_to(&mut self, table: &mut ChannelTable, at: ChannelIndex, now: Nanos) {
        let Some(channel) = table.get_mut(at) else { return };
        if let Err(error) = self.doorbells().add(&channel.end, at.0.into()) {
            log::warn!("channel {}: {error}; looked at by time instead", channel.number);
            self.mute(at, channel, MUTED_LONGEST, now);
        }
    }

    /// Lets channels rest that have been quiet, as long as more are polled than there are to be.
    #[cold]
    fn let_quiet_ones_rest(&mut self, table: &mut ChannelTable, admission: &Admission, now: Nanos) {
        self.rested = now;
        for i in (0..self.polled.len()).rev() {
            if self.polled.len() <= POLLED {
                return;
            }
            let at = self.polled[i];
            let Some(channel) = table.get_mut(at) else { continue };
            let quiet =
                now - channel.watch.worked >= QUIET && !admission.units_due(at) && !channel.end.has_news();
            // One whose doorbell is muted has to be polled.
            if quiet && !channel.watch.is_muted() && (channel.draining || channel.end.arm()) {
                channel.watch.polled = false;
                self.resting += 1;
                self.polled.swap_remove(i);
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
