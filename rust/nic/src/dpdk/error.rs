//! Why DPDK would not start, as one value with one sentence: what was attempted, what stood in the way, what to do.

use std::fmt;

/// Why EAL or a port could not be brought up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DpdkError {
    /// EAL runs already, or ran before: once per process.
    AlreadyStarted,
    /// A value of the configuration is out of range.
    Config(String),
    /// No, or not enough, huge pages.
    NoHugePages {
        /// MiB asked for.
        mib: u32,
        /// What the kernel offers and what DPDK said.
        detail: String,
    },
    /// Ordinary memory could not be had.
    NoMemory(String),
    /// The process may not do what DPDK needs.
    NoPermission(String),
    /// The process lacks a capability that this device needs.
    NeedsCapability {
        /// The device as configured.
        device: String,
        /// The capability.
        capability: &'static str,
    },
    /// DPDK runs, and its memory does not hold what the port needs.
    TooLittleMemory {
        /// What did not fit.
        step: String,
        /// What would do, MiB.
        mib: u64,
    },
    /// Another process runs under the same file prefix.
    PrefixInUse(String),
    /// No driver of libdpdk knows this virtual device, or its arguments are wrong.
    UnknownVdev {
        /// The device as configured.
        vdev: String,
        /// DPDK's own words.
        detail: String,
    },
    /// No such PCI device, or no NIC with this address.
    NoSuchDevice(String),
    /// The device belongs to a kernel driver that does not share it.
    KernelDriver {
        /// PCI address.
        pci: String,
        /// The kernel's driver.
        driver: String,
    },
    /// libdpdk has no driver for this NIC, or its plugin is not installed.
    NoDriver {
        /// The device as configured.
        device: String,
        /// DPDK's own words.
        detail: String,
    },
    /// This DPDK is not fit for the NIC, and another is.
    Unfit {
        /// The device as configured, or as DPDK calls it.
        device: String,
        /// Which DPDK.
        dpdk: String,
        /// What it has or has not.
        lacks: String,
        /// Which is fit, or what makes it so.
        remedy: String,
    },
    /// More queues than the NIC has.
    TooManyQueues {
        /// Queues asked for.
        asked: u16,
        /// Queues the driver offers.
        offered: u16,
    },
    /// Another step was refused.
    Refused {
        /// What was attempted.
        step: String,
        /// The error number DPDK gave, positive. EPERM is -1, which is what drivers return where they have no number.
        errno: i32,
        /// DPDK's own words.
        detail: String,
    },
}

impl fmt::Display for DpdkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DpdkError::AlreadyStarted => {
                f.write_str("start DPDK: it was started in this process before, and EAL starts only once; use one process per start")
            }
            DpdkError::Config(text) => write!(f, "NIC configuration: {text}"),
            DpdkError::NoHugePages { mib, detail } => write!(
                f,
                "start DPDK with {mib} MiB of huge pages: {detail}; reserve some (echo {} > /proc/sys/vm/nr_hugepages, and mount hugetlbfs on /dev/hugepages), or, for virtual devices, use memory without huge pages",
                mib.div_ceil(2).max(1)
            ),
            DpdkError::NoMemory(detail) => write!(f, "start DPDK: not enough memory: {detail}; ask for less, or raise the process's memory limit"),
            DpdkError::NoPermission(detail) => write!(
                f,
                "start DPDK: permission denied: {detail}; run as root or with CAP_NET_ADMIN, CAP_NET_RAW, CAP_IPC_LOCK, CAP_SYS_ADMIN as the device needs"
            ),
            DpdkError::NeedsCapability { device, capability } => write!(
                f,
                "open {device}: this process lacks {capability}; run it as root, or give it the capability (setcap on the program, AmbientCapabilities= in systemd, --cap-add of a container)"
            ),
            DpdkError::TooLittleMemory { step, mib } => write!(
                f,
                "{step}: DPDK's memory is too small; give it at least {mib} MiB (--memory, dpdk.memory_mib), or ask for fewer engines, descriptors or a smaller MTU"
            ),
            DpdkError::PrefixInUse(prefix) => write!(
                f,
                "start DPDK: another process runs under the file prefix {prefix}; give each sidecar a file prefix of its own"
            ),
            DpdkError::UnknownVdev { vdev, detail } => {
                write!(f, "create the virtual device {vdev}: {detail}; check its name and arguments, and that the driver's plugin is installed")
            }
            DpdkError::NoSuchDevice(what) => write!(f, "find the NIC {what}: there is none; see `lspci -D` or `ip link` for what this machine has"),
            DpdkError::KernelDriver { pci, driver } => write!(
                f,
                "open {pci}: the kernel's driver {driver} owns it; bind it to vfio-pci first (dpdk-devbind.py --bind=vfio-pci {pci}), which takes it away from the kernel"
            ),
            DpdkError::NoDriver { device, detail } => {
                write!(f, "open {device}: no driver of DPDK took it: {detail}; bind it to vfio-pci or uio_pci_generic, and check that libdpdk has a driver for it")
            }
            DpdkError::Unfit { device, dpdk, lacks, remedy } => {
                write!(f, "open {device}: {dpdk} {lacks}; {remedy}")
            }
            DpdkError::TooManyQueues { asked, offered } => {
                write!(f, "open the NIC with {asked} queues, one for each engine: it has {offered}; set engines.count (--engines) to at most {offered}")
            }
            DpdkError::Refused { step, errno: libc::EPERM, detail } => write!(f, "{step}: {detail}"),
            DpdkError::Refused { step, errno, detail } => {
                write!(f, "{step}: {}", std::io::Error::from_raw_os_error(*errno))?;
                if detail.is_empty() { Ok(()) } else { write!(f, ": {detail}") }
            }
        }
    }
}

impl std::error::Error for DpdkError {}
