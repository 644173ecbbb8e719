//! The sidecar's replies as events, and a place for those that came while a call waited for another.
use crate::code::*;
use crate::ends::code_of;
use crate::types::machnet_event;
use machnet_shm::Reply;

/// A few events that were taken from the ring and not handed out, oldest first.
pub struct Stash {
    events: [machnet_event; 32],
    len: usize,
}

impl Stash {
    /// None.
    pub const fn new() -> Self {
        const NONE: machnet_event = machnet_event {
            kind: 0,
            code: 0,
            conn: 0,
            id: 0,
            local_ip: 0,
            remote_ip: 0,
            local_port: 0,
            remote_port: 0,
            limit: 0,
            reserved: 0,
        };
        Self { events: [NONE; 32], len: 0 }
    }

    /// How many.
    pub fn len(&self) -> u32 {
        self.len as u32
    }

    /// Whether another one finds a place.
    pub fn has_room(&self) -> bool {
        self.len < self.events.len()
    }

    /// Adds one, if there is a place.
    pub fn put(&mut self, event: machnet_event) {
        if let Some(place) = self.events.get_mut(self.len) {
            *place = event;
            self.len += 1;
        }
    }

    /// Takes the first that `wanted` picks.
    pub fn take(&mut self, wanted: impl Fn(&machnet_event) -> bool) -> Option<machnet_event> {
        let filled = self.events.get_mut(..self.len)?;
        let at = filled.iter().position(wanted)?;
        let rest = filled.get_mut(at..)?;
        let taken = *rest.first()?;
        rest.rotate_left(1);
        self.len -= 1;
        Some(taken)
    }
}

/// A reply as an event.
pub fn event_of(reply: Reply) -> machnet_event {
    let event = |kind, id| machnet_event { kind, id, ..machnet_event::default() };
    let failed = |kind, id, reason| {
        let (code, limit) = code_of(reason);
        machnet_event { code, limit, ..event(kind, id) }
    };
    match reply {
        Reply::Listening { id, port } => {
            machnet_event { local_port: port, ..event(MACHNET_EVENT_LISTENING, id) }
        }
        Reply::ListenFailed { id, reason } => failed(MACHNET_EVENT_LISTEN_FAILED, id, reason),
        Reply::Unlistened { id } => event(MACHNET_EVENT_UNLISTENED, id),
        Reply::ConnectFailed { id, reason } => failed(MACHNET_EVENT_CONNECT_FAILED, id, reason),
    }
}
