//! Requests that end a listener or a dial and found no room: kept in their order until there is some, since the
//! application takes them for done and will not repeat them.
use crate::memory::Growing;
use core::mem::MaybeUninit;
use machnet_shm::{MAX_LISTENERS, Request};

/// A queue of fixed size over memory made at attach.
pub struct Kept {
    places: Growing<Request>,
    first: usize,
    len: usize,
}

impl Kept {
    /// What an honest application can have to end at once on a channel of so many connections: each listener and each dial once, also
    /// those whose request or whose answer is still in a control ring.
    pub fn most(flows: u32) -> usize {
        MAX_LISTENERS as usize + 2 * flows as usize + 1024
    }

    /// An empty one.
    pub const fn new(room: &'static mut [MaybeUninit<Request>]) -> Self {
        Self { places: Growing::new(room), first: 0, len: 0 }
    }

    /// Keeps a request; once, however often it is asked for. `None`: it is full, of ids that name nothing.
    pub fn keep(&mut self, request: Request) -> Option<()> {
        let room = self.places.most();
        if (0..self.len).any(|i| self.places.get((self.first + i) % room) == Some(&request)) {
            return Some(());
        }
        if self.len == room {
            return None;
        }
        let at = (self.first + self.len) % room;
        match self.places.get_mut(at) {
            Some(place) => *place = request,
            // The places are used one after the other, so this is the next one that there was none in.
            None => _ = self.places.add(request)?,
        }
        self.len += 1;
        Some(())
    }

    /// Sends what `to` has room for, oldest first; whether that was everything.
    pub fn send(&mut self, mut to: impl FnMut(Request) -> bool) -> bool {
        while self.len > 0
            && let Some(&oldest) = self.places.get(self.first)
        {
            if !to(oldest) {
                return false;
            }
            self.first = (self.first + 1) % self.places.most();
            self.len -= 1;
        }
        // An empty queue begins where it began first, whose pages are there.
        self.first = 0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::leaked;
    use std::vec::Vec;

    #[test]
    fn requests_are_kept_once_and_go_in_their_order() {
        let mut kept = Kept::new(leaked(3));
        let (a, b, c) = (Request::Unlisten { id: 1 }, Request::Cancel { id: 1 }, Request::Unlisten { id: 2 });
        let mut sent = Vec::new();
        for turn in 0..5 {
            for request in [a, b, a, c, b] {
                assert_eq!(kept.keep(request), Some(()), "turn {turn}");
            }
            assert_eq!(kept.keep(Request::Cancel { id: 9 }), None, "it is full");
            assert_eq!(kept.keep(c), Some(()), "but knows this one");
            let mut room = 2;
            let mut take = |request| {
                sent.push(request);
                room -= 1;
                room >= 0
            };
            assert!(!kept.send(&mut take), "two of three found room");
            assert_eq!(sent.split_off(0), [a, b, c]);
            assert!(kept.send(|request| request == c) && kept.send(|_| unreachable!()));
        }
    }
}
