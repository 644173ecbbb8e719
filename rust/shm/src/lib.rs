//! The memory that an application and an engine share, and every check on it. docs/channel.md has the map.
//!
//! One end, [`EngineEnd`], belongs to machnetd; the other, [`AppEnd`] with its halves [`Tx`] and [`Rx`], to the
//! application. Neither believes the other: a value is loaded once, bounded, copied out, and only the copy is used.
//! A value that no honest peer writes is a [`PeerFault`] and ends that one channel.
#![cfg_attr(not(any(loom, test)), no_std)]
#[cfg(feature = "engine")]
extern crate alloc;

mod app;
mod attach;
#[cfg(feature = "engine")]
mod bells;
mod channel;
mod control;
mod copy;
mod doorbell;
#[cfg(feature = "engine")]
mod engine;
mod fault;
mod layout;
mod memory;
mod reason;
pub mod ring;
mod share;
pub mod sleep;
pub mod slot;
mod slots;
mod stats;
mod sync;
mod text;

pub use app::{AppEnd, Data, Delivery, NoToken, RingView, Rx, RxToken, Tx, WaitView};
pub use attach::{AttachError, ClientAttach, ClientHello, Status, Welcome, hung_up};
#[cfg(feature = "engine")]
pub use attach::{ServerAttach, ServerStep};
#[cfg(feature = "engine")]
pub use bells::Bells;
pub use control::{KeepAlive, Reply, Request};
pub use doorbell::{Rung, drain as drain_doorbell};
#[cfg(feature = "engine")]
pub use engine::{EngineEnd, HeldUnit, Returned, Submission, TxUnit};
pub use fault::PeerFault;
pub use layout::{ABI_VERSION, BadGeometry, Geometry, MAX_LISTENERS, MAX_MESSAGE, layout_hash};
pub use machnet_wire::Fragment;
pub use memory::{Fd, SystemError};
pub use reason::{Limit, Reason};
pub use slot::INLINE;
pub use stats::{FlowStats, Pairs, Stage, Waits};
pub use text::Text;

use core::net::Ipv4Addr;

/// A connection of a channel: its index, and which of the connections that had this index over time it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FlowId {
    /// Below [`Geometry::flows`].
    pub index: u32,
    /// Counts up when an index is used anew; never 0.
    pub generation: u32,
}

/// How a connection came to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// By the application's dial of this id.
    Dialled(u32),
    /// By its listener of this id.
    Accepted(u32),
}

/// A connection that is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Established {
    /// The connection.
    pub flow: FlowId,
    /// How it came to be.
    pub origin: Origin,
    /// Own address and port.
    pub local: (Ipv4Addr, u16),
    /// The other end's address and port.
    pub peer: (Ipv4Addr, u16),
}

/// Both ends of a channel in one process, joined without a socket: for tests and for hosts inside a process.
#[cfg(feature = "engine")]
pub fn pair(geometry: Geometry) -> Result<(AppEnd, EngineEnd), SystemError> {
    let parts = channel::Parts::new(geometry)?;
    let rings = layout::Map::new(geometry).rings();
    let map = || memory::Region::map(&parts.memfd, geometry.len(), rings);
    let (near, far) = (map()?, map()?);
    let app = channel::ChannelRef::new(
        channel::Side::App,
        near,
        geometry,
        parts.app_bell.0,
        parts.engine_bell.1,
        parts.sender_bell.0,
    )?;
    let engine = channel::ChannelRef::new(
        channel::Side::Engine,
        far,
        geometry,
        parts.engine_bell.0,
        parts.app_bell.1,
        parts.sender_bell.1,
    )?;
    engine.sign();
    Ok((AppEnd::new(app)?, EngineEnd::new(engine)))
}
