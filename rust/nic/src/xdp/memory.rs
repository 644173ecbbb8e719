//! Memory that is shared with the kernel: the rings of a socket, and the frames that they tell of.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;

/// A mapping of this process, gone when dropped.
pub(super) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: memory is not bound to a thread, and whoever holds the mapping holds all of it.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Fresh memory, all zeros, its pages there.
    pub(super) fn fresh(len: usize) -> io::Result<Mapping> {
        Mapping::new(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, None)
    }

    /// A ring of a socket, which the kernel keeps at this place.
    pub(super) fn of(socket: &OwnedFd, place: u64, len: usize) -> io::Result<Mapping> {
        Mapping::new(len, libc::MAP_SHARED, Some((socket, place)))
    }

    fn new(len: usize, flags: i32, file: Option<(&OwnedFd, u64)>) -> io::Result<Mapping> {
        let (fd, place) = file.map_or((-1, 0), |(file, place)| (file.as_raw_fd(), place));
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the kernel chooses a free range of addresses.
        let start = unsafe {
            let nowhere = std::ptr::null_mut();
            libc::mmap(nowhere, len, access, flags | libc::MAP_POPULATE, fd, place as libc::off_t)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Mapping { start, len })
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// A value of type `T` within the mapping, which lives as long.
    ///
    /// # Panics
    /// If `count` of them at this place would lie outside, or not be aligned: then this kernel's rings are not those that we know.
    pub(super) fn at<T>(&self, place: u64, count: usize) -> NonNull<T> {
        let place = usize::try_from(place).unwrap_or(usize::MAX);
        let end = count.checked_mul(size_of::<T>()).and_then(|len| len.checked_add(place));
        assert!(
            end.is_some_and(|end| end <= self.len),
            "{place} lies outside of a ring of {} bytes",
            self.len
        );
        assert!(place.is_multiple_of(align_of::<T>()), "{place} is no place for a number in a ring");
        // SAFETY: within the mapping, checked above.
        unsafe { self.start.add(place).cast() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`; what refers to it has gone, since it borrows from this or is held beside it.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// The frames of one socket, [`FRAME`] bytes each; a frame is named by its first byte's distance from the start.
pub(super) struct Frames(Mapping);

impl Frames {
    /// Room for so many.
    pub(super) fn new(count: u32) -> io::Result<Frames> {
        Mapping::fresh(count as usize * FRAME as usize).map(Frames)
    }

    /// Gives them to a socket.
    pub(super) fn register(&self, socket: &OwnedFd) -> io::Result<()> {
        // SAFETY: mapped and ours alone. The kernel holds the pages until the socket is gone, whether or not they are still mapped here.
        unsafe { super::sys::register_frames(socket, self.0.start().as_ptr(), self.0.len(), FRAME) }
    }

    /// So many bytes at this place; `None` where they are not within one frame.
    ///
    /// # Safety
    /// The kernel was not given the frame, or has given it back.
    pub(super) unsafe fn bytes(&self, place: u64, len: u32) -> Option<&[u8]> {
        self.holds(place, len).then(|| {
            // SAFETY: within the mapping; nobody else writes there, which the caller sees to.
            unsafe { std::slice::from_raw_parts(self.0.start().add(place as usize).as_ptr(), len as usize) }
        })
    }

    /// As [`Frames::bytes`], to be written.
    ///
    /// # Safety
    /// As there.
    pub(super) unsafe fn bytes_mut(&mut self, place: u64, len: u32) -> Option<&mut [u8]> {
        self.holds(place, len).then(|| {
            // SAFETY: within the mapping; nobody else reads or writes there, which the caller and the borrow see to.
            unsafe {
                std::slice::from_raw_parts_mut(self.0.start().add(place as usize).as_ptr(), len as usize)
            }
        })
    }

    fn holds(&self, place: u64, len: u32) -> bool {
        let within = place % u64::from(FRAME) + u64::from(len);
        place < self.0.len() as u64 && within <= u64::from(FRAME)
    }
}

/// Bytes of a frame: a page, because smaller ones make the kernel's driver of ENA copy, and larger ones need huge pages.
pub(super) const FRAME: u32 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_within_one_frame_is_refused() {
        let mut frames = Frames::new(2).unwrap();
        // SAFETY: no kernel was given these frames.
        unsafe {
            frames.bytes_mut(4096, 4096).unwrap()[4095] = 7;
            assert_eq!(frames.bytes(8191, 1), Some(&[7][..]));
            for (place, len) in [(0, 4097), (4095, 2), (8191, 2), (8192, 0), (u64::MAX, 1), (1, u32::MAX)] {
                assert_eq!(frames.bytes(place, len), None, "{place}, {len}");
            }
        }
    }
}
