//! The connections that have events to hand out, in the order in which their first came: a list through their entries.
use super::conn::{NONE, RxConn};

/// The list. Every call gets the entries that it runs through.
pub struct EventList {
    head: u32,
    tail: u32,
    len: u32,
}

impl EventList {
    /// An empty one.
    pub const fn new() -> Self {
        Self { head: NONE, tail: NONE, len: 0 }
    }

    /// Connections in it.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// The index of the first; of no entry where there is none.
    pub fn first(&self) -> usize {
        self.head as usize
    }

    /// Adds `events` to those of the connection.
    pub fn add(&mut self, conns: &mut [RxConn], at: usize, events: u8) {
        let tail = self.tail;
        let Some(c) = conns.get_mut(at) else { return };
        let listed = c.link.events != 0;
        c.link.events |= events;
        if listed {
            return;
        }
        c.link.prev = tail;
        c.link.next = NONE;
        match conns.get_mut(tail as usize) {
            Some(last) => last.link.next = at as u32,
            None => self.head = at as u32,
        }
        self.tail = at as u32;
        self.len += 1;
    }

    /// Takes `events` away, and the connection from the list with its last.
    pub fn remove(&mut self, conns: &mut [RxConn], at: usize, events: u8) {
        let Some(c) = conns.get_mut(at) else { return };
        let before = c.link.events;
        c.link.events &= !events;
        if before == 0 || c.link.events != 0 {
            return;
        }
        let (prev, next) = (c.link.prev, c.link.next);
        match conns.get_mut(prev as usize) {
            Some(c) => c.link.next = next,
            None => self.head = next,
        }
        match conns.get_mut(next as usize) {
            Some(c) => c.link.prev = prev,
            None => self.tail = prev,
        }
        self.len -= 1;
    }
}
