//! The Machnet ports of one sidecar: who listens on which, and which connections' keys are claimed among its engines.
//! All engines share the table. They ask it at each SYN and at each request of an application, never at a packet of a connection.
//!
//! A port that several listeners share is theirs by a rule that every engine applies in the same way: a keyed hash of what all copies
//! of a SYN have in common says whose turn it is, and the others follow in their order. Whoever takes the connection claims its key, so
//! that later copies come to the same flow, whatever has become of the list meanwhile.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use machnet_wire::Nanos;

use crate::claims::Claims;
use crate::ids::{ChannelNumber, ConnKey, EngineIndex, UserId};

/// Who listens on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The engine that serves the channel.
    pub engine: EngineIndex,
    /// The channel, by its number within the sidecar.
    pub channel: ChannelNumber,
    /// The application's number for the listener.
    pub listener: u32,
}

/// Where a SYN is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Destination {
    /// An engine has claimed its key for a flow.
    Flow(EngineIndex),
    /// A listener, behind so many that had no room. `shared`: there may be others, so whoever takes the SYN claims its key.
    Listener { owner: Owner, shared: bool, declined: u16 },
    /// Nobody is left. `waits`: one that was left out will have room soon.
    Nobody { waits: bool },
}

/// The table.
#[derive(Debug, Default)]
pub struct Ports {
    /// Keeps peers from choosing a listener.
    secret: [u64; 2],
    table: Mutex<Table>,
    pub(crate) claims: Claims,
}

#[derive(Debug, Default)]
struct Table {
    listeners: HashMap<u16, Listeners>,
    cursor: u16,
}

/// The listeners of one port, at least one.
#[derive(Debug)]
struct Listeners {
    /// The user whose listeners share the port; `None`: there is one, and there may be no other.
    shared_by: Option<UserId>,
    /// In the order in which they came, each with the time until which its backlog is taken to be full.
    owners: Vec<(Owner, Nanos)>,
}

impl Ports {
    /// No listeners yet.
    pub fn new(secret: [u64; 2]) -> Self {
        Self { secret, ..Self::default() }
    }

    /// Opens `port`, or for 0 a free port of the ephemeral range, for a listener; with `shared_by` for all listeners of that user that
    /// ask so. Returns which; `None` if it is another's, or no port is free.
    pub fn listen(&self, port: u16, owner: Owner, shared_by: Option<UserId>) -> Option<u16> {
        let mut table = self.lock();
        let port = if port != 0 { port } else { table.free_port()? };
        match table.listeners.entry(port) {
            Entry::Occupied(mut taken) => {
                let taken = taken.get_mut();
                if shared_by.is_none() || taken.shared_by != shared_by {
                    return None;
                }
                taken.owners.push((owner, Nanos::ZERO));
            }
            Entry::Vacant(free) => {
                free.insert(Listeners { shared_by, owners: vec![(owner, Nanos::ZERO)] });
            }
        }
        Some(port)
    }

    /// Closes one listener of a channel.
    pub fn unlisten(&self, port: u16, channel: ChannelNumber, listener: u32) {
        let mut table = self.lock();
        if let Entry::Occupied(mut at) = table.listeners.entry(port) {
            at.get_mut().owners.retain(|(owner, _)| owner.channel != channel || owner.listener != listener);
            if at.get().owners.is_empty() {
                at.remove();
            }
        }
    }

    /// Closes every listener of a channel.
    pub fn forget(&self, channel: ChannelNumber) {
        self.lock().listeners.retain(|_, at| {
            at.owners.retain(|(owner, _)| owner.channel != channel);
            !at.owners.is_empty()
        });
    }

    /// Whether anybody listens on `port`.
    pub(crate) fn is_open(&self, port: u16) -> bool {
        self.lock().listeners.contains_key(&port)
    }

    /// Where a SYN with this key and this tag of its sender goes when `declined` listeners had no room for it.
    pub(crate) fn find(&self, key: ConnKey, tag: u32, declined: u16, now: Nanos) -> Destination {
        if let Some(engine) = self.claims.holder(key) {
            return Destination::Flow(engine);
        }
        let table = self.lock();
        let Some(Listeners { shared_by, owners }) = table.listeners.get(&key.local_port()) else {
            return Destination::Nobody { waits: false };
        };
        let count = owners.len();
        let first = if count > 1 { self.first(key, tag, count) } else { 0 };
        let mut waits = false;
        for nth in usize::from(declined)..count {
            let (owner, full_until) = owners[(first + nth) % count];
            if full_until <= now {
                return Destination::Listener { owner, shared: shared_by.is_some(), declined: nth as u16 };
            }
            waits = true;
        }
        Destination::Nobody { waits }
    }

