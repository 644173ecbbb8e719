//! The application's end, in two halves for two threads. It checks the sidecar as the sidecar checks it, so that a
//! broken sidecar gives an error and not a crash.

mod rx;
mod tx;
mod view;

pub use rx::{Data, Delivery, Rx, RxToken};
pub use tx::{NoToken, Tx};
pub use view::{RingView, WaitView};

use crate::channel::ChannelRef;
use crate::memory::SystemError;

/// The application's end of a channel.
pub struct AppEnd {
    /// What sends.
    pub tx: Tx,
    /// What receives.
    pub rx: Rx,
}

impl AppEnd {
    pub(crate) fn new(channel: ChannelRef) -> Result<AppEnd, SystemError> {
        Ok(AppEnd { tx: Tx::new(channel.clone())?, rx: Rx::new(channel)? })
    }
}
