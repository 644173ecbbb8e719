//! What other threads may ask of an engine, and what they are told. How it is answered: `answers.rs`.
//!
//! An answer comes in parts. Each row is true for the round in which it was made: what began or ended in between may be missing or
//! listed, what was there all the time is listed once.

use crate::rows::{ChannelRow, ConnectionId, ConnectionRow, ConnectionState, PeerRow};

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

impl Rows {
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Rows::Channels(rows) => rows.is_empty(),
            Rows::Connections(rows) => rows.is_empty(),
            Rows::Connection(_) => false,
            Rows::Peers(rows) => rows.is_empty(),
        }
    }
}
