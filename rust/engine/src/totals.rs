//! The flows' own counters, summed into the engine's: those of flows that are gone, and once in a while those alive.

use machnet_flow::Stats;
use machnet_wire::Nanos;

use crate::counters::Counters;
use crate::state::Core;

/// What has been summed so far.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    gone: Stats,
    collected: Nanos,
    /// Something happened since.
    stale: bool,
}

macro_rules! fields {
    ($($field:ident => $counter:ident,)+) => {
        fn add(sum: &mut Stats, one: &Stats) {
            $(sum.$field += one.$field;)+
        }

        fn publish(sum: &Stats, counters: &Counters) {
            $(counters.$counter.set(sum.$field);)+
        }
    };
}

fields! {
    packets_sent => flow_packets_sent,
    packets_received => flow_packets_received,
    acks_sent => flow_acks_sent,
    units_sent => flow_units_sent,
    units_delivered => flow_units_delivered,
    retransmitted => flow_retransmitted,
    lost => flow_lost,
    needless => flow_needless,
    tail_probes => flow_tail_probes,
    timeouts => flow_rtos,
    timeouts_undone => flow_rtos_undone,
    refused_by_peer => flow_refused_by_peer,
    refused => flow_refused,
    credit_probes => flow_credit_probes,
    credit_lapsed => flow_credit_lapsed,
    duplicates => flow_duplicates,
    out_of_order => flow_out_of_order,
    beyond_window => flow_beyond_window,
    discarded => flow_discarded,
    stale_tags => flow_stale_tags,
    hellos_sent => flow_hellos_sent,
    pings_sent => flow_pings_sent,
    rtt_samples => flow_rtt_samples,
}

impl Totals {
    /// Keeps what a flow counted that ends now.
    pub fn retire(&mut self, stats: &Stats) {
        add(&mut self.gone, stats);
        self.stale = true;
    }

    /// When the sums have to be made next; none while nothing happens.
    pub fn due(&self) -> Option<Nanos> {
        self.stale.then(|| self.collected + EVERY)
    }
}

impl Core {
    /// Sums up, at most once a second: a walk over ten thousand flows costs a millisecond.
    #[inline]
    pub fn collect(&mut self, worked: bool) {
        self.totals.stale |= worked;
        if self.totals.due().is_some_and(|due| due <= self.now) {
            self.collect_now();
        }
    }

    #[cold]
    fn collect_now(&mut self) {
        let mut sum = self.totals.gone;
        self.flows.iter().for_each(|conn| add(&mut sum, conn.flow.stats()));
        publish(&sum, self.counters());
        self.totals.stale = false;
        self.totals.collected = self.now;
    }
}

const EVERY: Nanos = Nanos::secs(1);
