//! What things of an engine are called. Each is a number of its own type, so that none is taken for another.

use core::fmt;
use core::hash::{Hash, Hasher};
use core::net::Ipv4Addr;
use core::num::NonZeroU32;

/// An engine of a sidecar: 0 for the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EngineIndex(pub u16);

/// A receive queue of the NIC: 0 for the first. Engine `i` serves queue `i`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct QueueIndex(pub u16);

/// A channel of a sidecar, for as long as that runs: 1 for the first. No number is used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelNumber(pub u64);

/// A user of this machine, by whom applications are told apart that may share a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(pub u32);

/// An application that may have several channels, for as long as it has one: 1 for the first. No number is used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApplicationNumber(pub u64);

/// Whose a channel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// The user of the application.
    pub user: UserId,
    /// The application, where it may have several channels.
    pub application: Option<ApplicationNumber>,
}

impl Member {
    /// Of an application of this user that has no other channel.
    pub fn alone(user: UserId) -> Self {
        Self { user, application: None }
    }
}

/// Where an engine keeps a channel, while it has it. Used again when the channel is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ChannelIndex(pub u32);

/// Where an engine keeps a connection, while it has it. Used again when the connection is gone: what may outlive it
/// keeps a [`ConnHandle`].
///
/// Stored as its successor, so that an `Option` of it is as small as it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ConnIndex(NonZeroU32);

/// A connection of an engine, for as long as that runs: of one that is gone nothing is found, though its index is
/// used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ConnHandle {
    pub index: ConnIndex,
    /// How many connections had this index before.
    pub generation: u32,
}

/// What tells the connections of a host apart: the peer's address, the peer's Machnet port, and ours. In two halves, so that a table of keys
/// and indices has no gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnKey {
    peer: u32,
    ports: u32,
}

impl Hash for ConnKey {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.bits());
    }
}

impl EngineIndex {
    /// Its place among the engines.
    #[inline]
    pub(crate) fn place(self) -> usize {
        self.0.into()
    }
}

impl ChannelIndex {
    /// Its place among the channels.
    #[inline]
    pub fn place(self) -> usize {
        self.0 as usize
    }
}

impl ConnIndex {
    /// The index of a place among the connections. The table ends well before the last one.
    #[inline]
    pub fn new(place: usize) -> Self {
        Self(NonZeroU32::MIN.saturating_add(place as u32))
    }

    /// The same for a place that anybody may have named.
    pub fn try_new(place: u32) -> Option<Self> {
        NonZeroU32::MIN.checked_add(place).map(Self)
    }

    /// Its place among the connections.
    #[inline]
    pub fn place(self) -> usize {
        (self.0.get() - 1) as usize
    }
}

impl ConnKey {
    /// The key of a connection with a peer.
    #[inline]
    pub(crate) fn new(peer: Ipv4Addr, peer_port: u16, local_port: u16) -> Self {
        Self { peer: peer.to_bits(), ports: u32::from(peer_port) << 16 | u32::from(local_port) }
    }

    #[inline]
    fn bits(self) -> u64 {
        u64::from(self.peer) << 32 | u64::from(self.ports)
    }

    /// All its bits in few: keys of one peer differ by their ports, those of one port by their peers.
    #[inline]
    pub(crate) fn folded(self) -> u16 {
        let all = self.bits().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (all >> 48) as u16
    }

    /// The peer's address and port.
    pub(crate) fn peer(self) -> (Ipv4Addr, u16) {
        (Ipv4Addr::from_bits(self.peer), (self.ports >> 16) as u16)
    }

    /// Our port.
    #[inline]
    pub(crate) fn local_port(self) -> u16 {
        self.ports as u16
    }
}

impl fmt::Debug for ConnIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnIndex({})", self.place())
    }
}

macro_rules! shown_as_its_number {
    ($($name:ident)+) => {
        $(impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        })+
    };
}

shown_as_its_number!(EngineIndex QueueIndex ChannelNumber);