    /// A listener that shares its port has no place in its backlog: it is left out for a while, so that a flood of SYNs is not passed
    /// from one full listener to the next.
    pub(crate) fn mark_full(&self, port: u16, full: Owner, now: Nanos) {
        let mut table = self.lock();
        let owners = table.listeners.get_mut(&port).map(|at| at.owners.iter_mut());
        if let Some((_, until)) = owners.and_then(|mut owners| owners.find(|(owner, _)| *owner == full)) {
            *until = now.saturating_add(FULL_FOR);
        }
    }

    /// Whose turn it is, of `count`.
    fn first(&self, key: ConnKey, tag: u32, count: usize) -> usize {
        let mut hasher = DefaultHasher::new();
        (self.secret, key, tag).hash(&mut hasher);
        ((u128::from(hasher.finish()) * count as u128) >> 64) as usize
    }

    /// Whether a dial may have a key without claiming it: nobody else has, nor listens on its port.
    pub(crate) fn is_free(&self, key: ConnKey) -> bool {
        !self.is_open(key.local_port()) && self.claims.holder(key).is_none()
    }

    /// How many listeners are open.
    pub fn listeners(&self) -> usize {
        self.lock().listeners.values().map(|at| at.owners.len()).sum()
    }

    /// How many keys are claimed.
    pub fn claimed(&self) -> usize {
        self.claims.len()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // No code under the lock can leave the table half changed.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn free_port(&mut self) -> Option<u16> {
        for _ in 0..u16::MAX - EPHEMERAL {
            self.cursor = self.cursor.wrapping_add(1) % (u16::MAX - EPHEMERAL);
            let port = EPHEMERAL + self.cursor;
            if !self.listeners.contains_key(&port) {
                return Some(port);
            }
        }
        None
    }
}

/// How long a listener without room is left out: much shorter than the pause before a caller asks again.
const FULL_FOR: Nanos = Nanos::millis(1);

