//! Sidecars with engines on a simulated network and applications on their channels, in one thread and virtual time: what the
//! engine is tested on.
#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "it is for tests and benchmarks of this workspace alone")]

mod app;
mod cost;
pub mod figures;
mod log;
mod world;

pub use self::log::{keep_warnings, warnings};
pub use app::{App, Conn, Out};
pub use cost::{Cost, Parts, Work};
pub use world::{AppNo, Core, Sidecar, Waits, World, pattern};
