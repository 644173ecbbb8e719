//! What DPDK's af_packet driver leaves to its caller: rings of the size that the MTU and the descriptors ask for, checks of the
//! kernel's device, the count of frames that found no free slot, and waking an engine that sleeps when one arrives.

use super::error::DpdkError;
use super::slots::{Layout, Slots};
use crate::PortConfig;
use crate::kernel::{self, KernelDevice};
use std::ffi::{c_int, c_void};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};

/// An af_packet device before it is created.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Packet {
    /// For EAL, complete.
    pub args: String,
    /// The kernel's device.
    pub device: String,
    /// Its number, and not that of another one of this name.
    pub index: u32,
    up: bool,
    /// Slots of each ring.
    pub slots: u16,
    /// The most a slot hands over, bytes.
    pub room: u16,
    /// Bytes of a block, which is whole slots.
    block: u32,
}

/// Whether these are the name and arguments of one.
pub(super) fn is_one(args: &str) -> bool {
    args.starts_with("net_af_packet") || args.starts_with("eth_af_packet")
}

impl Packet {
    /// Completes what the user wrote: a queue pair per queue, a slot per descriptor, slots that hold a frame. What was
    /// written stays.
    pub(super) fn new(args: &str, config: &PortConfig) -> Result<Packet, DpdkError> {
        let bad = |text: String| DpdkError::Config(format!("virtual device {args}: {text}"));
        let given =
            |key: &str| args.split(',').skip(1).find_map(|arg| arg.strip_prefix(key)?.strip_prefix('='));
        let Some(device) = given("iface") else {
            return Err(bad("names no device of the kernel; add iface=NAME, see `ip link`".to_owned()));
        };
        let number = |key: &str, default: u32| match given(key).map(str::parse) {
            None => Ok(default),
            Some(Ok(number)) => Ok(number),
            Some(Err(_)) => Err(bad(format!("{key}: not a number"))),
        };
        let pairs = number("qpairs", config.queues.into())?;
        if pairs != config.queues.into() {
            // The kernel would spread frames over queues that nobody reads.
            return Err(bad(format!(
                "qpairs={pairs} for {} engines; leave it out, or use as many",
                config.queues
            )));
        }
        let need = (u32::from(config.mtu) + SLOT_HEADERS).next_multiple_of(SLOT_STEP);
        let slot = number("framesz", need)?;
        let slots = number("framecnt", config.descriptors.into())?;
        if slot < u32::from(config.mtu) + SLOT_HEADERS || slot > MOST_SLOT {
            return Err(bad(format!(
                "framesz={slot} does not fit an MTU of {}; leave it out, or use {need} to {MOST_SLOT}",
                config.mtu
            )));
        }
        if !(1..=4096).contains(&slots) {
            return Err(bad(format!("framecnt={slots}: leave it out, or use 1 to 4096")));
        }
        // The driver counts on slots without gaps between them, and the kernel cuts every block into slots of its own.
        let whole = least_common_multiple(slot, page());
        let block = number("blocksz", whole)?;
        if block == 0 || block % whole != 0 || slots % (block / slot) != 0 {
            return Err(bad(format!(
                "{slots} slots of {slot} bytes do not fill blocks of {block} bytes; leave blocksz and framecnt out, or use multiples of {whole} bytes and of {} slots",
                whole / slot
            )));
        }
        let KernelDevice { mtu: carries, up, index, .. } =
            kernel::look(device).map_err(|_| DpdkError::NoSuchDevice(format!("{device} for {args}")))?;
        if carries < config.mtu.into() {
            return Err(bad(format!(
                "{device} carries packets of at most {carries} bytes, which is less than the MTU of {}; use that, or raise it at both ends of the link (ip link set dev {device} mtu {})",
                config.mtu, config.mtu
            )));
        }
        let mut complete = args.to_owned();
        let mut add = |key: &str, value: u32| {
            if given(key).is_none() {
                complete.push_str(&format!(",{key}={value}"));
            }
        };
        add("qpairs", pairs);
        add("framecnt", slots);
        add("framesz", slot);
        add("blocksz", block);
        let device = device.to_owned();
        Ok(Packet { args: complete, device, index, up, slots: slots as u16, room: slot as u16, block })
    }

    /// Each ring of each of its sockets.
    fn layout(&self) -> Layout {
        let (slot, count) = (usize::from(self.room), usize::from(self.slots));
        Layout { bytes: count / (self.block as usize / slot) * self.block as usize, slot, count }
    }

    /// Refuses what the kernel will not let this process do: the driver opens packet sockets, and sets the device's
    /// address and flags.
    pub(super) fn may_open(&self) -> Result<(), DpdkError> {
        let lacks = |capability| DpdkError::NeedsCapability { device: self.args.clone(), capability };
        // SAFETY: no pointers; a descriptor that comes back is ours alone.
        let opened = unsafe {
            let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
            (fd >= 0).then(|| OwnedFd::from_raw_fd(fd))
        };
        if opened.is_none() && io::Error::last_os_error().raw_os_error() == Some(libc::EPERM) {
            return Err(lacks("CAP_NET_RAW"));
        }
        match kernel::keep_flags(&self.device) {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => Err(lacks("CAP_NET_ADMIN")),
            _ => Ok(()),
        }
    }

