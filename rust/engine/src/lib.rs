//! The run-to-completion loop between channels, flows and one NIC queue.
//!
//! [`Shared`] is made once per sidecar, one [`Engine`] per NIC queue on a thread of its own, and [`EngineHandle`] is how
//! other threads reach an engine. An engine reads no clock and blocks on nothing: its thread calls
//! [`Engine::receive`] and [`Engine::send`], the halves of a round, with the time ([`Engine::run_once`] where both have the same), asks [`idle::Idle`] what to do next, and sleeps between
//! [`Engine::prepare_sleep`] and [`Engine::wake`] on the descriptors of [`Engine::fds`]. So the same engine runs in
//! virtual time.
//!
//! ```text
//! loop {
//!     let now = clock();
//!     let came = engine.receive(now);
//!     let work = came + engine.send(if came > 0 { clock() } else { now });
//!     match idle.after(work, now) {
//!         Again => {}
//!         Pause => spin_loop(),
//!         Yield => { sched_yield(); idle.yielded(clock(), how long it took) }
//!         Sleep { longest } => if engine.prepare_sleep() {      // armed, and nothing is pending
//!             engine.fds(&mut fds);
//!             ppoll(fds, min(longest, engine.next_deadline() - now));
//!             engine.wake();                                     // always after a true prepare_sleep
//!         }
//!     }
//!     if engine.is_drained() { break }                           // only after EngineHandle::shutdown
//! }
//! ```
#![forbid(unsafe_code)]

mod attention;
mod budget;
mod channels;
mod config;
mod conn;
pub mod counters;
mod engine;
mod full;
pub mod idle;
mod leaving;
pub mod neighbor;
mod open;
mod packet;
mod peers;
mod phase;
mod ports;
mod query;
mod random;
mod rows;
mod rx;
mod shared;
mod state;
mod table;
mod timer_wheel;
mod totals;
mod tx;

pub use config::{EngineConfig, UDP_PORT};
pub use counters::{Counters, Samples};
pub use engine::Engine;
pub use idle::Idle;
pub use ports::{EPHEMERAL, Owner, Ports};
pub use query::{Answer, Query, Rows};
pub use rows::{
    ChannelRow, ConnectionId, ConnectionRow, ConnectionStage, ConnectionState, NotAConnectionId, PeerRow,
    Units, Waiting,
};
pub use shared::{End, EngineHandle, Leftover, Report, Shared};
