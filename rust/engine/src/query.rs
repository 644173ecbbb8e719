//! Questions of other threads about what an engine has, answered a few rows at a time between the engine's rounds, so that a question
//! about ten thousand connections holds up nobody's packets.
//!
//! An answer comes in parts. Each row is true for the round in which it was made: what began or ended in between may be missing or
//! listed, what was there all the time is listed once.

use std::collections::VecDeque;

use machnet_wire::Nanos;

use crate::channels::Channel;
use crate::conn::Conn;
use crate::peers::Peers;
use crate::rows::{ChannelRow, ConnectionId, ConnectionRow, ConnectionState, PeerRow};
use crate::table::Table;

/// What may be asked of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Query {
    /// Its channels.
    Channels,
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
    /// Some rows, 64 at most.
    pub rows: Rows,
    /// This engine has nothing to add.
    pub last: bool,
}

/// Rows of the kind that was asked for.
#[derive(Debug)]
pub enum Rows {
    /// Of [`Query::Channels`].
    Channels(Vec<ChannelRow>),
    /// Of [`Query::Connections`].
    Connections(Vec<ConnectionRow>),
    /// Of [`Query::Connection`]; `None`: there is no such connection.
    Connection(Option<Box<ConnectionState>>),
    /// Of [`Query::Peers`].
    Peers(Vec<PeerRow>),
}

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
    pub engine: u16,
    pub channels: &'a [Option<Box<Channel>>],
    pub flows: &'a Table<Conn>,
    pub peers: &'a Peers,
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
        let (query, engine) = (pending.number, subjects.engine);
        if !last {
            pending.next = places.end;
            self.0.push_back(pending);
        }
        (last || !rows.is_empty()).then_some(Answer { query, engine, rows, last })
    }
}

impl Rows {
    fn is_empty(&self) -> bool {
        match self {
            Rows::Channels(rows) => rows.is_empty(),
            Rows::Connections(rows) => rows.is_empty(),
            Rows::Connection(_) => false,
            Rows::Peers(rows) => rows.is_empty(),
        }
    }
}

impl Subjects<'_> {
    /// The rows of what is in these places of the table that is asked about, and how many places that table has.
    fn rows(&self, query: Query, places: core::ops::Range<usize>) -> (Rows, usize) {
        match query {
            Query::Channels => {
                let some = self.channels.iter().skip(places.start).take(places.len()).flatten();
                (Rows::Channels(some.map(|channel| ChannelRow::of(channel)).collect()), self.channels.len())
            }
            Query::Connections { channel } => {
                let end = self.flows.places();
                let some = (places.start..places.end.min(end)).filter_map(|at| self.connection(at as u32));
                let rows = some.map(|(_, row)| row).filter(|row| channel.is_none() || row.channel == channel);
                (Rows::Connections(rows.collect()), end)
            }
            Query::Connection(ConnectionId(handle)) => {
                let found = self.flows.resolve(handle).and_then(|index| self.connection(index));
                let state = found.map(|(conn, row)| Box::new(ConnectionState::of(conn, row, self.now)));
                (Rows::Connection(state), 0)
            }
            Query::Peers => {
                let end = self.peers.places();
                let some = (places.start..places.end.min(end)).filter_map(|at| self.peers.row(at, self.now));
                (Rows::Peers(some.collect()), end)
            }
        }
    }

    fn connection(&self, index: u32) -> Option<(&Conn, ConnectionRow)> {
        let conn = self.flows.get(index)?;
        let channel = conn.bound.place().and_then(|(at, _)| self.channels.get(at as usize)?.as_ref());
        let id = ConnectionId(self.flows.handle_of(index));
        Some((conn, ConnectionRow::of(conn, id, channel.map(|channel| channel.number))))
    }
}

/// Places of a table that are looked at in one round: about as much work as a burst of packets.
const STEP: usize = 64;
