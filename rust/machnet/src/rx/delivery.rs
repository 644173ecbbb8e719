//! What comes in over a channel, and the half of it that brings that, so that the receiving direction can be tested without shared memory.
use crate::inbox::{Inline, Kind, Units};
use crate::types::{machnet_conn, machnet_peer};
use machnet_shm::Origin;

/// What the deliver ring carries.
pub enum Delivery<T> {
    /// A connection begins.
    Established {
        /// Its handle.
        conn: machnet_conn,
        /// The listener or the dial that it came from.
        origin: Origin,
        /// Its ends.
        peer: machnet_peer,
    },
    /// A unit: of data, or an order that takes a token.
    Unit(Unit<T>),
    /// The peer or the sidecar ended the connection.
    Reset {
        /// Its handle.
        conn: machnet_conn,
        /// A negative code.
        code: i32,
    },
}

/// A unit: of data, or an order that takes a token.
pub struct Unit<T> {
    /// Its connection.
    pub conn: machnet_conn,
    /// What it is.
    pub kind: Kind,
    /// Payload bytes.
    pub len: u32,
    /// The bytes came without a buffer.
    pub inline: bool,
    /// What to give back.
    pub token: T,
}

/// The receiving half of a channel.
pub trait ReceiveHalf: Units {
    /// The next delivery, its bytes in `inline` if it has any of that kind; `None` when there is none (tokens gathered go to the engine
    /// then), or the channel is down.
    fn pop(&mut self, inline: &mut Inline) -> Option<Delivery<Self::Token>>;
    /// A receive has left `conn` without queued units: tokens that its peer needs must not be gathered here any longer.
    fn on_read_to_the_end(&mut self, conn: machnet_conn);
    /// The application has taken a listener's connection: its place in the backlog is another's.
    fn accepted(&mut self, conn: machnet_conn);
}
