//! What an engine tells an application of one connection: a record of 96 bytes, which the slot of the answer carries.

use crate::Reason;
use crate::fault::PeerFault;
use crate::slot::INLINE;

/// What an engine knows of one connection, or knew when it ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowStats {
    /// Smoothed round-trip time, nanoseconds; 0: no sample yet. RFC 6298.
    pub srtt_ns: u64,
    /// Its mean deviation, nanoseconds.
    pub rtt_var_ns: u64,
    /// Payload bytes of units sent for the first time.
    pub bytes_sent: u64,
    /// Payload bytes delivered in order.
    pub bytes_received: u64,
    /// Units sent for the first time.
    pub units_sent: u64,
    /// Units delivered in order.
    pub units_received: u64,
    /// Units sent again, for whatever reason.
    pub retransmitted: u64,
    /// Retransmission timeouts.
    pub timeouts: u32,
    /// Congestion window, units.
    pub window: u32,
    /// Units sent and not yet acknowledged.
    pub in_flight: u32,
    /// Units submitted and not yet acknowledged, those in flight included.
    pub queued: u32,
    /// Units that the peer has room for beyond those sent.
    pub credit: u32,
    /// Units that the peer was promised room for.
    pub granted: u32,
    /// The engine that serves it.
    pub engine: u16,
    /// UDP ports (source, destination) of our direction.
    pub udp_ports: (u16, u16),
    /// Those of the peer's direction, as last seen; 0: nothing was seen yet, or the peer is on this host.
    pub peer_udp_ports: (u16, u16),
    /// How far it is.
    pub stage: Stage,
    /// Why what is queued does not go now.
    pub waits: Waits,
    /// Whether our UDP ports lead to the queue that the peer wants.
    pub pairing: Pairs,
    /// Why it ended, once it has.
    pub reason: Option<Reason>,
}

