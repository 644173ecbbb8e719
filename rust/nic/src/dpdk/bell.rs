//! The doorbells of memif's rings, of which DPDK's driver makes no use when it receives.
//!
//! In memif's protocol each ring comes with an eventfd. Whoever fills the ring writes to it, unless the reader has set MASK_INT in the
//! ring's flags, as DPDK's driver does with every ring that it reads; of those that it fills it heeds the flag. So a queue clears the flag
//! of its rings before its thread sleeps on their eventfds, and sets it again when it is awake: any peer rings then.
//!
//! Where the rings are is no business of the driver's, whose structures change between releases: it stands in the messages by which the
//! client describes them, and these pass through our [relay](super::relay) at either end, with the descriptors.
//!
//! The driver does not order its look at the flag behind its store of the ring's index, so that one frame in a great many comes without a
//! ring: a thread must not sleep for long on this alone.

use super::memif::Matrix;
use crate::MemifRole;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};

/// The receive rings of a port's link, while it stands.
#[derive(Default)]
pub(super) struct Bells(Mutex<Option<Arc<[Ring]>>>);

impl Bells {
    /// A link stands, with these rings, the one of the driver's queue 0 first.
    pub(super) fn begin(&self, rings: Vec<Ring>) {
        *self.lock() = Some(rings.into());
    }

    /// The link is over.
    pub(super) fn end(&self) {
        *self.lock() = None;
    }

    fn current(&self) -> Option<Arc<[Ring]>> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Arc<[Ring]>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bell of one queue: that of all rings whose union it reads.
pub(super) struct QueueBell {
    bells: Arc<Bells>,
    rung: Option<Rung>,
}

/// What a queue listens to, of one link.
struct Rung {
    link: Arc<[Ring]>,
    own: Vec<usize>,
    /// Readable when one of them has rung.
    any: OwnedFd,
}

impl QueueBell {
    pub(super) fn new(bells: Arc<Bells>) -> QueueBell {
        QueueBell { bells, rung: None }
    }

    /// Has the rings of these queues of the driver ring from now on. The descriptor that then becomes readable; `None`: there is no link, or
    /// it is one without bells.
    pub(super) fn arm(&mut self, queues: &[u16]) -> Option<RawFd> {
        let link = self.bells.current()?;
        if !self.rung.as_ref().is_some_and(|rung| Arc::ptr_eq(&rung.link, &link)) {
            self.rung = Rung::listen(link, queues);
        }
        let rung = self.rung.as_ref()?;
        rung.rings().for_each(|ring| ring.flags().store(0, Ordering::Relaxed));
        // Whoever fills a ring from now on sees the flag; what was filled before is seen by `waiting`.
        fence(Ordering::SeqCst);
        Some(rung.any.as_raw_fd())
    }

    /// Frames that wait in the rings.
    pub(super) fn waiting(&self) -> u16 {
        self.rung.iter().flat_map(Rung::rings).fold(0, |sum, ring| sum.saturating_add(ring.waiting()))
    }

    /// The thread is awake: nobody has to ring.
    pub(super) fn disarm(&self) {
        for ring in self.rung.iter().flat_map(Rung::rings) {
            ring.flags().store(MASK_INT, Ordering::Relaxed);
            let mut count = [0u8; 8];
            // SAFETY: eight writable bytes. The eventfd does not block: `Ring::new` has seen to it.
            unsafe { libc::read(ring.bell.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
        }
    }
}

impl Rung {
    fn listen(link: Arc<[Ring]>, queues: &[u16]) -> Option<Rung> {
        let own: Vec<usize> = queues.iter().map(|&queue| usize::from(queue)).collect();
        if own.iter().any(|&at| at >= link.len()) {
            return None;
        }
        // SAFETY: no pointers; a descriptor that comes back is ours alone.
        let any = match unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) } {
            -1 => return None,
            // SAFETY: as above.
            fd => unsafe { OwnedFd::from_raw_fd(fd) },
        };
        for &at in &own {
            let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
            let bell = link[at].bell.as_raw_fd();
            // SAFETY: `event` lives through the call.
            if unsafe { libc::epoll_ctl(any.as_raw_fd(), libc::EPOLL_CTL_ADD, bell, &raw mut event) } < 0 {
                return None;
            }
        }
        Some(Rung { link, own, any })
    }

