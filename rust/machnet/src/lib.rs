//! The Machnet client and its C ABI.
#![no_std]
#[cfg(test)]
extern crate std;

pub mod abi;
mod attach;
mod blocking;
mod cancel;
pub mod client;
pub mod code;
mod conns;
mod ends;
mod gate;
mod inbox;
mod kept;
mod mark;
mod memory;
mod outbox;
mod patience;
mod rx;
mod text;
mod tx;
pub mod types;
mod words;

pub use code::*;
pub use types::*;
