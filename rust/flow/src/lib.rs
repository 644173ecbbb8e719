//! One Machnet connection, sans-IO: handshake, loss recovery, congestion and flow control, messages.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

mod alarm;
mod allowance;
mod arrive;
mod config;
mod congestion;
mod credit;
mod depart;
mod error;
mod flow;
mod handshake;
mod io;
mod message;
mod rack;
mod receiver;
mod ring;
mod rtt;
mod sack;
mod sender;
mod stats;
mod timers;

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
