//! What other threads may ask of an engine, and what it tells them of its channels, connections and peers. `answers.rs` makes the answers.
//!
//! An answer comes in parts. Each row is true for the round in which it was made: what began or ended in between may be missing or
//! listed, what was there all the time is listed once.

use core::fmt;
use core::net::Ipv4Addr;
use core::str::FromStr;

use machnet_flow::Stats;
use machnet_wire::{Mac, Nanos};

use crate::admission::Waiting;
use crate::ids::{ConnHandle, ConnIndex};
use crate::rss::Pairing;

/// What may be asked of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Query {
    /// Its channels.
    Channels,
    /// The listeners of its channels.
    Listeners,
    /// Its connections, or those of one channel.
    Connections {
        /// The channel's number.
        channel: Option<u64>,
    },
    /// One connection in full.
    Connection(ConnectionId),
    /// The peers that it has connections with.
    Peers,
}

/// A part of an engine's answer.
#[derive(Debug)]
pub struct Answer {
    /// The number that came with the question.
    pub query: u64,
    /// Which engine answers.
    pub engine: u16,
    /// Some rows, 64 at most; of listeners, those of one channel.
    pub rows: Rows,
    /// This engine has nothing to add.
    pub last: bool,
}

/// Rows of the kind that was asked for.
#[derive(Debug)]
pub enum Rows {
    /// Of [`Query::Channels`].
    Channels(Vec<ChannelRow>),
    /// Of [`Query::Listeners`].
    Listeners(Vec<ListenerRow>),
    /// Of [`Query::Connections`].
    Connections(Vec<ConnectionRow>),
    /// Of [`Query::Connection`]; `None`: there is no such connection.
    Connection(Option<Box<ConnectionState>>),
    /// Of [`Query::Peers`].
    Peers(Vec<PeerRow>),
}

impl Rows {
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Rows::Channels(rows) => rows.is_empty(),
            Rows::Listeners(rows) => rows.is_empty(),
            Rows::Connections(rows) => rows.is_empty(),
            Rows::Connection(_) => false,
            Rows::Peers(rows) => rows.is_empty(),
        }
    }
}

/// A channel that an engine serves, or that drains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelRow {
    /// Its number within the sidecar.
    pub channel: u64,
    /// It is served no more: what was submitted is still being delivered.
    pub draining: bool,
    /// Its connections, those that are being opened included.
    pub connections: u32,
    /// Its listeners.
    pub listeners: u32,
    /// Its units.
    pub units: Units,
}

/// A listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenerRow {
    /// The port.
    pub port: u16,
    /// Whose it is, by the channel's number within the sidecar.
    pub channel: u64,
    /// Whether other listeners of its user may have the port, too.
    pub reuse_port: bool,
    /// Whether other listeners of its application may have the port.
    pub group: bool,
    /// Connections that may wait for the application at a time.
    pub backlog: u32,
    /// Connections that the application has not taken, half-open ones included.
    pub waiting: u32,
}

/// Units of one channel, by who has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Units {
    /// In each direction.
    pub total: u32,
    /// Submitted by the application and not yet acknowledged.
    pub submitted: u32,
    /// Delivered to the application and not yet returned.
    pub delivered: u32,
    /// Promised to peers, or kept until what is missing before them arrives.
    pub reserved: u32,
}

/// Names a connection of one engine. It is not used again for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionId(pub(crate) ConnHandle);

/// Index and generation, as `7-1`.
impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0.index.place(), self.0.generation)
    }
}

impl FromStr for ConnectionId {
    type Err = NotAConnectionId;

    fn from_str(text: &str) -> Result<Self, NotAConnectionId> {
        let (index, generation) = text.split_once('-').ok_or(NotAConnectionId)?;
        let number = |digits: &str| digits.parse::<u32>().map_err(|_| NotAConnectionId);
        let index = ConnIndex::try_new(number(index)?).ok_or(NotAConnectionId)?;
        Ok(Self(ConnHandle { index, generation: number(generation)? }))
    }
}

/// The text is no [`ConnectionId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAConnectionId;

/// One connection, in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionRow {
    /// Its name.
    pub connection: ConnectionId,
    /// Its channel; `None` when the application has no handle of it any more.
    pub channel: Option<u64>,
    /// Our address and Machnet port.
    pub local: (Ipv4Addr, u16),
    /// The peer's.
    pub peer: (Ipv4Addr, u16),
    /// How far it is.
    pub stage: ConnectionStage,
    /// Whether the application of this host asked for it; else the peer's did.
    pub dialled: bool,
    /// Units submitted and not yet acknowledged.
    pub queued: u32,
    /// Units sent and not yet acknowledged.
    pub in_flight: u32,
    /// Smoothed round-trip time; `None` until the first sample.
    pub rtt: Option<Nanos>,
}

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionStage {
    /// The handshake is under way.
    Opening,
    /// Both ends may send.
    Open,
    /// This end has finished sending, or the connection is over and only acknowledges repetitions.
    Closing,
}

/// Everything about one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionState {
    /// In short.
    pub row: ConnectionRow,
    /// Congestion window, units.
    pub window: u32,
    /// Most payload of one packet, bytes.
    pub unit_size: u32,
    /// Units that the peer has room for beyond those sent.
    pub credit: u32,
    /// Units that the peer was promised room for.
    pub promised: u32,
    /// What the peer, who has something to send, waits for.
    pub waits: Option<Waiting>,
    /// How long the peer may be silent about what is in flight before it is sent again, back-off included.
    pub timeout: Nanos,
    /// The next hop's address and, where it is known, its MAC; `None` for a peer on this host.
    pub next_hop: Option<(Ipv4Addr, Option<Mac>)>,
    /// UDP ports (source, destination) of our direction.
    pub udp_ports: (u16, u16),
    /// Whether they lead to the queue that the peer wants; `None` for a peer on this host.
    pub pairing: Option<Pairing>,
    /// That queue, once the peer has said.
    pub wanted_queue: Option<u16>,
    /// Packets that came on another queue than this engine's, though the peer could have known better.
    pub misdirected: u64,
    /// What its flow counted.
    pub counters: Stats,
}

/// A peer with connections of one engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerRow {
    /// Its address.
    pub ip: Ipv4Addr,
    /// Its connections with this engine.
    pub connections: u32,
    /// How long ago this engine heard it last, or its first connection began.
    pub heard_ago: Nanos,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_connection_is_read_as_it_is_written() {
        let id = |place, generation| ConnectionId(ConnHandle { index: ConnIndex::new(place), generation });
        for id in [id(0, 0), id(7, 0), id(5, 1), id(u32::MAX as usize - 1, u32::MAX)] {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        assert_eq!(id(7, 1).to_string(), "7-1");
        for wrong in ["", "7", "-", "7-", "-1", "7-1-2", "x-1", "4294967295-0", "0-4294967296"] {
            assert_eq!(wrong.parse::<ConnectionId>(), Err(NotAConnectionId), "{wrong}");
        }
    }
}
