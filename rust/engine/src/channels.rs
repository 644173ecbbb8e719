//! The channels of one engine: where each is ([`ChannelTable`]), and which of them are polled in every round ([`Attention`]).

use std::os::fd::RawFd;

use machnet_wire::Nanos;

use crate::admission::Admission;
use crate::attention::Attention;
use crate::channel::Channel;
use crate::channel_table::ChannelTable;
use crate::ids::{ChannelIndex, ChannelNumber};
use crate::shared::EngineHandle;

/// The channels of one engine.
pub(crate) struct Channels {
    table: ChannelTable,
    attention: Attention,
}

impl Channels {
    /// None yet.
    pub fn new(own: EngineHandle, now: Nanos) -> Self {
        Self { table: ChannelTable::default(), attention: Attention::new(own, now) }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The channel at an index.
    #[inline]
    pub fn get(&self, at: ChannelIndex) -> Option<&Channel> {
        self.table.get(at)
    }

    /// The same, to change it.
    #[inline]
    pub fn get_mut(&mut self, at: ChannelIndex) -> Option<&mut Channel> {
        self.table.get_mut(at)
    }

    /// The same for news to its application, which are published when the round ends.
    #[inline]
    pub fn touch(&mut self, at: ChannelIndex) -> Option<&mut Channel> {
        let channel = self.table.get_mut(at)?;
        self.attention.touch(at, channel);
        Some(channel)
    }

    /// Where the channel of this number is.
    pub fn find(&self, number: ChannelNumber) -> Option<ChannelIndex> {
        self.table.find(number)
    }

    /// How many places there are for channels, used and free ones.
    pub fn places(&self) -> usize {
        self.table.places()
    }

    /// All channels.
    pub fn iter(&self) -> impl Iterator<Item = &Channel> {
        self.table.iter().map(|(_, channel)| channel)
    }

    /// Where all channels are.
    pub fn indices(&self) -> Vec<ChannelIndex> {
        self.table.iter().map(|(at, _)| at).collect()
    }

    /// A channel has come; where it is from now on.
    pub fn insert(&mut self, channel: Box<Channel>, now: Nanos) -> ChannelIndex {
        let at = self.table.insert(channel);
        self.attention.begin(&mut self.table, at, now);
        at
    }

    /// Takes a channel out on which nobody is served and whose last connection is over.
    pub fn take_if_over(&mut self, at: ChannelIndex) -> Option<Box<Channel>> {
        let channel = self.table.take_if(at, |channel| channel.draining && channel.live() == 0)?;
        self.attention.end(at, &channel);
        Some(channel)
    }

    /// The channels that are polled in every round, and where they are.
    pub fn polled(&self) -> impl Iterator<Item = (ChannelIndex, &Channel)> {
        self.attention.polled.iter().filter_map(|&at| Some((at, self.table.get(at)?)))
    }

    /// The channel whose turn is the `turn`th of those.
    #[inline]
    pub fn polled_at(&self, turn: usize) -> Option<ChannelIndex> {
        self.attention.polled.get(turn).copied()
    }

    /// Publishes what was delivered and completed, and wakes who sleeps.
    #[inline]
    pub fn flush(&mut self) {
        for &at in &self.attention.polled {
            if let Some(channel) = self.table.get_mut(at) {
                channel.end.flush();
            }
        }
    }

    /// Once a round, before the channels are served: sees who has rung and who may rest.
    #[inline]
    pub fn attend(&mut self, admission: &Admission, now: Nanos) {
        self.attention.attend(&mut self.table, admission, now);
    }

    /// When [`Channels::attend`] has something to do though nothing arrives.
    pub fn attention_due(&self) -> Option<Nanos> {
        self.attention.due(&self.table)
    }

    /// Readable while a doorbell of a channel is that is listened to.
    pub fn doorbells(&self) -> RawFd {
        self.attention.doorbells().fd()
    }

    /// The engine goes to sleep on those.
    pub fn sleep(&mut self) {
        self.attention.sleep();
    }
}
