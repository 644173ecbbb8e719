//! The flow: state of one connection and its entry points.

use machnet_wire::{Hello, Nanos, Packet, Reason};

use crate::{Config, FlowError, Io, NotSent, Setup, Stats, Transmit, Unit};
use core::marker::PhantomData;

/// One connection. `T` is the token of a unit to send, `H` that of a unit held ([`Io::Tx`], [`Io::Held`]).
///
/// After any call but the getters, ask [`Flow::poll_transmit`] until it has nothing more, as far as there is room to
/// send, and file the flow under [`Flow::next_timeout`] again. A timer that fires early does no harm.
#[derive(Debug)]
pub struct Flow<T, H> {
    _p: PhantomData<(T, H)>,
}

#[allow(unused_variables, missing_docs)]
impl<T, H> Flow<T, H> {
    /// Begins a connection: a SYN is ready to send. `timeout`: how long to try before `Closed(Timeout)`.
    pub fn connect(now: Nanos, config: Config, setup: Setup, timeout: Nanos) -> Self {
        todo!()
    }

    /// Answers a SYN: one SYN-ACK is ready to send for it. The application learns of the flow by
    /// [`crate::Event::Established`], when the peer has shown that it knows our tag.
    pub fn accept(now: Nanos, config: Config, setup: Setup, syn: &Packet<'_>) -> Result<Self, FlowError> {
        todo!()
    }

    /// Takes a packet whose ports are this flow's.
    pub fn on_packet<I: Io<Tx = T, Held = H>>(
        &mut self,
        now: Nanos,
        packet: &Packet<'_>,
        io: &mut I,
    ) -> Result<(), FlowError> {
        todo!()
    }

    /// Does what is due at `now`. Harmless when nothing is.
    pub fn on_timeout<I: Io<Tx = T, Held = H>>(&mut self, now: Nanos, io: &mut I) {
        todo!()
    }

    /// When to call [`Flow::on_timeout`] at the latest. `None`: nothing is awaited.
    pub fn next_timeout(&self) -> Option<Nanos> {
        todo!()
    }

    /// The next packet to send, if any. It counts as sent: ask only while there is room in the NIC.
    pub fn poll_transmit<I: Io<Tx = T, Held = H>>(
        &mut self,
        now: Nanos,
        io: &mut I,
    ) -> Option<Transmit<'_, T>> {
        todo!()
    }

    /// Queues a unit.
    pub fn send(&mut self, now: Nanos, unit: Unit<T>) -> Result<(), NotSent<T>> {
        todo!()
    }

    /// Gives up the message that was begun and not ended: units of it not yet sent are completed, the peer is told
    /// if it has seen a part. `tx` is the ABORT's own token; without an open message it completes at once.
    pub fn abort<I: Io<Tx = T, Held = H>>(
        &mut self,
        now: Nanos,
        tx: T,
        io: &mut I,
    ) -> Result<(), NotSent<T>> {
        todo!()
    }

    /// Half close: a FIN follows the data queued. `tx` is its token. Not within a message: abort it first.
    pub fn fin(&mut self, now: Nanos, tx: T) -> Result<(), NotSent<T>> {
        todo!()
    }

    /// The application reads no more: held units are dropped, what still arrives is acknowledged and thrown away until
    /// our FIN is acknowledged; data after that resets the connection. Call with or after [`Flow::fin`].
    pub fn stop_reading<I: Io<Tx = T, Held = H>>(&mut self, now: Nanos, io: &mut I) {
        todo!()
    }

    /// Ends the flow at once: tokens complete, `Closed(ByUs(reason))` is told, an RST is ready to send.
    pub fn reset<I: Io<Tx = T, Held = H>>(&mut self, now: Nanos, reason: Reason, io: &mut I) {
        todo!()
    }

    /// The application returned `n` units of this flow, or (0) some are free again for one that
    /// [wants credit](Flow::wants_credit).
    pub fn credit_returned<I: Io<Tx = T, Held = H>>(&mut self, now: Nanos, n: u32, io: &mut I) {
        todo!()
    }

    /// Whether a peer waits for units that could not be reserved.
    pub fn wants_credit(&self) -> bool {
        todo!()
    }

    /// Something was heard from the peer on another of its flows: it lives.
    pub fn peer_heard(&mut self, now: Nanos) {
        todo!()
    }

    /// This engine did not run for a while until `now`: that time is no silence of the peer's, and no round trip.
    pub fn stalled(&mut self, now: Nanos) {
        todo!()
    }

    /// Whether nothing is left to do: the flow may be dropped.
    pub fn is_done(&self) -> bool {
        todo!()
    }

    /// Whether both ends know of the connection and it is not over.
    pub fn is_established(&self) -> bool {
        todo!()
    }

    /// Our tag: packets to us carry it.
    pub fn tag(&self) -> u32 {
        todo!()
    }

    /// What the peer said of itself.
    pub fn peer(&self) -> Option<&Hello> {
        todo!()
    }

    /// Most payload of one packet of this flow, bytes.
    pub fn unit_size(&self) -> u32 {
        todo!()
    }

    /// Units queued or sent and not yet acknowledged.
    pub fn queued(&self) -> u32 {
        todo!()
    }

    /// Smoothed round-trip time.
    pub fn rtt(&self) -> Option<Nanos> {
        todo!()
    }

    /// Counters.
    pub fn stats(&self) -> &Stats {
        todo!()
    }
}