    /// What is probably a mistake, for a host with this address; a sentence each.
    pub(super) fn doubts(&self, ip: Ipv4Addr) -> Vec<String> {
        let mut doubts = Vec::new();
        let device = &self.device;
        if !self.up {
            doubts.push(format!(
                "{device} is down: nothing can be sent or received (ip link set dev {device} up)"
            ));
        }
        let addresses = kernel::addresses(device);
        if addresses.contains(&ip) {
            doubts.push(format!(
                "the kernel has {ip} on {device}, too, and answers whoever asks for it; take it away (ip address del {ip}/PREFIX dev {device}), or use another address"
            ));
        } else if let Some(other) = addresses.first() {
            doubts.push(format!(
                "the kernel has {other} on {device} and takes part in its traffic; give machnetd a device of its own, or take the address away (ip address flush dev {device})"
            ));
        }
        doubts
    }
}

/// The sockets of one port, in the order of its queues. The driver has them, too; these keep them open.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    all: Vec<OwnedFd>,
    missed: AtomicU64,
}

impl Sockets {
    /// Runs `create`, which makes a port of so many queues, and finds the sockets that it opened.
    pub(super) fn of<T>(
        queues: u16,
        create: impl FnOnce() -> Result<T, DpdkError>,
    ) -> Result<(T, Sockets), DpdkError> {
        let before = packet_sockets();
        let made = create()?;
        // A process gets the lowest free number each time and the driver closes none in between: they ascend.
        let opened: Vec<RawFd> = packet_sockets().into_iter().filter(|fd| !before.contains(fd)).collect();
        let mut all = Vec::new();
        if opened.len() == usize::from(queues) {
            all = opened.into_iter().filter_map(duplicate).collect();
        }
        if all.len() != usize::from(queues) {
            log::warn!(
                "af_packet: the sockets of {queues} queues were not found; lost frames are not counted, idle engines nap, and a device that takes no more frames stops its engine"
            );
            all.clear();
        }
        Ok((made, Sockets { all, missed: AtomicU64::new(0) }))
    }

    /// Readable while frames wait for this queue.
    pub(super) fn of_queue(&self, index: u16) -> Option<RawFd> {
        self.all.get(usize::from(index)).map(AsRawFd::as_raw_fd)
    }

    /// The same for a thread that is about to sleep on it. A device that was set down or taken away leaves an error on the socket, of which
    /// `poll` would tell until somebody has asked for it: nobody would sleep any more.
    pub(super) fn to_wait_for(&self, index: u16) -> Option<RawFd> {
        let fd = self.of_queue(index)?;
        let mut error: c_int = 0;
        let mut len = size_of_val(&error) as libc::socklen_t;
        let at = (&raw mut error).cast::<c_void>();
        // SAFETY: `error` is writable for `len` bytes. What it was, the port's state tells.
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ERROR, at, &mut len) };
        Some(fd)
    }

    /// The transmit ring of this queue.
    pub(super) fn slots(&self, index: u16, packet: &Packet) -> Option<Slots> {
        let slots = Slots::map(self.of_queue(index)?, packet.layout());
        if let Err(error) = &slots {
            log::warn!(
                "af_packet: the transmit ring of queue {index} cannot be seen: {error}; a device that takes no more frames stops this engine"
            );
        }
        slots.ok()
    }

    /// Frames that found no free slot, all queues together; `None` without sockets to ask.
    pub(super) fn missed(&self) -> Option<u64> {
        if self.all.is_empty() {
            return None;
        }
        let fresh = self.all.iter().map(|fd| u64::from(drops(fd))).sum::<u64>();
        Some(self.missed.fetch_add(fresh, Ordering::Relaxed) + fresh)
    }
}

/// What the kernel has counted since it was asked before.
fn drops(socket: &OwnedFd) -> u32 {
    let mut stats = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut len = size_of_val(&stats) as libc::socklen_t;
    let at = (&raw mut stats).cast::<c_void>();
    // SAFETY: `stats` is writable for `len` bytes. A refusal leaves zeros.
    unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_STATISTICS, at, &mut len) };
    stats.tp_drops
}

/// Every packet socket of this process, lowest first.
fn packet_sockets() -> Vec<RawFd> {
    let entries = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let mut all: Vec<RawFd> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    all.retain(|&fd| domain(fd) == Some(libc::AF_PACKET));
    all.sort_unstable();
    all
}

fn domain(fd: RawFd) -> Option<c_int> {
    let mut domain: c_int = 0;
    let mut len = size_of_val(&domain) as libc::socklen_t;
    let at = (&raw mut domain).cast::<c_void>();
    // SAFETY: `domain` is writable for `len` bytes; what is no socket is refused.
    let ret = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_DOMAIN, at, &mut len) };
    (ret == 0).then_some(domain)
}

