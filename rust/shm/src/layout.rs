//! Where everything is in a channel's memory. docs/channel.md has the same as tables.

use crate::slot::{ENTRIES, INLINE, KINDS, SLOT};

/// Version of the channel: of this layout, of the slots, and of what the rings may carry.
pub const ABI_VERSION: u32 = 4;

/// Slots of each control ring.
pub const CONTROL_SLOTS: u32 = 128;
/// Listeners of one channel at most.
pub const MAX_LISTENERS: u32 = 1024;
/// Longest message, bytes.
pub const MAX_MESSAGE: u32 = 8 << 20;

/// First word of the memory.
#[cfg(feature = "engine")]
pub(crate) const MAGIC: u64 = 0x4d41_4348_4e45_5431; // "MACHNET1"

/// Words of the head page, each on cache lines of its own.
pub(crate) mod word {
    /// Not 0: the engine sleeps, or is about to; a producer that meets this clears it and rings.
    pub const ENGINE_ARMED: usize = 256;
    /// The same for the application.
    pub const APP_ARMED: usize = 384;
    /// Requests the engine has consumed.
    pub const REQUESTS_TAKEN: usize = 512;
    /// Replies the application has consumed.
    pub const REPLIES_TAKEN: usize = 640;
}

/// Bytes of the head page.
const HEAD: usize = 4096;
const PAGE: usize = 4096;

/// The sizes of a channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    /// Units of each direction that may be under way: a power of two, 16 to 65536.
    pub units: u32,
    /// Connections at most: 1 to 65536.
    pub flows: u32,
    /// Payload bytes of one unit, 1 to 9216.
    pub unit_size: u32,
}

/// A geometry outside its bounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadGeometry(pub Geometry);

impl Geometry {
    /// Units, connections and unit size that serve most applications: 1024, 256, and what fits an MTU of 1500.
    pub const DEFAULT: Geometry = Geometry { units: 1024, flows: 256, unit_size: 1424 };

    /// The geometry, if it is within its bounds.
    pub fn checked(self) -> Result<Geometry, BadGeometry> {
        let fits = self.units.is_power_of_two()
            && (16..=65536).contains(&self.units)
            && (1..=65536).contains(&self.flows)
            && (1..=9216).contains(&self.unit_size);
        if fits { Ok(self) } else { Err(BadGeometry(self)) }
    }

    /// Most units that one connection may have under way per direction, when others leave it so many: a quarter.
    pub const fn quota(self) -> u32 {
        let quarter = self.units / 4;
        if quarter == 0 { 1 } else { quarter }
    }

    /// Units of each direction that a connection has for its own, whatever others hold: an equal part of half of them, so
    /// that a peer that does not read, or an application that does not, stops nobody else. At least 1; above half as many
    /// connections as units they are only there for the first.
    pub const fn own(self) -> u32 {
        let part = self.units / 2 / self.flows;
        let part = if part == 0 { 1 } else { part };
        if part < self.quota() { part } else { self.quota() }
    }

    /// Units of each direction set aside for that: at most half.
    pub(crate) const fn reserve(self) -> u32 {
        let all = self.own() * self.flows;
        if all < self.units / 2 { all } else { self.units / 2 }
    }

    /// Slots of each of the four rings: room for every unit and for four events of every connection, so that an honest
    /// peer never finds one full and no producer has to look.
    pub const fn ring_slots(self) -> u32 {
        (self.units + 4 * self.flows).next_power_of_two()
    }

    /// Bytes from buffer to buffer: the unit's size rounded up to whole cache lines.
    pub const fn stride(self) -> usize {
        (self.unit_size as usize).next_multiple_of(64)
    }

    /// Bytes of the whole memory.
    pub const fn len(self) -> usize {
        Map::new(self).len
    }

    /// Never. Here because there is a `len`.
    pub const fn is_empty(self) -> bool {
        false
    }
}

/// Where a ring or an array lies. [`Map::new`] alone makes one: within the map's `len`, and aligned to a cache line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    at: usize,
    count: u32,
}

impl Place {
    /// Its first byte.
    pub const fn at(self) -> usize {
        self.at
    }

    /// Slots of a ring, a power of two; elements of an array.
    pub const fn count(self) -> u32 {
        self.count
    }
}

/// Where everything is in the memory of one geometry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Map {
    pub submit: Place,
    pub complete: Place,
    pub deliver: Place,
    pub returns: Place,
    pub requests: Place,
    pub replies: Place,
    /// A word for each connection.
    pub ends: Place,
    pub tx_pool: usize,
    pub rx_pool: usize,
    pub len: usize,
}

