//! What an application submits and returns, once it is checked, and what the engine holds of it.

use crate::slot::{INLINE, NO_BUFFER};
use crate::{FlowId, Fragment};

/// A unit to send: the engine's own copy of an inline one, or a buffer that stays lent until completion.
#[derive(Clone, Copy, Debug)]
pub struct TxUnit {
    pub(super) flow: u32,
    pub(super) buffer: u32,
    pub(super) len: u16,
    pub(super) inline: [u8; INLINE],
}

impl TxUnit {
    /// One without payload.
    #[inline]
    pub(super) fn empty(flow: u32) -> TxUnit {
        TxUnit { flow, buffer: NO_BUFFER, len: 0, inline: [0; INLINE] }
    }

    /// Bytes of payload.
    #[inline]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Whether there is no payload.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// A received unit kept in a buffer until its turn.
#[derive(Debug)]
pub struct HeldUnit {
    pub(super) buffer: u32,
    pub(super) len: u16,
}

/// What an application submitted, checked.
#[derive(Clone, Copy, Debug)]
pub enum Submission {
    /// One unit of a message.
    Data {
        /// The connection.
        flow: FlowId,
        /// Its place in the message.
        fragment: Fragment,
        /// Its bytes.
        unit: TxUnit,
    },
    /// The message under way is given up. The token goes back by [`EngineEnd::complete`](super::EngineEnd::complete).
    Abort {
        /// The connection.
        flow: FlowId,
        /// The token.
        unit: TxUnit,
    },
    /// No more data. The token goes back by [`EngineEnd::complete`](super::EngineEnd::complete).
    Fin {
        /// The connection.
        flow: FlowId,
        /// The token.
        unit: TxUnit,
    },
    /// The application forgets the connection: send what there is, then FIN.
    Close {
        /// The connection.
        flow: FlowId,
    },
    /// The connection is over at once.
    Reset {
        /// The connection.
        flow: FlowId,
    },
}

/// What an application gave back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Returned {
    /// So many units of the connection with this index.
    Units(u32, u32),
    /// The place in its listener's backlog: the application has taken this connection.
    Place(FlowId),
}
