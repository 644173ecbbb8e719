//! What was done, dropped, retried and given up, by name. One writer (the engine), any number of readers.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A count with one writer. Adding is a load and a store, no locked instruction.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the engine that owns the counter calls this.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Replaces the value: for gauges.
    #[inline]
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Counters of one engine. A name never changes its meaning: dashboards are built on it.
        #[derive(Debug, Default)]
        pub struct Counters { $($(#[doc = $doc])+ pub $name: Counter,)+ }

        impl Counters {
            /// Every counter with its name and its one-line meaning, in a fixed order.
            pub fn snapshot(&self) -> Vec<Sample> {
                vec![$(Sample { name: stringify!($name), help: concat!($($doc),+).trim_ascii(), value: self.$name.get() }),+]
            }
        }
    };
}

/// One counter as read at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// The counter's name, snake case.
    pub name: &'static str,
    /// What it counts, one line.
    pub help: &'static str,
    /// Its value.
    pub value: u64,
}

counters! {
    /// rounds of the loop
    rounds,
    /// frames taken from the NIC
    rx_frames,
    /// frames given to the NIC
    tx_frames,
    /// units of applications taken from submit rings
    tx_units,
    /// units given to applications in order
    rx_units,
    /// Machnet packets looped inside this engine because both ends are local
    local_packets,
    /// local packets that waited because the loop was full
    local_full,
    /// Machnet packets handed to the engine that owns their flow
    handover_out,
    /// Machnet packets received from another engine
    handover_in,
    /// packets dropped because the owner's hand-over queue was full
    handover_full,
    /// transmit rounds cut short because the NIC had no descriptor
    tx_full,
    /// frames whose checksum was wrong, by hardware or software
    rx_bad_checksum,
    /// frames too short for what they claim to be
    rx_short,
    /// frames with an IP header that we do not take (version, options, length)
    rx_bad_ip,
    /// frames that are an IP fragment (never ours: units fit the MTU)
    rx_fragment,
    /// frames with a malformed ARP, ICMP or UDP part
    rx_bad_transport,
    /// UDP datagrams that are no valid Machnet packet
    rx_bad_machnet,
    /// frames of a protocol that is not for us
    rx_other_protocol,
    /// frames for another IP address
    rx_other_address,
    /// packets of no known flow
    rx_no_flow,
    /// packets with a tag that is not their flow's
    rx_bad_tag,
    /// packets by which a peer broke the protocol; its flow was reset
    rx_broke_protocol,
    /// packets for a flow that is over
    rx_over,
    /// resets sent for packets of no known flow
    rst_sent,
    /// resets not sent, for the rate limit
    rst_limited,
    /// ARP requests sent
    arp_requests,
    /// ARP replies sent
    arp_replies,
    /// ARP packets received
    arp_received,
    /// next hops that never answered
    arp_failed,
    /// ARP packets by which another station claims this host's address
    arp_conflicts,
    /// connection attempts that ended because the next hop never answered
    unreachable,
    /// ICMP echo requests answered
    icmp_replies,
    /// control frames (ARP, ICMP, reset) and SYN packets dropped because too many waited, or no next hop for the answer was known
    control_dropped,
    /// connections established, asked for by a local application
    connects,
    /// connections established, asked for by a peer
    accepts,
    /// connection attempts refused by the peer
    connects_refused,
    /// connection attempts refused because the peer's application or engine was full, or its sidecar ending
    connects_peer_full,
    /// connection attempts that met silence
    connects_timeout,
    /// SYN packets for a port nobody listens on
    syn_refused,
    /// SYN packets refused because the flow table of the engine or the channel was full
    syn_overflow,
    /// connections refused, dialled or a peer's, because the application had as many as it may (flows)
    full_connections,
    /// connections refused, dialled or a peer's, because the engine had as many as it can
    full_engine,
    /// listeners refused because the application had as many as it may
    full_listeners,
    /// dials and listeners refused because all ports that are given where none is named were in use
    full_ports,
    /// dials, listeners and peers' connections refused because the sidecar was ending
    refused_ending,
    /// SYN packets left unanswered, to be sent again, because as many connections as its backlog waited for the listener
    syn_backlog,
    /// flows alive now
    flows,
    /// flows ended by a reset from the peer
    resets_received,
    /// flows ended because the peer was silent for the configured time
    flow_timeouts,
    /// channels attached
    channels_attached,
    /// channels detached because their application left
    channels_gone,
    /// connections reset because not all that an application had left was delivered, and closed, within the linger
    linger_resets,
    /// channels detached because their application wrote something impossible
    channels_faulty,
    /// doorbells of applications that rang though there was nothing
    bells_empty,
    /// times a doorbell that rings for nothing, or hangs up, was not listened to for a while
    bells_unheard,
    /// submissions for a connection that is already gone (no fault: they crossed)
    stale_submissions,
    /// listeners opened
    listens,
    /// listens refused because the port is taken
    listens_refused,
    /// packets sent by flows, of any kind
    flow_packets_sent,
    /// packets taken by flows, of any kind
    flow_packets_received,
    /// packets sent that carried nothing but an acknowledgement
    flow_acks_sent,
    /// units sent for the first time
    flow_units_sent,
    /// units delivered in order
    flow_units_delivered,
    /// units sent again, for whatever reason
    flow_retransmitted,
    /// units found lost by the order of acknowledgements
    flow_lost,
    /// units sent again though they had arrived
    flow_needless,
    /// tail-loss probes sent
    flow_tail_probes,
    /// retransmission timeouts
    flow_rtos,
    /// retransmission timeouts proved needless and undone
    flow_rtos_undone,
    /// units of ours that peers refused for want of a buffer
    flow_refused_by_peer,
    /// units of peers that we refused for want of a buffer
    flow_refused,
    /// units sent without credit to find out whether there is some
    flow_credit_probes,
    /// times an idle peer's credit was taken back
    flow_credit_lapsed,
    /// units that arrived twice
    flow_duplicates,
    /// units that arrived ahead of their turn
    flow_out_of_order,
    /// units that arrived beyond what can be kept
    flow_beyond_window,
    /// units acknowledged and dropped because the application had closed
    flow_discarded,
    /// packets that flows refused for their tag
    flow_stale_tags,
    /// SYN and SYN-ACK packets sent
    flow_hellos_sent,
    /// keep-alive questions sent
    flow_pings_sent,
    /// round trips sampled
    flow_rtt_samples,
    /// times a flow waited because as much was promised to peers as the receive ring holds
    budget_waits,
    /// units that came without a promise while the receive ring's budget was spent
    budget_overruns,
    /// times the engine's thread was found off its core (counted by the control thread alone)
    pins_lost,
    /// times the loop ran more than 1 ms late
    stalls,
    /// sleeps of the loop
    sleeps,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_names_each_counter_once() {
        let counters = Counters::default();
        counters.rst_sent.add(2);
        counters.rst_sent.add(1);
        let samples = counters.snapshot();
        assert!(
            samples.iter().any(|s| s.name == "rst_sent" && s.value == 3 && s.help.starts_with("resets sent"))
        );
        let mut names: Vec<_> = samples.iter().map(|s| s.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), samples.len());
    }
}
