//! The Machnet client and its C ABI.
#![no_std]
#[cfg(test)]
extern crate std;

pub mod abi;
pub mod client;
pub mod code;
mod inbox;
mod memory;
mod outbox;
mod text;
pub mod types;

pub use code::*;
pub use types::*;
