//! A flow with what the engine knows of it, and the flow's view of its channel.

use core::net::Ipv4Addr;

use machnet_flow::{Closed, Event, Flow, Io};
use machnet_shm::{EngineEnd, Established, FlowId, HeldUnit, Limit, Reason, TxUnit};
use machnet_wire::{self as wire, Fragment, Mac, Nanos};

use crate::budget::{Budget, Promise};
use crate::counters::Counters;
use crate::peers::Peers;

/// A unit to send: the application's, or an end that the engine makes on its behalf and that costs no token.
#[derive(Debug)]
pub(crate) enum Token {
    Unit(TxUnit),
    Own,
}

/// One connection.
pub(crate) struct Conn {
    pub flow: Flow<Token, HeldUnit>,
    pub key: u64,
    pub bound: Bound,
    /// What the application hears of it when it is established.
    pub about: Established,
    /// The application has let go of the handle.
    pub closed: bool,
    /// Number of the peer's address in `Peers`.
    pub peer: u32,
    /// UDP ports (source, destination) of our direction.
    pub ports: (u16, u16),
    pub hop: Hop,
    /// When the wheel will next ask about this flow.
    pub scheduled: Nanos,
    /// Whether its handle is in the ready or in the waiting queue.
    pub queued: bool,
    /// What its peer, who has something to send, waits for.
    pub waits: Waits,
    /// What it has of the engine's budget.
    pub promise: Promise,
    /// Bytes that it may still send in its turn; zero or less between turns, by how much the last one was exceeded.
    pub deficit: i64,
    /// How often the engine had stalled when the flow was last told.
    pub stalls: u32,
    /// Whether the local port was the application's choice and is claimed for this flow.
    pub claimed: bool,
    /// Why the engine ended it, where the flow itself cannot know.
    pub reason: Option<Reason>,
}

/// What a peer waits for that may not send what it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waits {
    No,
    /// The application does not read.
    Reader,
    /// Others have the channel's units; the handle is among the channel's starved.
    Units,
    /// As much is promised as the receive ring holds; the handle is in the budget's queue.
    Ring,
}

/// The next hop, as the flow knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hop {
    /// The peer is on this host.
    Loop,
    /// Not looked up yet.
    Unknown { ip: Ipv4Addr },
    /// As of this version of the table.
    Known { ip: Ipv4Addr, mac: Mac, version: u64 },
}

/// What the flow is to its channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    /// No channel: the application is gone, or has no handle any more.
    Free,
    /// Not yet announced.
    Opening { channel: u32, id: FlowId },
    /// Announced.
    Open { channel: u32, id: FlowId },
}

impl Bound {
    /// Channel and handle.
    #[inline]
    pub fn place(self) -> Option<(u32, FlowId)> {
        match self {
            Bound::Free => None,
            Bound::Opening { channel, id } | Bound::Open { channel, id } => Some((channel, id)),
        }
    }
}

/// What a flow sees of the world during one call.
pub(crate) struct View<'a> {
    /// The channel and the flow's handle there; none when the application is gone.
    pub lane: Option<(&'a mut EngineEnd, FlowId)>,
    pub counters: &'a Counters,
    pub about: &'a Established,
    /// The application has let go of the handle: nothing is delivered any more.
    pub silent: bool,
    /// All peers, and the number of this one.
    pub peers: &'a Peers,
    pub peer: u32,
    /// How long before this round the ring had last been looked at.
    pub gap: Nanos,
    /// The engine's phase.
    pub phase: bool,
    /// What the flow promises comes out of this; nothing where its packets never see the ring.
    pub budget: Option<&'a mut Budget>,
    pub promise: &'a mut Promise,
    pub established: bool,
    pub closed: Option<Closed>,
}

impl Io for View<'_> {
    type Tx = Token;
    type Held = HeldUnit;

    #[inline]
    fn deliver(&mut self, unit: Fragment, payload: &[u8]) -> bool {
        let Some((end, id)) = &mut self.lane else { return false };
        let delivered = end.deliver(*id, unit, payload);
        if delivered {
            self.counters.rx_units.add(1);
            self.came(1);
        }
        delivered
    }

    fn hold(&mut self, _unit: Fragment, payload: &[u8]) -> Option<HeldUnit> {
        let held = self.lane.as_mut()?.0.hold(payload)?;
        self.came(1);
        Some(held)
    }

    fn deliver_held(&mut self, unit: Fragment, held: HeldUnit) {
        if let Some((end, id)) = &mut self.lane {
            self.counters.rx_units.add(1);
            end.deliver_held(*id, unit, held);
        }
    }

    fn discard_held(&mut self, held: HeldUnit) {
        if let Some((end, _)) = &mut self.lane {
            end.discard_held(held);
        }
    }

    #[inline]
    fn complete(&mut self, tx: Token) {
        if let (Some((end, _)), Token::Unit(unit)) = (&mut self.lane, tx) {
            end.complete(unit);
        }
    }

    #[inline]
    fn grant(&mut self, more: u32, known: u32) -> u32 {
        let more = match &self.budget {
            Some(budget) => budget.allow(self.promise, more, known),
            None => more,
        };
        self.reserve(more)
    }

    fn take(&mut self, more: u32) -> u32 {
        let taken = self.reserve(more);
        if self.budget.as_ref().is_some_and(|budget| budget.is_exceeded()) {
            self.counters.budget_overruns.add(taken.into());
        }
        taken
    }

    #[inline]
    fn unread(&self) -> u32 {
        self.lane.as_ref().map_or(0, |(end, id)| end.unread(*id))
    }

    fn ungrant(&mut self, n: u32) {
        if let Some((end, id)) = &mut self.lane {
            end.ungrant(*id, n);
            self.came(n);
        }
    }

    #[inline]
    fn drain_epoch(&self) -> bool {
        self.phase
    }

    fn gap(&self) -> Nanos {
        self.gap
    }

    fn peer_heard(&self) -> Nanos {
        self.peers.last_heard(self.peer)
    }

    fn event(&mut self, event: Event) {
        if let Some((end, id)) = &mut self.lane {
            match event {
                Event::Established => end.established(self.about),
                Event::PeerFin | Event::Aborted if self.silent => end.ungrant(*id, 1),
                Event::PeerFin => end.fin(*id),
                Event::Aborted => end.aborted(*id),
                Event::Closed(_) => {}
            }
            if matches!(event, Event::PeerFin | Event::Aborted) {
                self.came(1);
            }
        }
        match event {
            Event::Established => self.established = true,
            Event::Closed(closed) => self.closed = Some(closed),
            Event::PeerFin | Event::Aborted => {}
        }
    }
}

impl View<'_> {
    #[inline]
    fn reserve(&mut self, more: u32) -> u32 {
        let Some((end, id)) = &mut self.lane else { return 0 };
        let got = end.grant(*id, more);
        if let Some(budget) = &mut self.budget {
            budget.add(self.promise, got);
        }
        got
    }

    /// Promised units have come, or are not promised any more.
    #[inline]
    fn came(&mut self, n: u32) {
        if let Some(budget) = &mut self.budget {
            budget.sub(self.promise, n);
        }
    }
}

/// What the application hears of a flow's end.
pub(crate) fn reason(closed: Closed) -> Reason {
    match closed {
        Closed::Clean => Reason::Clean,
        Closed::Timeout => Reason::Timeout,
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
