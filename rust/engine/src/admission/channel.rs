//! Who waits for something of one channel: for its application to read, or for free units.

use super::waiting_list::WaitingList;
use crate::ids::ConnHandle;

/// Those that wait on one channel.
#[derive(Debug, Default)]
pub(super) struct ChannelQueue {
    /// Connections that found no unit free.
    pub units: WaitingList,
    /// Those with a ticket below this have a chance coming: units have become free since they began to wait, or since they
    /// last had a chance.
    due_before: u64,
    /// Units that were free when that was last looked at.
    free_seen: u32,
    /// How many connections wait for the application to read.
    pub readers: u32,
}

impl ChannelQueue {
    /// One more waits for units, while `free` are. Its ticket.
    pub fn join(&mut self, handle: ConnHandle, free: u32) -> u64 {
        // Units that become free from now on are news.
        self.free_seen = self.free_seen.min(free);
        self.units.join(handle)
    }

    /// `free` units are free now: if they are more than before, everybody who waits gets a chance.
    pub fn look(&mut self, free: u32) {
        if free > self.free_seen {
            self.due_before = self.units.next_ticket();
        }
        self.free_seen = free;
    }

    /// After chances were taken: `free` units are left, which is no news.
    pub fn looked(&mut self, free: u32) {
        self.free_seen = free;
    }

    /// Whether somebody has a chance coming.
    #[inline]
    pub fn is_due(&self) -> bool {
        self.units.first_ticket().is_some_and(|ticket| ticket < self.due_before)
    }

    /// The connection whose chance it is.
    pub fn next(&mut self) -> Option<ConnHandle> {
        if self.is_due() { self.units.pop() } else { None }
    }
}
