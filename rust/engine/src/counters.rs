//! What was done, dropped, retried and given up, by name. One writer (the engine), any number of readers.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use machnet_flow::Stats;
use machnet_nic::QueueCounters;
use machnet_wire::Sample;
use machnet_wire::sample::{Cell, Definition};

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

impl Cell for Counter {
    fn value(&self) -> Option<u64> {
        Some(self.get())
    }
}

machnet_wire::samples! {
    /// Counters of one engine.
    #[derive(Debug, Default)]
    pub struct Counters: Counter {
        /// rounds of the loop
        rounds: Counter, Count;
        /// frames taken from the NIC
        rx_frames: Counter, Count;
        /// frames given to the NIC
        tx_frames: Counter, Count;
        /// units of applications taken from submit rings
        tx_units: Counter, Count;
        /// units given to applications in order
        rx_units: Counter, Count;
        /// Machnet packets looped inside this engine because both ends are local
        local_packets: Counter, Count;
        /// local packets that waited because the loop was full
        local_full: Counter, Count;
        /// Machnet packets handed to the engine that owns their flow
        handover_out: Counter, Count;
        /// Machnet packets received from another engine
        handover_in: Counter, Count;
        /// packets dropped because the owner's hand-over queue was full
        handover_full: Counter, Count;
        /// copies of SYN sent in batches, each by UDP ports of its own, on first contact with a peer
        syn_sprayed: Counter, Count;
        /// probes sent to find UDP ports that lead to the queue that a peer wants
        probes_sent: Counter, Count;
        /// PATHS packets sent: they tell a peer to which queues its packets came
        paths_sent: Counter, Count;
        /// PATHS packets of peers taken
        paths_received: Counter, Count;
        /// pairs of UDP ports of which a peer told for the first time to which queue they lead
        pairs_verified: Counter, Count;
        /// connections that began with a pair that was known
        pool_hits: Counter, Count;
        /// searches by probes for a pair that leads to the queue which a peer wants, because nothing sent before had hit
        searches: Counter, Count;
        /// batches of probes sent because those before did not hit within the retry time
        searches_retried: Counter, Count;
        /// searches given up after the last batch: the peer hands packets over between its engines
        searches_given_up: Counter, Count;
        /// packets of established connections that came on another queue than their engine's, and were handed over
        misdirected: Counter, Count;
        /// times a peer's queues were found changed, and what was known of them was forgotten
        rss_remapped: Counter, Count;
        /// times a connection went on with another pair, because its packets seemed not to arrive
        repathed: Counter, Count;
        /// times it did not, because too many others had: then it is not their pairs that packets are late for
        repaths_limited: Counter, Count;
        /// packets dropped because they came to another engine than their connection's (in the paper's form only)
        paper_dropped: Counter, Count;
        /// transmit rounds cut short because the NIC had no descriptor
        tx_full: Counter, Count;
        /// frames whose checksum was wrong, by hardware or software
        rx_bad_checksum: Counter, Count;
        /// frames too short for what they claim to be
        rx_short: Counter, Count;
        /// frames with an IP header that we do not take (version, options, length)
        rx_bad_ip: Counter, Count;
        /// frames that are an IP fragment (never ours: units fit the MTU)
        rx_fragment: Counter, Count;
        /// frames with a malformed ARP, ICMP or UDP part
        rx_bad_transport: Counter, Count;
        /// UDP datagrams that are no valid Machnet packet
        rx_bad_machnet: Counter, Count;
        /// frames of a protocol that is not for us
        rx_other_protocol: Counter, Count;
        /// frames for another IP address
        rx_other_address: Counter, Count;
        /// packets of no known flow
        rx_no_flow: Counter, Count;
        /// packets with a tag that is not their flow's
        rx_bad_tag: Counter, Count;
        /// packets by which a peer broke the protocol; its flow was reset
        rx_broke_protocol: Counter, Count;
        /// packets for a flow that is over
        rx_over: Counter, Count;
        /// resets sent for packets of no known flow
        rst_sent: Counter, Count;
        /// resets not sent, for the rate limit
        rst_limited: Counter, Count;
        /// ARP requests sent
        arp_requests: Counter, Count;
        /// ARP announcements of this host sent
        arp_announced: Counter, Count;
        /// ARP replies sent
        arp_replies: Counter, Count;
        /// ARP packets received
        arp_received: Counter, Count;
        /// next hops that never answered
        arp_failed: Counter, Count;
        /// times silence made a connection doubt the MAC of its next hop, so that it was asked again
        arp_doubts: Counter, Count;
        /// ARP packets by which another station claims the address of a neighbour, which was asked itself before that was believed
        arp_claims: Counter, Count;
        /// neighbours that no connection used, forgotten because there were too many
        neighbors_evicted: Counter, Count;
        /// ARP packets by which another station claims this host's address
        arp_conflicts: Counter, Count;
        /// connection attempts that ended because the next hop never answered
        unreachable: Counter, Count;
        /// ICMP echo requests answered
        icmp_replies: Counter, Count;
        /// ICMP messages that a packet was too long for a link, which quote one of a connection of ours
        icmp_hints: Counter, Count;
        /// ICMP messages that a packet was too long for a link, which say nothing new, or quote none of ours
        icmp_hints_ignored: Counter, Count;
        /// control frames (ARP, ICMP, reset) and SYN packets dropped because too many waited, or no next hop for the answer was known
        control_dropped: Counter, Count;
        /// connections established, asked for by a local application
        connects: Counter, Count;
        /// connections established, asked for by a peer
        accepts: Counter, Count;
        /// connection attempts refused by the peer
        connects_refused: Counter, Count;
        /// connection attempts refused because the peer's application or engine was full, or its sidecar ending
        connects_peer_full: Counter, Count;
        /// connection attempts that met silence
        connects_timeout: Counter, Count;
        /// SYN packets for a port nobody listens on
        syn_refused: Counter, Count;
        /// SYN packets given to another listener of the same port because the one whose turn it was had no room
        syn_passed_on: Counter, Count;
        /// SYN packets refused because the flow table of the engine or the channel was full
        syn_overflow: Counter, Count;
        /// connections refused, dialled or a peer's, because the application had as many as it may (flows)
        full_connections: Counter, Count;
        /// connections refused, dialled or a peer's, because the engine had as many as it can
        full_engine: Counter, Count;
        /// listeners refused because the application had as many as it may
        full_listeners: Counter, Count;
        /// dials and listeners refused because all ports that are given where none is named were in use
        full_ports: Counter, Count;
        /// dials, listeners and peers' connections refused because the sidecar was ending
        refused_ending: Counter, Count;
        /// SYN packets left unanswered, to be sent again, because as many connections as its backlog waited for each listener of the port
        syn_backlog: Counter, Count;
        /// SYN packets answered by a cookie, because their listener remembered as many callers as it may that had proved nothing
        cookies_sent: Counter, Count;
        /// cookies that came back and began a connection
        cookies_accepted: Counter, Count;
        /// cookies that came back and are not, or not any more, ours: their callers are told to call again
        cookies_refused: Counter, Count;
        /// flows alive now
        flows: Gauge, Count;
        /// flows ended by a reset from the peer
        resets_received: Counter, Count;
        /// flows ended because the peer was silent for the configured time
        flow_timeouts: Counter, Count;
        /// flows ended because a unit was not acknowledged for the configured time, though their peer was heard
        no_progress: Counter, Count;
        /// channels attached
        channels_attached: Counter, Count;
        /// channels detached because their application left
        channels_gone: Counter, Count;
        /// channels detached by order though their application was there
        channels_drained: Counter, Count;
        /// connections reset because not all that an application had left was delivered, and closed, within the linger
        linger_resets: Counter, Count;
        /// channels detached because their application wrote something impossible
        channels_faulty: Counter, Count;
        /// doorbells of applications that rang though there was nothing
        bells_empty: Counter, Count;
        /// times a doorbell that rings for nothing, or hangs up, was not listened to for a while
        bells_unheard: Counter, Count;
        /// submissions for a connection that is already gone (no fault: they crossed)
        stale_submissions: Counter, Count;
        /// listeners opened
        listens: Counter, Count;
        /// listens refused because the port is taken
        listens_refused: Counter, Count;
        /// times a flow waited because as much was promised to peers as the receive ring holds
        budget_waits: Counter, Count;
        /// units that came without a promise while the receive ring's budget was spent
        budget_overruns: Counter, Count;
        /// times the engine's thread was found off its core (counted by the control thread alone)
        pins_lost: Counter, Count;
        /// times the loop ran more than 1 ms late
        stalls: Counter, Count;
        /// sleeps of the loop
        sleeps: Counter, Count;
        /// times the engine was found to share its core with a thread that keeps it busy, and went over to sleeping at once
        hog_alarms: Counter, Count;
        /// time that such alarms last, counted when they begin
        hogged: Counter, Nanoseconds;
        /// time the engine's thread is known to have waited for its core: in yields of over 2 ms, and after the time of a sleep was over
        core_wait: Counter, Nanoseconds;
    }
}

