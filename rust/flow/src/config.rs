//! What a flow can be told when it begins.

use machnet_wire::{Hello, Nanos, Seq};

/// Settings of all flows of a sidecar. Times are checked nowhere: zero means "at once".
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Config {
    /// First retry of a SYN; doubles each time, up to `rto_max`. RFC 6298 section 2.1 has 1 s, which is an eternity in a
    /// rack.
    pub syn_retry: Nanos,
    /// How long a half-open accepted flow waits for the peer's first packet.
    pub half_open: Nanos,
    /// How long an acknowledgement waits for data to ride on.
    pub ack_delay: Nanos,
    /// Packets of data after which an acknowledgement goes at once.
    pub ack_every: u8,
    /// Lower bound of the retransmission timeout.
    pub rto_min: Nanos,
    /// Upper bound of the retransmission timeout, back-off included, and of the pauses between SYNs and credit probes.
    pub rto_max: Nanos,
    /// Lower bound of the tail-loss probe's timeout.
    pub pto_min: Nanos,
    /// Silence after which an idle flow asks whether the peer lives.
    pub keep_alive: Nanos,
    /// A peer that owes an answer is dead so long after the question, or after its last sign of life on whatever
    /// connection, which is counted anew.
    pub dead_after: Nanos,
    /// How long after a path was found to take less than both ends do longer packets are tried again.
    pub path_raise: Nanos,
    /// A connection ends when its first unit under way is not acknowledged for so long, whatever else is heard; not before
    /// `dead_after`. A unit that is refused for want of a buffer does not count: its peer's application does not read.
    pub no_progress: Nanos,
    /// Units promised to a peer that begins to send; doubles while the application reads them.
    pub credit_first: u32,
    /// The most units promised, at most [`crate::REACH`]; what there is to promise is the channel's affair ([`crate::Io::grant`]).
    pub credit_max: u32,
    /// Idle time after which credit lapses, beside two round trips.
    pub credit_lapse: Nanos,
    /// Congestion window of a new flow, units.
    pub window_first: u32,
    /// How long a flow closed both ways stays to acknowledge what is repeated to it, from the last repetition on; a new
    /// connection with its ports ends that at once. Above `rto_max`, so that the next repetition still meets it.
    pub linger: Nanos,
    /// How long a flow whose application is gone waits for the peer's FIN after its own was acknowledged.
    pub orphan: Nanos,
}

impl Config {
    /// The longest round trip that a lapse of credit waits for: what a round trip is, the peer has a say in.
    pub(crate) fn lapse_rtt(&self) -> Nanos {
        self.credit_lapse * 100
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            syn_retry: Nanos::millis(10),
            half_open: Nanos::secs(5),
            ack_delay: Nanos::micros(25),
            ack_every: 4,
            rto_min: Nanos::millis(1),
            rto_max: Nanos::millis(200),
            pto_min: Nanos::micros(200),
            keep_alive: Nanos::secs(1),
            dead_after: Nanos::secs(2),
            no_progress: Nanos::secs(5),
            path_raise: Nanos::secs(600),
            credit_first: 8,
            credit_max: crate::REACH,
            credit_lapse: Nanos::millis(1),
            window_first: 8,
            linger: Nanos::millis(500),
            orphan: Nanos::secs(60),
        }
    }
}

/// Who the two ends are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Setup {
    /// Our Machnet port.
    pub local_port: u16,
    /// The peer's Machnet port.
    pub remote_port: u16,
    /// What we say of ourselves: `tag` is random, never 0 and drawn for this flow; `mtu` is that of our NIC. A flow has one lane
    /// and seals nothing, so `lanes` is 1 and `seal` 0. That it takes parts it says itself.
    pub hello: Hello,
    /// Number of our first unit and first transmission. Any; random ones make a trace easier to tell apart.
    pub first: Seq,
    /// How many copies the packets of the handshake go out in.
    pub syns: Syns,
}

/// How many copies of SYN and SYN-ACK go out. They differ in their transmission numbers alone; the engine gives each UDP ports of its own.
/// 0 counts as 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Syns {
    /// Of the first SYN.
    pub first: u16,
    /// Of each later one, after silence.
    pub again: u16,
    /// SYN-ACKs for each SYN that comes. More than 1 gives a forged source more than it sent.
    pub answers: u16,
}

impl Syns {
    /// One of each.
    pub const ONE: Syns = Syns { first: 1, again: 1, answers: 1 };
}
