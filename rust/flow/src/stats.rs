//! What a flow counts. Every drop, retry and fallback has a number.

/// Counters of one flow since it began.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Stats {
    /// Packets sent, of any kind.
    pub packets_sent: u64,
    /// Packets taken, of any kind.
    pub packets_received: u64,
    /// Packets sent that carried nothing but an acknowledgement.
    pub acks_sent: u64,
    /// Units sent for the first time.
    pub units_sent: u64,
    /// Units delivered in order.
    pub units_delivered: u64,
    /// Units sent again, for whatever reason.
    pub retransmitted: u64,
    /// Units found lost by the order of acknowledgements.
    pub lost: u64,
    /// Units sent again though they had arrived, as the echo proved.
    pub needless: u64,
    /// Tail-loss probes sent.
    pub tail_probes: u64,
    /// Retransmission timeouts.
    pub timeouts: u64,
    /// Timeouts that the echo proved needless, undone.
    pub timeouts_undone: u64,
    /// Units of ours that the peer refused for want of a buffer.
    pub refused_by_peer: u64,
    /// Units of the peer's that we refused for want of a buffer.
    pub refused: u64,
    /// Units sent without credit to find out whether there is some again.
    pub credit_probes: u64,
    /// Times an idle peer's credit was taken back.
    pub credit_lapsed: u64,
    /// Units that arrived twice.
    pub duplicates: u64,
    /// Units that arrived ahead of their turn.
    pub out_of_order: u64,
    /// Units that arrived beyond what can be kept.
    pub beyond_window: u64,
    /// Units acknowledged and dropped, because the application had closed.
    pub discarded: u64,
    /// Packets refused for their tag.
    pub stale_tags: u64,
    /// SYN and SYN-ACK sent.
    pub hellos_sent: u64,
    /// PINGs sent.
    pub pings_sent: u64,
    /// Round trips sampled.
    pub rtt_samples: u64,
}

/// Counters decide nothing: two flows that differ only in them go on alike, so they are no part of a flow's hash.
impl core::hash::Hash for Stats {
    fn hash<H: core::hash::Hasher>(&self, _: &mut H) {}
}