impl Map {
    pub const fn new(g: Geometry) -> Map {
        let slots = g.ring_slots();
        let submit = Place { at: HEAD, count: slots };
        let complete = Map::behind(submit, slots);
        let deliver = Map::behind(complete, slots);
        let returns = Map::behind(deliver, slots);
        let requests = Map::behind(returns, CONTROL_SLOTS);
        let replies = Map::behind(requests, CONTROL_SLOTS);
        let ends = Map::behind(replies, g.flows);
        let pool = (g.units as usize * g.stride()).next_multiple_of(PAGE);
        let tx_pool = (ends.at + g.flows as usize * 4).next_multiple_of(PAGE);
        let rx_pool = tx_pool + pool;
        let len = rx_pool + pool;
        Map { submit, complete, deliver, returns, requests, replies, ends, tx_pool, rx_pool, len }
    }

    /// Bytes that every message goes through, from the first on: head page, rings and ends. The buffers lie behind them.
    pub const fn rings(&self) -> usize {
        self.tx_pool
    }

    /// What lies right behind a ring.
    const fn behind(ring: Place, count: u32) -> Place {
        Place { at: ring.at + ring.count as usize * SLOT, count }
    }
}

/// A hash of everything that both ends must agree on: FNV-1a over the constants, and the offsets of one geometry.
pub const fn layout_hash() -> u64 {
    let map = Map::new(Geometry::DEFAULT);
    let facts = [
        ABI_VERSION as u64,
        SLOT as u64,
        INLINE as u64,
        CONTROL_SLOTS as u64,
        MAX_MESSAGE as u64,
        word::ENGINE_ARMED as u64,
        word::APP_ARMED as u64,
        word::REQUESTS_TAKEN as u64,
        word::REPLIES_TAKEN as u64,
        map.submit.at as u64,
        map.complete.at as u64,
        map.deliver.at as u64,
        map.returns.at as u64,
        map.requests.at as u64,
        map.replies.at as u64,
        map.ends.at as u64,
        map.tx_pool as u64,
        map.rx_pool as u64,
        map.len as u64,
        KINDS as u64,
        ENTRIES as u64,
    ];
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut i = 0;
    while i < facts.len() {
        let mut byte = 0;
        while byte < 64 {
            hash = (hash ^ (facts[i] >> byte & 0xff)).wrapping_mul(0x0100_0000_01b3);
            byte += 8;
        }
        i += 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of docs/channel.md. Who changes them changes the version.
    #[test]
    fn the_map_is_that_of_the_document() {
        let m = Map::new(Geometry::DEFAULT);
        let rings = [m.submit, m.complete, m.deliver, m.returns, m.requests, m.replies].map(Place::at);
        assert_eq!(rings, [4096, 266_240, 528_384, 790_528, 1_052_672, 1_069_056]);
        assert_eq!([m.ends.at, m.tx_pool, m.rx_pool], [1_085_440, 1_089_536, 2_596_864]);
        assert_eq!((m.len, ABI_VERSION, layout_hash()), (4_104_192, 4, 0xf147_b645_56ad_a963));
    }

    /// What every access to a ring or a word in shared memory relies on.
    #[test]
    fn all_places_lie_within_the_memory_aligned_and_apart() {
        for units in [16, 1024, 65_536] {
            for flows in [1, 2, 255, 256, 65_536] {
                for unit_size in [1, 64, 65, 1424, 9216] {
                    let g = Geometry { units, flows, unit_size }.checked().unwrap();
                    let m = Map::new(g);
                    let mut behind = HEAD;
                    for ring in [m.submit, m.complete, m.deliver, m.returns, m.requests, m.replies] {
                        assert!(
                            ring.at >= behind && ring.at.is_multiple_of(64) && ring.count.is_power_of_two(),
                            "{g:?}"
                        );
                        behind = ring.at + ring.count as usize * SLOT;
                    }
                    assert!(
                        m.ends.at >= behind && m.ends.at.is_multiple_of(64) && m.ends.count == flows,
                        "{g:?}"
                    );
                    behind = m.ends.at + flows as usize * 4;
                    for pool in [m.tx_pool, m.rx_pool] {
                        assert!(pool >= behind && pool.is_multiple_of(64), "{g:?}");
                        behind = pool + units as usize * g.stride();
                    }
                    assert!(behind <= m.len && m.len == g.len(), "{g:?}");
                }
            }
        }
    }

    #[test]
    fn sizes_out_of_range_are_refused() {
        let good = Geometry::DEFAULT;
        assert_eq!(good.checked(), Ok(good));
        for units in [0, 1, 8, 24, 1023, 131_072] {
            assert!(Geometry { units, ..good }.checked().is_err(), "{units} units");
        }
        for flows in [0, 65_537, u32::MAX] {
            assert!(Geometry { flows, ..good }.checked().is_err(), "{flows} flows");
        }
        for unit_size in [0, 9217, u32::MAX] {
            assert!(Geometry { unit_size, ..good }.checked().is_err(), "units of {unit_size}");
        }
        // The largest of all does not overflow.
        let largest = Geometry { units: 65_536, flows: 65_536, unit_size: 9216 }.checked().unwrap();
        assert_eq!((largest.ring_slots(), largest.len() >> 20), (524_288, 1408));
    }
}
