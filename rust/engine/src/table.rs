//! Connections by key, by index and by handle. The key is hashed once per packet; everything else goes by index.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};

use crate::ids::{ConnHandle, ConnIndex, ConnKey};

/// What a table holds: it knows its own key, which never changes.
pub trait Keyed {
    /// The key.
    fn key(&self) -> ConnKey;
}

/// Values of `T`, each with a small index that is used again after it is gone. A handle (index and generation) of a
/// value that is gone finds nothing.
///
/// It grows in small steps: a step that moved everything would hold up the engine for as long as there are values.
#[derive(Debug)]
pub struct Table<T> {
    keys: HashMap<ConnKey, ConnIndex, Seeded>,
    /// While `keys` is new: those that have not been moved there yet.
    old: HashMap<ConnKey, ConnIndex, Seeded>,
    /// The first place whose key may not have been moved yet.
    moved: usize,
    chunks: Vec<Box<Chunk<T>>>,
    free: Vec<ConnIndex>,
    places: usize,
}

/// So many places are made at a time.
type Chunk<T> = [Slot<T>; CHUNK];

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

impl<T: Keyed> Table<T> {
    /// An empty table. Peers choose parts of keys: `secret` keeps them from choosing collisions.
    pub fn new(secret: u64) -> Self {
        let keys = || HashMap::with_hasher(Seeded(secret | 1));
        Self { keys: keys(), old: keys(), moved: 0, chunks: Vec::new(), free: Vec::new(), places: 0 }
    }

    /// How many values there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.keys.len() + self.old.len()
    }

    /// The index of the value under `key`.
    #[inline]
    pub fn find(&self, key: ConnKey) -> Option<ConnIndex> {
        match self.keys.get(&key) {
            None if !self.old.is_empty() => self.old.get(&key).copied(),
            found => found.copied(),
        }
    }

    /// Files a value. `None` when its key is taken.
    pub fn insert(&mut self, value: T) -> Option<ConnIndex> {
        let key = value.key();
        if self.find(key).is_some() {
            return None;
        }
        self.make_room();
        let index = self.free.pop().unwrap_or_else(|| {
            if self.places == self.chunks.len() * CHUNK {
                self.chunks.push(chunk());
            }
            self.places += 1;
            ConnIndex::new(self.places - 1)
        });
        self.slot_mut(index.place())?.value = Some(value);
        self.keys.insert(key, index);
        Some(index)
    }

    /// Has room in `keys` for one more, and moves some of the old ones there.
    fn make_room(&mut self) {
        if self.keys.len() == self.keys.capacity() && self.old.is_empty() {
            let room =
                HashMap::with_capacity_and_hasher((self.keys.len() * 2).max(CHUNK), *self.keys.hasher());
            self.old = core::mem::replace(&mut self.keys, room);
            self.moved = 0;
        }
        // As many as were full before fit in as many more steps, so four times as many places as that could be looked at.
        for _ in 0..MOVES {
            if self.old.is_empty() {
                return;
            }
            if let Some(key) = self.get_at(self.moved).map(T::key)
                && let Some(index) = self.old.remove(&key)
            {
                self.keys.insert(key, index);
            }
            self.moved += 1;
        }
        if self.old.is_empty() {
            self.old = HashMap::with_hasher(*self.keys.hasher());
        }
    }

    /// The value with this index.
    #[inline]
    pub fn get_mut(&mut self, index: ConnIndex) -> Option<&mut T> {
        self.slot_mut(index.place())?.value.as_mut()
    }

    /// The value with this index.
    #[inline]
    pub fn get(&self, index: ConnIndex) -> Option<&T> {
        self.get_at(index.place())
    }

    /// The value with this index, and its handle.
    #[inline]
    pub fn entry(&mut self, index: ConnIndex) -> Option<(ConnHandle, &mut T)> {
        let slot = self.slot_mut(index.place())?;
        let handle = ConnHandle { index, generation: slot.generation };
        Some((handle, slot.value.as_mut()?))
    }

    /// The value with this handle, if it is still there.
    #[inline]
    pub fn resolve(&self, handle: ConnHandle) -> Option<&T> {
        let slot = self.slot(handle.index.place())?;
        if slot.generation == handle.generation { slot.value.as_ref() } else { None }
    }

    /// The same, to change it.
    #[inline]
    pub fn resolve_mut(&mut self, handle: ConnHandle) -> Option<&mut T> {
        let slot = self.slot_mut(handle.index.place())?;
        if slot.generation == handle.generation { slot.value.as_mut() } else { None }
    }

    /// The value at a place, if there is one, and its handle.
    pub fn at(&self, place: usize) -> Option<(ConnHandle, &T)> {
        let slot = self.slot(place)?;
        let handle = ConnHandle { index: ConnIndex::new(place), generation: slot.generation };
        Some((handle, slot.value.as_ref()?))
    }

    /// Takes the value with this index out.
    pub fn remove(&mut self, index: ConnIndex) -> Option<T> {
        let slot = self.slot_mut(index.place())?;
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
        let key = value.key();
        self.keys.remove(&key).or_else(|| self.old.remove(&key));
        Some(value)
    }

    /// How many places there are, used and free ones.
    pub fn places(&self) -> usize {
        self.places
    }

    /// Every value, in the order of places.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flat_map(|chunk| chunk.iter()).filter_map(|slot| slot.value.as_ref())
    }

    /// The indices of all values, in order.
    pub fn indices(&self) -> Vec<ConnIndex> {
        (0..self.places).filter(|&place| self.get_at(place).is_some()).map(ConnIndex::new).collect()
    }

    #[inline]
    fn get_at(&self, place: usize) -> Option<&T> {
        self.slot(place)?.value.as_ref()
    }

    #[inline]
    fn slot(&self, place: usize) -> Option<&Slot<T>> {
        Some(&self.chunks.get(place / CHUNK)?[place % CHUNK])
    }

    #[inline]
    fn slot_mut(&mut self, place: usize) -> Option<&mut Slot<T>> {
        Some(&mut self.chunks.get_mut(place / CHUNK)?[place % CHUNK])
    }
}

