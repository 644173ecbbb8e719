//! Whether this is the process that attached: a page that the kernel wipes in every child of fork(2), so that a call need not ask who it is.
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Set in the process that made it, and not in its children. On kernels before 4.14 also in these.
pub struct Mark(NonNull<AtomicU32>);

// SAFETY: the page belongs to the process, and is reached as an atomic only.
unsafe impl Send for Mark {}
// SAFETY: as above.
unsafe impl Sync for Mark {}

impl Mark {
    /// Of this process; `None` when the system has no memory.
    pub fn new() -> Option<Self> {
        let (rights, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new private anonymous mapping at an address of the kernel's choice touches no existing memory.
        let page = unsafe { libc::mmap(null_mut(), PAGE, rights, kind, -1, 0) };
        if page == libc::MAP_FAILED {
            return None;
        }
        // SAFETY: the page just mapped. A kernel that does not know the advice refuses it, and changes nothing.
        unsafe { libc::madvise(page, PAGE, libc::MADV_WIPEONFORK) };
        let mark = Self(NonNull::new(page.cast())?);
        mark.word().store(SET, Relaxed);
        Some(mark)
    }

    /// Whether this is another process: a child of the one that made it.
    #[inline]
    pub fn wiped(&self) -> bool {
        self.word().load(Relaxed) != SET
    }

    #[inline]
    fn word(&self) -> &AtomicU32 {
        // SAFETY: a mapped, aligned page of ours, until `drop`; zero is a value of an atomic as well as `SET`.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        // SAFETY: `new` mapped exactly this, and nothing borrows from it any more.
        unsafe { libc::munmap(self.0.as_ptr().cast(), PAGE) };
    }
}

const SET: u32 = 1;
const PAGE: usize = 4096;
