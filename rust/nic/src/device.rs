//! Which NIC DPDK is to open, and what DPDK is started with. Plain values, there whether or not DPDK is compiled in: settings are
//! made of them.

use machnet_wire::Mac;
use std::path::PathBuf;

/// A NIC that DPDK drives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Device {
    /// A PCI address such as `0000:00:05.0` or `00:05.0`.
    Pci(String),
    /// The NIC with this address, kernel-bound (bifurcated drivers, Azure) or already given to DPDK.
    Mac(Mac),
    /// A virtual device, as EAL writes it: its name and arguments, such as `net_af_packet0,iface=veth0,qpairs=2`.
    Vdev(String),
    /// Shared memory to another sidecar on this machine.
    Memif(Memif),
}

impl Device {
    /// What it is called in the log.
    pub fn label(&self) -> String {
        match self {
            Device::Pci(address) => address.clone(),
            Device::Mac(mac) => mac.to_string(),
            Device::Vdev(args) => args.split(',').next().unwrap_or_default().to_owned(),
            Device::Memif(link) => format!("memif {}", link.socket.display()),
        }
    }
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

impl Memif {
    /// The rest of the number that the two sides compare holds their queues and the size of their buffers.
    pub const LARGEST_ID: u32 = 0xff;

    /// A link of one queue on each side.
    pub fn new(socket: impl Into<PathBuf>, role: MemifRole) -> Self {
        Memif { socket: socket.into(), role, id: 0, peer_queues: 1, rss_key: None }
    }
}
