//! RSS--: which UDP port pairs reach which receive queue of a NIC whose hash nobody tells.
//!
//! Three parts, all sans-IO, with time and randomness passed in: [`spray`] says how many pairs to try, [`Search`] is one connection's
//! search for a pair of its own, and [`Pool`] keeps what all connections of a sidecar have learned. What goes over the wire, and
//! when, is decided in `rust/engine`; docs/rss.md has the whole.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

mod config;
mod pair;
mod pool;
mod search;
pub mod spray;

pub use config::Config;
pub use pair::{Draw, Pair};
pub use pool::{Learned, Pool, Reach};
pub use search::{Search, Step};
