//! What a peer can do wrong. Any of these ends its channel, and nothing else.

use core::fmt;

/// A value in shared memory that an honest peer never writes. It ends the channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PeerFault {
    /// A slot of a kind that this ring does not carry.
    Kind {
        /// The ring.
        ring: &'static str,
        /// The kind found.
        kind: u8,
    },
    /// A number outside its bound.
    Bound {
        /// What the number is.
        what: &'static str,
        /// The number found.
        value: u32,
        /// Allowed: less than this, or for lengths up to it.
        bound: u32,
    },
    /// A connection that is not there, or of another generation.
    Flow {
        /// Index found.
        index: u32,
        /// Generation found.
        generation: u32,
    },
    /// A buffer that its sender does not hold.
    Buffer {
        /// Index found.
        index: u32,
    },
    /// More units under way than there are tokens.
    Tokens {
        /// Connection.
        index: u32,
        /// Units it would have.
        value: u32,
        /// Its bound.
        bound: u32,
    },
    /// A unit that does not continue the message under way, or comes after the end.
    Framing {
        /// Connection.
        index: u32,
        /// Bytes of the message that were still to come.
        left: u32,
        /// Bytes of the unit.
        len: u32,
    },
}

impl fmt::Display for PeerFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            PeerFault::Kind { ring, kind } => write!(f, "{ring} ring: slot of kind {kind}"),
            PeerFault::Bound { what, value, bound } => write!(f, "{what}: {value}, bound {bound}"),
            PeerFault::Flow { index, generation } => {
                write!(f, "connection {index} of generation {generation} is not there")
            }
            PeerFault::Buffer { index } => write!(f, "buffer {index} is not the peer's to give"),
            PeerFault::Tokens { index, value, bound } => {
                write!(f, "connection {index}: {value} units under way, bound {bound}")
            }
            PeerFault::Framing { index, left, len } => {
                write!(
                    f,
                    "connection {index}: a unit of {len} bytes with {left} bytes of its message to come"
                )
            }
        }
    }
}

impl core::error::Error for PeerFault {}
