//! The transmit ring of an af_packet queue, seen a second time beside its driver.
//!
//! The driver waits without a bound, in `poll`, when the ring has no free slot and the socket no room: one device that takes no more
//! frames would stop an engine, and with it every connection of its applications. So a queue looks first, and hands over no more frames
//! than there are free slots. The driver also asks the kernel to send just once for a burst, and takes frames for sent that the kernel
//! had no room for; they lie in the ring until it is asked again, which a queue does, too.

use std::io;
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// Blocks and slots of one ring; the receive and the transmit ring of a socket are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// Bytes of all blocks.
    pub bytes: usize,
    /// Bytes of a slot, without gaps between them.
    pub slot: usize,
    /// Slots.
    pub count: usize,
}

/// The slots of one queue's transmit ring. Belongs to the thread that sends.
pub(super) struct Slots {
    /// The receive ring, and the transmit ring behind it.
    rings: NonNull<u8>,
    layout: Layout,
    /// The slot that the driver fills next: it begins with the first, and takes one after another.
    next: usize,
    socket: RawFd,
}

// SAFETY: the mapping is this value's alone and is not bound to a thread.
unsafe impl Send for Slots {}

impl Slots {
    /// Maps the rings of a packet socket that stays open as long as this lives.
    pub(super) fn map(socket: RawFd, layout: Layout) -> io::Result<Slots> {
        // SAFETY: a new mapping at a place that the kernel chooses; it refuses all sizes but that of the rings that are there.
        let rings = unsafe {
            libc::mmap(std::ptr::null_mut(), 2 * layout.bytes, libc::PROT_READ, libc::MAP_SHARED, socket, 0)
        };
        match NonNull::new(rings.cast()) {
            Some(place) if rings != libc::MAP_FAILED => Ok(Slots { rings: place, layout, next: 0, socket }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// How many frames can be handed over now, at most `most`.
    pub(super) fn free(&self, most: usize) -> usize {
        let taken = |n: &usize| self.status(self.next + n) & !STAMPS != libc::TP_STATUS_AVAILABLE;
        (0..most.min(self.layout.count)).find(taken).unwrap_or(most.min(self.layout.count))
    }

    /// Notes that the driver has filled `n`.
    pub(super) fn filled(&mut self, n: usize) {
        self.next = (self.next + n) % self.layout.count;
    }

    /// Whether the frame that was handed over last still lies in the ring.
    pub(super) fn stuck(&self) -> bool {
        self.status(self.next + self.layout.count - 1) & libc::TP_STATUS_SEND_REQUEST != 0
    }

    /// Has the kernel send what lies in the ring. Never waits.
    pub(super) fn send(&self) {
        // SAFETY: no bytes and no address. What is refused is asked for again.
        unsafe { libc::sendto(self.socket, std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0) };
    }

    /// The status of a slot; behind the last comes the first.
    fn status(&self, index: usize) -> u32 {
        let at = self.layout.bytes + index % self.layout.count * self.layout.slot;
        // SAFETY: the transmit ring begins at `bytes` and holds `count` slots, each of which begins with its status; the mapping lives as
        // long as this value. The kernel and the driver write it whole.
        let status = unsafe { &*self.rings.as_ptr().add(at).cast::<AtomicU32>() };
        status.load(Ordering::Acquire)
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        // SAFETY: the mapping that `map` made, unmapped once.
        unsafe { libc::munmap(self.rings.as_ptr().cast(), 2 * self.layout.bytes) };
    }
}

/// What the kernel may leave in the status of a slot that is free.
const STAMPS: u32 = libc::TP_STATUS_TS_SOFTWARE | libc::TP_STATUS_TS_RAW_HARDWARE;

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::{AsRawFd, FromRawFd};
    use std::os::unix::fs::FileExt;

    const LAYOUT: Layout = Layout { bytes: 8192, slot: 2048, count: 4 };

    /// A file of two rings, in the place of a socket's.
    fn rings() -> (File, Slots) {
        // SAFETY: the name is a C string; the descriptor that comes back is ours alone.
        let file = unsafe { File::from_raw_fd(libc::memfd_create(c"rings".as_ptr(), libc::MFD_CLOEXEC)) };
        file.set_len(2 * LAYOUT.bytes as u64).unwrap();
        let slots = Slots::map(file.as_raw_fd(), LAYOUT).unwrap();
        (file, slots)
    }

    fn set(file: &File, slot: u64, status: u32) {
        // The receive ring says something else all the time.
        file.write_all_at(&u32::MAX.to_ne_bytes(), slot * 2048).unwrap();
        file.write_all_at(&status.to_ne_bytes(), 8192 + slot * 2048).unwrap();
    }

    #[test]
    fn as_many_frames_are_handed_over_as_slots_in_a_row_are_free() {
        let (file, mut slots) = rings();
        assert_eq!((slots.free(32), slots.free(3), slots.free(0)), (4, 3, 0));
        set(&file, 2, libc::TP_STATUS_SEND_REQUEST);
        assert_eq!(slots.free(32), 2);
        slots.filled(2);
        assert_eq!(slots.free(32), 0, "the third is not free");
        set(&file, 2, libc::TP_STATUS_TS_SOFTWARE);
        assert_eq!(slots.free(32), 4, "free, with a time stamp, and on from the last to the first");
        slots.filled(2);
        set(&file, 0, libc::TP_STATUS_SENDING);
        assert_eq!((slots.free(32), slots.next), (0, 0));
        set(&file, 0, libc::TP_STATUS_AVAILABLE);
        set(&file, 3, libc::TP_STATUS_SENDING);
        assert_eq!(slots.free(32), 3);
    }

    #[test]
    fn a_frame_is_stuck_until_the_kernel_has_begun_with_it() {
        let (file, mut slots) = rings();
        assert!(!slots.stuck());
        for round in 0..6 {
            set(&file, round % 4, libc::TP_STATUS_SEND_REQUEST);
            slots.filled(1);
            assert!(slots.stuck(), "round {round}");
            set(&file, round % 4, libc::TP_STATUS_SENDING);
            assert!(!slots.stuck(), "round {round}");
        }
    }
}
