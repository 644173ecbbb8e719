//! One Machnet connection, sans-IO: handshake, loss recovery, congestion and flow control, messages.
//!
//! A [`Flow`] hears of packets ([`Flow::on_packet`]), of time ([`Flow::on_timeout`]) and of its application
//! ([`Flow::send`], [`Flow::fin`], ...), says what to send ([`Flow::poll_transmit`]) and when to call again
//! ([`Flow::next_timeout`]); what it needs of buffers it asks for through [`Io`]. It reads no clock and draws no random
//! number, so that any run can be repeated. It never copies a payload, and in steady state it does not allocate.
//!
//! Everything that arrives is hostile until its tag is right, and after that the peer is: lengths, numbers and the
//! order of a message's units are checked, memory is bounded by the reach of SACK words and by what [`Io::grant`]
//! gives, and a peer that breaks the rules is reset.
//!
//! Where the rules come from: numbers and timeouts RFC 6298, loss detection RFC 8985 (RACK-TLP), needless timeouts
//! RFC 3522 (Eifel), congestion Swift (SIGCOMM 2020), half-open state RFC 4987, resets RFC 5961; where we differ, the
//! module says why. Formats: docs/wire.md.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

mod acks;
mod allowance;
mod config;
mod congestion;
mod credit;
mod drain;
mod ends;
mod error;
mod flow;
mod hellos;
mod io;
mod life;
mod loss_timer;
mod message;
mod numbering;
mod pairs;
mod parts;
mod path_mtu;
mod queue;
mod rack;
mod receiver;
mod repeats;
mod rtt;
mod sack;
mod sender;
mod silence;
mod slots;
mod spread;
mod stats;
mod timers;

pub use config::{Config, Setup, Syns};
pub use error::{FlowError, NotSent, SendError};
pub use flow::{CreditWait, Flow, Held};
pub use io::{Body, Closed, Event, Io, Transmit, Unit};
pub use spread::Arriving;
pub use stats::Stats;

/// The longest message, bytes.
pub const MESSAGE_MAX: u32 = 8 << 20;
/// Units from the first that is not acknowledged on that may be under way: SACK ranges can speak of each. The longest window.
pub const REACH: u32 = machnet_wire::packet::RANGES_REACH as u32;
/// Units that may wait in one flow, sent or not.
pub const QUEUE_MAX: u32 = 1 << 16;
