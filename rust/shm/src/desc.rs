//! What travels in the rings, as plain values. How they lie in a slot is in `codec`.

use core::fmt;
use core::net::Ipv4Addr;

/// Bytes of a message that a descriptor carries itself; longer units name a buffer.
pub const INLINE: usize = 96;

/// Longest message, bytes: 8 MiB.
pub const MAX_MESSAGE: u32 = 8 << 20;

/// A connection of a channel. The engine gives it out, the application names it, both check it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowId {
    /// Place in the channel's flow table, below `Geometry::flows`.
    pub index: u32,
    /// Counts the uses of that place, from 1. Never 0.
    pub generation: u32,
}

impl FlowId {
    /// `generation << 32 | index`: never 0.
    #[inline]
    pub const fn to_u64(self) -> u64 {
        (self.generation as u64) << 32 | self.index as u64
    }

    /// The reverse of [`FlowId::to_u64`]; any number makes a handle, the tables refuse those they do not know.
    #[inline]
    pub const fn from_u64(word: u64) -> Self {
        Self { index: word as u32, generation: (word >> 32) as u32 }
    }
}

impl fmt::Debug for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index, self.generation)
    }
}

impl fmt::Display for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What a unit is within its message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Fragment {
    /// It begins a message.
    pub begin: bool,
    /// It ends a message.
    pub end: bool,
    /// Total bytes of the message where `begin`, 0..=[`MAX_MESSAGE`]; else 0.
    pub message_len: u32,
}

/// One unit that the application has submitted: a token of the TX direction, and the bytes that go with it. Not `Copy`:
/// it goes back exactly once, by [`crate::EngineEnd::complete`].
#[derive(PartialEq, Eq, Debug)]
pub struct TxUnit {
    pub(crate) token: u32,
    pub(crate) len: u16,
    pub(crate) inline: bool,
}

impl TxUnit {
    /// Bytes of payload; 0 for the units of FIN and ABORT.
    #[inline]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Whether there is no payload.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// One unit that the engine has delivered: a token of the RX direction. It goes back by [`crate::Rx::give_back`]. `Copy`, because
/// the engine checks every return anyhow; a unit given back twice ends the channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RxUnit {
    pub(crate) token: u32,
    pub(crate) len: u16,
    pub(crate) inline: bool,
}

impl RxUnit {
    /// Bytes of payload; 0 for the units of FIN and ABORT.
    #[inline]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Whether there is no payload.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the payload came with the descriptor (the first [`RxUnit::len`] bytes of what [`crate::Rx::pop`] filled) instead of
    /// lying in a buffer ([`crate::Rx::read`]).
    #[inline]
    pub fn is_inline(&self) -> bool {
        self.inline
    }
}

/// A unit that arrived ahead of its turn and waits in a buffer of the RX direction.
#[derive(PartialEq, Eq, Debug)]
pub struct Held {
    pub(crate) token: u32,
    pub(crate) len: u16,
}

impl Held {
    /// Bytes of payload.
    #[inline]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Whether there is no payload.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Application to engine, in order with the data of its flow.
#[derive(PartialEq, Eq, Debug)]
pub enum Submission {
    /// A unit of a message.
    Data {
        /// Of which connection.
        flow: FlowId,
        /// Its place in the message.
        fragment: Fragment,
        /// Token and payload.
        unit: TxUnit,
    },
    /// The message under way is given up.
    Abort {
        /// Of which connection.
        flow: FlowId,
        /// Its token.
        unit: TxUnit,
    },
    /// Half close: nothing follows.
    Fin {
        /// Of which connection.
        flow: FlowId,
        /// Its token.
        unit: TxUnit,
    },
    /// The application forgets the handle: what was sent goes out, then a FIN; nothing is delivered any more.
    Close {
        /// Which connection.
        flow: FlowId,
    },
    /// The application ends the connection at once, and forgets the handle.
    Reset {
        /// Which connection.
        flow: FlowId,
    },
}

/// The two ends of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ends {
    /// Own address.
    pub local_ip: Ipv4Addr,
    /// Own Machnet port.
    pub local_port: u16,
    /// The other end's address.
    pub peer_ip: Ipv4Addr,
    /// The other end's Machnet port.
    pub peer_port: u16,
}

/// What a new connection came of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// This request to connect.
    Connect(u32),
    /// This listener.
    Listener(u32),
}

