//! How much may be in flight. A control hears of acknowledgements, losses and timeouts, and says a window in units:
//! what overruns a vNIC with 256 descriptors is packets, not bytes.

mod reno;

pub(crate) use reno::Reno;

use machnet_wire::Nanos;

/// What an acknowledgement says to a congestion control.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ack {
    /// Units it newly acknowledged.
    pub acked: u32,
    /// Units in flight before it came.
    pub in_flight: u32,
}

/// A congestion control.
pub(crate) trait Control {
    /// Units that may be in flight, at least 1.
    fn window(&self) -> u32;
    /// Units were acknowledged.
    fn on_ack(&mut self, ack: &Ack);
    /// `lost` units were found lost, while the round trip takes `smoothed`.
    fn on_loss(&mut self, now: Nanos, lost: u32, smoothed: Nanos);
    /// The retransmission timeout passed.
    fn on_timeout(&mut self, now: Nanos);
    /// The timeouts since the last verdict were needless: as if they had not been.
    fn undo_timeout(&mut self);
    /// The timeouts since the last verdict were not needless.
    fn confirm_timeout(&mut self);
}
