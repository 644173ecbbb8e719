//! Memory and descriptors: the shared mapping, its seals, private arrays, and everything unsafe about them.

use crate::copy;
use crate::layout::{INLINE, SLOT};
use crate::ring::Slots;
use crate::slot::Head;
use crate::sync::{AtomicU32, AtomicU64, Ordering};
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

    /// Maps `len` bytes of the memory, shared. Populated: a page fault in the middle of a burst costs as much as the burst.
    pub fn map(fd: &Fd, len: usize) -> Result<Region, SystemError> {
        Region::map_with(fd, len, libc::MAP_POPULATE)
    }

    fn map_with(fd: &Fd, len: usize, flags: libc::c_int) -> Result<Region, SystemError> {
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let base = unsafe {
            libc::mmap(
                core::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | flags,
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
    pub fn map_in_steps(fd: &Fd, len: usize, between: &mut dyn FnMut()) -> Result<Region, SystemError> {
        let region = Region::map_with(fd, len, 0)?;
        for at in (0..len).step_by(POPULATE) {
            region.populate(at, POPULATE.min(len - at))?;
            between();
        }
        Ok(region)
    }

    #[cfg(feature = "engine")]
    fn populate(&self, at: usize, len: usize) -> Result<(), SystemError> {
        loop {
            // SAFETY: within the mapping, and changes no byte of it.
            if unsafe { libc::madvise(self.at(at, len).cast(), len, libc::MADV_POPULATE_WRITE) } == 0 {
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
            // SAFETY: within the mapping and aligned to a page; only ever accessed atomically.
            let word: &AtomicU32 = unsafe { AtomicU32::from_ptr(self.at(page, 4).cast()) };
            word.fetch_or(0, Ordering::Relaxed);
        }
        Ok(())
    }

    #[cfg(feature = "engine")]
    /// Takes this process's view of the pages back, in steps of `step` bytes (a multiple of a page) with `between` after each; the last
    /// step is left to `munmap`. The mapping stays, and so do the pages while anybody else has them: what is read here afterwards comes back
    /// as it was. Each step interrupts every core on which this process runs.
    pub fn forget_in_steps(&self, step: usize, between: &mut dyn FnMut()) {
        for at in (0..self.len.saturating_sub(step)).step_by(step) {
            // SAFETY: within the mapping, which is shared: no byte is lost. A refusal leaves the work to `munmap`.
            unsafe { libc::madvise(self.at(at, step).cast(), step, libc::MADV_DONTNEED) };
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

    /// The address of byte `at`, which has `len` bytes after it within the mapping.
    #[inline]
    pub fn at(&self, at: usize, len: usize) -> *mut u8 {
        debug_assert!(at <= self.len && len <= self.len - at, "beyond the channel's memory");
        // No address is made up here: whoever uses it has its own proof (or `read` and `write`, which check).
        self.base.as_ptr().wrapping_add(at)
    }

    /// A 32-bit word of the head page; `at` is a multiple of 4 below 4096.
    #[inline]
    pub fn word(&self, at: usize) -> &AtomicU32 {
        debug_assert!(at.is_multiple_of(4) && at < 4096);
        // SAFETY: masked into the first page, which every mapping has; aligned (the mapping is by pages), and only ever
        // accessed atomically; the mapping outlives `self`'s borrow.
        unsafe { AtomicU32::from_ptr(self.at(at & 0xffc, 4).cast()) }
    }

    /// Copies out; nothing where that would reach beyond the mapping, which its callers' checks rule out. The peer may be writing:
    /// the bytes may be torn, and are nobody's but ours afterwards.
    #[inline]
    pub fn read(&self, at: usize, out: &mut [u8]) {
        if at <= self.len && out.len() <= self.len - at {
            // SAFETY: in bounds, as just checked.
            unsafe { copy::from_shared(self.at(at, out.len()), out) };
        }
    }

    /// Copies in; nothing where that would reach beyond the mapping.
    #[inline]
    pub fn write(&self, at: usize, bytes: &[u8]) {
        if at <= self.len && bytes.len() <= self.len - at {
            // SAFETY: in bounds, as just checked.
            unsafe { copy::to_shared(self.at(at, bytes.len()), bytes) };
        }
    }
}

#[cfg(feature = "engine")]
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

/// A 32-bit word for each connection, in shared memory.
pub struct SharedWords {
    base: *mut u8,
    count: u32,
    /// Keeps the mapping alive.
    _owner: crate::channel::Shared,
}

// SAFETY: the memory is reached by atomics only, and `_owner` keeps it mapped.
unsafe impl Send for SharedWords {}

impl SharedWords {
    /// `count` words from byte `at` on, which is a multiple of 4.
    pub(crate) fn new(owner: &crate::channel::Shared, at: usize, count: u32) -> SharedWords {
        SharedWords { base: owner.region().at(at, count as usize * 4), count, _owner: owner.clone() }
    }

    /// The word of connection `i`, if there is such a connection.
    #[inline]
    pub fn get(&self, i: u32) -> Option<&AtomicU32> {
        // SAFETY: `i < count`, and `new` was given a place where `count` words fit; aligned, since the mapping is by pages and
        // the offset a multiple of 4; only ever accessed atomically; `_owner` outlives the borrow.
        (i < self.count)
            .then(|| unsafe { AtomicU32::from_ptr(self.base.wrapping_add(i as usize * 4).cast()) })
    }
}

/// The slots of one ring in shared memory.
pub struct SharedSlots {
    base: *mut u8,
    mask: u32,
    /// Keeps the mapping alive.
    _owner: crate::channel::Shared,
}

// SAFETY: the memory is reached by atomics only, and `_owner` keeps it mapped.
unsafe impl Send for SharedSlots {}

impl SharedSlots {
    /// `slots` (a power of two) slots from byte `at` on.
    pub(crate) fn new(owner: &crate::channel::Shared, at: usize, slots: u32) -> SharedSlots {
        let base = owner.region().at(at, slots as usize * SLOT);
        SharedSlots { base, mask: slots - 1, _owner: owner.clone() }
    }

    pub(crate) fn base(&self) -> *const u8 {
        self.base
    }

    #[inline]
    fn word32(&self, i: u32, word: usize) -> &AtomicU32 {
        // SAFETY: `i & mask` is a slot that `new` checked to be mapped, and `word` one of its 32 words; aligned, since
        // slots are 128 bytes from a page's start; accessed atomically only.
        unsafe { AtomicU32::from_ptr(self.base.add((i & self.mask) as usize * SLOT + word * 4).cast()) }
    }

    #[inline]
    fn inline_at(&self, i: u32) -> *mut u8 {
        // SAFETY: `i & mask` is a slot that `new` checked to be mapped.
        unsafe { self.base.add((i & self.mask) as usize * SLOT + BYTES) }
    }

    #[inline]
    fn word64(&self, i: u32, word: usize) -> &AtomicU64 {
        // SAFETY: as `word32`; `word` is one of the slot's 16 double words.
        unsafe { AtomicU64::from_ptr(self.base.add((i & self.mask) as usize * SLOT + word * 8).cast()) }
    }
}

/// Where a slot's inline bytes begin.
const BYTES: usize = SLOT - INLINE;

impl Slots for SharedSlots {
    #[inline]
    fn mask(&self) -> u32 {
        self.mask
    }

    #[inline]
    fn sequence(&self, i: u32) -> u32 {
        self.word32(i, 0).load(Ordering::Acquire)
    }

    #[inline]
    fn announce(&self, i: u32, sequence: u32) {
        self.word32(i, 0).store(sequence, Ordering::Release);
    }

    #[inline]
    fn store(&self, i: u32, head: &Head, inline: &[u8]) {
        let first = u32::from(head.kind) | u32::from(head.flags) << 8 | u32::from(head.len) << 16;
        self.word32(i, 1).store(first, Ordering::Relaxed);
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        self.word64(i, 1).store(pair(head.flow, head.generation), Ordering::Relaxed);
        self.word64(i, 2).store(pair(head.a, head.b), Ordering::Relaxed);
        self.word64(i, 3).store(pair(head.c, head.d), Ordering::Relaxed);
        let len = inline.len().min(INLINE);
        // SAFETY: the slot has INLINE bytes from `inline_at` on.
        unsafe { copy::to_shared(self.inline_at(i), &inline[..len]) };
    }

    #[inline]
    fn head(&self, i: u32) -> Head {
        let first = self.word32(i, 1).load(Ordering::Relaxed);
        let flow = self.word64(i, 1).load(Ordering::Relaxed);
        let ab = self.word64(i, 2).load(Ordering::Relaxed);
        let cd = self.word64(i, 3).load(Ordering::Relaxed);
        Head {
            kind: first as u8,
            flags: (first >> 8) as u8,
            len: (first >> 16) as u16,
            flow: flow as u32,
            generation: (flow >> 32) as u32,
            a: ab as u32,
            b: (ab >> 32) as u32,
            c: cd as u32,
            d: (cd >> 32) as u32,
        }
    }

    #[inline]
    fn inline(&self, i: u32, len: usize, out: &mut [u8; INLINE]) {
        // Sixteen at a time, so that whoever moves the bytes on meets stores that forward.
        let len = len.next_multiple_of(16).min(INLINE);
        // SAFETY: the slot has INLINE bytes from `inline_at` on.
        unsafe { copy::from_shared(self.inline_at(i), &mut out[..len]) };
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
        // SAFETY: the mapping is private, zeroed, aligned, at least `len` words long, and borrowed as long as the slice.
        unsafe { core::slice::from_raw_parts_mut(self.memory.at(0, self.len * 4).cast(), self.len) }
    }

    #[inline]
    pub fn get(&self, i: usize) -> Option<u32> {
        if i >= self.len {
            return None;
        }
        // SAFETY: within the array, as just checked; the mapping is private and `&self` excludes writers.
        Some(unsafe { self.memory.at(i * 4, 4).cast::<u32>().read() })
    }
}
