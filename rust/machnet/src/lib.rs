//! The Machnet client and its C ABI.
#![no_std]
#[cfg(test)]
extern crate std;

pub mod abi;
mod attach;
mod attached;
mod blocking;
mod cancel;
pub mod client;
pub mod code;
mod conns;
mod ends;
mod gate;
mod hogs;
mod inbox;
mod kept;
mod last_error;
mod mark;
mod memory;
mod outbox;
mod patience;
mod replies;
mod rx;
mod sides;
mod signals;
mod tx;
pub mod types;
mod words;

pub use code::*;
pub use types::*;