/// The last values of counters that somebody else counts, one writer and any number of readers.
#[derive(Debug)]
pub(crate) struct Published<const N: usize>([AtomicU64; N]);

impl<const N: usize> Published<N> {
    /// Replaces all values.
    pub fn set(&self, values: [Option<u64>; N]) {
        for (cell, value) in self.0.iter().zip(values) {
            cell.store(value.unwrap_or(NOT_COUNTED), Relaxed);
        }
    }

    /// The last values, named by their table.
    pub fn samples(&self, table: &[Definition; N]) -> [Sample; N] {
        core::array::from_fn(|i| {
            let value = self.0[i].load(Relaxed);
            table[i].sample((value != NOT_COUNTED).then_some(value))
        })
    }
}

impl<const N: usize> Default for Published<N> {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; N])
    }
}

/// Everything that is counted at one engine, where any thread can read it.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub engine: Counters,
    /// Sums over all flows, as of the last time that the engine made them.
    pub flows: Published<{ Stats::TABLE.len() }>,
    /// What the NIC's queue had counted at the same time.
    pub queue: Published<{ QueueCounters::TABLE.len() }>,
}

/// Everything that was counted at one engine, as read at one moment.
#[derive(Debug, Clone)]
pub struct Samples {
    /// The engine's own.
    pub engine: [Sample; Counters::TABLE.len()],
    /// Sums over all of its flows, those that are over included, at most a second old.
    pub flows: [Sample; Stats::TABLE.len()],
    /// What its queue of the NIC has counted, at most a second old.
    pub queue: [Sample; QueueCounters::TABLE.len()],
}