/// Declares an enum whose numbers cross the channel.
macro_rules! numbered {
    ($(#[$meta:meta])* $name:ident, $what:literal; $($(#[$doc:meta])* $variant:ident = $number:literal,)+) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum $name {
            $($(#[$doc])* $variant = $number,)+
        }

        impl $name {
            fn checked(number: u8) -> Result<$name, PeerFault> {
                match number {
                    $($number => Ok($name::$variant),)+
                    _ => {
                        let bound = [$($number),+].len() as u32;
                        Err(PeerFault::Bound { what: $what, value: number.into(), bound })
                    }
                }
            }
        }
    };
}

numbered! {
    /// How far a connection is.
    Stage, "stage of a connection";
    /// The handshake is under way.
    Opening = 0,
    /// Both ends may send.
    Open = 1,
    /// This end has finished sending.
    Closing = 2,
    /// It is over.
    Over = 3,
}

numbered! {
    /// Why a connection does not send what is queued.
    Waits, "why a connection waits";
    /// Nothing is queued that was not sent, or it goes at once.
    Nothing = 0,
    /// As many units are in flight as the congestion window allows.
    Window = 1,
    /// The peer has promised no more room: its application does not read, or others have what there is.
    Credit = 2,
    /// Units go one after the other, at a pace.
    Pacing = 3,
    /// The next hop's address is not known yet.
    NextHop = 4,
    /// The NIC has no room, or other connections have their turn.
    Turn = 5,
}

numbered! {
    /// Whether the UDP ports that a connection sends by lead to the queue that its peer wants.
    Pairs, "pairing of a connection";
    /// The peer is on this host: there are none.
    None = 0,
    /// They do: the peer said so, or every pair does.
    Verified = 1,
    /// They do not, or nobody knows; others are searched for.
    Searching = 2,
    /// The same, and nothing is done about it just now.
    Unverified = 3,
    /// None were found that do: the peer hands packets over between its engines.
    GivenUp = 4,
}

impl FlowStats {
    /// Of a connection of which nothing is known yet.
    pub const NONE: FlowStats = FlowStats {
        srtt_ns: 0,
        rtt_var_ns: 0,
        bytes_sent: 0,
        bytes_received: 0,
        units_sent: 0,
        units_received: 0,
        retransmitted: 0,
        timeouts: 0,
        window: 0,
        in_flight: 0,
        queued: 0,
        credit: 0,
        granted: 0,
        engine: 0,
        udp_ports: (0, 0),
        peer_udp_ports: (0, 0),
        stage: Stage::Opening,
        waits: Waits::Nothing,
        pairing: Pairs::None,
        reason: None,
    };

    /// As the slot carries it; docs/channel.md has the offsets.
    #[cfg(feature = "engine")]
    pub(crate) fn encode(&self) -> [u8; INLINE] {
        let mut bytes = [0; INLINE];
        let long = [
            self.srtt_ns,
            self.rtt_var_ns,
            self.bytes_sent,
            self.bytes_received,
            self.units_sent,
            self.units_received,
            self.retransmitted,
        ];
        for (at, word) in long.into_iter().enumerate() {
            bytes[at * 8..][..8].copy_from_slice(&word.to_le_bytes());
        }
        let words = [self.timeouts, self.window, self.in_flight, self.queued, self.credit, self.granted];
        for (at, word) in words.into_iter().enumerate() {
            bytes[WORDS + at * 4..][..4].copy_from_slice(&word.to_le_bytes());
        }
        let ((source, destination), (peer_source, peer_destination)) = (self.udp_ports, self.peer_udp_ports);
        for (at, short) in
            [self.engine, source, destination, peer_source, peer_destination].into_iter().enumerate()
        {
            bytes[SHORTS + at * 2..][..2].copy_from_slice(&short.to_le_bytes());
        }
        let reason = self.reason.map_or(0, |reason| reason.to_words().0 as u8);
        bytes[BYTES..][..4].copy_from_slice(&[
            self.stage as u8,
            self.waits as u8,
            self.pairing as u8,
            reason,
        ]);
        bytes
    }

    /// From a slot's copy. A reason that names a limit comes without it.
    pub(crate) fn decode(bytes: &[u8; INLINE]) -> Result<FlowStats, PeerFault> {
        let long = |at: usize| u64::from_le_bytes(array(bytes, at * 8));
        let word = |at: usize| u32::from_le_bytes(array(bytes, WORDS + at * 4));
        let short = |at: usize| u16::from_le_bytes(array(bytes, SHORTS + at * 2));
        let [stage, waits, pairing, reason] = array(bytes, BYTES);
        Ok(FlowStats {
            srtt_ns: long(0),
            rtt_var_ns: long(1),
            bytes_sent: long(2),
            bytes_received: long(3),
            units_sent: long(4),
            units_received: long(5),
            retransmitted: long(6),
            timeouts: word(0),
            window: word(1),
            in_flight: word(2),
            queued: word(3),
            credit: word(4),
            granted: word(5),
            engine: short(0),
            udp_ports: (short(1), short(2)),
            peer_udp_ports: (short(3), short(4)),
            stage: Stage::checked(stage)?,
            waits: Waits::checked(waits)?,
            pairing: Pairs::checked(pairing)?,
            reason: match reason {
                0 => None,
                number => Some(Reason::checked(number.into(), 0)?),
            },
        })
    }
}

/// So many bytes from `at` on.
fn array<const N: usize>(bytes: &[u8; INLINE], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

/// Where the 32-bit, the 16-bit and the 8-bit fields begin.
const WORDS: usize = 7 * 8;
const SHORTS: usize = WORDS + 6 * 4;
const BYTES: usize = SHORTS + 5 * 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_as_it_went_and_every_field_has_bytes_of_its_own() {
        // Bytes that are all different and in range where a range is.
        let mut bytes: [u8; INLINE] = core::array::from_fn(|i| i as u8 + 100);
        bytes[BYTES..].copy_from_slice(&[3, 2, 4, 14, 0, 0]);
        let stats = FlowStats::decode(&bytes).expect("in range");
        assert_eq!(stats.encode(), bytes);
        assert_eq!(
            (stats.stage, stats.waits, stats.pairing, stats.reason),
            (Stage::Over, Waits::Credit, Pairs::GivenUp, Some(Reason::Clean))
        );
    }

    #[test]
    fn numbers_beyond_their_range_are_faults() {
        for (at, bound) in [(BYTES, 4), (BYTES + 1, 6), (BYTES + 2, 5), (BYTES + 3, Reason::END as u8)] {
            for value in 0..=u8::MAX {
                let mut bytes = FlowStats::NONE.encode();
                bytes[at] = value;
                assert_eq!(FlowStats::decode(&bytes).is_ok(), value < bound, "byte {at}: {value}");
            }
        }
    }
}
