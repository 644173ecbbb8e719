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

mod admission;
mod answers;
mod attention;
mod channel;
mod channel_table;
mod channels;
mod claims;
mod clock;
mod config;
mod conn;
mod conns;
mod control_frame;
pub mod cookies;
mod counters;
mod credit_turns;
mod drain_epoch;
mod ending;
mod engine;
mod ephemeral;
mod full;
pub mod idle;
mod ids;
mod leaving;
mod listen;
pub mod neighbor;
mod neighbor_table;
mod open;
mod path;
mod path_mtu;
mod peers;
mod ports;
mod query;
mod random;
mod router;
mod rss;
mod rx;
mod serve;
mod shared;
mod state;
mod stats;
mod table;
mod timer_wheel;
mod totals;
mod tx;
mod view;
mod watch;

pub use admission::Waiting;
pub use channel::End;
pub use config::{EngineConfig, RssConfig, UDP_PORT};
pub use counters::{Counters, Samples};
pub use engine::Engine;
pub use ephemeral::EPHEMERAL;
pub use idle::Idle;
pub use ids::{ApplicationNumber, ChannelNumber, EngineIndex, Member, UserId};
pub use machnet_flow::Stats as FlowCounters;
pub use ports::{Owner, Ports, Sharing};
pub use query::{
    Answer, ChannelRow, ConnectionId, ConnectionRow, ConnectionStage, ConnectionState, ListenerRow,
    NotAConnectionId, PeerRow, Query, Rows, Units,
};
pub use rss::Pairing;
pub use shared::{EngineHandle, Leftover, Report, Shared};