/// Empty places; made on the heap, since they are too large for the stack.
fn chunk<T>() -> Box<Chunk<T>> {
    let slots: Box<[Slot<T>]> = (0..CHUNK).map(|_| Slot { generation: 0, value: None }).collect();
    match slots.try_into() {
        Ok(chunk) => chunk,
        Err(_) => unreachable!("as many as a chunk has"),
    }
}

const CHUNK: usize = 64;
/// Places whose keys are moved with each value that is filed while the table grows.
const MOVES: usize = 4;

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

    impl Keyed for (ConnKey, char) {
        fn key(&self) -> ConnKey {
            self.0
        }
    }

    fn key(n: u32) -> ConnKey {
        ConnKey::new(Ipv4Addr::from_bits(n), 1, 80)
    }

    #[test]
    fn a_handle_of_something_gone_finds_nothing_though_its_number_is_used_again() {
        let [one, two] = [1, 2].map(key);
        let mut table = Table::new(5);
        let index = table.insert((one, 'a')).expect("free");
        assert_eq!(table.insert((one, 'b')), None);
        let (first, _) = table.entry(index).expect("there");
        assert_eq!(table.resolve(first), Some(&(one, 'a')));
        assert_eq!((table.remove(index), table.remove(index)), (Some((one, 'a')), None));
        assert_eq!(table.resolve(first), None, "an empty place");
        assert_eq!(table.insert((two, 'c')), Some(index));
        assert_eq!(table.resolve(first), None, "another connection's place");
        assert_eq!((table.find(two), table.find(one), table.len()), (Some(index), None, 1));
    }

    /// Compared with a map, while it grows, and with values that go while their keys are being moved.
    #[test]
    fn growing_loses_nothing_and_moves_little_at_a_time() {
        let mut table = Table::new(7);
        let mut model = HashMap::new();
        for n in 0..20_000u32 {
            let before = table.old.len();
            let index = table.insert((key(n), 'x')).expect("free");
            assert!(before.saturating_sub(table.old.len()) <= MOVES);
            assert_eq!(model.insert(n, index), None);
            if n % 3 == 1 {
                let gone = n / 2;
                if let Some(index) = model.remove(&gone) {
                    assert_eq!(table.remove(index), Some((key(gone), 'x')));
                }
            }
            assert_eq!((table.len(), table.insert((key(n), 'y'))), (model.len(), None));
        }
        assert!(model.iter().all(|(n, index)| table.find(key(*n)) == Some(*index)));
        assert!((0..20_000).filter(|n| !model.contains_key(n)).all(|n| table.find(key(n)).is_none()));
        assert_eq!((table.iter().count(), table.indices().len()), (model.len(), model.len()));
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
