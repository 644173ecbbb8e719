//! The least-common-denominator NIC (the paper's table 2): Ethernet frames, receive queues that an opaque hash
//! chooses, no more queues than cores, 256 descriptors each.
//!
//! A back end is three things: a [`Queue`], which an engine owns; a [`Port`], which is what the queues share; and a function
//! that opens a NIC, of its own kind of device and by a [`PortConfig`], and returns both as [`Opened`]. There are three: DPDK
//! (feature `dpdk`, `dpdk::open`), the kernel's AF_XDP (feature `xdp`, `xdp::open`) and the simulator ([`sim::Net::open`]).

mod counters;
mod device;
#[cfg(feature = "dpdk")]
pub mod dpdk;
#[cfg(any(feature = "dpdk", feature = "xdp"))]
mod kernel;
pub mod sim;
mod toeplitz;
#[cfg(feature = "xdp")]
pub mod xdp;

pub use counters::{PortCounters, QueueCounters};
pub use device::{Device, EalConfig, Memif, MemifRole, Memory};
pub use machnet_wire::Mac;
pub use toeplitz::Toeplitz;

use std::sync::Arc;

/// What is asked of a NIC, whatever drives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortConfig {
    /// Queue pairs, one per engine.
    pub queues: u16,
    /// Descriptors per queue and direction; the least common denominator is 256.
    pub descriptors: u16,
    /// Largest IP packet, bytes, 576..=9001.
    pub mtu: u16,
    /// Address to use instead of the device's own.
    pub mac: Option<Mac>,
    /// Frames taken from, or handed to, the device at once, 1..=32. 16, or 8 where cores are shared.
    pub burst: u16,
    /// Use the NIC's checksums where it offers them.
    pub checksum_offload: bool,
    /// Ask for receive interrupts where there are some.
    pub interrupts: bool,
}

impl Default for PortConfig {
    /// One queue of 256 descriptors, 1500 bytes, bursts of 16, every help the NIC offers.
    fn default() -> Self {
        PortConfig {
            queues: 1,
            descriptors: 256,
            mtu: 1500,
            mac: None,
            burst: 16,
            checksum_offload: true,
            interrupts: true,
        }
    }
}

impl PortConfig {
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

/// A NIC that was opened.
pub struct Opened<Q> {
    /// One per engine, in the order of their numbers, at least one.
    pub queues: Vec<Q>,
    /// What they share.
    pub port: Arc<dyn Port>,
}

/// A NIC as a whole, beside its queues. Any thread may ask; it may take a system call or two. The NIC closes when its queues and
/// this are gone.
pub trait Port: Send + Sync {
    /// What drives it, such as `net_memif`.
    fn driver(&self) -> &str;

    /// Counters so far.
    fn counters(&self) -> PortCounters;

    /// Whether frames can pass, and if not, why.
    fn state(&self) -> PortState;
}

/// What a NIC is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PortState {
    /// It is there and has its link, as far as its driver can tell.
    Up,
    /// It is there and has no link.
    LinkDown,
    /// It is being started again, because it asked for that or had failed. Frames to be sent are dropped, and counted as `link_down`.
    Resetting,
    /// The device is not there. Frames to be sent are dropped, and counted as `link_down`; it is opened again when it is back.
    Gone,
}

impl PortState {
    /// Its name, as operators see it.
    pub fn name(self) -> &'static str {
        match self {
            PortState::Up => "up",
            PortState::LinkDown => "link-down",
            PortState::Resetting => "resetting",
            PortState::Gone => "gone",
        }
    }
}

/// What a queue's NIC is and can do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Info {
    /// The NIC's address.
    pub mac: Mac,
    /// The largest IP packet, bytes.
    pub mtu: u16,
    /// Receive queues of the NIC.
    pub queues: u16,
    /// Which of them this is.
    pub index: u16,
    /// Descriptors of the receive ring.
    pub descriptors: u16,
    /// Whether the NIC computes IP and UDP checksums of what is sent.
    pub tx_checksum: bool,
    /// Whether the NIC verifies those of what is received.
    pub rx_checksum: bool,
    /// Whether the queue can wake a sleeper.
    pub interrupts: bool,
}

/// What the NIC says of a received frame's checksums.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RxChecksum {
    /// Verified.
    Good,
    /// Wrong.
    Bad,
    /// Not looked at: verify in software.
    Unknown,
    /// The same, by a device of the kernel's: from a sender on this machine it may be the mere beginning of a checksum
    /// (`machnet_wire::frame::udp_checksum_is_partial`), since no NIC is on the way that would complete it.
    MaybePartial,
}

/// What a frame to be sent still lacks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Offload {
    /// Nothing.
    None,
    /// It is Ethernet, IPv4 and UDP and wants its UDP checksum, by the NIC or in software below this trait.
    Udp4,
}

/// No descriptor or no buffer is free: flush, and come back in the next round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

/// One receive and one transmit queue, owned by one engine.
pub trait Queue: Send {
    /// What the NIC is.
    fn info(&self) -> &Info;

    /// Takes at most `budget` frames, oldest first, and shows each to `each`. Returns how many.
    fn receive(&mut self, budget: usize, each: &mut impl FnMut(&[u8], RxChecksum)) -> usize;

    /// Builds one frame of exactly `len` bytes in a transmit buffer. With `Full`, `fill` was not called.
    fn transmit(&mut self, len: usize, offload: Offload, fill: impl FnOnce(&mut [u8])) -> Result<(), Full>;

    /// Gives what `transmit` built to the device. Called at the end of each round.
    fn flush(&mut self);

    /// Frames waiting in the receive ring, as far as the driver can tell.
    fn backlog(&mut self) -> u16;

    /// Counters so far.
    fn counters(&self) -> QueueCounters;

    /// Has frames with this UDP destination port come in on this queue, whatever the NIC's hash says of them; true from then on. False:
    /// the NIC cannot, or has no room for another such rule. It is no part of the least common denominator: what is built on this trait
    /// works without it, and asks less often where it is there.
    fn steer(&mut self, port: u16) -> bool {
        let _ = port;
        false
    }

    /// Arms the receive interrupt and gives the descriptor to poll; `None` where the driver has none.
    fn arm_interrupt(&mut self) -> Option<i32>;

    /// Disarms it.
    fn disarm_interrupt(&mut self);
}