fn duplicate(fd: RawFd) -> Option<OwnedFd> {
    // SAFETY: no pointers; a descriptor that comes back is ours alone.
    unsafe {
        let copy = libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0);
        (copy >= 0).then(|| OwnedFd::from_raw_fd(copy))
    }
}

fn page() -> u32 {
    // SAFETY: no pointers.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u32::try_from(page).unwrap_or(4096).max(1)
}

fn least_common_multiple(a: u32, b: u32) -> u32 {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    a / x * b
}

/// What a slot holds beside the packet, bytes: the kernel's header and its gap (66), Ethernet's (14), a VLAN tag (4).
const SLOT_HEADERS: u32 = 84;
/// Slots come in such steps, so that a block of few pages holds a whole number of them.
const SLOT_STEP: u32 = 1024;
/// The largest slot, bytes.
const MOST_SLOT: u32 = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    /// The loopback device carries 65536 bytes.
    fn packet(args: &str, mtu: u16, descriptors: u16) -> Result<Packet, DpdkError> {
        Packet::new(args, &PortConfig { mtu, descriptors, queues: 2, ..PortConfig::default() })
    }

    fn blocks(of: u32) -> u32 {
        least_common_multiple(of, page())
    }

    #[test]
    fn what_is_not_given_follows_from_the_queues_the_descriptors_and_the_mtu() {
        let complete = |mtu, descriptors| packet("net_af_packet0,iface=lo", mtu, descriptors).unwrap();
        for (mtu, descriptors, slot) in [(1500, 256, 2048), (9001, 64, 9216), (576, 4096, 1024)] {
            let Packet { args, slots, room, .. } = complete(mtu, descriptors);
            let rings = format!("framecnt={descriptors},framesz={slot},blocksz={}", blocks(slot));
            assert_eq!(args, format!("net_af_packet0,iface=lo,qpairs=2,{rings}"));
            assert_eq!((slots, u32::from(room)), (descriptors, slot));
        }
        // Every block is whole slots, every ring whole blocks, for each MTU.
        for mtu in 576..=9001 {
            let slot = u32::from(complete(mtu, 64).room);
            let block = blocks(slot);
            assert_eq!((block % page(), block % slot, 64 % (block / slot)), (0, 0, 0), "MTU {mtu}");
        }
    }

    #[test]
    fn what_is_given_stays() {
        let args = "net_af_packet0,iface=lo,qpairs=2,framesz=4096,blocksz=8192,framecnt=128,qdisc_bypass=0";
        let given = packet(args, 1500, 256).unwrap();
        assert_eq!((given.args.as_str(), given.slots, given.room), (args, 128, 4096));
    }

    #[test]
    fn an_address_of_the_kernel_on_the_device_is_doubtful() {
        let doubts = |ip: [u8; 4]| packet("net_af_packet0,iface=lo", 1500, 256).unwrap().doubts(ip.into());
        let same = doubts([127, 0, 0, 1]);
        assert!(
            matches!(&same[..], [one] if one.starts_with("the kernel has 127.0.0.1 on lo, too")),
            "{same:?}"
        );
        let other = doubts([10, 0, 0, 1]);
        assert!(
            matches!(&other[..], [one] if one.starts_with("the kernel has 127.0.0.1 on lo and takes")),
            "{other:?}"
        );
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_bound() {
        let refused = |args: &str, mtu| packet(args, mtu, 256).unwrap_err().to_string();
        for (args, mtu, words) in [
            ("net_af_packet0", 1500, "names no device of the kernel; add iface=NAME"),
            (
                "net_af_packet0,iface=lo,qpairs=3",
                1500,
                "qpairs=3 for 2 engines; leave it out, or use as many",
            ),
            (
                "net_af_packet0,iface=lo,framesz=2048",
                9001,
                "framesz=2048 does not fit an MTU of 9001; leave it out, or use 9216 to 16384",
            ),
            ("net_af_packet0,iface=lo,framesz=32768", 1500, "framesz=32768 does not fit"),
            ("net_af_packet0,iface=lo,framecnt=x", 1500, "framecnt: not a number"),
            (
                "net_af_packet0,iface=lo,framecnt=33",
                1500,
                "33 slots of 2048 bytes do not fill blocks of 4096 bytes; leave blocksz and framecnt out, or use multiples of 4096 bytes and of 2 slots",
            ),
            (
                "net_af_packet0,iface=lo,framesz=3072,blocksz=4096",
                1500,
                "256 slots of 3072 bytes do not fill blocks of 4096 bytes",
            ),
            ("net_af_packet0,iface=lo,framecnt=0", 1500, "framecnt=0: leave it out, or use 1 to 4096"),
            (
                "net_af_packet0,iface=nonesuch9",
                1500,
                "find the NIC nonesuch9 for net_af_packet0,iface=nonesuch9: there is none",
            ),
            ("net_af_packet0,iface=nonesuch90123456", 1500, "find the NIC nonesuch90123456"),
        ] {
            let said = refused(args, mtu);
            assert!(said.contains(words), "{args}: {said}");
        }
    }
}
