//! What a peer can do wrong in shared memory. Every one ends the channel; nothing else is harmed.

use core::fmt;

/// A bad value found in shared memory, with the value and what would have been good. Both ends use it: the engine of an
/// application, the application of an engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PeerFault {
    /// A descriptor of a kind that this ring does not carry.
    Kind {
        /// Which ring.
        ring: &'static str,
        /// The kind found.
        kind: u8,
    },
    /// Flags that mean nothing.
    Flags {
        /// Which ring.
        ring: &'static str,
        /// The flags found.
        flags: u8,
    },
    /// A flow index beyond the table.
    FlowIndex {
        /// The index found.
        index: u32,
        /// Flows of the channel.
        flows: u32,
    },
    /// A handle that is not (or no longer) given out.
    FlowStale {
        /// Its index.
        index: u32,
        /// Its generation.
        generation: u32,
        /// The generation given out; 0: none.
        current: u32,
    },
    /// A submission after the handle was closed.
    FlowClosed {
        /// The flow's index.
        index: u32,
    },
    /// A token beyond the pool.
    Token {
        /// The token found.
        token: u32,
        /// Tokens of the pool.
        units: u32,
    },
    /// A token submitted that the engine still has, or returned (completed) that the other side does not have.
    TokenState {
        /// Which ring.
        ring: &'static str,
        /// The token.
        token: u32,
    },
    /// A payload longer than its place.
    Length {
        /// Bytes found.
        len: u32,
        /// Bytes allowed.
        max: u32,
    },
    /// A message longer than allowed.
    MessageLength {
        /// Bytes found.
        len: u32,
    },
    /// A batch of no entries, or of more than fit a slot.
    Batch {
        /// Entries found.
        count: u32,
        /// Entries that fit.
        max: u32,
    },
    /// One flow holds more than its part of the pool.
    Quota {
        /// The flow's index.
        index: u32,
        /// Tokens that a flow may hold.
        quota: u32,
    },
    /// A reason that means nothing.
    Reason {
        /// The number found.
        code: u8,
    },
    /// An answer that nobody asked for.
    Unasked {
        /// The number of the request.
        id: u32,
    },
}

impl fmt::Display for PeerFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Kind { ring, kind } => write!(f, "{ring} ring: descriptor of unknown kind {kind}"),
            Self::Flags { ring, flags } => write!(f, "{ring} ring: unknown flags {flags:#04x}"),
            Self::FlowIndex { index, flows } => write!(f, "flow {index} of a channel with {flows} flows"),
            Self::FlowStale { index, generation, current } => {
                write!(f, "flow {index}.{generation} is not open, its place has generation {current}")
            }
            Self::FlowClosed { index } => write!(f, "flow {index} used after it was closed"),
            Self::Token { token, units } => write!(f, "token {token} of a pool of {units}"),
            Self::TokenState { ring, token } => {
                write!(f, "{ring} ring: token {token} is not the sender's to give")
            }
            Self::Length { len, max } => write!(f, "unit of {len} bytes where at most {max} fit"),
            Self::MessageLength { len } => {
                write!(f, "message of {len} bytes, longer than {}", crate::MAX_MESSAGE)
            }
            Self::Batch { count, max } => write!(f, "batch of {count} entries, not 1..={max}"),
            Self::Quota { index, quota } => {
                write!(f, "flow {index} holds more than its quota of {quota} units")
            }
            Self::Reason { code } => write!(f, "unknown reason {code}"),
            Self::Unasked { id } => write!(f, "answer to request {id} that was not made"),
        }
    }
}

impl core::error::Error for PeerFault {}
