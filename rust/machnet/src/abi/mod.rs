//! The C functions: translate, guard, return. The logic is in `client`, with its own tests.
//!
//! Every function takes the channel as a pointer that machnet_attach_begin, machnet_attach_fd or machnet_attach gave and
//! machnet_detach has not taken back; buffers are valid for the length of the call only. That is the safety
//! contract of each of them, besides what its own text adds.
#![allow(clippy::missing_safety_doc, reason = "the contract is the same for all and stands above")]

mod attach;
mod blocking;
mod boundary;
mod rx;
mod tx;

pub use attach::*;
pub use blocking::*;
pub use rx::*;
pub use tx::*;
