//! Questions of other threads, answered a few rows at a time between the engine's rounds, so that a question about ten thousand
//! connections holds up nobody's packets.

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use machnet_shm::Origin;
use machnet_wire::Nanos;

use crate::channel::{Channel, Listener};
use crate::channels::Channels;
use crate::conn::Conn;
use crate::conns::Conns;
use crate::ids::{ChannelIndex, ChannelNumber, ConnHandle, EngineIndex};
use crate::query::{
    Answer, ChannelRow, ConnectionId, ConnectionRow, ConnectionStage, ConnectionState, ListenerRow, Query,
    Rows, Units,
};

/// Questions that are not answered in full yet, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Queries(VecDeque<Pending>);

#[derive(Debug)]
struct Pending {
    number: u64,
    query: Query,
    /// The first place in its table that was not looked at.
    next: usize,
}

/// What is asked about.
pub(crate) struct Subjects<'a> {
    pub now: Nanos,
    pub engine: EngineIndex,
    pub channels: &'a Channels,
    pub conns: &'a Conns,
}

impl Queries {
    /// Files a question.
    pub fn ask(&mut self, number: u64, query: Query) {
        self.0.push_back(Pending { number, query, next: 0 });
    }

    /// Whether nothing is asked.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Works at the oldest question for one step, and puts it behind the others if there is more. `None`: there was nothing to tell.
    pub fn step(&mut self, subjects: &Subjects<'_>) -> Option<Answer> {
        let mut pending = self.0.pop_front()?;
        let places = pending.next..pending.next + STEP;
        let (rows, end) = subjects.rows(pending.query, places.clone());
        let last = places.end >= end;
        let (query, engine) = (pending.number, subjects.engine.0);
        if !last {
            pending.next = places.end;
            self.0.push_back(pending);
        }
        (last || !rows.is_empty()).then_some(Answer { query, engine, rows, last })
    }
}

impl Subjects<'_> {
    /// The rows of what is in these places of the table that is asked about, and how many places that table has.
    fn rows(&self, query: Query, places: core::ops::Range<usize>) -> (Rows, usize) {
        match query {
            Query::Channels => {
                let end = self.channels.places();
                let some = (places.start..places.end.min(end))
                    .filter_map(|place| self.channels.get(ChannelIndex(place as u32)));
                (Rows::Channels(some.map(ChannelRow::of).collect()), end)
            }
            Query::Listeners => {
                // A channel may have a thousand: one of them at each step.
                let channel = self.channels.get(ChannelIndex((places.start / STEP) as u32));
                let rows = channel.map(|channel| ListenerRow::of(channel).collect()).unwrap_or_default();
                (Rows::Listeners(rows), self.channels.places() * STEP)
            }
            Query::Connections { channel } => {
                let end = self.conns.places();
                let some = (places.start..places.end.min(end)).filter_map(|place| self.conns.at(place));
                let rows = some
                    .map(|(handle, conn)| self.connection(handle, conn))
                    .filter(|row| channel.is_none() || row.channel == channel);
                (Rows::Connections(rows.collect()), end)
            }
            Query::Connection(ConnectionId(handle)) => {
                let state = self
                    .conns
                    .resolve(handle)
                    .map(|conn| Box::new(ConnectionState::of(conn, self.connection(handle, conn), self.now)));
                (Rows::Connection(state), 0)
            }
            Query::Peers => {
                let peers = &self.conns.peers;
                let end = peers.places();
                let some = (places.start..places.end.min(end)).filter_map(|at| peers.row(at, self.now));
                (Rows::Peers(some.collect()), end)
            }
        }
    }

    fn connection(&self, handle: ConnHandle, conn: &Conn) -> ConnectionRow {
        let channel = conn.bound.place().and_then(|(at, _)| self.channels.get(at));
        let channel = channel.map(|channel| channel.number);
        ConnectionRow::of(conn, ConnectionId(handle), channel, self.conns.ip())
    }
}

impl ChannelRow {
    pub(crate) fn of(channel: &Channel) -> Self {
        let (submitted, delivered, reserved) = channel.end.usage();
        Self {
            channel: channel.number.0,
            draining: channel.draining,
            connections: channel.live(),
            listeners: channel.listeners.len() as u32,
            units: Units { total: channel.end.geometry().units, submitted, delivered, reserved },
        }
    }
}

impl ListenerRow {
    fn of(channel: &Channel) -> impl Iterator<Item = Self> {
        channel.listeners.values().map(|&Listener { port, sharing, backlog, waiting, .. }| Self {
            port,
            channel: channel.number.0,
            reuse_port: sharing.user.is_some(),
            group: sharing.application.is_some(),
            backlog,
            waiting,
        })
    }
}

impl ConnectionRow {
    pub(crate) fn of(
        conn: &Conn,
        connection: ConnectionId,
        channel: Option<ChannelNumber>,
        ip: Ipv4Addr,
    ) -> Self {
        let flow = &conn.flow;
        let closing = conn.who.released || flow.is_finished() || flow.is_lingering() || flow.is_done();
        Self {
            connection,
            channel: channel.map(|number| number.0),
            local: (ip, conn.who.key.local_port()),
            peer: conn.who.key.peer(),
            stage: match flow.is_established() {
                _ if closing => ConnectionStage::Closing,
                true => ConnectionStage::Open,
                false => ConnectionStage::Opening,
            },
            dialled: matches!(conn.who.origin, Origin::Dialled(_)),
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
            waits: conn.claim.waiting(),
            timeout: flow.timeout(),
            next_hop: conn.path.next_hop(),
            udp_ports: (conn.path.pair().src, conn.path.pair().dst),
            pairing: (!conn.path.is_local()).then(|| conn.path.pairing()),
            wanted_queue: flow.peer().map(|peer| peer.queue),
            misdirected: conn.path.misdirected(),
            counters: flow.stats(),
        }
    }
}

/// Places of a table that are looked at in one round: about as much work as a burst of packets.
const STEP: usize = 64;
