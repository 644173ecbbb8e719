//! What a flow counts. Every drop, retry and fallback has a number.

machnet_wire::samples! {
    /// Counters of one flow since it began.
    #[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
    pub struct Stats: u64 {
        /// packets sent, of any kind
        packets_sent: Counter, Count;
        /// packets taken, of any kind
        packets_received: Counter, Count;
        /// packets sent that carried nothing but an acknowledgement
        acks_sent: Counter, Count;
        /// units sent for the first time
        units_sent: Counter, Count;
        /// units delivered in order
        units_delivered: Counter, Count;
        /// units sent again, for whatever reason
        retransmitted: Counter, Count;
        /// units found lost by the order of acknowledgements
        lost: Counter, Count;
        /// units sent again though they had arrived, as the echo proved
        needless: Counter, Count;
        /// tail-loss probes sent
        tail_probes: Counter, Count;
        /// retransmission timeouts
        rtos: Counter, Count;
        /// timeouts that the echo proved needless, undone
        rtos_undone: Counter, Count;
        /// units of ours that the peer refused for want of a buffer
        refused_by_peer: Counter, Count;
        /// units of the peer's that we refused for want of a buffer
        refused: Counter, Count;
        /// units sent without credit to find out whether there is some again
        credit_probes: Counter, Count;
        /// times an idle peer's credit was taken back
        credit_lapsed: Counter, Count;
        /// units that arrived twice
        duplicates: Counter, Count;
        /// units that arrived ahead of their turn
        out_of_order: Counter, Count;
        /// units that arrived beyond what can be kept
        beyond_window: Counter, Count;
        /// units acknowledged and dropped, because the application had closed
        discarded: Counter, Count;
        /// packets refused for their tag
        stale_tags: Counter, Count;
        /// SYN and SYN-ACK sent
        hellos_sent: Counter, Count;
        /// PINGs sent
        pings_sent: Counter, Count;
        /// round trips sampled
        rtt_samples: Counter, Count;
    }
}

/// Counters decide nothing: two flows that differ only in them go on alike, so they are no part of a flow's hash.
impl core::hash::Hash for Stats {
    fn hash<H: core::hash::Hasher>(&self, _: &mut H) {}
}
