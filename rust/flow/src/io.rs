//! What a flow asks of whoever drives it, and what it tells.

use machnet_wire::{Fragment, Header, Hello, Nanos, Part, PathEntry, Paths, Reason, Reset};

/// What the engine gives a flow for the length of one call: buffers of the channel, promises of buffers, news.
///
/// **Accounting of receive units.** [`Io::grant`] and [`Io::take`] reserve units; a unit reserved is consumed by exactly one of
/// [`Io::deliver`] (returning true), [`Io::deliver_held`], [`Event::PeerFin`] and [`Event::Aborted`], or goes back by
/// [`Io::ungrant`]. A held unit keeps its reservation until it is delivered or discarded; [`Io::discard_held`] frees
/// the buffer, and the reservation goes back by `ungrant` of its own.
///
/// After [`Event::Closed`] a flow calls nothing here any more: all tokens are complete, all reservations returned.
pub trait Io {
    /// A unit to send: an inline copy or a lent buffer.
    type Tx;
    /// A unit received out of order and kept.
    type Held;

    /// Takes the next unit in order, straight from the packet. False: there is no buffer, which within the grant
    /// cannot happen; the unit then counts as refused, and the peer sends it later.
    fn deliver(&mut self, unit: Fragment, payload: &[u8]) -> bool;
    /// Keeps a unit that arrived ahead of its turn. `None`: no buffer; the peer retransmits the unit.
    fn hold(&mut self, unit: Fragment, payload: &[u8]) -> Option<Self::Held>;
    /// Keeps room for a unit of `len` bytes that comes in parts, to be filled by [`Io::write_part`] before anything else but
    /// [`Io::discard_held`]. `None` as above.
    fn hold_parts(&mut self, len: u32) -> Option<Self::Held>;
    /// Fills in a part of such a unit, from byte `at` on. It ends within the unit.
    fn write_part(&mut self, held: &mut Self::Held, at: u32, part: &[u8]);
    /// Takes a kept unit, now next in order.
    fn deliver_held(&mut self, unit: Fragment, held: Self::Held);
    /// Drops a kept unit.
    fn discard_held(&mut self, held: Self::Held);
    /// Takes back a unit that was sent and acknowledged, or given up.
    fn complete(&mut self, tx: Self::Tx);
    /// Reserves up to `more` receive units for this flow, to be promised to its peer; how many it got. The peer has said that
    /// it has something to send for `known` of them; the others are so that it need not ask first when it has. `round`: the least
    /// round trip of the path, for over a long one what is promised comes spread ([`crate::Arriving`]); zero: not known.
    fn grant(&mut self, more: u32, known: u32, round: Nanos) -> u32;
    /// Reserves up to `more` receive units for what has arrived without a promise; how many it got.
    fn take(&mut self, more: u32) -> u32;
    /// Units delivered to the application that it has not given back.
    fn unread(&self) -> u32;
    /// Gives `n` reserved units back.
    fn ungrant(&mut self, n: u32);
    /// Hears what happened, in order with the units delivered.
    fn event(&mut self, event: Event);
    /// When something was last heard from the peer's address on any flow: one who speaks elsewhere is not dead. Asked
    /// once in a while, and only while the peer owes an answer.
    fn peer_heard(&self) -> Nanos {
        Nanos::ZERO
    }
    /// The engine's drain epoch. When it changes, flows that have met congestion hold back for a moment.
    fn drain_epoch(&self) -> bool {
        false
    }
    /// The largest IP packet that goes to the peer, where another flow has found that it is less than both ends take. Asked when the flow
    /// begins, and when its packets get lost.
    fn known_mtu(&self) -> Option<u16> {
        None
    }
    /// So large an IP packet goes to the peer, as probes have told, and no larger one.
    fn learned_mtu(&mut self, mtu: u16) {
        let _ = mtu;
    }
    /// How long before now the receive ring had last been looked at: so long a packet may have lain there.
    fn gap(&self) -> Nanos {
        Nanos::ZERO
    }
}

/// A unit that the application wants sent.
#[derive(Clone, Copy, Debug)]
pub struct Unit<T> {
    /// Its place in the message.
    pub fragment: Fragment,
    /// Bytes of payload. More than [`crate::Flow::unit_size`] goes as several units on the wire.
    pub len: u32,
    /// The engine's token; comes back by [`Io::complete`].
    pub tx: T,
}

/// News of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// Both ends know of the connection; data may follow at once.
    Established,
    /// The peer sends no more. Consumes one reserved receive unit.
    PeerFin,
    /// The message being received will not be finished: its sender gave it up. Consumes one reserved receive unit.
    Aborted,
    /// The flow is over: always the last event, exactly once, also after [`crate::Flow::reset`], and also for an
    /// accepted flow that never was established. The flow itself lives on until [`crate::Flow::is_done`].
    Closed(Closed),
}

/// How a flow ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Closed {
    /// Both directions finished and everything was acknowledged.
    Clean,
    /// Nothing was heard for the configured time: to our SYN, or in a connection.
    Timeout,
    /// The peer was heard, and yet the same unit was not acknowledged for [`crate::Config::no_progress`], however often it was sent.
    NoProgress,
    /// The peer said so: refused, gone, reset.
    ByPeer(Reason),
    /// This end said so: the application's reset, or a peer that broke the protocol.
    ByUs(Reason),
}

/// One packet to send. The header is complete but for `backlog`, which is the engine's to fill in.
#[derive(Debug)]
pub struct Transmit<'a, T> {
    /// Machnet header.
    pub header: Header,
    /// With `HIT`: the path word.
    pub hit: Option<PathEntry>,
    /// With `PART`: which part of its unit the body is.
    pub part: Option<Part>,
    /// SACK words that follow the header.
    pub sack: &'a [u64],
    /// What follows them.
    pub body: Body<'a, T>,
}

/// What follows header and SACK words.
#[derive(Debug)]
pub enum Body<'a, T> {
    /// Nothing.
    None,
    /// `len` bytes of a unit's payload from `offset` on.
    Unit {
        /// The token that `send` took.
        tx: &'a T,
        /// First byte within the token's payload.
        offset: u32,
        /// Bytes, at most [`crate::Flow::unit_size`].
        len: u32,
    },
    /// So many bytes that mean nothing, of a PING.
    Padding(u32),
    /// SYN, SYN-ACK, and the ACK that brings a cookie back. The engine fills in `hit` of a SYN-ACK.
    Hello(Hello),
    /// PATHS. None as the flow gives it: the engine fills in 1 to 32.
    Paths(&'a [PathEntry]),
    /// RST.
    Reset(Reset),
}

impl<T> Body<'_, T> {
    /// Bytes of the body.
    pub fn len(&self) -> usize {
        match self {
            Body::None => 0,
            Body::Unit { len, .. } | Body::Padding(len) => *len as usize,
            Body::Hello(_) => Hello::LEN,
            Body::Paths(entries) => Paths::ENTRY * entries.len(),
            Body::Reset(_) => Reset::LEN,
        }
    }

    /// Whether there is no body.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Transmit<'_, T> {
    /// Bytes that follow UDP's header.
    pub fn len(&self) -> usize {
        let words = usize::from(self.hit.is_some()) + usize::from(self.part.is_some()) + self.sack.len();
        machnet_wire::header::LEN + machnet_wire::header::WORD * words + self.body.len()
    }

    /// Never: there is always a header.
    pub fn is_empty(&self) -> bool {
        false
    }
}
