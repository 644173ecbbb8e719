//! The memory that an application and an engine share, and every check on it.
//!
//! A channel is one sealed memfd with six rings of one writer each, and two pools of buffers; pipes wake whoever sleeps. Either
//! side may find any byte changed at any time: it loads a word once, bounds it, copies what it names, checks the copy and uses only that.
//! A bad value is a [`PeerFault`] and ends this channel alone. Format, accounting and the sleep protocol: docs/channel.md.
#![cfg_attr(not(loom), no_std)]

#[cfg(feature = "engine")]
extern crate alloc;

mod app;
mod attach;
mod codec;
mod desc;
#[cfg(feature = "engine")]
mod engine;
mod fault;
mod geometry;
mod sleep;

pub use app::{AppEnd, Rx, SubmitError, Tx, WaitView};
#[cfg(feature = "engine")]
pub use attach::{pair, ServerAttach};
pub use attach::{Ask, AttachError, ClientAttach, Info, Offer, Step, Text};
pub use desc::{
    Delivery, Ends, FlowId, Fragment, Held, Origin, Reason, Reply, Request, RxUnit, Submission, TxUnit,
    INLINE, MAX_MESSAGE,
};
#[cfg(feature = "engine")]
pub use engine::EngineEnd;
pub use fault::PeerFault;
pub use geometry::{Geometry, CHANNEL_VERSION, LAYOUT_HASH};
pub use sleep::Wants;
