//! When each peer was last heard, on any of its flows: one that talks on one connection is not dead on another.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use machnet_wire::Nanos;

/// Peers that have flows.
#[derive(Debug, Default)]
pub struct Peers {
    numbers: HashMap<Ipv4Addr, u32>,
    slots: Vec<Peer>,
    free: Vec<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Peer {
    ip: Ipv4Addr,
    heard: Nanos,
    users: u32,
}

impl Peers {
    /// A flow with `ip` begins; returns the peer's number.
    pub fn acquire(&mut self, ip: Ipv4Addr, now: Nanos) -> u32 {
        if let Some(&number) = self.numbers.get(&ip) {
            self.slots[number as usize].users += 1;
            return number;
        }
        let peer = Peer { ip, heard: now, users: 1 };
        let number = match self.free.pop() {
            Some(number) => {
                self.slots[number as usize] = peer;
                number
            }
            None => {
                self.slots.push(peer);
                (self.slots.len() - 1) as u32
            }
        };
        self.numbers.insert(ip, number);
        number
    }

    /// A flow of the peer is gone.
    pub fn release(&mut self, number: u32) {
        let Some(peer) = self.slots.get_mut(number as usize) else { return };
        peer.users = peer.users.saturating_sub(1);
        if peer.users == 0 && self.numbers.remove(&peer.ip).is_some() {
            self.free.push(number);
        }
    }

    /// Something that only the peer could have sent came from it.
    #[inline]
    pub fn heard(&mut self, number: u32, now: Nanos) {
        if let Some(peer) = self.slots.get_mut(number as usize) {
            peer.heard = now;
        }
    }

    /// When the peer was last heard.
    pub fn last_heard(&self, number: u32) -> Nanos {
        self.slots.get(number as usize).map_or(Nanos::ZERO, |peer| peer.heard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_kept_while_it_has_flows() {
        let mut peers = Peers::default();
        let (a, b) = (Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(10, 0, 0, 3));
        let first = peers.acquire(a, Nanos(1));
        assert_eq!(peers.acquire(a, Nanos(5)), first);
        assert_ne!(peers.acquire(b, Nanos(5)), first);
        peers.heard(first, Nanos(7));
        peers.release(first);
        assert_eq!(peers.acquire(a, Nanos(8)), first);
        assert_eq!(peers.last_heard(first), Nanos(7));
        peers.release(first);
        peers.release(first);
        assert_eq!(peers.acquire(a, Nanos(9)), first, "the number is used again");
        assert_eq!(peers.last_heard(first), Nanos(9));
    }
}
