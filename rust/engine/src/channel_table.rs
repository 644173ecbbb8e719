//! Where each channel of an engine is.

use std::collections::HashMap;

use crate::channel::Channel;
use crate::ids::{ChannelIndex, ChannelNumber};

/// Channels by their index, and that by their number.
#[derive(Default)]
pub(crate) struct ChannelTable {
    slots: Vec<Option<Box<Channel>>>,
    numbers: HashMap<ChannelNumber, ChannelIndex>,
}

impl ChannelTable {
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

    /// Where the channel of this number is.
    pub fn find(&self, number: ChannelNumber) -> Option<ChannelIndex> {
        self.numbers.get(&number).copied()
    }

    /// How many places there are, used and free ones.
    pub fn places(&self) -> usize {
        self.slots.len()
    }

    /// All channels, with where they are.
    pub fn iter(&self) -> impl Iterator<Item = (ChannelIndex, &Channel)> {
        let all = self.slots.iter().enumerate();
        all.filter_map(|(place, slot)| Some((ChannelIndex(place as u32), slot.as_deref()?)))
    }

    /// Files a channel in the first free place; where that is.
    pub fn insert(&mut self, channel: Box<Channel>) -> ChannelIndex {
        let place = self.slots.iter().position(Option::is_none).unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let at = ChannelIndex(place as u32);
        self.numbers.insert(channel.number, at);
        self.slots[place] = Some(channel);
        at
    }

    /// Takes a channel out if it `is_over`.
    pub fn take_if(
        &mut self,
        at: ChannelIndex,
        is_over: impl FnOnce(&Channel) -> bool,
    ) -> Option<Box<Channel>> {
        let channel = self.slots.get_mut(at.place())?.take_if(|channel| is_over(channel))?;
        self.numbers.remove(&channel.number);
        Some(channel)
    }
}
