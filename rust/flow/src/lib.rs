//! One Machnet connection, sans-IO: handshake, loss recovery, congestion and flow control, messages.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

mod config;
mod error;
mod flow;
mod io;
mod stats;

pub use config::{Config, Setup};
pub use error::{FlowError, NotSent, SendError};
pub use flow::Flow;
pub use io::{Body, Closed, Event, Fragment, Io, Transmit, Unit};
pub use stats::Stats;

/// The longest message, bytes.
pub const MESSAGE_MAX: u32 = 8 << 20;
/// Units beyond the acknowledged one that SACK words can speak of: the longest window.
pub const REACH: u32 = 1024;
/// Units that may wait in one flow, sent or not.
pub const QUEUE_MAX: u32 = 1 << 16;
