//! How an application comes by its end of a channel: messages over a Unix SOCK_SEQPACKET socket, both sides step by step
//! and never blocking. docs/channel.md has the messages as tables.
//!
//! Client: HELLO, with a descriptor of its process. Sidecar: WELCOME with memory and doorbells, or a refusal with its sentence. Client, when
//! it has mapped the memory: MAPPED. Sidecar, when it has sealed the memory: READY. The socket stays open: the kernel tells each side when the
//! other dies.

mod client;
mod message;
mod outcome;
#[cfg(feature = "engine")]
mod server;
mod socket;

pub use client::ClientAttach;
pub use outcome::{AttachError, ClientHello, Status, Welcome};
#[cfg(feature = "engine")]
pub use server::{ServerAttach, ServerStep};
pub use socket::hung_up;
