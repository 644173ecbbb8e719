//! What an engine can be told.

use core::ops::RangeInclusive;

use machnet_wire::Nanos;

use crate::neighbor;

/// RSS--, as docs/rss.md has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RssConfig {
    /// Times and bounds of searches and of the pool.
    pub search: machnet_rss::Config,
    /// Connections that are dialled here have the peer answer on the mirror of the pair by which our packets come, for networks that
    /// let nothing in but replies. Only the caller's setting counts.
    pub mirrored: bool,
    /// As the paper does it, to compare with: no hand-over, no pool, 300 ms until a set-up is tried again.
    pub paper: bool,
    /// None of it: pairs are random and stay what they are, nothing is told or searched for, and whatever lands elsewhere is handed over. To
    /// measure what it is worth; no setting of a sidecar.
    pub off: bool,
}

/// Configuration of all engines of one sidecar.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Our address, next hops and the times of ARP.
    pub neighbor: neighbor::Config,
    /// Frames or submissions taken at once, 1..=64: 16 on a core of one's own, 8 on a shared core. Larger bursts move a
    /// window as one convoy and the cores stop overlapping (docs/performance.md).
    pub burst: usize,
    /// When this sidecar began; a peer tells by it that we restarted. Any number that no earlier start had.
    pub epoch: u64,
    /// Random bytes of which tags and ports are drawn. From the system's source in production, fixed in tests.
    pub secret: [u64; 2],
    /// UDP ports drawn for the route of a direction. Any port is accepted; these are what a firewall must let in.
    pub udp_ports: RangeInclusive<u16>,
    /// How pairs are found that reach the queue which a peer wants.
    pub rss: RssConfig,
    /// Packets that may wait in an engine's hand-over queue.
    pub handover: usize,
    /// Flows of one engine at most.
    pub max_flows: usize,
    /// Resets per second for packets of no known flow.
    pub rst_rate: u32,
    /// How long what an application submitted may still take to be delivered when it is gone, or when the sidecar ends. Zero: its
    /// connections are reset at once, whatever is under way.
    pub linger: Nanos,
    /// How long a connect without a limit of its own tries.
    pub connect_timeout: Nanos,
    /// The transport's own settings.
    pub flow: machnet_flow::Config,
}

impl EngineConfig {
    /// The usual settings for this address. The caller draws `secret` and `epoch`.
    pub fn new(neighbor: neighbor::Config, epoch: u64, secret: [u64; 2]) -> Self {
        Self {
            neighbor,
            burst: 8,
            epoch,
            secret,
            udp_ports: UDP_PORT..=UDP_PORT + 1023,
            rss: RssConfig::default(),
            handover: 1024,
            max_flows: 65_536,
            rst_rate: 1000,
            linger: Nanos::secs(1),
            connect_timeout: Nanos::secs(5),
            flow: machnet_flow::Config::default(),
        }
    }
}

/// The first UDP port of Machnet's route ports.
pub const UDP_PORT: u16 = 31580;
