//! Memory of a channel: one anonymous mapping, made once at attach and cut into typed slices. No allocator: the archive
//! must not bring one into a Go or C program, and nothing here grows after attach.
use core::mem::{MaybeUninit, align_of, size_of};
use core::ptr::NonNull;

/// A mapping of zeroed pages, given back when dropped.
pub struct Memory {
    base: NonNull<u8>,
    len: usize,
    used: usize,
}

// SAFETY: the mapping belongs to the process, not to the thread that made it; `Memory` is its only owner.
unsafe impl Send for Memory {}

impl Memory {
    /// Maps `len` bytes (rounded up to pages); `None` when the system has none.
    pub fn new(len: usize) -> Option<Self> {
        let len = len.max(1).checked_next_multiple_of(PAGE)?;
        // SAFETY: a new private anonymous mapping at an address of the kernel's choice touches no existing memory.
        let base = unsafe {
            libc::mmap(
                core::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return None;
        }
        Some(Self { base: NonNull::new(base.cast())?, len, used: 0 })
    }

    /// Bytes that `count` values of `T` take, alignment included, to sum up for `new`.
    pub const fn need<T>(count: usize) -> usize {
        count.saturating_mul(size_of::<T>()).saturating_add(align_of::<T>())
    }

    /// Cuts `count` values off and fills them; `None` when the mapping is too small.
    ///
    /// # Safety
    /// The slice is not used after this `Memory` is dropped.
    pub unsafe fn carve<T>(
        &mut self,
        count: usize,
        mut fill: impl FnMut(usize) -> T,
    ) -> Option<&'static mut [T]> {
        // SAFETY: the same promise.
        let room = unsafe { self.room(count) }?;
        for (i, place) in room.iter_mut().enumerate() {
            place.write(fill(i));
        }
        // SAFETY: all of it was written just now.
        Some(unsafe { room.assume_init_mut() })
    }

    /// Cuts room for `count` values off, which has no pages before something is written there; `None` when the mapping is too small.
    ///
    /// # Safety
    /// The slice is not used after this `Memory` is dropped.
    pub unsafe fn room<T>(&mut self, count: usize) -> Option<&'static mut [MaybeUninit<T>]> {
        let at = self.used.checked_next_multiple_of(align_of::<T>())?;
        let end = at.checked_add(count.checked_mul(size_of::<T>())?)?;
        if end > self.len {
            return None;
        }
        self.used = end;
        // SAFETY: `at <= end <= len`, inside the mapping.
        let first = unsafe { self.base.add(at) }.cast::<MaybeUninit<T>>();
        // SAFETY: at..end is aligned, since `at` and the page are, and handed out only once, because `used` moved past it. That nobody
        // uses it after the drop is the caller's promise.
        Some(unsafe { core::slice::from_raw_parts_mut(first.as_ptr(), count) })
    }
}

/// Values that are made one after the other, as they are needed: of those that never were there is no page.
pub struct Growing<T: 'static> {
    room: &'static mut [MaybeUninit<T>],
    /// So many from the first on are there.
    made: usize,
}

impl<T: Copy> Growing<T> {
    /// None yet.
    pub const fn new(room: &'static mut [MaybeUninit<T>]) -> Self {
        Self { room, made: 0 }
    }

    /// How many there may be.
    pub const fn most(&self) -> usize {
        self.room.len()
    }

    /// Makes another one; its index, or `None` when there are as many as there may be.
    pub fn add(&mut self, value: T) -> Option<usize> {
        let at = self.made;
        self.room.get_mut(at)?.write(value);
        self.made += 1;
        Some(at)
    }

    /// One that was made.
    #[inline]
    pub fn get(&self, at: usize) -> Option<&T> {
        // SAFETY: those below `made` were written, and no write makes them uninitialised.
        self.room.get(..self.made)?.get(at).map(|value| unsafe { value.assume_init_ref() })
    }

    /// The same, to change it.
    #[inline]
    pub fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        // SAFETY: as in `get`.
        self.room.get_mut(..self.made)?.get_mut(at).map(|value| unsafe { value.assume_init_mut() })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: base and len are of the mapping made in `new`; whoever carved from it promised not to use it any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

const PAGE: usize = 4096;

/// Room for values of a test, which stays for ever.
#[cfg(test)]
pub fn leaked<T>(count: usize) -> &'static mut [MaybeUninit<T>] {
    std::vec::Vec::leak((0..count).map(|_| MaybeUninit::uninit()).collect())
}

/// Values of a test as room for others.
#[cfg(test)]
pub fn room<T>(values: &mut [T]) -> &mut [core::mem::MaybeUninit<T>] {
    let room = core::ptr::from_mut(values) as *mut [core::mem::MaybeUninit<T>];
    // SAFETY: the same values, borrowed as long; a receive or a poll that is given the room only writes values there.
    unsafe { &mut *room }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_apart_aligned_and_bounded() {
        let mut memory = Memory::new(Memory::need::<u8>(3) + Memory::need::<u64>(4)).expect("pages");
        // SAFETY: both slices end before `memory`.
        let (a, b) = unsafe { (memory.carve(3, |i| i as u8), memory.carve(4, |i| i as u64 * 100)) };
        let (a, b) = (a.expect("room"), b.expect("room"));
        a.fill(0xff);
        assert_eq!((&*a, &*b), (&[0xff; 3][..], &[0, 100, 200, 300][..]));
        assert_eq!(b.as_ptr() as usize % align_of::<u64>(), 0);
        // SAFETY: nothing is carved.
        assert!(unsafe { memory.carve(PAGE, |_| 0_u8) }.is_none());
    }

    #[test]
    fn values_grow_to_their_bound_and_are_there_once_made() {
        let mut growing = Growing::new(leaked(2));
        assert_eq!((growing.most(), growing.get(0)), (2, None));
        assert_eq!([7, 8, 9].map(|value| growing.add(value)), [Some(0), Some(1), None]);
        *growing.get_mut(1).expect("made") += 1;
        assert_eq!([0, 1, 2].map(|at| growing.get(at).copied()), [Some(7), Some(9), None]);
    }
}
