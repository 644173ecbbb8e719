//! Questions to all engines of a host, or to the one that knows, and their answers joined as they come, a few rows at a time.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::ops::Bound;

use machnet_engine::neighbor::{NeighborRow, NeighborState};
use machnet_engine::{
    Answer, ChannelRow, ConnectionId, ConnectionRow, ConnectionState, EngineHandle, ListenerRow, PeerRow,
    Query, Rows, Shared,
};
use machnet_wire::{Mac, Nanos};

use crate::channels::{Channels, Row};

/// What may be asked of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
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
    Connection {
        /// Its engine.
        engine: u16,
        /// Its name there.
        connection: ConnectionId,
    },
    /// The hosts that it has connections with, and its next hops.
    Peers,
}

/// A part of an answer.
#[derive(Debug)]
pub struct Part {
    /// The number that [`Host::ask`](crate::Host::ask) gave.
    pub question: u64,
    /// Some rows, in no order.
    pub rows: Listed,
    /// There is no more.
    pub last: bool,
}

/// Rows of the kind that was asked for.
#[derive(Debug)]
pub enum Listed {
    /// Of [`Question::Channels`].
    Channels(Vec<(Row, ChannelRow)>),
    /// Of [`Question::Listeners`], each with its channel.
    Listeners(Vec<(Row, ListenerRow)>),
    /// Of [`Question::Connections`], with their engine.
    Connections(u16, Vec<ConnectionRow>),
    /// Of [`Question::Connection`], with its engine; `None`: there is no such connection.
    Connection(u16, Option<Box<ConnectionState>>),
    /// Of [`Question::Peers`].
    Peers(Vec<Peer>),
}

/// A host that this one has connections with, or a next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its address.
    pub ip: Ipv4Addr,
    /// Where packets for it go first; `None`: nowhere, or they never leave this host.
    pub next_hop: Option<Ipv4Addr>,
    /// The MAC of that next hop, where it is known.
    pub mac: Option<Mac>,
    /// What is known of that next hop.
    pub state: PeerState,
    /// Its connections with all engines.
    pub connections: u32,
    /// How long ago it was heard, or its first connection began; `None` where there is none.
    pub heard_ago: Option<Nanos>,
}

/// What is known of a peer's next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerState {
    /// The peer is this host itself.
    Local,
    /// As in the table of neighbours.
    NextHop(NeighborState),
    /// It is not in the table of neighbours: nobody has sent to it for a while.
    Unknown,
}

/// Why a question is not asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAsked {
    /// So many questions are being answered, the most at once.
    Many(usize),
    /// There is no such engine.
    NoEngine {
        /// The number that was asked for.
        engine: u16,
        /// How many there are.
        engines: u16,
    },
    /// This engine has too many notes to read.
    Busy(u16),
}

impl fmt::Display for NotAsked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotAsked::Many(most) => {
                write!(f, "{most} questions are being answered, the most at once; ask again")
            }
            NotAsked::NoEngine { engine, engines } => {
                write!(f, "there is no engine {engine}; this sidecar has 0 to {}", engines.saturating_sub(1))
            }
            NotAsked::Busy(engine) => write!(f, "engine {engine} has too many notes to read; ask again"),
        }
    }
}

/// Questions under way.
#[derive(Debug, Default)]
pub(crate) struct Questions {
    last: u64,
    all: BTreeMap<u64, Asked>,
}

/// A question that some engines have not answered in full.
#[derive(Debug)]
struct Asked {
    /// How many have not.
    engines: usize,
    /// What they have said of peers, which may have connections with several.
    peers: BTreeMap<Ipv4Addr, (u32, Nanos)>,
}

