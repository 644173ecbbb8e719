//! What both ends of a channel have in common: the mapping, the doorbells, and the sleep protocol.
//!
//! The halves of an end, and the views into its rings, each hold a counted reference to this, so that the memory stays mapped as long as
//! any of them is there.

use crate::doorbell::{self, Rung};
#[cfg(feature = "engine")]
use crate::layout::MAGIC;
use crate::layout::{Geometry, Map, word};
use crate::memory::{Fd, Region, SystemError};
use crate::sleep;
use crate::sync::{AtomicU32, Ordering};
use core::ptr::NonNull;

/// A counted reference to one end's mapping and doorbells. Without an allocator: count and all live in a private page.
pub(crate) struct ChannelRef(NonNull<Inner>);

struct Inner {
    references: AtomicU32,
    region: Region,
    geometry: Geometry,
    map: Map,
    /// Becomes readable when the peer rings.
    doorbell: Fd,
    /// Rings the peer.
    peer_doorbell: Fd,
    /// Where the application's sending half sleeps: its end to read, or the engine's to ring.
    sender_doorbell: Fd,
    /// The word that says that this end sleeps, and the peer's.
    armed: usize,
    peer_armed: usize,
    /// Slots taken from the deliver, complete and reply ring: what a waiter compares sequence words with; and requests written.
    heads: [AtomicU32; 4],
    /// The private page that this is in; dropped last.
    page: Region,
}

// SAFETY: all fields are reached by shared reference and are atomics, immutable, or `Sync` themselves.
unsafe impl Send for ChannelRef {}
// SAFETY: as above.
unsafe impl Sync for ChannelRef {}

/// Which end of the channel this is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    App,
    #[cfg(feature = "engine")]
    Engine,
}

impl ChannelRef {
    /// One end over the memory that `region` maps; an error where that is shorter than `geometry` wants.
    pub fn new(
        side: Side,
        region: Region,
        geometry: Geometry,
        doorbell: Fd,
        peer_doorbell: Fd,
        sender_doorbell: Fd,
    ) -> Result<ChannelRef, SystemError> {
        let map = Map::new(geometry);
        if region.len() < map.len {
            return Err(SystemError { what: "a channel's memory that is too short", errno: libc::EFAULT });
        }
        let page = Region::private(size_of::<Inner>())?;
        let (armed, peer_armed) = match side {
            Side::App => (word::APP_ARMED, word::ENGINE_ARMED),
            #[cfg(feature = "engine")]
            Side::Engine => (word::ENGINE_ARMED, word::APP_ARMED),
        };
        let place = page.at(0).cast::<Inner>();
        let heads = [const { AtomicU32::new(0) }; 4];
        let inner = Inner {
            references: AtomicU32::new(1),
            region,
            geometry,
            map,
            doorbell,
            peer_doorbell,
            sender_doorbell,
            armed,
            peer_armed,
            heads,
            page,
        };
        // SAFETY: the mapping was just made, private, as long as an `Inner`, and begins with a page; it holds nothing yet.
        unsafe { place.write(inner) };
        // A mapping is never at address 0.
        NonNull::new(place)
            .map(ChannelRef)
            .ok_or(SystemError { what: "map private memory", errno: libc::ENOMEM })
    }

    #[inline]
    fn inner(&self) -> &Inner {
        // SAFETY: `new` wrote it, and it lives until the last handle is dropped.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    pub fn region(&self) -> &Region {
        &self.inner().region
    }

    #[inline]
    pub fn geometry(&self) -> Geometry {
        self.inner().geometry
    }

    #[inline]
    pub fn map(&self) -> &Map {
        &self.inner().map
    }

    pub fn head(&self, ring: usize) -> &AtomicU32 {
        &self.inner().heads[ring]
    }

    /// The descriptor that becomes readable when the peer rings, or hung up when it is gone.
    pub fn doorbell(&self) -> i32 {
        self.inner().doorbell.raw()
    }

    /// The same for the application's sending half.
    pub fn sender_doorbell(&self) -> i32 {
        self.inner().sender_doorbell.raw()
    }

    /// Empties the doorbell, and says what there was.
    pub fn drain(&self) -> Rung {
        doorbell::drain(self.doorbell())
    }

    /// After producing something of `what`, bits of [`sleep`]: wakes the peer if it sleeps for that.
    #[inline]
    pub fn ring_if_armed(&self, what: u32) {
        let asleep = sleep::must_ring(self.region().word(self.inner().peer_armed), what);
        if asleep != 0 {
            self.ring(asleep);
        }
    }

