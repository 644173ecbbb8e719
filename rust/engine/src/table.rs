//! Flows by key and by number. The key is hashed once per packet; everything else goes by number.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::net::Ipv4Addr;

/// A flow's key: the peer's address, the peer's Machnet port, and ours.
#[inline]
pub fn key(peer: Ipv4Addr, peer_port: u16, local_port: u16) -> u64 {
    u64::from(peer.to_bits()) << 32 | u64::from(peer_port) << 16 | u64::from(local_port)
}

/// Values of `T`, each with a small number that is used again after it is gone. A handle (number and generation) of a
/// value that is gone finds nothing.
#[derive(Debug)]
pub struct Table<T> {
    keys: HashMap<u64, u32, Seeded>,
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Table<T> {
    /// An empty table. Peers choose parts of keys: `secret` keeps them from choosing collisions.
    pub fn new(secret: u64) -> Self {
        Self { keys: HashMap::with_hasher(Seeded(secret | 1)), slots: Vec::new(), free: Vec::new() }
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The number of the value under `key`.
    #[inline]
    pub fn find(&self, key: u64) -> Option<u32> {
        self.keys.get(&key).copied()
    }

    /// Files a value that `make` builds from its handle. `None` when the key is taken.
    pub fn insert(&mut self, key: u64, make: impl FnOnce(u64) -> T) -> Option<u32> {
        let std::collections::hash_map::Entry::Vacant(vacant) = self.keys.entry(key) else { return None };
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, value: None });
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        slot.value = Some(make(handle(slot.generation, index)));
        vacant.insert(index);
        Some(index)
    }

    /// The value with this number.
    #[inline]
    pub fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.slots.get_mut(index as usize)?.value.as_mut()
    }

    /// The value with this number.
    #[inline]
    pub fn get(&self, index: u32) -> Option<&T> {
        self.slots.get(index as usize)?.value.as_ref()
    }

    /// The number of the value with this handle, if it is still there.
    #[inline]
    pub fn resolve(&self, handle: u64) -> Option<u32> {
        let index = handle as u32;
        let slot = self.slots.get(index as usize)?;
        (slot.generation == (handle >> 32) as u32 && slot.value.is_some()).then_some(index)
    }

    /// The handle of the value with this number.
    #[inline]
    pub fn handle_of(&self, index: u32) -> u64 {
        handle(self.slots[index as usize].generation, index)
    }

    /// Takes the value under `key` out.
    pub fn remove(&mut self, key: u64) -> Option<T> {
        let index = self.keys.remove(&key)?;
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
        slot.value.take()
    }

    /// How many numbers there are, used and free ones.
    pub fn places(&self) -> usize {
        self.slots.len()
    }

    /// Shows every value.
    pub fn each(&self, mut show: impl FnMut(&T)) {
        self.slots.iter().filter_map(|slot| slot.value.as_ref()).for_each(&mut show);
    }

    /// The numbers of all values.
    pub fn indices(&self) -> Vec<u32> {
        let mut all: Vec<u32> = self.keys.values().copied().collect();
        all.sort_unstable();
        all
    }
}

#[inline]
fn handle(generation: u32, index: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(index)
}

/// One multiplication to 128 bits, folded, under a secret.
#[derive(Debug, Clone, Copy)]
struct Seeded(u64);

struct Folded(u64, u64);

impl BuildHasher for Seeded {
    type Hasher = Folded;
    #[inline]
    fn build_hasher(&self) -> Folded {
        Folded(self.0, 0)
    }
}

impl Hasher for Folded {
    #[inline]
    fn write_u64(&mut self, key: u64) {
        let wide = u128::from(key ^ self.0) * u128::from(self.0.rotate_left(32) | 1 | 1 << 63);
        let folded = (wide >> 64) as u64 ^ wide as u64;
        let wide = u128::from(folded) * u128::from(0x9e37_79b9_7f4a_7c15u64);
        self.1 = (wide >> 64) as u64 ^ wide as u64;
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            let before = self.1;
            self.write_u64(u64::from_le_bytes(word) ^ before);
        }
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_of_something_gone_finds_nothing_though_its_number_is_used_again() {
        let mut table = Table::new(5);
        let mut first = 0;
        let index = table.insert(1, |handle| {
            first = handle;
            'a'
        });
        assert_eq!((index, table.insert(1, |_| 'b')), (Some(0), None));
        assert_eq!(table.resolve(first), Some(0));
        assert_eq!((table.remove(1), table.remove(1)), (Some('a'), None));
        assert_eq!(table.insert(2, |_| 'c'), Some(0));
        assert_eq!(table.resolve(first), None);
        assert_eq!((table.find(2), table.find(1), table.len()), (Some(0), None, 1));
    }

    #[test]
    fn neighbouring_keys_spread_over_the_hash() {
        let hasher = Seeded(0x1234_5679);
        let mut buckets = [0u32; 256];
        for port in 0..25_600u64 {
            buckets[(hasher.hash_one(0x0a00_0001_1f90_0000 | port) & 255) as usize] += 1;
        }
        assert!(buckets.iter().all(|n| (40..200).contains(n)), "{buckets:?}");
    }
}
