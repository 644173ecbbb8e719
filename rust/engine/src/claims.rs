//! Connections' keys that an engine has claimed among all engines of the sidecar, for flows that no other engine may have, too: dials from
//! a port that the application chose, and what came to a port that listeners share.
//!
//! There may be one for each connection, so they lie in many small tables with a lock each: one that grows holds up nobody for longer than
//! a few dozen packets take, and engines seldom meet.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::ids::{ConnKey, EngineIndex};

/// Which engine has claimed which key.
#[derive(Debug)]
pub(crate) struct Claims([Mutex<HashMap<ConnKey, EngineIndex>>; TABLES]);

impl Claims {
    /// Claims a key for a flow of an engine. False: another flow of this sidecar has it.
    pub fn claim(&self, key: ConnKey, engine: EngineIndex) -> bool {
        match self.table(key).entry(key) {
            Entry::Occupied(_) => false,
            Entry::Vacant(free) => {
                free.insert(engine);
                true
            }
        }
    }

    /// Gives a claim back.
    pub fn release(&self, key: ConnKey) {
        self.table(key).remove(&key);
    }

    /// Who has claimed a key.
    pub fn holder(&self, key: ConnKey) -> Option<EngineIndex> {
        self.table(key).get(&key).copied()
    }

    /// How many keys are claimed.
    pub fn len(&self) -> usize {
        self.0.iter().map(|table| lock(table).len()).sum()
    }

    fn table(&self, key: ConnKey) -> MutexGuard<'_, HashMap<ConnKey, EngineIndex>> {
        lock(&self.0[usize::from(key.folded()) % TABLES])
    }
}

impl Default for Claims {
    fn default() -> Self {
        Self(core::array::from_fn(|_| Mutex::default()))
    }
}

fn lock<T>(table: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code under the lock can leave a table half changed.
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

const TABLES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;

    #[test]
    fn a_claim_is_exclusive_until_released() {
        let (claims, key) = (Claims::default(), ConnKey::new(Ipv4Addr::LOCALHOST, 1, 80));
        assert!(claims.claim(key, EngineIndex(5)) && !claims.claim(key, EngineIndex(6)));
        assert_eq!((claims.holder(key), claims.len()), (Some(EngineIndex(5)), 1));
        claims.release(key);
        assert_eq!((claims.holder(key), claims.len()), (None, 0));
        assert!(claims.claim(key, EngineIndex(6)));
    }

    #[test]
    fn callers_from_many_ports_and_from_many_hosts_spread_over_the_tables() {
        for at in [|n: u32| (1, 32768 + n), |n| (0x0a00_0000 + n, 32768), |n| (1, 32768 + 8 * n)] {
            let claims = Claims::default();
            for n in 0..4096 {
                let (ip, port) = at(n);
                assert!(claims.claim(ConnKey::new(Ipv4Addr::from_bits(ip), port as u16, 80), EngineIndex(0)));
            }
            let most = claims.0.iter().map(|table| lock(table).len()).max();
            assert!(most <= Some(640), "{most:?} of 4096 in one table");
        }
    }
}
