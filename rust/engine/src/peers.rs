//! When each peer was last heard, on any of its connections: a peer that talks on one is not dead on another, even if the two
//! belong to different engines.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use machnet_wire::Nanos;

use crate::query::PeerRow;

/// The peers of one engine's connections. Each has a number while it has connections.
#[derive(Debug)]
pub struct Peers {
    all: Arc<Heard>,
    numbers: HashMap<Ipv4Addr, u32>,
    slots: Vec<Peer>,
    free: Vec<u32>,
}

/// When each engine of a sidecar last heard each of its peers. An engine reads what the others noted when a peer seems to be silent.
#[derive(Debug, Default)]
pub struct Heard(Mutex<HashMap<Ipv4Addr, Vec<Arc<HeardAt>>>>);

/// When one engine last heard one peer, in nanoseconds. Only that engine writes it, at each packet, so it has a cache line of
/// its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct HeardAt(AtomicU64);

#[derive(Debug)]
struct Peer {
    ip: Ipv4Addr,
    heard: Arc<HeardAt>,
    users: u32,
}

impl Peers {
    /// No peers yet.
    pub fn new(all: Arc<Heard>) -> Self {
        Self { all, numbers: HashMap::new(), slots: Vec::new(), free: Vec::new() }
    }

    /// A connection with `ip` begins; returns the peer's number.
    pub fn acquire(&mut self, ip: Ipv4Addr, now: Nanos) -> u32 {
        if let Some(&number) = self.numbers.get(&ip) {
            self.slots[number as usize].users += 1;
            return number;
        }
        let heard = Arc::new(HeardAt(AtomicU64::new(now.0)));
        self.all.lock().entry(ip).or_default().push(Arc::clone(&heard));
        let peer = Peer { ip, heard, users: 1 };
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

    /// A connection of the peer is gone.
    pub fn release(&mut self, number: u32) {
        let Some(peer) = self.slots.get_mut(number as usize) else { return };
        peer.users = peer.users.saturating_sub(1);
        if peer.users == 0 && self.numbers.remove(&peer.ip).is_some() {
            self.all.forget(peer.ip, &peer.heard);
            self.free.push(number);
        }
    }

    /// How many numbers there are, used and free ones.
    pub fn places(&self) -> usize {
        self.slots.len()
    }

    /// What is known of the peer with this number, if it has one.
    pub fn row(&self, number: usize, now: Nanos) -> Option<PeerRow> {
        let peer = self.slots.get(number).filter(|peer| peer.users > 0)?;
        let heard_ago = now - Nanos(peer.heard.0.load(Relaxed));
        Some(PeerRow { ip: peer.ip, connections: peer.users, heard_ago })
    }

    /// A packet came that only the peer can have sent, since it bears the connection's tag.
    #[inline]
    pub fn heard(&self, number: u32, now: Nanos) {
        if let Some(peer) = self.slots.get(number as usize) {
            peer.heard.0.store(now.0, Relaxed);
        }
    }

    /// When the peer was last heard by any engine.
    #[cold]
    pub fn last_heard(&self, number: u32) -> Nanos {
        let Some(peer) = self.slots.get(number as usize) else { return Nanos::ZERO };
        let all = self.all.lock();
        let engines = all.get(&peer.ip).map_or(&[][..], Vec::as_slice);
        Nanos(engines.iter().map(|heard| heard.0.load(Relaxed)).max().unwrap_or(0))
    }
}

impl Heard {
    /// An engine has no connection with the peer any more.
    fn forget(&self, ip: Ipv4Addr, heard: &Arc<HeardAt>) {
        let mut all = self.lock();
        if let Some(engines) = all.get_mut(&ip) {
            engines.retain(|other| !Arc::ptr_eq(other, heard));
            if engines.is_empty() {
                all.remove(&ip);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Ipv4Addr, Vec<Arc<HeardAt>>>> {
        // No code under the lock can leave the table half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
    const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);

    #[test]
    fn a_peer_is_kept_while_it_has_flows() {
        let mut peers = Peers::new(Arc::default());
        let first = peers.acquire(A, Nanos(1));
        assert_eq!(peers.acquire(A, Nanos(5)), first);
        assert_ne!(peers.acquire(B, Nanos(5)), first);
        peers.heard(first, Nanos(7));
        peers.release(first);
        assert_eq!(peers.acquire(A, Nanos(8)), first);
        assert_eq!(peers.last_heard(first), Nanos(7));
        peers.release(first);
        peers.release(first);
        assert_eq!(peers.acquire(A, Nanos(9)), first, "the number is used again");
        assert_eq!(peers.last_heard(first), Nanos(9));
    }

    #[test]
    fn what_one_engine_hears_of_a_peer_all_know_while_it_has_flows_with_it() {
        let all = Arc::new(Heard::default());
        let [mut one, mut two] = [0, 1].map(|_| Peers::new(Arc::clone(&all)));
        let (a, b) = (one.acquire(A, Nanos(1)), one.acquire(B, Nanos(1)));
        let far = two.acquire(A, Nanos(2));
        two.heard(far, Nanos(50));
        assert_eq!([a, b].map(|number| one.last_heard(number)), [Nanos(50), Nanos(1)]);
        one.heard(a, Nanos(60));
        assert_eq!(two.last_heard(far), Nanos(60));
        two.release(far);
        one.release(a);
        one.release(b);
        assert!(all.lock().is_empty());
    }
}