    fn rings(&self) -> impl Iterator<Item = &Ring> {
        self.own.iter().map(|&at| &self.link[at])
    }
}

/// The head of a ring that we read, in memory that the client of the link made.
pub(super) struct Ring {
    /// The page or pages that it is in.
    map: *mut u8,
    len: usize,
    /// Where it begins there.
    at: usize,
    slots: u16,
    role: MemifRole,
    bell: OwnedFd,
}

// SAFETY: the mapping is this value's until it is dropped, and is used by atomic accesses only.
unsafe impl Send for Ring {}
// SAFETY: as above.
unsafe impl Sync for Ring {}

impl Ring {
    /// A ring at this place of a region, as we read it in this role.
    fn new(region: &OwnedFd, described: &Described, role: MemifRole) -> io::Result<Ring> {
        // SAFETY: no preconditions.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let offset = described.offset as usize;
        let (start, at) = (offset & !(page - 1), offset & (page - 1));
        let len = at + cache_line() + 2;
        let invalid = |why| io::Error::new(io::ErrorKind::InvalidData, why);
        // SAFETY: all bits zero is a valid `stat`, and it is written.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        if unsafe { libc::fstat(region.as_raw_fd(), &raw mut stat) } < 0 {
            return Err(io::Error::last_os_error());
        }
        if (stat.st_size as usize) < start + len || described.log2_slots > MOST_LOG2_SLOTS || at % 8 != 0 {
            return Err(invalid("a ring outside of its region"));
        }
        let bell = described.bell.try_clone()?;
        // SAFETY: plain flags of a descriptor that is ours.
        unsafe {
            let flags = libc::fcntl(bell.as_raw_fd(), libc::F_GETFL);
            if flags < 0 || libc::fcntl(bell.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, of a part of the file that is there, at a place of the kernel's choice.
        let map = unsafe {
            let place = start as libc::off_t;
            libc::mmap(std::ptr::null_mut(), len, access, libc::MAP_SHARED, region.as_raw_fd(), place)
        };
        if map == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let ring = Ring { map: map.cast(), len, at, slots: 1 << described.log2_slots, role, bell };
        // SAFETY: within the mapping, and aligned: `at` is a multiple of 8.
        let cookie = unsafe { AtomicU32::from_ptr(ring.map.add(ring.at).cast()) }.load(Ordering::Relaxed);
        if cookie == COOKIE { Ok(ring) } else { Err(invalid("no ring of memif's")) }
    }

    fn word(&self, offset: usize) -> &AtomicU16 {
        // SAFETY: `offset` is even and at most a cache line, so within the mapping, which lives as long as `self`; the peer and the driver
        // change it by atomic stores of this size.
        unsafe { AtomicU16::from_ptr(self.map.add(self.at + offset).cast()) }
    }

    fn flags(&self) -> &AtomicU16 {
        self.word(FLAGS)
    }

    /// Frames that the driver has not taken. A ring towards the server is filled at its head and emptied at its tail; one towards the client is
    /// filled at its tail, and the client's driver puts its head as far ahead of what it has taken as there are slots.
    fn waiting(&self) -> u16 {
        let (head, tail) =
            (self.word(HEAD).load(Ordering::Acquire), self.word(cache_line()).load(Ordering::Acquire));
        match self.role {
            MemifRole::Server => head.wrapping_sub(tail),
            MemifRole::Client => tail.wrapping_sub(head.wrapping_sub(self.slots)),
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, with this length; nothing refers to it any more.
        unsafe { libc::munmap(self.map.cast(), self.len) };
    }
}

/// What the messages of a client have told of its link so far.
#[derive(Default)]
pub(super) struct Description {
    regions: Vec<Option<OwnedFd>>,
    to_server: Vec<Option<Described>>,
    to_client: Vec<Option<Described>>,
}

struct Described {
    region: u16,
    offset: u32,
    log2_slots: u8,
    bell: OwnedFd,
}

impl Description {
    /// Reads one message of the client's, with its descriptor. What makes no sense is left to the driver, which refuses it.
    pub(super) fn see(&mut self, message: &[u8], descriptor: Option<&OwnedFd>) {
        let half =
            |at: usize| message.get(at..).and_then(|m| m.first_chunk()).map(|b| u16::from_ne_bytes(*b));
        let (Some(kind), Some(descriptor)) = (half(0), descriptor.and_then(|fd| fd.try_clone().ok())) else {
            return;
        };
        match kind {
            ADD_REGION => {
                let Some(index) = half(2) else { return };
                put(&mut self.regions, index, descriptor);
            }
            ADD_RING => {
                let offset = message.get(8..).and_then(|m| m.first_chunk()).map(|b| u32::from_ne_bytes(*b));
                let (Some(flags), Some(index), Some(region)) = (half(2), half(4), half(6)) else { return };
                let (Some(offset), Some(&log2_slots)) = (offset, message.get(12)) else { return };
                let rings = if flags & TO_SERVER != 0 { &mut self.to_server } else { &mut self.to_client };
                put(rings, index, Described { region, offset, log2_slots, bell: descriptor });
            }
            _ => {}
        }
    }

    /// The rings that whoever has this role reads.
    ///
    /// # Errors
    /// There are none as described.
    pub(super) fn rings(&self, role: MemifRole) -> io::Result<Vec<Ring>> {
        let described = match role {
            MemifRole::Server => &self.to_server,
            MemifRole::Client => &self.to_client,
        };
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let ring = |described: &Option<Described>| {
            let described = described.as_ref().ok_or_else(missing)?;
            let region = self.regions.get(usize::from(described.region)).and_then(Option::as_ref);
            Ring::new(region.ok_or_else(missing)?, described, role)
        };
        described.iter().map(ring).collect()
    }
}

fn put<T>(list: &mut Vec<Option<T>>, index: u16, value: T) {
    let index = usize::from(index);
    if index < MOST {
        if list.len() <= index {
            list.resize_with(index + 1, || None);
        }
        list[index] = Some(value);
    }
}

/// Bytes from a ring's first words to its tail.
fn cache_line() -> usize {
    // SAFETY: no preconditions.
    usize::from(unsafe { dpdk_sys::mdpdk_cache_line() })
}

/// memif's messages that come with a descriptor, all words in this machine's order of bytes: kind (16 bits), then of a region its number
/// (16), of a ring flags (16), number (16), region (16), offset there (32), logarithm of its slots (8).
const ADD_REGION: u16 = 4;
const ADD_RING: u16 = 5;
/// A flag of such a ring: the client fills it.
const TO_SERVER: u16 = 1;
/// The head of a ring: this number (32 bits), flags (16), head (16), and in the next cache line the tail (16).
const COOKIE: u32 = 0x03e3_1f20;
const FLAGS: usize = 4;
const HEAD: usize = 6;
/// The flag by which a reader says that it looks by itself.
const MASK_INT: u16 = 1;
/// More slots than that memif has not.
const MOST_LOG2_SLOTS: u8 = 14;
/// More rings or regions than a link of ours can have.
const MOST: usize = Matrix::MOST_RINGS as usize;

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Seek, SeekFrom, Write};

