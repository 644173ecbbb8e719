//! What a flow counts. Every drop, retry and fallback has a number.
//!
//! A connection on which nothing goes wrong has only a few of them: the others have no memory before one of them counts.

use alloc::boxed::Box;

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

/// The counters as a flow keeps them.
#[derive(Clone, Default, Debug)]
pub(crate) struct Counts {
    pub packets_sent: u64,
    pub packets_received: u64,
    pub acks_sent: u64,
    pub units_sent: u64,
    pub units_delivered: u64,
    pub rtt_samples: u64,
    pub credit_lapsed: u64,
    pub pings_sent: u32,
    pub hellos_sent: u32,
    /// The others; those above are zero in it.
    rare: Option<Box<Stats>>,
}

impl Counts {
    /// The counters that most connections never need.
    #[cold]
    pub fn rare(&mut self) -> &mut Stats {
        self.rare.get_or_insert_default()
    }

    /// All of them.
    pub fn stats(&self) -> Stats {
        Stats {
            packets_sent: self.packets_sent,
            packets_received: self.packets_received,
            acks_sent: self.acks_sent,
            units_sent: self.units_sent,
            units_delivered: self.units_delivered,
            rtt_samples: self.rtt_samples,
            credit_lapsed: self.credit_lapsed,
            pings_sent: self.pings_sent.into(),
            hellos_sent: self.hellos_sent.into(),
            ..self.rare.as_deref().copied().unwrap_or_default()
        }
    }
}

/// Counters decide nothing: two flows that differ only in them go on alike, so they are no part of a flow's hash.
impl core::hash::Hash for Counts {
    fn hash<H: core::hash::Hasher>(&self, _: &mut H) {}
}
