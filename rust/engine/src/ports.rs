//! The Machnet ports of one sidecar: who listens on which, and which local ports are in use that applications chose themselves.
//! All engines share the table. They ask it at each SYN and at each request of an application, never at a packet of a connection.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::ids::{ChannelNumber, ConnKey, EngineIndex};

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

/// The table.
#[derive(Debug, Default)]
pub struct Ports {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    listeners: HashMap<u16, Owner>,
    claims: HashSet<ConnKey>,
    cursor: u16,
}

impl Ports {
    /// Opens `port`, or for 0 a free port of the ephemeral range. Returns which; `None` if it is taken, or no port is free.
    pub fn listen(&self, port: u16, owner: Owner) -> Option<u16> {
        let mut table = self.lock();
        let port = if port != 0 { port } else { table.free_port()? };
        match table.listeners.entry(port) {
            std::collections::hash_map::Entry::Occupied(_) => None,
            std::collections::hash_map::Entry::Vacant(slot) => {
                slot.insert(owner);
                Some(port)
            }
        }
    }

    /// Closes one listener of a channel and says which port that was.
    pub fn unlisten(&self, channel: ChannelNumber, listener: u32) -> Option<u16> {
        let mut table = self.lock();
        let port = *table.listeners.iter().find(|(_, o)| o.channel == channel && o.listener == listener)?.0;
        table.listeners.remove(&port);
        Some(port)
    }

    /// Closes every listener of a channel.
    pub fn forget(&self, channel: ChannelNumber) {
        self.lock().listeners.retain(|_, owner| owner.channel != channel);
    }

    /// Who listens on `port`.
    pub fn owner(&self, port: u16) -> Option<Owner> {
        self.lock().listeners.get(&port).copied()
    }

    /// Claims a flow's key for an explicitly chosen local port. False: another flow of this sidecar has it.
    pub(crate) fn claim(&self, key: ConnKey) -> bool {
        self.lock().claims.insert(key)
    }

    /// Whether a key is claimed.
    pub(crate) fn is_claimed(&self, key: ConnKey) -> bool {
        self.lock().claims.contains(&key)
    }

    /// Gives a claim back.
    pub(crate) fn release(&self, key: ConnKey) {
        self.lock().claims.remove(&key);
    }

    /// How many listeners are open.
    pub fn listeners(&self) -> usize {
        self.lock().listeners.len()
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

/// The first ephemeral Machnet port. Engine `i` of `n` takes those that leave `i` when divided by `n`, so that engines
/// need not agree on each one.
pub const EPHEMERAL: u16 = 32768;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_has_one_listener_and_is_free_after_it() {
        let ports = Ports::default();
        let (one, two) = (ChannelNumber(1), ChannelNumber(2));
        let owner = |channel| Owner { engine: EngineIndex(0), channel, listener: 3 };
        assert_eq!(ports.listen(80, owner(one)), Some(80));
        assert_eq!(ports.listen(80, owner(two)), None);
        assert_eq!(ports.owner(80), Some(owner(one)));
        assert_eq!(ports.unlisten(two, 3), None, "another channel's");
        assert_eq!(ports.unlisten(one, 3), Some(80));
        assert_eq!(ports.listen(80, owner(two)), Some(80));
        ports.forget(two);
        assert_eq!((ports.owner(80), ports.listeners()), (None, 0));
    }

    #[test]
    fn port_0_takes_a_free_one_until_none_is_left() {
        let ports = Ports::default();
        let owner = Owner { engine: EngineIndex(0), channel: ChannelNumber(1), listener: 0 };
        let mut seen = HashSet::from([EPHEMERAL + 100]);
        assert!(ports.listen(EPHEMERAL + 100, owner).is_some());
        while let Some(port) = ports.listen(0, owner) {
            assert!(port >= EPHEMERAL && seen.insert(port));
        }
        assert_eq!(seen.len(), usize::from(u16::MAX - EPHEMERAL));
    }

    #[test]
    fn a_claim_is_exclusive_until_released() {
        let ports = Ports::default();
        let key = ConnKey::new(std::net::Ipv4Addr::LOCALHOST, 1, 2);
        assert!(ports.claim(key) && !ports.claim(key));
        ports.release(key);
        assert!(ports.claim(key));
    }
}