    pub const OFFSET: u32 = 4096 + 128;

    /// A region with one ring head, and an eventfd.
    pub fn region() -> (File, OwnedFd) {
        // SAFETY: a C string; descriptors that come back are ours alone.
        let (memory, bell) = unsafe {
            let memory = libc::memfd_create(c"ring".as_ptr(), 0);
            let bell = libc::eventfd(0, libc::EFD_NONBLOCK);
            assert!(memory >= 0 && bell >= 0);
            (File::from_raw_fd(memory), OwnedFd::from_raw_fd(bell))
        };
        memory.set_len(16384).unwrap();
        let mut memory = memory;
        memory.seek(SeekFrom::Start(OFFSET.into())).unwrap();
        memory.write_all(&COOKIE.to_ne_bytes()).unwrap();
        memory.write_all(&MASK_INT.to_ne_bytes()).unwrap();
        (memory, bell)
    }

    fn set(memory: &mut File, offset: usize, value: u16) {
        memory.seek(SeekFrom::Start(u64::from(OFFSET) + offset as u64)).unwrap();
        memory.write_all(&value.to_ne_bytes()).unwrap();
    }

    pub fn message(kind: u16, fields: &[u8]) -> [u8; 128] {
        let mut message = [0; 128];
        message[..2].copy_from_slice(&kind.to_ne_bytes());
        message[2..2 + fields.len()].copy_from_slice(fields);
        message
    }