impl Questions {
    /// Asks the engines that know; returns the number that the parts of the answer carry.
    pub fn ask(
        &mut self,
        question: Question,
        engines: &[EngineHandle],
        channels: &Channels,
    ) -> Result<u64, NotAsked> {
        if self.all.len() >= MOST {
            return Err(NotAsked::Many(MOST));
        }
        let (query, only) = match question {
            Question::Channels => (Query::Channels, None),
            Question::Listeners => (Query::Listeners, None),
            Question::Connections { channel } => {
                (Query::Connections { channel }, channel.and_then(|number| channels.engine(number)))
            }
            Question::Connection { engine, connection } => (Query::Connection(connection), Some(engine)),
            Question::Peers => (Query::Peers, None),
        };
        let asked = match only {
            None => engines,
            Some(engine) => engines
                .get(usize::from(engine)..=usize::from(engine))
                .ok_or(NotAsked::NoEngine { engine, engines: engines.len() as u16 })?,
        };
        self.last += 1;
        let refused = asked.iter().position(|engine| !engine.ask(self.last, query));
        // Where one engine could not be asked, what those before it answer goes to nobody; until they have answered, the question counts.
        let told = refused.unwrap_or(asked.len());
        if told > 0 {
            self.all.insert(self.last, Asked { engines: told, peers: BTreeMap::new() });
        }
        match refused {
            None => Ok(self.last),
            Some(at) => Err(NotAsked::Busy(asked[at].engine())),
        }
    }

    /// An engine has said something: what that means to whoever asked.
    pub fn take(&mut self, answer: Answer, shared: &Shared, channels: &Channels) -> Option<Part> {
        let Answer { query: question, engine, rows, last } = answer;
        let asked = self.all.get_mut(&question)?;
        asked.engines -= usize::from(last);
        let last = asked.engines == 0;
        let rows = match rows {
            Rows::Channels(rows) => {
                // One that is over meanwhile has no owner any more, and is left out.
                let known = rows.into_iter().filter_map(|row| Some((channels.row(row.channel)?, row)));
                Listed::Channels(known.collect())
            }
            Rows::Listeners(rows) => {
                let known = rows.into_iter().filter_map(|row| Some((channels.row(row.channel)?, row)));
                Listed::Listeners(known.collect())
            }
            Rows::Connections(rows) => Listed::Connections(engine, rows),
            Rows::Connection(state) => Listed::Connection(engine, state),
            Rows::Peers(rows) => {
                asked.add(&rows);
                if !last {
                    return None;
                }
                Listed::Peers(peers(&asked.peers, shared))
            }
        };
        if last {
            self.all.remove(&question);
        }
        Some(Part { question, rows, last })
    }
}

impl Asked {
    fn add(&mut self, rows: &[PeerRow]) {
        for row in rows {
            let (connections, heard_ago) = self.peers.entry(row.ip).or_insert((0, Nanos::MAX));
            *connections += row.connections;
            *heard_ago = row.heard_ago.min(*heard_ago);
        }
    }
}

/// Those with connections, and the next hops that no connection goes to.
fn peers(known: &BTreeMap<Ipv4Addr, (u32, Nanos)>, shared: &Shared) -> Vec<Peer> {
    let mut hops = BTreeMap::new();
    let mut after = Bound::Unbounded;
    // A page at a time: engines wait for the lock.
    loop {
        let page = shared.neighbors.page(after, PAGE);
        let Some(NeighborRow { ip, .. }) = page.last() else { break };
        after = Bound::Excluded(*ip);
        hops.extend(page.iter().map(|row| (row.ip, *row)));
    }
    let own = shared.config.neighbor.ip;
    let with_connections = known.iter().map(|(&ip, &(connections, heard_ago))| {
        let next_hop = shared.neighbors.next_hop(ip).filter(|_| ip != own);
        let hop = next_hop.and_then(|hop| hops.get(&hop));
        let state = match hop {
            _ if ip == own => PeerState::Local,
            Some(hop) => PeerState::NextHop(hop.state),
            None => PeerState::Unknown,
        };
        let mac = hop.and_then(|hop| hop.mac);
        Peer { ip, next_hop, mac, state, connections, heard_ago: Some(heard_ago) }
    });
    let others = hops.values().filter(|row| !known.contains_key(&row.ip)).map(|row| Peer {
        ip: row.ip,
        next_hop: Some(row.ip),
        mac: row.mac,
        state: PeerState::NextHop(row.state),
        connections: 0,
        heard_ago: None,
    });
    with_connections.chain(others).collect()
}

/// Questions that engines may be at work with.
const MOST: usize = 16;
/// Neighbours that are read under one lock.
const PAGE: usize = 64;
