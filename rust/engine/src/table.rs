//! Connections by key, by index and by handle. The key is hashed once per packet; everything else goes by index.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};

use crate::ids::{ConnHandle, ConnIndex, ConnKey};

/// Values of `T`, each with a small index that is used again after it is gone. A handle (index and generation) of a
/// value that is gone finds nothing.
#[derive(Debug)]
pub struct Table<T> {
    keys: HashMap<ConnKey, ConnIndex, Seeded>,
    slots: Vec<Slot<T>>,
    free: Vec<ConnIndex>,
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
    #[inline]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// The index of the value under `key`.
    #[inline]
    pub fn find(&self, key: ConnKey) -> Option<ConnIndex> {
        self.keys.get(&key).copied()
    }

    /// Files a value. `None` when the key is taken.
    pub fn insert(&mut self, key: ConnKey, value: T) -> Option<ConnIndex> {
        let std::collections::hash_map::Entry::Vacant(vacant) = self.keys.entry(key) else { return None };
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, value: None });
            ConnIndex::new(self.slots.len() - 1)
        });
        self.slots[index.place()].value = Some(value);
        vacant.insert(index);
        Some(index)
    }

    /// The value with this index.
    #[inline]
    pub fn get_mut(&mut self, index: ConnIndex) -> Option<&mut T> {
        self.slots.get_mut(index.place())?.value.as_mut()
    }

    /// The value with this index.
    #[inline]
    pub fn get(&self, index: ConnIndex) -> Option<&T> {
        self.slots.get(index.place())?.value.as_ref()
    }

    /// The value with this index, and its handle.
    #[inline]
    pub fn entry(&mut self, index: ConnIndex) -> Option<(ConnHandle, &mut T)> {
        let slot = self.slots.get_mut(index.place())?;
        let handle = ConnHandle { index, generation: slot.generation };
        Some((handle, slot.value.as_mut()?))
    }

    /// The value with this handle, if it is still there.
    #[inline]
    pub fn resolve(&self, handle: ConnHandle) -> Option<&T> {
        let slot = self.slots.get(handle.index.place())?;
        if slot.generation == handle.generation { slot.value.as_ref() } else { None }
    }

    /// The same, to change it.
    #[inline]
    pub fn resolve_mut(&mut self, handle: ConnHandle) -> Option<&mut T> {
        let slot = self.slots.get_mut(handle.index.place())?;
        if slot.generation == handle.generation { slot.value.as_mut() } else { None }
    }

    /// The value at a place, if there is one, and its handle.
    pub fn at(&self, place: usize) -> Option<(ConnHandle, &T)> {
        let slot = self.slots.get(place)?;
        let handle = ConnHandle { index: ConnIndex::new(place), generation: slot.generation };
        Some((handle, slot.value.as_ref()?))
    }

    /// Takes the value under `key` out.
    pub fn remove(&mut self, key: ConnKey) -> Option<T> {
        let index = self.keys.remove(&key)?;
        let slot = &mut self.slots[index.place()];
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
        slot.value.take()
    }

    /// How many places there are, used and free ones.
    pub fn places(&self) -> usize {
        self.slots.len()
    }

    /// Every value.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().filter_map(|slot| slot.value.as_ref())
    }

    /// The indices of all values, in order.
    pub fn indices(&self) -> Vec<ConnIndex> {
        let mut all: Vec<ConnIndex> = self.keys.values().copied().collect();
        all.sort_unstable();
        all
    }
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
    use std::net::Ipv4Addr;

    #[test]
    fn a_handle_of_something_gone_finds_nothing_though_its_number_is_used_again() {
        let [one, two] = [1, 2].map(|port| ConnKey::new(Ipv4Addr::LOCALHOST, port, 80));
        let mut table = Table::new(5);
        let index = table.insert(one, 'a').expect("free");
        assert_eq!(table.insert(one, 'b'), None);
        let (first, _) = table.entry(index).expect("there");
        assert_eq!(table.resolve(first), Some(&'a'));
        assert_eq!((table.remove(one), table.remove(one)), (Some('a'), None));
        assert_eq!(table.resolve(first), None, "an empty place");
        assert_eq!(table.insert(two, 'c'), Some(index));
        assert_eq!(table.resolve(first), None, "another connection's place");
        assert_eq!((table.find(two), table.find(one), table.len()), (Some(index), None, 1));
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