    pub fn ring_message(flags: u16, offset: u32) -> [u8; 128] {
        let halves = [flags, 0, 0].map(u16::to_ne_bytes).concat();
        message(ADD_RING, &[&halves[..], &offset.to_ne_bytes(), &[8, 0, 0]].concat())
    }

    fn readable(fd: RawFd) -> bool {
        let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry that lives through the call.
        unsafe { libc::poll(&mut entry, 1, 0) == 1 }
    }

    /// The link as a client describes it, and what it made.
    fn described(flags: u16, offset: u32) -> (Description, File, OwnedFd) {
        let (memory, bell) = region();
        let mut link = Description::default();
        let copy = OwnedFd::from(memory.try_clone().unwrap());
        link.see(&message(ADD_REGION, &[0; 10]), Some(&copy));
        link.see(&ring_message(flags, offset), Some(&bell));
        (link, memory, bell)
    }

    #[test]
    fn a_queue_that_sleeps_has_its_ring_ring_and_one_that_is_awake_does_not() {
        for (role, flags) in [(MemifRole::Server, TO_SERVER), (MemifRole::Client, 0)] {
            let (link, mut memory, bell) = described(flags, OFFSET);
            let bells = Arc::new(Bells::default());
            let mut queue = QueueBell::new(bells.clone());
            assert_eq!((queue.arm(&[0]), queue.waiting()), (None, 0), "no link yet");
            bells.begin(link.rings(role).unwrap());
            // The client's driver puts the head of its ring 256 slots ahead.
            let (filled_at, ahead) = if role == MemifRole::Server { (HEAD, 0) } else { (cache_line(), 256) };
            set(
                &mut memory,
                if role == MemifRole::Server { cache_line() } else { HEAD },
                65_000u16.wrapping_add(ahead),
            );
            set(&mut memory, filled_at, 65_000);
            let fd = queue.arm(&[0]).unwrap();
            let word =
                |queue: &QueueBell| queue.rung.as_ref().unwrap().link[0].flags().load(Ordering::Relaxed);
            assert_eq!((word(&queue), queue.waiting(), readable(fd)), (0, 0, false));
            set(&mut memory, filled_at, 65_000u16.wrapping_add(600));
            assert_eq!(queue.waiting(), 600);
            File::from(bell.try_clone().unwrap()).write_all(&1u64.to_ne_bytes()).unwrap();
            assert!(readable(fd), "the peer rang");
            queue.disarm();
            assert_eq!((word(&queue), readable(fd)), (MASK_INT, false));
            assert_eq!(queue.arm(&[1]), Some(fd), "known already");
            bells.end();
            assert_eq!(queue.arm(&[0]), None);
        }
    }

    #[test]
    fn what_is_no_ring_has_no_bell() {
        for offset in [OFFSET - 128, OFFSET + 2, 16384 - 8, u32::MAX] {
            let (link, ..) = described(TO_SERVER, offset);
            assert!(link.rings(MemifRole::Server).is_err(), "{offset}");
        }
        let (link, ..) = described(TO_SERVER, OFFSET);
        assert!(link.rings(MemifRole::Client).unwrap().is_empty(), "it is filled by the client");
        let mut link = Description::default();
        let (_, bell) = region();
        for nonsense in [&[5u8, 0][..], &[4, 0, 1], &[5, 0, 0, 0, 0, 0, 0, 0, 1], &[5; 128]] {
            link.see(nonsense, Some(&bell));
        }
        link.see(&ring_message(TO_SERVER, OFFSET), Some(&bell));
        assert!(link.rings(MemifRole::Server).is_err(), "its region is missing");
        link.see(&ring_message(TO_SERVER, OFFSET), None);
        let bells = Arc::new(Bells::default());
        let (link, ..) = described(TO_SERVER, OFFSET);
        bells.begin(link.rings(MemifRole::Server).unwrap());
        assert_eq!(QueueBell::new(bells).arm(&[1]), None, "a queue without a ring");
    }
}
