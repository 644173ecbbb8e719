//! How the two ends come to share a region: four messages over a Unix SOCK_SEQPACKET socket. Both sides are step machines over a
//! non-blocking socket: call `step` whenever the socket is readable.

use core::fmt;
use core::net::Ipv4Addr;

use crate::app::AppEnd;
use crate::desc::Reason;
use crate::geometry::Geometry;

/// What the sidecar tells at attach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Info {
    /// The channel's size.
    pub geometry: Geometry,
    /// The engine that serves it.
    pub engine: u32,
    /// Address of the host.
    pub ip: Ipv4Addr,
    /// Bytes of an IP packet on the wire.
    pub mtu: u32,
}

/// What became of a step.
#[derive(Debug)]
pub enum Step<T> {
    /// Call again when the socket is readable.
    Wait,
    /// Attached.
    Done(T),
}

/// Why attaching ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum AttachError {
    /// The other side hung up.
    Gone,
    /// The other side speaks another version, or lays the region out differently.
    Version {
        /// Version of this end.
        ours: u32,
        /// Version of the other end.
        theirs: u32,
        /// Layout hash of this end.
        our_hash: u64,
        /// Layout hash of the other end.
        their_hash: u64,
    },
    /// The sidecar refused, with this reason and sentence.
    Refused(Reason, Text),
    /// The other side said something that has no place here.
    Protocol(&'static str),
    /// The system refused: what, errno.
    System(&'static str, i32),
}

/// A short sentence.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Text {
    bytes: [u8; Text::CAPACITY],
    len: u8,
}

impl Text {
    /// Bytes that fit; longer sentences are cut.
    pub const CAPACITY: usize = 192;

    /// The beginning of `sentence`, as far as it fits.
    pub fn new(sentence: &str) -> Self {
        todo!("{sentence}")
    }

    /// The sentence.
    pub fn as_str(&self) -> &str {
        todo!()
    }
}

impl fmt::Display for AttachError {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
    }
}

impl fmt::Debug for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl core::error::Error for AttachError {}

/// The application's side.
#[derive(Debug)]
pub struct ClientAttach {}

#[allow(unused_variables)]
impl ClientAttach {
    /// Takes a connected socket over (it is closed with this value, or with the channel), makes it non-blocking, and says hello. `engine`: `None` for
    /// any.
    pub fn new(socket: i32, engine: Option<u32>) -> Result<Self, AttachError> {
        todo!()
    }

    /// The socket to poll for input.
    pub fn socket_fd(&self) -> i32 {
        todo!()
    }

    /// Goes on as far as it can without waiting. After `Done` or an error, drop this.
    pub fn step(&mut self) -> Result<Step<AppEnd>, AttachError> {
        todo!()
    }
}

/// What an application asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ask {
    /// The engine it wants; `None`: any.
    pub engine: Option<u32>,
}

/// What the sidecar answers.
pub type Offer = Result<Info, (Reason, Text)>;

#[cfg(feature = "engine")]
pub use server::ServerAttach;

#[cfg(feature = "engine")]
mod server {
    use super::{Ask, AttachError, Offer, Step};
    use crate::engine::EngineEnd;

    /// The sidecar's side.
    #[derive(Debug)]
    pub struct ServerAttach {}

    #[allow(unused_variables)]
    impl ServerAttach {
        /// Takes an accepted socket over (it is closed with this value, or with the channel) and makes it non-blocking. Whoever calls bounds
        /// the time that attaching may take.
        pub fn new(socket: i32) -> Result<Self, AttachError> {
            todo!()
        }

        /// The socket to poll for input.
        pub fn socket_fd(&self) -> i32 {
            todo!()
        }

        /// Goes on as far as it can without waiting. `offer` is asked at most once, when the hello has come. After `Done` or
        /// an error, drop this.
        pub fn step(&mut self, offer: impl FnOnce(Ask) -> Offer) -> Result<Step<EngineEnd>, AttachError> {
            todo!()
        }
    }
}

/// Both ends of a channel in this process, for tests and for hosts that live together. The calls are those of a real attach.
#[cfg(feature = "engine")]
pub fn pair(info: Info) -> Result<(crate::engine::EngineEnd, AppEnd), AttachError> {
    todo!("{info:?}")
}
