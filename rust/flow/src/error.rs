//! What can be wrong with what a flow is given.

use core::fmt;

use machnet_wire::ParseError;

/// Why a packet was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FlowError {
    /// It carries a tag that is not ours: of an earlier connection, of a restarted peer, or a forger's. The engine
    /// answers with an RST (`Closed`, tag 0, `echo` = the tag carried), unless it is an RST itself.
    Tag,
    /// A SYN for this port pair, and nothing holds this flow any more (half-open or lingering): the engine drops the
    /// flow and treats the SYN as if there had been none. Nothing was told to `Io`, for the application knows nothing
    /// of this flow (any more).
    Superseded,
    /// The peer, who knows our tag, broke the protocol in this way. The flow is closed and an RST is on its way.
    Protocol(&'static str),
    /// Its body does not parse; it was ignored.
    Malformed(ParseError),
    /// The flow is over; the packet means nothing to it.
    Over,
}

impl fmt::Display for FlowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FlowError::Tag => f.write_str("packet carries the tag of another connection"),
            FlowError::Superseded => f.write_str("a new SYN takes the place of this flow"),
            FlowError::Protocol(what) => write!(f, "peer broke the protocol: {what}"),
            FlowError::Malformed(error) => write!(f, "packet's body does not parse: {error}"),
            FlowError::Over => f.write_str("flow is over"),
        }
    }
}

impl core::error::Error for FlowError {}

/// A unit that was not taken, and why. The token is the caller's again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotSent<T> {
    /// The token given.
    pub tx: T,
    /// Why.
    pub why: SendError,
}

/// Why a unit was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendError {
    /// Not established, finished already, or over.
    NotOpen,
    /// Its place in the message is impossible: begins within a message, goes on without one, or lengths do not add up.
    Malformed(&'static str),
    /// Too many units wait: more than [`crate::QUEUE_MAX`].
    Full,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendError::NotOpen => f.write_str("flow takes no data in this state"),
            SendError::Malformed(what) => write!(f, "unit does not fit its message: {what}"),
            SendError::Full => write!(f, "more than {} units wait", crate::QUEUE_MAX),
        }
    }
}
