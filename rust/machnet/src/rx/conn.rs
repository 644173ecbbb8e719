//! One connection, as the receiving side sees it, and the events that tell of it.
use crate::code::{
    MACHNET_EVENT_ACCEPTED, MACHNET_EVENT_CLOSED, MACHNET_EVENT_CONNECTED, MACHNET_EVENT_READABLE,
};
use crate::inbox::Queue;
use crate::types::{machnet_conn, machnet_event, machnet_peer};
use machnet_shm::Origin;

/// One connection.
#[derive(Clone, Copy)]
pub struct RxConn {
    /// 0: none is here.
    pub handle: machnet_conn,
    /// What has come and was not read.
    pub queue: Queue,
    /// Its ends.
    pub peer: machnet_peer,
    /// The listener or the dial that it came from.
    pub origin: Origin,
    /// Code with which the peer or the sidecar ended it; 0 while it lives.
    pub code: i32,
    /// A listener's, and not taken yet.
    pub offered: bool,
    /// READABLE was reported, or need not be, since a receive is reading all there is; and no receive has emptied the queue since. Units
    /// that come meanwhile cause no further event.
    pub readable_reported: bool,
    /// Its place in the list of those with events.
    pub link: Link,
}

/// The place of a connection in the [`EventList`](super::events::EventList).
#[derive(Clone, Copy)]
pub struct Link {
    /// Events to hand out, of [`NEW`], [`READABLE`] and [`CLOSED`]; in the list while not 0.
    pub events: u8,
    /// The connection before it.
    pub prev: u32,
    /// The connection behind it.
    pub next: u32,
}

/// The connection is new: accepted, or dialled.
pub(super) const NEW: u8 = 1;
/// There is something to receive.
pub(super) const READABLE: u8 = 2;
/// The other end has ended it.
pub(super) const CLOSED: u8 = 4;
/// No connection.
pub(super) const NONE: u32 = u32::MAX;

impl RxConn {
    /// An unused entry.
    pub const UNUSED: Self = Self {
        handle: 0,
        queue: Queue::new(),
        peer: machnet_peer { local_ip: 0, remote_ip: 0, local_port: 0, remote_port: 0 },
        origin: Origin::Dialled(0),
        code: 0,
        offered: false,
        readable_reported: false,
        link: Link { events: 0, prev: NONE, next: NONE },
    };

    /// The first of its events, in the order in which they are handed out, and which it is.
    pub fn event(&self) -> (u8, machnet_event) {
        let event = |kind| machnet_event { kind, conn: self.handle, ..machnet_event::default() };
        if self.link.events & NEW != 0 {
            (NEW, self.established())
        } else if self.link.events & READABLE != 0 {
            (READABLE, event(MACHNET_EVENT_READABLE))
        } else {
            (CLOSED, machnet_event { code: self.code, ..event(MACHNET_EVENT_CLOSED) })
        }
    }

    fn established(&self) -> machnet_event {
        let (kind, id) = match self.origin {
            Origin::Accepted(id) => (MACHNET_EVENT_ACCEPTED, id),
            Origin::Dialled(id) => (MACHNET_EVENT_CONNECTED, id),
        };
        machnet_event {
            kind,
            conn: self.handle,
            id,
            local_ip: self.peer.local_ip,
            remote_ip: self.peer.remote_ip,
            local_port: self.peer.local_port,
            remote_port: self.peer.remote_port,
            ..machnet_event::default()
        }
    }
}
