//! The channels of one engine: where each is, and which of them are polled in every round.

use std::collections::HashMap;

use machnet_wire::Nanos;

use crate::attention::Attention;
use crate::channel::Channel;
use crate::ids::{ChannelIndex, ChannelNumber};
use crate::shared::EngineHandle;

/// The channels of one engine.
pub(crate) struct Channels {
    pub(crate) own: EngineHandle,
    pub(crate) slots: Vec<Option<Box<Channel>>>,
    numbers: HashMap<ChannelNumber, ChannelIndex>,
    pub(crate) attention: Attention,
}

impl Channels {
    /// None yet.
    pub fn new(own: EngineHandle, now: Nanos) -> Self {
        Self { own, slots: Vec::new(), numbers: HashMap::new(), attention: Attention::new(now) }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// The channel at an index.
    #[inline]
    pub fn get(&self, at: ChannelIndex) -> Option<&Channel> {
        self.slots.get(at.place())?.as_deref()
    }

    /// The same, to change it.
    #[inline]
    pub fn get_mut(&mut self, at: ChannelIndex) -> Option<&mut Channel> {
        self.slots.get_mut(at.place())?.as_deref_mut()
    }

    /// The same for news to its application, which are published when the round ends.
    #[inline]
    pub fn touch(&mut self, at: ChannelIndex) -> Option<&mut Channel> {
        let channel = self.slots.get_mut(at.place())?.as_deref_mut()?;
        self.attention.touch(at, channel);
        Some(channel)
    }

    /// Where the channel of this number is.
    pub fn find(&self, number: ChannelNumber) -> Option<ChannelIndex> {
        self.numbers.get(&number).copied()
    }

    /// How many places there are for channels, used and free ones.
    pub fn places(&self) -> usize {
        self.slots.len()
    }

    /// All channels, with where they are.
    pub fn iter(&self) -> impl Iterator<Item = (ChannelIndex, &Channel)> {
        let all = self.slots.iter().enumerate();
        all.filter_map(|(place, slot)| Some((ChannelIndex(place as u32), slot.as_deref()?)))
    }

    /// Where all channels are.
    pub fn indices(&self) -> Vec<ChannelIndex> {
        self.iter().map(|(at, _)| at).collect()
    }

    /// A channel has come; where it is from now on.
    pub fn insert(&mut self, channel: Box<Channel>, now: Nanos) -> ChannelIndex {
        let place = self.slots.iter().position(Option::is_none).unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let at = ChannelIndex(place as u32);
        self.numbers.insert(channel.number, at);
        self.slots[place] = Some(channel);
        self.attend_to(at, now);
        at
    }

    /// Takes a channel out on which nobody is served and whose last connection is over.
    pub fn take_if_over(&mut self, at: ChannelIndex) -> Option<Box<Channel>> {
        let slot = self.slots.get_mut(at.place())?;
        let channel = slot.take_if(|channel| channel.gone && channel.live() == 0)?;
        self.numbers.remove(&channel.number);
        self.attention.forget(at, &channel.watch);
        self.own.inbox().doorbells.remove(&channel.end);
        Some(channel)
    }

    /// The channel whose turn is the `turn`th of those that are polled in every round.
    #[inline]
    pub fn polled_at(&self, turn: usize) -> Option<ChannelIndex> {
        self.attention.polled.get(turn).copied()
    }

    /// Publishes what was delivered and completed, and wakes who sleeps.
    #[inline]
    pub fn flush(&mut self) {
        for &at in &self.attention.polled {
            if let Some(Some(channel)) = self.slots.get_mut(at.place()) {
                channel.end.flush();
            }
        }
    }
}
