//! A sidecar without its process: engines over the queues of a NIC, which application gets a channel of which engine, what becomes
//! of each channel, and the loop that drives engines.
//!
//! Whoever embeds it brings what belongs to a process: settings, threads, sockets, a clock and a log. `machnetd` does so with a
//! thread for each engine, `machnet-core` with one thread for all engines of all its hosts.
//!
//! ```text
//! let mut host = Host::new(engine_config, channel_config, queues, clock())?;
//! for engine in host.take_engines() { a thread that calls drive(&mut engine, ...) }
//! attaching.step(&mut host) -> Welcome(welcome), or why not: an engine is chosen
//! attaching.make(welcome)    its memory
//! attaching.step(&mut host) -> Ready(place, channel)
//! host.attach(place, ...) -> the channel's number
//! host.leave(number)         its application is gone
//! host.ask(question)      -> its number; the answer comes in parts, while packets move
//! host.take_events(most)  -> a channel is over: here is its memory; or a part of an answer
//! host.shutdown()            until every engine knows; each drive(..) returns when its engine is drained
//! ```
#![forbid(unsafe_code)]
#![allow(clippy::result_large_err, reason = "a refusal carries its sentence; once per application")]

mod applications;
mod attaching;
mod channels;
mod drive;
mod host;
mod query;

pub use attaching::{Attaching, Step};
pub use channels::{ChannelConfig, Descriptors, Offer, Owner, Place, Row, State};
pub use drive::{Machine, Rounds, drive};
pub use host::{Event, Host, HostError, Over};
pub use query::{Listed, NotAsked, Part, Peer, PeerState, Question};
