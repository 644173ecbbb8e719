//! What whoever opens a NIC chooses: which one, how its queues look, and what DPDK is started with. Plain values, there
//! whether or not DPDK is compiled in.

use machnet_wire::Mac;
use std::path::PathBuf;

/// Which NIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Device {
    /// A PCI address such as `0000:00:05.0` or `00:05.0`.
    Pci(String),
    /// The NIC with this address, kernel-bound (bifurcated drivers, Azure) or already given to DPDK.
    Mac(Mac),
    /// A virtual device in EAL's words, such as `net_af_packet0,iface=veth0,qpairs=2`.
    Vdev(String),
    /// Shared memory to another sidecar on this machine.
    Memif(Memif),
}

/// One memif link: two processes, one Unix socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memif {
    /// The socket of the link. A leading `@` makes it abstract (no file, but one network namespace).
    pub socket: PathBuf,
    /// One side listens, the other connects, and again whenever the link breaks.
    pub role: MemifRole,
    /// Names the interface on that socket; both sides the same, at most [`Memif::LARGEST_ID`].
    pub id: u32,
    /// The other side's queue count, 1..=16; the same there for ours. Our `queues` times this must be at most 128.
    pub peer_queues: u16,
    /// The key under which our transmit side chooses the peer's queue; `None` draws one.
    pub rss_key: Option<[u8; 40]>,
}

/// Who listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemifRole {
    /// Creates the socket; one peer at a time.
    Server,
    /// Connects, and tries again every 50 ms.
    Client,
}

/// One port and its queues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortConfig {
    /// Which NIC.
    pub device: Device,
    /// Queue pairs, one per engine.
    pub queues: u16,
    /// Descriptors per queue and direction; the least common denominator is 256.
    pub descriptors: u16,
    /// Largest IP packet, bytes, 576..=9001.
    pub mtu: u16,
    /// Address to use instead of the device's own.
    pub mac: Option<Mac>,
    /// Frames taken from, or handed to, the driver per call, 1..=32. 16, or 8 where cores are shared.
    pub burst: u16,
    /// Use the NIC's checksums where it offers them.
    pub checksum_offload: bool,
    /// Ask for receive interrupts where the driver has them.
    pub interrupts: bool,
}

/// How DPDK's environment starts. One per process: EAL can neither be started twice nor restarted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EalConfig {
    /// Where packet buffers live.
    pub memory: Memory,
    /// Names this process's runtime folder; two sidecars on one machine need two. Unused with huge pages, which
    /// are then private to the process.
    pub file_prefix: String,
    /// Passed to EAL as they are, behind our own; for what this struct does not name.
    pub extra_args: Vec<String>,
}

/// Where packet buffers live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Memory {
    /// Ordinary pages, MiB: virtual devices only, since no PCI device can reach them without an IOMMU.
    NoHuge {
        /// MiB for everything; 64 is enough for one memif link of two queues.
        mib: u32,
    },
    /// Huge pages, MiB; needed by PCI devices.
    Huge {
        /// MiB reserved at start.
        mib: u32,
    },
}

impl EalConfig {
    /// Ordinary pages and virtual devices: needs no privileges and no preparation.
    pub fn unprivileged(file_prefix: &str) -> Self {
        EalConfig {
            memory: Memory::NoHuge { mib: 64 },
            file_prefix: file_prefix.to_owned(),
            extra_args: Vec::new(),
        }
    }
}

impl PortConfig {
    /// One queue of 256 descriptors, 1500 bytes, bursts of 16, every help the NIC offers.
    pub fn new(device: Device) -> Self {
        PortConfig {
            device,
            queues: 1,
            descriptors: 256,
            mtu: 1500,
            mac: None,
            burst: 16,
            checksum_offload: true,
            interrupts: true,
        }
    }

    /// Refuses what no NIC of ours takes: a sentence that names the value and its bounds.
    ///
    /// # Errors
    /// The first value that is out of its bounds.
    pub fn check(&self) -> Result<(), String> {
        let PortConfig { queues, descriptors, mtu, burst, .. } = *self;
        match self {
            _ if !(1..=64).contains(&queues) => Err(format!("queues {queues}: must be 1 to 64")),
            _ if !(64..=4096).contains(&descriptors) || !descriptors.is_power_of_two() => {
                Err(format!("descriptors {descriptors}: must be a power of two, 64 to 4096"))
            }
            _ if !(576..=9001).contains(&mtu) => Err(format!("mtu {mtu}: must be 576 to 9001")),
            _ if !(1..=32).contains(&burst) => Err(format!("burst {burst}: must be 1 to 32")),
            _ if self.mac.is_some_and(|mac| mac.is_multicast()) => {
                Err("mac: must not be a group address".to_owned())
            }
            _ => Ok(()),
        }
    }
}

impl Memif {
    /// The rest of the number that the two sides compare holds their queues and the size of their buffers.
    pub const LARGEST_ID: u32 = 0xff;

    /// A link of one queue on each side.
    pub fn new(socket: impl Into<PathBuf>, role: MemifRole) -> Self {
        Memif { socket: socket.into(), role, id: 0, peer_queues: 1, rss_key: None }
    }
}
