//! Memory and descriptors: the shared mapping, its seals, private arrays, and everything unsafe about them.

use crate::copy;
use crate::sync::{AtomicU32, Ordering};
use core::mem::MaybeUninit;
use core::ptr::NonNull;

/// A system call that was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SystemError {
    /// What was attempted.
    pub what: &'static str,
    /// `errno`.
    pub errno: i32,
}

impl SystemError {
    pub(crate) fn last(what: &'static str) -> SystemError {
        // SAFETY: the C library hands out the address of this thread's errno, always valid.
        SystemError { what, errno: unsafe { *libc::__errno_location() } }
    }
}

impl core::fmt::Display for SystemError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}: errno {}", self.what, self.errno)
    }
}

impl core::error::Error for SystemError {}

/// A descriptor, closed when dropped.
#[derive(Debug)]
pub struct Fd(i32);

impl Fd {
    /// Takes a descriptor over: nobody else closes it.
    pub fn own(raw: i32) -> Fd {
        Fd(raw)
    }

    /// Its number; valid as long as this lives.
    pub fn raw(&self) -> i32 {
        self.0
    }

    /// Gives it away unclosed.
    pub fn into_raw(self) -> i32 {
        let raw = self.0;
        core::mem::forget(self);
        raw
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        // SAFETY: closing a descriptor touches no memory; `own` made it ours alone.
        unsafe { libc::close(self.0) };
    }
}

