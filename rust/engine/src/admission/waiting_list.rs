//! Connections that wait for the same thing, in the order in which they came.

use std::collections::VecDeque;

use crate::ids::ConnHandle;

/// A queue that one may leave from anywhere, by the ticket that one got when one joined.
///
/// Tickets grow and none is used twice, so that an old one does no harm, and so that "all who wait now" can be said with one
/// number: those with a ticket below [`WaitingList::next_ticket`].
#[derive(Debug, Default)]
pub(super) struct WaitingList {
    /// Tickets in order, with handles of connections. One that has left in the middle leaves an empty entry; there is none
    /// at the front, and never more of them than about one for each that waits.
    entries: VecDeque<(u64, Option<ConnHandle>)>,
    waiting: u32,
    next_ticket: u64,
}

impl WaitingList {
    /// How many wait.
    #[inline]
    pub fn len(&self) -> u32 {
        self.waiting
    }

    /// Whether nobody waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// The ticket that the next one will get.
    pub fn next_ticket(&self) -> u64 {
        self.next_ticket
    }

    /// The ticket of the one that has waited longest.
    #[inline]
    pub fn first_ticket(&self) -> Option<u64> {
        self.entries.front().map(|&(ticket, _)| ticket)
    }

    /// The connection with this handle waits from now on, behind all others. Its ticket.
    pub fn join(&mut self, handle: ConnHandle) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.entries.push_back((ticket, Some(handle)));
        self.waiting += 1;
        ticket
    }

    /// Takes out the one that has waited longest: its handle.
    pub fn pop(&mut self) -> Option<ConnHandle> {
        let (_, handle) = self.entries.pop_front()?;
        self.waiting -= 1;
        self.tidy();
        handle
    }

    /// The one with this ticket waits no more. Nothing happens if it has left, or had its turn.
    pub fn leave(&mut self, ticket: u64) {
        let Ok(at) = self.entries.binary_search_by_key(&ticket, |&(ticket, _)| ticket) else { return };
        if self.entries[at].1.take().is_some() {
            self.waiting -= 1;
            self.tidy();
        }
    }

    /// Removes empty entries: those at the front, and all where they are the most of a long list.
    fn tidy(&mut self) {
        while self.entries.front().is_some_and(|(_, handle)| handle.is_none()) {
            self.entries.pop_front();
        }
        if self.entries.len() > 2 * self.waiting as usize + EMPTY {
            self.entries.retain(|(_, handle)| handle.is_some());
        }
    }
}

/// Empty entries that are never worth a walk over the list.
const EMPTY: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ConnIndex;

    fn handle(place: usize) -> ConnHandle {
        ConnHandle { index: ConnIndex::new(place), generation: 0 }
    }

    #[test]
    fn turns_come_in_order_and_those_that_left_get_none() {
        let mut list = WaitingList::default();
        let tickets: Vec<u64> = (0..10).map(|place| list.join(handle(place))).collect();
        for left in [0, 3, 4, 9] {
            list.leave(tickets[left]);
            list.leave(tickets[left]);
        }
        assert_eq!((list.len(), list.first_ticket()), (6, Some(tickets[1])));
        let turns: Vec<ConnHandle> = core::iter::from_fn(|| list.pop()).collect();
        assert_eq!(turns, [1, 2, 5, 6, 7, 8].map(handle));
        list.leave(tickets[1]);
        assert!(list.is_empty() && list.first_ticket().is_none());
    }

    /// The one in front may wait for ever, while others come and go.
    #[test]
    fn who_has_left_takes_no_room() {
        let mut list = WaitingList::default();
        list.join(handle(7));
        for place in 0..10_000 {
            let ticket = list.join(handle(place));
            list.leave(ticket);
            assert!(list.entries.len() <= 3 + EMPTY);
        }
        assert_eq!((list.pop(), list.pop()), (Some(handle(7)), None));
    }
}
