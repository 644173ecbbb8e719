//! How long, how often, how much.

use machnet_wire::Nanos;

/// Times and bounds of searches and of the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Time from the last probe of a batch until the next batch, and as long as one batch keeps others of the same sidecar from
    /// spraying to the same peer. Longer than a round trip, above 0.
    pub retry: Nanos,
    /// Batches of a search, the first included; 1 or more.
    pub batches: u8,
    /// For how long nobody searches at a peer to which a search was given up.
    pub give_up_for: Nanos,
    /// Remaps of one peer within `give_up_for` from which on its NIC counts as one that keeps no pair on its queue; 1 or more.
    pub remaps_max: u8,
    /// Verified pairs that the pool keeps for one queue of a peer; 1 or more.
    pub pairs_per_queue: usize,
    /// Verified pairs that it keeps for one peer, whatever number of queues that claims to have; 1 or more.
    pub pairs_per_peer: usize,
    /// Peers that it keeps; 1 or more. The least recently used one makes room.
    pub peers_max: usize,
    /// Age from which on a pair that no report has confirmed is used no more.
    pub max_age: Nanos,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            retry: Nanos::millis(10),
            batches: 4,
            give_up_for: Nanos::secs(60),
            remaps_max: 8,
            pairs_per_queue: 4,
            pairs_per_peer: 256,
            peers_max: 4096,
            max_age: Nanos::secs(600),
        }
    }
}