/// A shared mapping. Every access goes through words or bounded copies; there is never a reference to bytes that the
/// peer can write, other than to atomics.
pub(crate) struct Region {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to the process; all access is by atomics or by copies whose tearing the callers allow for.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    #[cfg(feature = "engine")]
    /// Makes a memfd of `len` bytes that can neither shrink nor grow.
    pub fn create(len: usize) -> Result<Fd, SystemError> {
        // SAFETY: the name is a C string; the call touches no other memory.
        let raw =
            unsafe { libc::memfd_create(c"machnet".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
        if raw < 0 {
            return Err(SystemError::last("memfd_create"));
        }
        let fd = Fd::own(raw);
        // SAFETY: no memory is touched.
        if unsafe { libc::ftruncate(raw, len as libc::off_t) } < 0 {
            return Err(SystemError::last("ftruncate of the channel"));
        }
        Region::seal(&fd, libc::F_SEAL_SHRINK | libc::F_SEAL_GROW)?;
        Ok(fd)
    }

    #[cfg(feature = "engine")]
    /// Adds seals.
    pub fn seal(fd: &Fd, seals: i32) -> Result<(), SystemError> {
        // SAFETY: no memory is touched.
        if unsafe { libc::fcntl(fd.raw(), libc::F_ADD_SEALS, seals) } < 0 {
            return Err(SystemError::last("seal the channel"));
        }
        Ok(())
    }

    /// Whether the memory is sealed against shrinking and is exactly `len` bytes: else reading it could raise SIGBUS.
    pub fn is_sound(fd: &Fd, len: usize) -> bool {
        // SAFETY: no memory is touched.
        let seals = unsafe { libc::fcntl(fd.raw(), libc::F_GET_SEALS) };
        // SAFETY: all zero is a valid `stat`, which the next call fills.
        let mut stat: libc::stat = unsafe { core::mem::zeroed() };
        // SAFETY: `stat` is writable and of the right type.
        let known = unsafe { libc::fstat(fd.raw(), &raw mut stat) } == 0;
        seals >= 0 && seals & libc::F_SEAL_SHRINK != 0 && known && stat.st_size as usize == len
    }

    /// Maps `len` bytes of the memory, shared, and makes the pages of the first `made` of them: those that every message goes through, since a
    /// page fault in the middle of a burst costs as much as the burst. The others are made by whoever touches them first.
    pub fn map(fd: &Fd, len: usize, made: usize) -> Result<Region, SystemError> {
        let region = Region::map_bare(fd, len)?;
        region.populate(0, made.min(len))?;
        Ok(region)
    }

    fn map_bare(fd: &Fd, len: usize) -> Result<Region, SystemError> {
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let base = unsafe {
            libc::mmap(
                core::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.raw(),
                0,
            )
        };
        match NonNull::new(base.cast::<u8>()) {
            Some(base) if base.as_ptr().cast() != libc::MAP_FAILED => Ok(Region { base, len }),
            _ => Err(SystemError::last("map the channel")),
        }
    }

    #[cfg(feature = "engine")]
    /// The same in steps of some tens of microseconds, with `between` after each: the kernel makes and clears every page here, which for
    /// one call of it may take longer than others can wait for the core.
    pub fn map_in_steps(
        fd: &Fd,
        len: usize,
        made: usize,
        between: &mut dyn FnMut(),
    ) -> Result<Region, SystemError> {
        let region = Region::map_bare(fd, len)?;
        for at in (0..made).step_by(POPULATE) {
            region.populate(at, POPULATE.min(made - at))?;
            between();
        }
        Ok(region)
    }

    fn populate(&self, at: usize, len: usize) -> Result<(), SystemError> {
        loop {
            // SAFETY: within the mapping, as the callers see to; no byte changes.
            if unsafe { libc::madvise(self.at(at).cast(), len, libc::MADV_POPULATE_WRITE) } == 0 {
                return Ok(());
            }
            match SystemError::last("make the channel's pages") {
                e if e.errno == libc::EINTR || e.errno == libc::EAGAIN => {}
                // Before Linux 5.14: a write to each page does the same.
                e if e.errno == libc::EINVAL => break,
                e => return Err(e),
            }
        }
        for page in (at..at + len).step_by(PAGE) {
            // SAFETY: the first word of a page within the mapping, as above; only ever accessed atomically.
            unsafe { AtomicU32::from_ptr(self.at(page).cast()) }.fetch_or(0, Ordering::Relaxed);
        }
        Ok(())
    }

    #[cfg(feature = "engine")]
    /// Takes this process's view of the pages back, in steps of `step` bytes (a multiple of a page) with `between` after each; the last
    /// step is left to `munmap`. The mapping stays, and so do the pages while anybody else has them: what is read here afterwards comes back
    /// as it was. Each step interrupts every core on which this process runs.
    pub fn forget_in_steps(&self, step: usize, between: &mut dyn FnMut()) {
        for at in (0..self.len.saturating_sub(step)).step_by(step) {
            // SAFETY: `at + step` is at most `len`, and the mapping is shared: no byte is lost. A refusal leaves the work to `munmap`.
            unsafe { libc::madvise(self.at(at).cast(), step, libc::MADV_DONTNEED) };
            between();
        }
    }

    /// Private zeroed memory.
    pub fn private(len: usize) -> Result<Region, SystemError> {
        // SAFETY: as in `map`.
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
        match NonNull::new(base.cast::<u8>()) {
            Some(base) if base.as_ptr().cast() != libc::MAP_FAILED => Ok(Region { base, len }),
            _ => Err(SystemError::last("map private memory")),
        }
    }

    /// Bytes of it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether `len` bytes from byte `at` on lie within the mapping.
    #[inline]
    fn holds(&self, at: usize, len: usize) -> bool {
        at <= self.len && len <= self.len - at
    }

    /// The address of byte `at`. To compute it needs no proof; each access has its own.
    #[inline]
    pub fn at(&self, at: usize) -> *mut u8 {
        self.base.as_ptr().wrapping_add(at)
    }

    /// A 32-bit word of the head page; `at` is a multiple of 4 below 4096.
    #[inline]
    pub fn word(&self, at: usize) -> &AtomicU32 {
        debug_assert!(at.is_multiple_of(4) && at < 4096);
        // SAFETY: the mask keeps it in the first page and aligned, whatever `at` is; the kernel maps whole pages from a page's start,
        // and no mapping is empty; only ever accessed atomically; the mapping outlives `self`'s borrow.
        unsafe { AtomicU32::from_ptr(self.at(at & 0xffc).cast()) }
    }

    /// Copies out; nothing where that would reach beyond the mapping, which its callers' checks rule out. The peer may be writing:
    /// the bytes may be torn, and are nobody's but ours afterwards.
    #[inline]
    pub fn read(&self, at: usize, out: &mut [u8]) {
        if self.holds(at, out.len()) {
            // SAFETY: in bounds, as just checked.
            unsafe { copy::from_shared(self.at(at), out) };
        }
    }

    /// As [`Region::read`], to memory that need not be initialised, and stays as it is where nothing is copied.
    #[inline]
    pub fn read_into(&self, at: usize, out: &mut [MaybeUninit<u8>]) {
        if self.holds(at, out.len()) {
            // SAFETY: in bounds, as just checked.
            unsafe { copy::from_shared_into(self.at(at), out) };
        }
    }

    /// Copies in; nothing where that would reach beyond the mapping.
    #[inline]
    pub fn write(&self, at: usize, bytes: &[u8]) {
        if self.holds(at, bytes.len()) {
            // SAFETY: in bounds, as just checked.
            unsafe { copy::to_shared(self.at(at), bytes) };
        }
    }
}

/// Whether the kernel refuses memory that it could not give to everybody at once (`vm.overcommit_memory` = 2). Memory of a channel is not
/// reserved before it is touched, and where there is none then, whoever touches it is killed (SIGBUS).
#[cfg(feature = "engine")]
pub(crate) fn is_strict() -> bool {
    // SAFETY: the path is a C string; the call touches no other memory.
    let raw =
        unsafe { libc::open(c"/proc/sys/vm/overcommit_memory".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    if raw < 0 {
        return false;
    }
    let (fd, mut mode) = (Fd::own(raw), 0_u8);
    // SAFETY: `mode` is writable for one byte.
    let read = unsafe { libc::read(fd.raw(), (&raw mut mode).cast(), 1) };
    read == 1 && mode == b'2'
}

const PAGE: usize = 4096;
/// Bytes whose pages are made at once: some 20 to 30 us, which others wait for where they share the core.
#[cfg(feature = "engine")]
const POPULATE: usize = 8 * PAGE;

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: `map` or `private` made exactly this mapping, and nothing borrows from it any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// A private array of `u32` in a mapping of its own: the client has no allocator.
pub(crate) struct Array {
    memory: Region,
    len: usize,
}

impl Array {
    pub fn new(len: usize, value: impl Fn(usize) -> u32) -> Result<Array, SystemError> {
        let mut array = Array { memory: Region::private((len * 4).max(4))?, len };
        for (i, place) in array.all().iter_mut().enumerate() {
            *place = value(i);
        }
        Ok(array)
    }

    #[inline]
    pub fn all(&mut self) -> &mut [u32] {
        // SAFETY: `new` made the mapping at least `len` words long; it is private, zeroed, aligned to a page, and borrowed as long as
        // the slice.
        unsafe { core::slice::from_raw_parts_mut(self.memory.at(0).cast(), self.len) }
    }

    #[inline]
    pub fn get(&self, i: usize) -> Option<u32> {
        if i >= self.len {
            return None;
        }
        // SAFETY: within the array, as just checked; the mapping is private and `&self` excludes writers.
        Some(unsafe { self.memory.at(i * 4).cast::<u32>().read() })
    }
}

#[cfg(all(test, feature = "engine"))]
mod tests {
    extern crate std;
    use super::*;

    /// Pages of a mapping that are there, whoever made them.
    fn pages(region: &Region) -> usize {
        let mut there = std::vec![0_u8; region.len / PAGE];
        // SAFETY: the mapping is ours, and there is a byte for each of its pages.
        assert_eq!(unsafe { libc::mincore(region.at(0).cast(), region.len, there.as_mut_ptr()) }, 0);
        there.iter().filter(|page| **page & 1 != 0).count()
    }

    #[test]
    fn as_many_pages_are_made_as_are_asked_for_and_the_others_when_they_are_touched() {
        let len = 40 * PAGE;
        for made in [0, 1, 7, 8, 9, 33, 40] {
            let fd = Region::create(len).expect("memory");
            let mut steps = 0;
            let near = Region::map_in_steps(&fd, len, made * PAGE, &mut || steps += 1).expect("a mapping");
            assert_eq!((pages(&near), steps), (made, made.div_ceil(8)));
            let far = Region::map(&fd, len, 9 * PAGE).expect("a mapping");
            assert_eq!(pages(&near), made.max(9), "a page is there for both");
            near.write(39 * PAGE + 5, &[7]);
            let mut byte = [0];
            far.read(39 * PAGE + 5, &mut byte);
            assert_eq!((pages(&far), byte), (made.max(9) + usize::from(made < 40), [7]));
        }
    }

    /// All of a channel's pages are made at attach where this is so.
    #[test]
    fn whether_the_kernel_is_strict_is_what_it_says_of_itself() {
        let says = std::fs::read_to_string("/proc/sys/vm/overcommit_memory").unwrap_or_default();
        assert_eq!(is_strict(), says.trim() == "2");
    }
}
