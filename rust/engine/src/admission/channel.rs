//! Who waits for something of one channel: for its application to read, or for free units.

use super::waiting_list::WaitingList;
use crate::ids::ConnHandle;

/// Those that wait on one channel.
#[derive(Debug, Default)]
pub(super) struct ChannelQueue {
    /// Connections that could not have the units they need.
    pub units: WaitingList,
    /// Those with a ticket below this have a turn coming: units have become free since they began to wait, or since their
    /// last turn.
    due_before: u64,
    /// Units that were free when turns last began or ended, or when a connection began to wait, if those were fewer.
    free_seen: u32,
    /// How many connections wait for the application to read.
    pub readers: u32,
}

impl ChannelQueue {
    /// One more waits for units, while `free` are free that it cannot have. Its ticket.
    pub fn join(&mut self, handle: ConnHandle, free: u32) -> u64 {
        // One more than these is news to it.
        self.free_seen = self.free_seen.min(free);
        self.units.join(handle)
    }

    /// `free` units are free now. If those are more than before, everybody who waits has a turn.
    pub fn begin_turns(&mut self, free: u32) {
        if free > self.free_seen {
            self.due_before = self.units.next_ticket();
        }
        self.free_seen = free;
    }

    /// Turns are over for now. The `free` units that are left give nobody another one.
    pub fn end_turns(&mut self, free: u32) {
        self.free_seen = free;
    }

    /// Whether somebody has a turn coming.
    #[inline]
    pub fn is_due(&self) -> bool {
        self.units.first_ticket().is_some_and(|ticket| ticket < self.due_before)
    }

    /// The connection whose turn it is.
    pub fn next(&mut self) -> Option<ConnHandle> {
        if self.is_due() { self.units.pop() } else { None }
    }
}
