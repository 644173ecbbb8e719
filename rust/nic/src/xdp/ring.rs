//! One ring of an AF_XDP socket: entries that one side writes and the other reads, and a count of each, which only grow and wrap.
//! The kernel is trusted, and yet no count of its leads outside of the ring.

use super::memory::Mapping;
use std::io;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// A ring that we write and the kernel reads: to fill, and to transmit.
pub(super) struct Outgoing<T: Copy> {
    ring: Ring<T>,
    /// Entries written, also those not yet told of.
    written: u32,
    /// Entries read by the kernel when we looked last.
    read: u32,
}

/// A ring that the kernel writes and we read: of received frames, and of those that were sent.
pub(super) struct Incoming<T: Copy> {
    ring: Ring<T>,
    /// Entries read, also those not yet given back.
    read: u32,
}

struct Ring<T> {
    produced: NonNull<AtomicU32>,
    consumed: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    size: u32,
    /// What the pointers lead to.
    _mapping: Mapping,
}

// SAFETY: the pointers lead into the mapping, which comes along and is not bound to a thread.
unsafe impl<T: Send> Send for Ring<T> {}

impl<T: Copy> Outgoing<T> {
    /// The ring of a socket at this place of its memory, of so many entries.
    pub(super) fn map(
        socket: &OwnedFd,
        place: u64,
        at: libc::xdp_ring_offset,
        size: u32,
    ) -> io::Result<Self> {
        Ok(Outgoing { ring: Ring::map(socket, place, at, size)?, written: 0, read: 0 })
    }

    /// Whether there is room for one entry.
    #[inline]
    pub(super) fn has_room(&mut self) -> bool {
        if self.written.wrapping_sub(self.read) == self.ring.size {
            self.read = self.ring.consumed().load(Ordering::Acquire);
        }
        self.written.wrapping_sub(self.read) < self.ring.size
    }

    /// Writes one entry. False: there is no room.
    #[inline]
    pub(super) fn push(&mut self, entry: T) -> bool {
        if !self.has_room() {
            return false;
        }
        // SAFETY: within the ring; the kernel has read this entry and has not been told of a new one.
        unsafe { self.ring.entry(self.written).write(entry) };
        self.written = self.written.wrapping_add(1);
        true
    }

    /// Tells the kernel of what was written.
    #[inline]
    pub(super) fn publish(&mut self) {
        self.ring.produced().store(self.written, Ordering::Release);
    }

    /// Whether the kernel wants a system call before it reads on. To be asked after [`Outgoing::publish`].
    #[inline]
    pub(super) fn wants_kick(&self) -> bool {
        // The kernel writes the flag and then looks for entries: without this fence each could miss the other's news.
        std::sync::atomic::fence(Ordering::SeqCst);
        // SAFETY: the flags live as long as the mapping.
        unsafe { self.ring.flags.as_ref() }.load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }
}

impl<T: Copy> Incoming<T> {
    /// As [`Outgoing::map`].
    pub(super) fn map(
        socket: &OwnedFd,
        place: u64,
        at: libc::xdp_ring_offset,
        size: u32,
    ) -> io::Result<Self> {
        Ok(Incoming { ring: Ring::map(socket, place, at, size)?, read: 0 })
    }

    /// Entries that wait.
    #[inline]
    pub(super) fn waiting(&self) -> u32 {
        self.ring.produced().load(Ordering::Acquire).wrapping_sub(self.read).min(self.ring.size)
    }

    /// Reads the next entry; `None` where none waits.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<T> {
        if self.waiting() == 0 {
            return None;
        }
        // SAFETY: within the ring; the kernel has written this entry and writes none until it is given back.
        let entry = unsafe { self.ring.entry(self.read).read() };
        self.read = self.read.wrapping_add(1);
        Some(entry)
    }

    /// Gives back the places of what was read.
    #[inline]
    pub(super) fn release(&mut self) {
        self.ring.consumed().store(self.read, Ordering::Release);
    }
}

impl<T: Copy> Ring<T> {
    fn map(socket: &OwnedFd, place: u64, at: libc::xdp_ring_offset, size: u32) -> io::Result<Self> {
        let mapping = Mapping::of(socket, place, at.desc as usize + size as usize * size_of::<T>())?;
        Ok(Ring {
            produced: mapping.at(at.producer, 1),
            consumed: mapping.at(at.consumer, 1),
            flags: mapping.at(at.flags, 1),
            entries: mapping.at(at.desc, size as usize),
            size,
            _mapping: mapping,
        })
    }

    fn produced(&self) -> &AtomicU32 {
        // SAFETY: within the mapping, which lives as long as `self`; both sides use it as an atomic number.
        unsafe { self.produced.as_ref() }
    }

    fn consumed(&self) -> &AtomicU32 {
        // SAFETY: as above.
        unsafe { self.consumed.as_ref() }
    }

    /// The place of an entry. `size` is a power of two.
    fn entry(&self, number: u32) -> *mut T {
        // SAFETY: less than `size`, for which the mapping was checked.
        unsafe { self.entries.add((number & (self.size - 1)) as usize).as_ptr() }
    }
}
