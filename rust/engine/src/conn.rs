//! A connection: a flow with what the engine knows of it.

use machnet_flow::{Closed, Flow};
use machnet_shm::{FlowId, HeldUnit, Limit, Origin, Reason};
use machnet_wire::{self as wire, Nanos};

use crate::admission::Claim;
use crate::ids::{ChannelIndex, ConnKey};
use crate::path::OutPath;
use crate::table::Keyed;
use crate::view::Outgoing;

/// One connection.
pub(crate) struct Conn {
    pub flow: Flow<Outgoing, HeldUnit>,
    pub who: Who,
    pub bound: Bound,
    /// How our packets get to the peer.
    pub path: OutPath,
    /// When the wheel will next ask about this flow.
    pub scheduled: Nanos,
    /// Whether its handle is in the ready queue, or parked until its next hop is known.
    pub queued: bool,
    /// What its peer may send, or waits for.
    pub claim: Claim,
    /// Bytes that it may still send in its turn; zero or less between turns, by how much the last one was exceeded.
    pub deficit: i32,
    /// How often the engine had stalled, as the flow knows.
    pub stalls: u32,
    /// Whether the key is claimed for this flow among all engines: the application chose the local port, or listeners share it.
    pub claimed: bool,
    /// Why the engine ended it, where the flow itself cannot know.
    pub reason: Option<Reason>,
}

/// Who a connection is, to its peer and to its application.
pub(crate) struct Who {
    pub key: ConnKey,
    /// How it came to be.
    pub origin: Origin,
    /// Number of the peer's address in `Peers`.
    pub peer: u32,
    /// The application has let go of the handle.
    pub released: bool,
}

impl Keyed for Conn {
    fn key(&self) -> ConnKey {
        self.who.key
    }
}

/// What the flow is to its channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    /// No channel: the application is gone, or has no handle any more.
    Free,
    /// Not yet announced.
    Opening { channel: ChannelIndex, id: FlowId },
    /// Announced.
    Open { channel: ChannelIndex, id: FlowId },
}

impl Bound {
    /// Channel and handle.
    #[inline]
    pub fn place(self) -> Option<(ChannelIndex, FlowId)> {
        match self {
            Bound::Free => None,
            Bound::Opening { channel, id } | Bound::Open { channel, id } => Some((channel, id)),
        }
    }
}

/// What the application hears of a flow's end.
pub(crate) fn reason(closed: Closed) -> Reason {
    match closed {
        Closed::Clean => Reason::Clean,
        Closed::Timeout | Closed::NoProgress => Reason::Timeout,
        Closed::ByPeer(reason) => match reason {
            wire::Reason::Refused => Reason::Refused,
            wire::Reason::PortInUse => Reason::InUse,
            wire::Reason::NoResources => Reason::NoResources,
            wire::Reason::AppFull { limit } => Reason::Full(Limit::PeerConnections, limit),
            wire::Reason::EngineFull { limit } => Reason::Full(Limit::PeerEngineConnections, limit),
            wire::Reason::Ending => Reason::PeerEnding,
            wire::Reason::Aborted => Reason::Reset,
            wire::Reason::Closed | wire::Reason::AppGone | wire::Reason::Timeout => Reason::Gone,
            wire::Reason::Protocol => Reason::Protocol,
        },
        Closed::ByUs(reason) => match reason {
            wire::Reason::Protocol => Reason::Protocol,
            wire::Reason::NoResources => Reason::NoResources,
            _ => Reason::Local,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Beside it an idle connection has its key in the table, its place among the deadlines, and nothing else.
    #[test]
    fn an_idle_connection_is_small() {
        let size = size_of::<Option<Conn>>();
        assert!(size <= 928, "{size} bytes, and there may be a hundred thousand");
    }
}
