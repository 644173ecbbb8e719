//! The least-common-denominator NIC (the paper's table 2): Ethernet frames, receive queues that an opaque hash
//! chooses, no more queues than cores, 256 descriptors each. An engine owns one [`Queue`]; behind it is DPDK
//! (feature `dpdk`) or the simulator.

#[cfg(feature = "dpdk")]
pub mod dpdk;
pub mod sim;
mod toeplitz;

pub use machnet_wire::Mac;
pub use toeplitz::Toeplitz;

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
    /// What drives it, for people.
    pub driver: String,
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

/// Counters of one queue since it was opened.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Stats {
    /// Frames received.
    pub rx_frames: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Frames sent.
    pub tx_frames: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Frames lost because the receive ring was full, where the driver can tell.
    pub rx_missed: u64,
    /// Frames refused: damaged, or larger than a buffer.
    pub rx_errors: u64,
    /// Times `transmit` found no descriptor or buffer.
    pub tx_full: u64,
    /// Frames given to the device and not taken by it (no peer, ring full).
    pub tx_dropped: u64,
}

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
    fn stats(&self) -> Stats;

    /// Arms the receive interrupt and gives the descriptor to poll; `None` where the driver has none.
    fn arm_interrupt(&mut self) -> Option<i32>;

    /// Disarms it.
    fn disarm_interrupt(&mut self);
}
