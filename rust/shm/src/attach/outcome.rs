//! How attaching ends: with a channel and what the sidecar says of it, or with an error.

use crate::layout::Geometry;
use crate::memory::SystemError;
use crate::text::Text;
use core::fmt;
use core::net::Ipv4Addr;

/// Why there is no channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AttachError {
    /// The peer closed the socket, or died.
    Closed,
    /// A system call was refused.
    System(SystemError),
    /// A message that is none of this protocol's.
    Message {
        /// What was wrong with it.
        what: &'static str,
        /// What it held.
        value: u64,
    },
    /// Application and sidecar speak different versions.
    Version {
        /// The application's version and layout hash.
        app: (u32, u64),
        /// The sidecar's.
        sidecar: (u32, u64),
    },
    /// The sidecar refused.
    Refused(Status, Text),
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AttachError::Closed => write!(f, "the other side closed the socket while attaching"),
            AttachError::System(e) => write!(f, "{e}"),
            AttachError::Message { what, value } => write!(f, "{what}: {value:#x} is not of this protocol"),
            AttachError::Version { app, sidecar } => write!(
                f,
                "app speaks channel version {} (layout {:016x}), sidecar speaks {} (layout {:016x}); upgrade the older one",
                app.0, app.1, sidecar.0, sidecar.1
            ),
            AttachError::Refused(_, text) => write!(f, "{text}"),
        }
    }
}

impl core::error::Error for AttachError {}

impl From<SystemError> for AttachError {
    fn from(e: SystemError) -> AttachError {
        AttachError::System(e)
    }
}

/// What the sidecar says in a WELCOME.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Status {
    /// A channel.
    Granted = 0,
    /// Versions differ.
    Version = 1,
    /// No room for another channel.
    NoResources = 2,
    /// Not permitted.
    NotPermitted = 3,
    /// There is no such engine.
    NoEngine = 4,
    /// The sidecar is ending.
    Ending = 5,
}

impl Status {
    pub(super) fn from_word(word: u32) -> Option<Status> {
        use Status::*;
        [Granted, Version, NoResources, NotPermitted, NoEngine, Ending]
            .into_iter()
            .find(|s| *s as u32 == word)
    }
}

/// What an application asks for.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ClientHello {
    /// The engine that is to serve the channel; `None` lets the sidecar choose.
    pub engine: Option<u32>,
    /// What all channels of one application say, and no other application of its user: channels of one group count as one application, and
    /// may share their ports. 0: the channel is an application of its own.
    pub group: u32,
}

/// What a sidecar tells an application of the channel it gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Welcome {
    /// Sizes of the channel.
    pub geometry: Geometry,
    /// The engine that serves it.
    pub engine: u32,
    /// The sidecar's address.
    pub ip: Ipv4Addr,
    /// Bytes of an IP packet on the wire.
    pub mtu: u32,
}
