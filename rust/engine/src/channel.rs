//! One channel as its engine serves it: which connection each handle of the application names, its listeners and
//! who has a place in their backlogs.

use std::collections::HashMap;

use machnet_shm::{EngineEnd, FlowId, FlowStats, PeerFault};
use machnet_wire::Nanos;

use crate::ids::{ChannelNumber, ConnIndex, Member};
use crate::ports::{Full, Sharing};
use crate::watch::Watch;

/// A channel as its engine serves it.
pub(crate) struct Channel {
    /// Its number within the sidecar.
    pub number: ChannelNumber,
    /// Whose it is.
    pub member: Member,
    pub end: EngineEnd,
    /// By index of the application's handle: the connection that it names, unless that is over.
    conns: Vec<Option<ConnIndex>>,
    /// How many of them name one.
    live: u32,
    pub listeners: HashMap<u32, Listener>,
    /// Listeners that are closed, each with the number of its half-open connections, which will still come to be; the application is told
    /// after them.
    pub closing: HashMap<u32, u32>,
    /// By index of the application's handle: its place in a backlog.
    offered: Vec<Option<Place>>,
    /// Since when it has had as many connections as it may, as was seen when one was asked for.
    full_since: Option<Nanos>,
    /// By index of the application's handle: what was known of a connection when it ended, until the application lets go of it.
    ended: HashMap<u32, (FlowId, FlowStats)>,
    /// The application is served no more; what it submitted is still delivered.
    pub draining: bool,
    /// When the linger of a channel that drains is over.
    pub linger_until: Nanos,
    /// Why a channel that drains ends.
    pub why: End,
    /// Whether it is polled, and what is known of its doorbell.
    pub watch: Watch,
}

/// A listener of a channel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listener {
    pub port: u16,
    /// With whom it shares the port.
    pub sharing: Sharing,
    pub backlog: u32,
    /// Connections that the application has not taken: half-open ones, and those that wait for it.
    pub waiting: u32,
    /// Those of them whose callers have not shown that they are where they say they are.
    pub unproven: u32,
}

/// A connection's place in a backlog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    listener: u32,
    unproven: bool,
}

/// Why a channel ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Its application left.
    Left,
    /// An operator had it end, though its application may still be there.
    Drained,
    /// The sidecar ends.
    Shutdown,
    /// Its application wrote something impossible.
    Fault(PeerFault),
}

impl Channel {
    /// A channel that nobody serves yet. Made and dropped outside of the engine's thread: both take their time.
    pub fn new(number: ChannelNumber, member: Member, end: EngineEnd) -> Box<Self> {
        let flows = end.geometry().flows as usize;
        Box::new(Self {
            number,
            member,
            end,
            conns: vec![None; flows],
            live: 0,
            listeners: HashMap::new(),
            closing: HashMap::new(),
            offered: vec![None; flows],
            full_since: None,
            ended: HashMap::new(),
            draining: false,
            linger_until: Nanos::MAX,
            why: End::Left,
            watch: Watch::new(Nanos::ZERO),
        })
    }

    /// The connection that an application's handle names, unless it is over.
    #[inline]
    pub fn conn(&self, id: FlowId) -> Option<ConnIndex> {
        self.conn_at(id.index)
    }

    /// The same by the handle's index alone.
    #[inline]
    pub fn conn_at(&self, index: u32) -> Option<ConnIndex> {
        self.conns.get(index as usize).copied().flatten()
    }

    /// All connections that handles name.
    pub fn conns(&self) -> impl Iterator<Item = ConnIndex> {
        self.conns.iter().copied().flatten()
    }

    /// How many those are.
    pub fn live(&self) -> u32 {
        self.live
    }

    /// A handle names a connection from now on.
    pub fn name(&mut self, id: FlowId, conn: ConnIndex) {
        if let Some(slot) = self.conns.get_mut(id.index as usize) {
            self.live += u32::from(slot.is_none());
            *slot = Some(conn);
        }
    }

    /// The connection that a handle named is over.
    pub fn unname(&mut self, id: FlowId) {
        if self.conns.get_mut(id.index as usize).and_then(Option::take).is_some() {
            self.live -= 1;
        }
    }

    /// Makes a connection; `None` where it has as many as it may.
    pub fn open_flow(&mut self, now: Nanos) -> Option<FlowId> {
        // Before and after, so that it is known since when it has been full.
        self.full(now);
        let opened = self.end.open_flow();
        self.full(now);
        opened
    }

    /// What there is to say where it has as many connections as it may.
    pub fn full(&mut self, now: Nanos) -> Option<Full> {
        let bound = self.end.geometry().flows;
        if self.end.flows() < bound as usize {
            self.full_since = None;
            return None;
        }
        Some(Full { bound, since: *self.full_since.get_or_insert(now) })
    }

    /// A connection has ended that the application has a handle of.
    #[cold]
    pub fn keep_last(&mut self, id: FlowId, last: FlowStats) {
        self.ended.insert(id.index, (id, last));
    }

    /// What was known of a connection when it ended.
    pub fn ended(&self, id: FlowId) -> Option<FlowStats> {
        self.ended.get(&id.index).filter(|(ended, _)| *ended == id).map(|&(_, last)| last)
    }

    /// The application has let go of a connection.
    #[cold]
    pub fn forget_last(&mut self, id: FlowId) {
        self.ended.remove(&id.index);
    }

    /// Whether a listener's backlog is full, as far as is known. `None`: there is no such listener.
    pub fn is_full(&self, listener: u32) -> Option<bool> {
        self.listeners.get(&listener).map(|listener| listener.waiting >= listener.backlog)
    }

    /// Whether a listener remembers so many callers that have proved nothing that it gives cookies to more of them. Half of its places are
    /// for those who have, however many forged SYNs come.
    pub fn is_wary(&self, listener: u32) -> bool {
        self.listeners.get(&listener).is_some_and(|listener| listener.unproven >= listener.backlog / 2)
    }

    /// Gives a connection that begins a place in a listener's backlog. `unproven`: its caller has not shown that he is where he says he is.
    pub fn take_place(&mut self, id: FlowId, number: u32, unproven: bool) {
        if let (Some(slot), Some(listener)) =
            (self.offered.get_mut(id.index as usize), self.listeners.get_mut(&number))
        {
            listener.waiting += 1;
            listener.unproven += u32::from(unproven);
            *slot = Some(Place { listener: number, unproven });
        }
    }

    /// The caller has shown that he is where he says he is.
    pub fn prove_place(&mut self, id: FlowId) {
        if let Some(Some(place)) = self.offered.get_mut(id.index as usize)
            && let Some(listener) = self.listeners.get_mut(&place.listener)
        {
            listener.unproven -= u32::from(std::mem::take(&mut place.unproven));
        }
    }

    /// The application has taken or forgotten a connection, or it never came to be: its place, if it has one, is free.
    pub fn free_place(&mut self, id: FlowId) {
        if let Some(place) = self.offered.get_mut(id.index as usize).and_then(Option::take)
            && let Some(listener) = self.listeners.get_mut(&place.listener)
        {
            listener.waiting -= 1;
            listener.unproven -= u32::from(place.unproven);
        }
    }

    /// A listener closes, and with it all places in its backlog. `None`: there is none.
    pub fn unlisten(&mut self, number: u32) -> Option<Listener> {
        let listener = self.listeners.remove(&number)?;
        for place in
            self.offered.iter_mut().filter(|place| place.is_some_and(|place| place.listener == number))
        {
            *place = None;
        }
        Some(listener)
    }
}
