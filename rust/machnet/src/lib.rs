//! The Machnet client and its C ABI.
#![no_std]

pub mod abi;
pub mod client;
pub mod code;
pub mod types;

pub use code::*;
pub use types::*;
