//! The C functions against a real engine's end of a channel, attached over a socket pair. This thread plays the sidecar.

mod rig;

mod arguments;
mod attaching;
mod ends;
mod messages;
mod requests;
mod stats;
mod waiting;
