//! What an engine tells of its channels, connections and peers to other threads that ask.

use core::fmt;
use core::net::Ipv4Addr;
use core::str::FromStr;

use machnet_flow::Stats;
use machnet_shm::Origin;
use machnet_wire::{Mac, Nanos};

use crate::channels::Channel;
use crate::conn::{Conn, Hop, Waits};

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
pub struct ConnectionId(pub(crate) u64);

/// Index and generation, as `7-1`.
impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0 as u32, self.0 >> 32)
    }
}

impl FromStr for ConnectionId {
    type Err = NotAConnectionId;

    fn from_str(text: &str) -> Result<Self, NotAConnectionId> {
        let (index, generation) = text.split_once('-').ok_or(NotAConnectionId)?;
        let number = |digits: &str| digits.parse::<u32>().map_err(|_| NotAConnectionId);
        Ok(Self(u64::from(number(generation)?) << 32 | u64::from(number(index)?)))
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
    /// What its flow counted.
    pub counters: Stats,
}

/// What a peer waits for that may not send what it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// The application, which does not read.
    Reader,
    /// Units of the channel, which others have.
    Units,
    /// Room in the receive ring, all of which is promised.
    ReceiveRing,
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

impl ChannelRow {
    pub(crate) fn of(channel: &Channel) -> Self {
        let (submitted, delivered, reserved) = channel.end.usage();
        Self {
            channel: channel.number,
            draining: channel.gone,
            connections: channel.live,
            listeners: channel.listeners.len() as u32,
            units: Units { total: channel.end.geometry().units, submitted, delivered, reserved },
        }
    }
}

impl ConnectionRow {
    pub(crate) fn of(conn: &Conn, connection: ConnectionId, channel: Option<u64>) -> Self {
        let flow = &conn.flow;
        let closing = conn.closed || flow.is_finished() || flow.is_lingering() || flow.is_done();
        Self {
            connection,
            channel,
            local: conn.about.local,
            peer: conn.about.peer,
            stage: match flow.is_established() {
                _ if closing => ConnectionStage::Closing,
                true => ConnectionStage::Open,
                false => ConnectionStage::Opening,
            },
            dialled: matches!(conn.about.origin, Origin::Dialled(_)),
            queued: flow.queued(),
            in_flight: flow.in_flight(),
            rtt: flow.rtt(),
        }
    }
}

impl ConnectionState {
    pub(crate) fn of(conn: &Conn, row: ConnectionRow, now: Nanos) -> Self {
        let flow = &conn.flow;
        Self {
            row,
            window: flow.window(now),
            unit_size: flow.unit_size(),
            credit: flow.credit(),
            promised: flow.promised(),
            waits: match conn.waits {
                Waits::No => None,
                Waits::Reader => Some(Waiting::Reader),
                Waits::Units => Some(Waiting::Units),
                Waits::Ring => Some(Waiting::ReceiveRing),
            },
            timeout: flow.timeout(),
            next_hop: match conn.hop {
                Hop::Loop => None,
                Hop::Unknown { ip } => Some((ip, None)),
                Hop::Known { ip, mac, .. } => Some((ip, Some(mac))),
            },
            udp_ports: conn.ports,
            counters: *flow.stats(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_connection_is_read_as_it_is_written() {
        for raw in [0, 7, 1 << 32 | 5, u64::MAX] {
            assert_eq!(ConnectionId(raw).to_string().parse(), Ok(ConnectionId(raw)));
        }
        assert_eq!(ConnectionId(1 << 32 | 7).to_string(), "7-1");
        for wrong in ["", "7", "-", "7-", "-1", "7-1-2", "x-1", "4294967296-0", "0-4294967296"] {
            assert_eq!(wrong.parse::<ConnectionId>(), Err(NotAConnectionId), "{wrong}");
        }
    }
}
