//! A network device of the kernel's, reached by AF_XDP sockets: the kernel keeps the device, and all frames that are not ours.
//!
//! ```no_run
//! use machnet_nic::{PortConfig, xdp};
//! let nic = xdp::open(&xdp::Xdp::new("eth0"), &PortConfig::default(), "10.0.0.5".parse().unwrap())?;
//! # Ok::<(), xdp::XdpError>(())
//! ```
//!
//! A small XDP program sends IPv4 and ARP for our address to the socket of the receive queue that they came in on ([`program`]); it is
//! gone with the process. Every queue has a socket and frames of its own ([`socket`]). A thread watches for the device to go and to come
//! back ([`watch`]), and hands each queue a new socket then.
//!
//! DPDK has a driver for this, too. It needs a compiled BPF program to leave the kernel its traffic, does not tell zero-copy from copies,
//! has no receive interrupts, takes 2048 buffers for each queue whatever the descriptors, and that of 22.11 loses frames without huge
//! pages; hence this one.

mod attach;
mod error;
mod examine;
mod memory;
mod port;
mod program;
mod queue;
mod ring;
mod socket;
mod sys;
#[cfg(test)]
mod tests;
mod watch;

pub use error::XdpError;
pub use examine::examine;
pub use port::open;
pub use queue::XdpQueue;

/// A device of the kernel's, and how it is to be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Xdp {
    /// Its name, such as `eth0`.
    pub interface: String,
    /// Which ways are taken.
    pub mode: XdpMode,
}

impl Xdp {
    /// The fastest way that there is.
    pub fn new(interface: &str) -> Xdp {
        Xdp { interface: interface.to_owned(), mode: XdpMode::Auto }
    }
}

/// Which ways of reaching a device are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum XdpMode {
    /// Zero-copy if the driver has it, else copies, by the driver if it can, else by the kernel's generic way.
    #[default]
    Auto,
    /// Zero-copy or nothing.
    ZeroCopy,
    /// Copies, though the driver has zero-copy.
    Copy,
}

/// How a device is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The NIC writes into our frames and reads from them.
    ZeroCopy,
    /// The driver runs the program, and the kernel copies.
    CopyNative,
    /// The kernel runs the program behind its own receive path, and copies.
    CopyGeneric,
}

impl Way {
    /// What counters and logs call the driver.
    fn name(self) -> &'static str {
        match self {
            Way::ZeroCopy => "af_xdp-zero-copy",
            Way::CopyNative => "af_xdp-copy-native",
            Way::CopyGeneric => "af_xdp-copy-generic",
        }
    }
}
