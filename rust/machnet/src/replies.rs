//! The sidecar's replies as events, and a place for those that came while a call waited for another.
use crate::code::*;
use crate::ends::code_of;
use crate::types::{machnet_event, machnet_stats_t};
use machnet_shm::{FlowStats, Reply};

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

/// What the sidecar said of connections, until it is taken.
pub struct Answers {
    /// The question, or 0, and the answer; the next one goes to `next`, whatever is there.
    places: [(u32, machnet_stats_t); ANSWERS],
    next: usize,
}

impl Answers {
    /// None.
    pub const fn new() -> Self {
        Self { places: [(0, NOTHING); ANSWERS], next: 0 }
    }

    /// Keeps one.
    pub fn put(&mut self, id: u32, stats: &FlowStats) {
        if let Some(place) = self.places.get_mut(self.next) {
            *place = (id, record_of(stats));
        }
        self.next = (self.next + 1) % ANSWERS;
    }

    /// Takes the answer to a question.
    pub fn take(&mut self, id: u32) -> Option<machnet_stats_t> {
        let place = self.places.iter_mut().find(|place| place.0 == id && id != 0)?;
        place.0 = 0;
        Some(place.1)
    }
}

/// The record of the C ABI.
fn record_of(stats: &FlowStats) -> machnet_stats_t {
    machnet_stats_t {
        srtt_ns: stats.srtt_ns,
        rtt_var_ns: stats.rtt_var_ns,
        bytes_sent: stats.bytes_sent,
        bytes_received: stats.bytes_received,
        units_sent: stats.units_sent,
        units_received: stats.units_received,
        retransmitted: stats.retransmitted,
        timeouts: stats.timeouts,
        window: stats.window,
        in_flight: stats.in_flight,
        queued: stats.queued,
        credit: stats.credit,
        granted: stats.granted,
        engine: stats.engine,
        udp_source: stats.udp_ports.0,
        udp_destination: stats.udp_ports.1,
        peer_udp_source: stats.peer_udp_ports.0,
        peer_udp_destination: stats.peer_udp_ports.1,
        stage: stats.stage as u8,
        waits: stats.waits as u8,
        pairing: stats.pairing as u8,
        reserved: [0; 5],
        reason: stats.reason.map_or(0, |reason| code_of(reason).0),
    }
}

/// A reply as an event.
pub fn event_of(reply: &Reply) -> machnet_event {
    let event = |kind, id| machnet_event { kind, id, ..machnet_event::default() };
    let failed = |kind, id, reason| {
        let (code, limit) = code_of(reason);
        machnet_event { code, limit, ..event(kind, id) }
    };
    match *reply {
        Reply::Listening { id, port } => {
            machnet_event { local_port: port, ..event(MACHNET_EVENT_LISTENING, id) }
        }
        Reply::ListenFailed { id, reason } => failed(MACHNET_EVENT_LISTEN_FAILED, id, reason),
        Reply::Unlistened { id } => event(MACHNET_EVENT_UNLISTENED, id),
        Reply::ConnectFailed { id, reason } => failed(MACHNET_EVENT_CONNECT_FAILED, id, reason),
        Reply::Stats { id, stats } => {
            let code = if stats.is_some() { 0 } else { MACHNET_ECLOSED };
            machnet_event { code, ..event(MACHNET_EVENT_STATS, id) }
        }
    }
}

/// Answers that are kept: as many as [`Stash`] has places for, and a poll of as many events.
const ANSWERS: usize = 64;
const NOTHING: machnet_stats_t = machnet_stats_t {
    srtt_ns: 0,
    rtt_var_ns: 0,
    bytes_sent: 0,
    bytes_received: 0,
    units_sent: 0,
    units_received: 0,
    retransmitted: 0,
    timeouts: 0,
    window: 0,
    in_flight: 0,
    queued: 0,
    credit: 0,
    granted: 0,
    engine: 0,
    udp_source: 0,
    udp_destination: 0,
    peer_udp_source: 0,
    peer_udp_destination: 0,
    stage: 0,
    waits: 0,
    pairing: 0,
    reserved: [0; 5],
    reason: 0,
};