/// Engine to application, in order with the data of its flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delivery {
    /// The connection exists.
    Established {
        /// Its handle.
        flow: FlowId,
        /// What it came of.
        origin: Origin,
        /// Its addresses.
        ends: Ends,
    },
    /// A unit of a message.
    Data {
        /// Of which connection.
        flow: FlowId,
        /// Its place in the message.
        fragment: Fragment,
        /// Token and payload.
        unit: RxUnit,
    },
    /// The sender gave up the message under way.
    Aborted {
        /// Of which connection.
        flow: FlowId,
        /// Its token.
        unit: RxUnit,
    },
    /// The peer sends no more.
    Fin {
        /// Of which connection.
        flow: FlowId,
        /// Its token.
        unit: RxUnit,
    },
    /// The connection is over. The handle stays until the application closes or resets it.
    Reset {
        /// Which connection.
        flow: FlowId,
        /// Why; [`Reason::Closed`] when both directions finished.
        reason: Reason,
    },
}

/// Application to engine, beside the connections. The numbers are the application's; each names one thing at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// Accept connections.
    Listen {
        /// Number of the listener.
        id: u32,
        /// Own address, or unspecified.
        ip: Ipv4Addr,
        /// Port, or 0: any free one.
        port: u16,
        /// Connections that may wait to be accepted.
        backlog: u32,
    },
    /// Accept no more.
    Unlisten {
        /// Number of the listener.
        id: u32,
    },
    /// Make a connection.
    Connect {
        /// Number of the request.
        id: u32,
        /// Remote address.
        ip: Ipv4Addr,
        /// Remote port.
        port: u16,
        /// Own port, or 0: any free one.
        local_port: u16,
        /// Milliseconds until [`Reason::TimedOut`]; 0: the sidecar's default.
        timeout_ms: u32,
    },
    /// Give a `Connect` up. Its answer still comes: `ConnectFailed`, or `Established` where that was under way.
    Cancel {
        /// Number of the request.
        id: u32,
    },
}

/// Engine to application: exactly one for each `Listen`, `Unlisten`, and for each `Connect` that did not become
/// [`Delivery::Established`]; none for `Cancel`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reply {
    /// The listener stands.
    Listening {
        /// Number of the listener.
        id: u32,
        /// Its port.
        port: u16,
    },
    /// There is no such listener.
    ListenFailed {
        /// Number of the listener.
        id: u32,
        /// Why.
        reason: Reason,
    },
    /// The listener is gone.
    Unlistened {
        /// Number of the listener.
        id: u32,
    },
    /// There is no such connection.
    ConnectFailed {
        /// Number of the request.
        id: u32,
        /// Why.
        reason: Reason,
    },
}

/// Why something ended or was refused. Numbers never change their meaning.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Reason {
    /// Nobody listens at the remote port.
    Refused = 1,
    /// No answer in time.
    TimedOut = 2,
    /// The port is in use.
    InUse = 3,
    /// Out of flows, listeners, channels or memory.
    NoResources = 4,
    /// The peer's application reset the connection.
    Reset = 5,
    /// The peer's application or sidecar is gone.
    Gone = 6,
    /// No route, or the next hop does not answer.
    Unreachable = 7,
    /// A message longer than [`MAX_MESSAGE`].
    TooLarge = 8,
    /// The application gave it up.
    Canceled = 9,
    /// Not allowed by the sidecar's configuration.
    NotPermitted = 10,
    /// The peer broke the protocol.
    Protocol = 11,
    /// Both directions finished: a clean end.
    Closed = 12,
    /// An argument is out of range.
    Invalid = 13,
    /// The local address is not one of the sidecar's.
    NotLocal = 14,
    /// The sidecar is shutting down.
    Shutdown = 15,
    /// Application and sidecar speak different versions of the channel, or lay it out differently.
    Version = 16,
    /// This end's application reset the connection.
    Local = 17,
}

impl Reason {
    /// Of its number; `None` for numbers that mean nothing.
    pub const fn from_u8(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Refused,
            2 => Self::TimedOut,
            3 => Self::InUse,
            4 => Self::NoResources,
            5 => Self::Reset,
            6 => Self::Gone,
            7 => Self::Unreachable,
            8 => Self::TooLarge,
            9 => Self::Canceled,
            10 => Self::NotPermitted,
            11 => Self::Protocol,
            12 => Self::Closed,
            13 => Self::Invalid,
            14 => Self::NotLocal,
            15 => Self::Shutdown,
            16 => Self::Version,
            17 => Self::Local,
            _ => return None,
        })
    }

    /// A few words.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Refused => "connection refused",
            Self::TimedOut => "timed out",
            Self::InUse => "port in use",
            Self::NoResources => "out of resources",
            Self::Reset => "reset by peer",
            Self::Gone => "peer is gone",
            Self::Unreachable => "host unreachable",
            Self::TooLarge => "message too large",
            Self::Canceled => "canceled",
            Self::NotPermitted => "not permitted",
            Self::Protocol => "protocol broken by peer",
            Self::Closed => "closed",
            Self::Invalid => "invalid argument",
            Self::NotLocal => "address is not local",
            Self::Shutdown => "sidecar shuts down",
            Self::Version => "channel versions differ",
            Self::Local => "reset by this end",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}