/// The first ephemeral Machnet port. Engine `i` of `n` takes those that leave `i` when divided by `n`, so that engines
/// need not agree on each one.
pub const EPHEMERAL: u16 = 32768;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::net::Ipv4Addr;

    const ONE: ChannelNumber = ChannelNumber(1);
    const TWO: ChannelNumber = ChannelNumber(2);

    fn owner(channel: ChannelNumber) -> Owner {
        Owner { engine: EngineIndex(channel.0 as u16 - 1), channel, listener: 3 }
    }

    fn key(peer_port: u16) -> ConnKey {
        ConnKey::new(Ipv4Addr::LOCALHOST, peer_port, 80)
    }

    #[test]
    fn a_port_has_one_listener_and_is_free_after_it() {
        let ports = Ports::default();
        assert_eq!(ports.listen(80, owner(ONE), None), Some(80));
        assert_eq!(ports.listen(80, owner(TWO), None), None);
        let found = |ports: &Ports| ports.find(key(1), 7, 0, Nanos::ZERO);
        assert_eq!(found(&ports), Destination::Listener { owner: owner(ONE), shared: false, declined: 0 });
        ports.unlisten(80, TWO, 3);
        assert!(ports.is_open(80), "another channel's");
        ports.unlisten(80, ONE, 3);
        assert_eq!(ports.listen(80, owner(TWO), None), Some(80));
        ports.forget(TWO);
        assert_eq!((found(&ports), ports.listeners()), (Destination::Nobody { waits: false }, 0));
    }

    #[test]
    fn a_port_is_shared_where_all_its_listeners_ask_so_and_are_of_one_user() {
        let (ada, bob) = (Some(UserId(1000)), Some(UserId(1001)));
        for first in [None, ada, bob] {
            for second in [None, ada, bob] {
                let ports = Ports::default();
                assert_eq!(ports.listen(80, owner(ONE), first), Some(80));
                let both = first.is_some() && first == second;
                assert_eq!(ports.listen(80, owner(TWO), second).is_some(), both, "{first:?}, {second:?}");
                assert_eq!(ports.listeners(), 1 + usize::from(both));
                // Whoever is left goes on alone.
                ports.unlisten(80, ONE, 3);
                assert_eq!(ports.is_open(80), both);
            }
        }
    }

    #[test]
    fn every_listener_of_a_port_is_asked_once_and_the_first_of_them_is_random() {
        let ports = Ports::new([5, 6]);
        let owners: Vec<_> = (1..=4).map(|n| owner(ChannelNumber(n))).collect();
        owners.iter().for_each(|&owner| assert!(ports.listen(80, owner, Some(UserId(0))).is_some()));
        let mut firsts = [0u32; 4];
        for n in 0..8000u32 {
            let asked = |declined| match ports.find(key(n as u16), n, declined, Nanos::ZERO) {
                Destination::Listener { owner, shared: true, declined: nth } if nth == declined => {
                    Some(owner.engine.place())
                }
                Destination::Nobody { waits: false } => None,
                other => panic!("{other:?}"),
            };
            let order: Vec<_> = (0..4).map(|declined| asked(declined).expect("one of four")).collect();
            assert_eq!((order.iter().collect::<HashSet<_>>().len(), asked(4)), (4, None));
            firsts[order[0]] += 1;
        }
        // 3 degrees of freedom: beyond 16.27 is one in a thousand.
        let chi_square: f64 = firsts.iter().map(|&n| (f64::from(n) - 2000.0).powi(2) / 2000.0).sum();
        assert!(chi_square < 16.27, "{firsts:?}: {chi_square}");
    }

    #[test]
    fn a_listener_without_room_is_left_out_for_a_while() {
        let ports = Ports::new([5, 6]);
        let owners: Vec<_> = (1..=3).map(|n| owner(ChannelNumber(n))).collect();
        owners.iter().for_each(|&owner| assert!(ports.listen(80, owner, Some(UserId(0))).is_some()));
        let now = Nanos::secs(1);
        let found = |now| (0..50).map(|n| ports.find(key(n), 7, 0, now)).collect::<Vec<_>>();
        let with = |all: &[Destination], one| {
            all.iter().filter(|to| matches!(to, Destination::Listener { owner, .. } if *owner == one)).count()
        };
        ports.mark_full(80, owners[1], now);
        let all = found(now);
        assert_eq!(with(&all, owners[0]) + with(&all, owners[2]), 50);
        assert!(with(&all, owners[0]) > 5 && with(&all, owners[2]) > 5);
        assert!(with(&found(now + FULL_FOR), owners[1]) > 5);
        owners.iter().for_each(|&owner| ports.mark_full(80, owner, now));
        assert_eq!(found(now), vec![Destination::Nobody { waits: true }; 50]);
    }

    #[test]
    fn whoever_claims_a_key_gets_its_later_syns_until_it_releases_it() {
        let ports = Ports::default();
        assert!(ports.listen(80, owner(ONE), None).is_some());
        assert!(ports.is_free(ConnKey::new(Ipv4Addr::LOCALHOST, 1, 81)) && !ports.is_free(key(1)));
        assert!(ports.claims.claim(key(1), EngineIndex(5)));
        assert_eq!(ports.find(key(1), 7, 0, Nanos::ZERO), Destination::Flow(EngineIndex(5)));
        assert!(matches!(ports.find(key(2), 7, 0, Nanos::ZERO), Destination::Listener { .. }));
        ports.claims.release(key(1));
        assert!(matches!(ports.find(key(1), 7, 0, Nanos::ZERO), Destination::Listener { .. }));
    }

    #[test]
    fn port_0_takes_a_free_one_until_none_is_left() {
        let ports = Ports::default();
        let mut seen = HashSet::from([EPHEMERAL + 100]);
        assert!(ports.listen(EPHEMERAL + 100, owner(ONE), None).is_some());
        while let Some(port) = ports.listen(0, owner(ONE), None) {
            assert!(port >= EPHEMERAL && seen.insert(port));
        }
        assert_eq!(seen.len(), usize::from(u16::MAX - EPHEMERAL));
    }
}
