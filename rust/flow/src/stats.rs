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
        /// PINGs sent that are padded to find out whether packets of some length arrive
        pmtu_probes: Counter, Count;
        /// times a path was found to take shorter packets than before
        pmtu_shrunk: Counter, Count;
        /// times a path was found to take longer packets than before
        pmtu_raised: Counter, Count;
        /// packets sent with a part of a unit that is too long for its path
        parts_sent: Counter, Count;
        /// packets taken with a part of a unit
        parts_received: Counter, Count;
        /// round trips sampled
        rtt_samples: Counter, Count;
    }
}

/// The counters as a flow keeps them.
#[derive(Clone, Default, Debug)]
pub(crate) struct Counts {
    often: Often,
    /// The others, and of those above what 32 bits cannot hold.
    rare: Option<Box<Rare>>,
}

#[derive(Clone, Copy, Default, Debug)]
struct Rare {
    stats: Stats,
    /// How often the bytes sent, and those delivered, went beyond 32 bits.
    sent: u32,
    delivered: u32,
}

/// Payload bytes of one direction, as far as 32 bits hold them: what goes beyond is with the [`Counts`].
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Bytes(u32);

impl Bytes {
    /// Adds those of a unit; whether they go beyond, which is to be counted.
    #[inline]
    #[must_use]
    pub fn add(&mut self, len: u32) -> bool {
        let (sum, beyond) = self.0.overflowing_add(len);
        self.0 = sum;
        beyond
    }
}

/// Declares the counters that every connection has, with a method for each that counts one.
macro_rules! often {
    ($($name:ident)+) => {
        #[derive(Clone, Copy, Default, Debug)]
        struct Often {
            $($name: u32,)+
        }

        impl Counts {
            $(
                #[inline]
                pub fn $name(&mut self) {
                    self.often.$name = self.often.$name.wrapping_add(1);
                    if self.often.$name == 0 {
                        self.rare().$name += 1 << 32;
                    }
                }
            )+

            /// All of them.
            pub fn stats(&self) -> Stats {
                let mut all = self.rare.as_deref().map_or_else(Stats::default, |rare| rare.stats);
                $(all.$name += u64::from(self.often.$name);)+
                all
            }
        }
    };
}

often! { packets_sent packets_received acks_sent units_sent units_delivered rtt_samples credit_lapsed pings_sent hellos_sent }

impl Counts {
    /// The counters that most connections never need.
    #[cold]
    pub fn rare(&mut self) -> &mut Stats {
        &mut self.rare.get_or_insert_default().stats
    }

    /// Bytes sent went beyond 32 bits.
    #[cold]
    pub fn sent_beyond(&mut self) {
        self.rare.get_or_insert_default().sent += 1;
    }

    /// Bytes delivered did.
    #[cold]
    pub fn delivered_beyond(&mut self) {
        self.rare.get_or_insert_default().delivered += 1;
    }

    /// All bytes (sent, delivered), where these are the last 32 bits of each.
    pub fn bytes(&self, sent: Bytes, delivered: Bytes) -> (u64, u64) {
        let (beyond, also) = self.rare.as_deref().map_or((0, 0), |rare| (rare.sent, rare.delivered));
        let whole = |beyond: u32, rest: Bytes| u64::from(beyond) << 32 | u64::from(rest.0);
        (whole(beyond, sent), whole(also, delivered))
    }
}

/// Counters decide nothing: two flows that differ only in them go on alike, so they are no part of a flow's hash.
impl core::hash::Hash for Counts {
    fn hash<H: core::hash::Hasher>(&self, _: &mut H) {}
}

impl core::hash::Hash for Bytes {
    fn hash<H: core::hash::Hasher>(&self, _: &mut H) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_where_32_bits_end() {
        let mut counts = Counts::default();
        counts.often.units_sent = u32::MAX - 1;
        (0..3).for_each(|_| counts.units_sent());
        counts.rare().lost += 2;
        let all = counts.stats();
        assert_eq!((all.units_sent, all.lost, all.units_delivered), ((1 << 32) + 1, 2, 0));
        let (mut sent, mut delivered) = (Bytes(u32::MAX - 8), Bytes::default());
        for _ in 0..3 {
            if sent.add(9) {
                counts.sent_beyond();
            }
            assert!(!delivered.add(9));
        }
        assert_eq!(counts.bytes(sent, delivered), ((1 << 32) + 18, 27));
    }
}
