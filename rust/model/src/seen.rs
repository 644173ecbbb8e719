//! Digests of states that need not be looked at again, shared by the checker's threads.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Mutex, PoisonError};

/// A set in parts, so that two threads rarely want the same lock.
#[derive(Default)]
pub struct Seen([Mutex<HashSet<u64, BuildHasherDefault<AsIs>>>; 16]);

impl Seen {
    pub fn has(&self, digest: u64) -> bool {
        self.part(digest).lock().unwrap_or_else(PoisonError::into_inner).contains(&digest)
    }

    pub fn add(&self, digest: u64) {
        self.part(digest).lock().unwrap_or_else(PoisonError::into_inner).insert(digest);
    }

    fn part(&self, digest: u64) -> &Mutex<HashSet<u64, BuildHasherDefault<AsIs>>> {
        &self.0[(digest >> 60) as usize]
    }
}

/// A digest is a hash already.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| hash << 8 | u64::from(*byte));
    }
    fn write_u64(&mut self, n: u64) {
        self.0 = n;
    }
}