    /// Rings the sleepers of the peer that `asleep` names, bits of [`sleep`].
    #[cold]
    pub fn ring(&self, asleep: u32) {
        let inner = self.inner();
        // machnetd ignores SIGPIPE; an application that knows nothing of our pipe would die of it when its sidecar goes.
        if inner.armed == word::APP_ARMED {
            return doorbell::without_sigpipe(|| doorbell::ring(&inner.peer_doorbell));
        }
        if asleep & sleep::RECEIVER != 0 {
            doorbell::ring(&inner.peer_doorbell);
        }
        if asleep & sleep::SENDER != 0 {
            doorbell::ring(&inner.sender_doorbell);
        }
    }

    /// Before sleeping for `wants`: true when nothing is `pending`, so that the next thing wanted will ring.
    pub fn arm(&self, wants: u32, pending: impl FnOnce() -> bool) -> bool {
        sleep::arm(self.region().word(self.inner().armed), wants, pending)
    }

    /// After sleeping for `wants`.
    pub fn disarm(&self, wants: u32) {
        sleep::Word::clear(self.region().word(self.inner().armed), wants);
    }

    #[cfg(feature = "engine")]
    /// Writes the head of fresh memory, for people with a debugger: neither end reads it later.
    pub fn sign(&self) {
        let g = self.geometry();
        let region = self.region();
        region.write(0, &MAGIC.to_le_bytes());
        for (at, value) in [
            (8, crate::ABI_VERSION),
            (12, g.units),
            (16, g.flows),
            (20, g.unit_size),
            (24, g.stride() as u32),
            (28, g.ring_slots()),
        ] {
            region.write(at, &value.to_le_bytes());
        }
        region.write(32, &crate::layout_hash().to_le_bytes());
    }
}

impl Clone for ChannelRef {
    fn clone(&self) -> ChannelRef {
        self.inner().references.fetch_add(1, Ordering::Relaxed);
        ChannelRef(self.0)
    }
}

impl Drop for ChannelRef {
    fn drop(&mut self) {
        if self.inner().references.fetch_sub(1, Ordering::Release) == 1 {
            core::sync::atomic::fence(Ordering::Acquire);
            // SAFETY: this was the last handle: nobody else can reach the value; the page outlives the read, since it moves
            // out with it and is dropped at the end of this scope.
            let inner = unsafe { self.0.as_ptr().read() };
            let Inner { region, doorbell, peer_doorbell, sender_doorbell, page, .. } = inner;
            drop((region, doorbell, peer_doorbell, sender_doorbell));
            drop(page);
        }
    }
}

/// The parts of a new channel: memory and three doorbells.
#[cfg(feature = "engine")]
pub(crate) struct Parts {
    pub memfd: Fd,
    /// The application's: (read end, write end).
    pub app_bell: (Fd, Fd),
    /// That of its sending half: (read end, write end).
    pub sender_bell: (Fd, Fd),
    /// The engine's: (read end, write end).
    pub engine_bell: (Fd, Fd),
}

#[cfg(feature = "engine")]
impl Parts {
    pub fn new(geometry: Geometry) -> Result<Parts, SystemError> {
        let (memfd, pipe) = (Region::create(geometry.len())?, doorbell::pipe);
        Ok(Parts { memfd, app_bell: pipe()?, sender_bell: pipe()?, engine_bell: pipe()? })
    }
}

/// Index of a ring's head in [`ChannelRef::head`].
pub(crate) mod head {
    pub const DELIVER: usize = 0;
    pub const COMPLETE: usize = 1;
    pub const REPLIES: usize = 2;
    pub const REQUESTS: usize = 3;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_shorter_than_its_sizes_say_makes_no_end() {
        let geometry = Geometry { units: 16, flows: 4, unit_size: 100 };
        let end = |len| {
            let parts = Parts::new(geometry).expect("memory and doorbells");
            let region = Region::map(&parts.memfd, len, 0).expect("a mapping");
            let (bell, peer_bell, sender_bell) = (parts.engine_bell.0, parts.app_bell.1, parts.sender_bell.1);
            ChannelRef::new(Side::Engine, region, geometry, bell, peer_bell, sender_bell)
        };
        assert!(end(geometry.len()).is_ok());
        assert!(end(geometry.len() - 1).is_err());
    }
}