impl Counts {
    pub fn samples(&self) -> Samples {
        Samples {
            engine: self.engine.samples(),
            flows: self.flows.samples(&Stats::TABLE),
            queue: self.queue.samples(&QueueCounters::TABLE),
        }
    }
}

impl Samples {
    /// All of them by name: those of flows begin with `flow_`, those of the queue with `queue_`.
    pub fn named(&self) -> impl Iterator<Item = (Cow<'static, str>, Sample)> {
        let queue = self.queue.iter().map(|sample| (format!("queue_{}", sample.name).into(), *sample));
        self.counted_by_engine().chain(queue)
    }

    /// The same without those of the queue.
    pub fn counted_by_engine(&self) -> impl Iterator<Item = (Cow<'static, str>, Sample)> {
        let engine = self.engine.iter().map(|sample| (sample.name.into(), *sample));
        let flows = self.flows.iter().map(|sample| (format!("flow_{}", sample.name).into(), *sample));
        engine.chain(flows)
    }
}

/// Stands for a counter that is not counted: no counter grows to it.
const NOT_COUNTED: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_name_each_counter_once_with_its_value() {
        let counts = Counts::default();
        counts.engine.rst_sent.add(2);
        counts.engine.rst_sent.add(1);
        let one = Stats { units_sent: 4, ..Stats::default() };
        counts.flows.set(one.values());
        let queue = QueueCounters { tx_full: 5, rx_missed: Some(0), ..QueueCounters::default() };
        counts.queue.set(queue.values());
        let named: Vec<_> = counts.samples().named().collect();
        let value = |name: &str| named.iter().find(|(n, _)| n == name).and_then(|(_, s)| s.value);
        assert_eq!((value("rst_sent"), value("flow_units_sent")), (Some(3), Some(4)));
        assert_eq!((value("queue_tx_full"), value("queue_rx_missed")), (Some(5), Some(0)));
        assert_eq!(value("queue_link_down"), None, "not counted here");
        let mut names: Vec<_> = named.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), named.len());
    }

    #[test]
    fn what_is_not_counted_is_not_published_as_zero() {
        let published = Published::default();
        let table = [Counters::TABLE[0], Counters::TABLE[1]];
        published.set([None, Some(0)]);
        assert_eq!(published.samples(&table).map(|s| s.value), [None, Some(0)]);
    }
}
