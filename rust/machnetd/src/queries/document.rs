//! Answers at the control socket: one JSON document each, made row by row as engines answer.

use std::borrow::Cow;
use std::fmt::Display;
use std::net::{Ipv4Addr, SocketAddrV4};

use machnet_engine::neighbor::NeighborState;
use machnet_engine::{
    ChannelRow, ConnectionRow, ConnectionStage, ConnectionState, ListenerRow, Pairing, Waiting,
};
use machnet_host::{Listed, Peer, PeerState, Row, State};
use machnet_wire::{Mac, Nanos, Sample};
use serde::{Serialize, Serializer};

use super::request::{Refusal, VERSION};
use crate::pulse::EngineState;

/// An answer that is not whole yet.
#[derive(Debug)]
pub struct Document {
    bytes: Vec<u8>,
    query: &'static str,
    rows: usize,
    /// Instead of rows.
    error: Option<String>,
}

/// What every answer begins with.
#[derive(Serialize)]
struct Head<'a> {
    version: u64,
    query: Option<&'a str>,
}

/// An answer with some fields of its own.
#[derive(Serialize)]
struct Whole<'a, T> {
    #[serde(flatten)]
    head: Head<'a>,
    #[serde(flatten)]
    body: T,
}

/// A whole answer.
pub fn whole(query: &str, body: impl Serialize) -> Vec<u8> {
    json(&Whole { head: Head { version: VERSION, query: Some(query) }, body })
}

/// The answer to a question that is not answered.
pub fn refusal(refusal: &Refusal) -> Vec<u8> {
    #[derive(Serialize)]
    struct Body<'a> {
        error: &'a str,
    }
    let head = Head { version: VERSION, query: refusal.query.as_deref() };
    json(&Whole { head, body: Body { error: &refusal.error } })
}

/// The same where the question was understood.
pub fn failure(query: &str, error: impl Display) -> Vec<u8> {
    refusal(&Refusal { query: Some(query.to_owned()), error: error.to_string() })
}

fn json(document: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(document).unwrap_or_else(|error| unreachable!("names, numbers and texts: {error}"))
}

impl Document {
    /// The answer to a question of this name; rows follow.
    pub fn new(query: &'static str) -> Document {
        let bytes = format!("{{\"version\":{VERSION},\"query\":\"{query}\"").into_bytes();
        Document { bytes, query, rows: 0, error: None }
    }

    /// Adds rows.
    pub fn add(&mut self, rows: &Listed) {
        match rows {
            Listed::Channels(rows) => rows.iter().for_each(|row| self.row(&Channel::from(row))),
            Listed::Listeners(rows) => rows.iter().for_each(|row| self.row(&Listener::from(row))),
            Listed::Connections(engine, rows) => {
                rows.iter().for_each(|row| self.row(&Connection::new(*engine, row)));
            }
            Listed::Connection(engine, Some(state)) => {
                // The fields stand beside version and query: there is one at most.
                let fields = json(&Full::new(*engine, state));
                self.bytes.push(b',');
                self.bytes.extend_from_slice(&fields[1..fields.len() - 1]);
            }
            Listed::Connection(engine, None) => {
                let error = format!("engine {engine} has no such connection; it may be over");
                self.error = Some(error);
            }
            Listed::Peers(rows) => rows.iter().for_each(|row| self.row(&PeerBody::from(row))),
        }
    }

    fn row(&mut self, row: &impl Serialize) {
        self.open();
        if self.rows > 0 {
            self.bytes.push(b',');
        }
        self.rows += 1;
        self.bytes.extend_from_slice(&json(row));
    }

    /// The list begins, under the name of the question.
    fn open(&mut self) {
        if self.rows == 0 {
            self.bytes.extend_from_slice(format!(",\"{}\":[", self.query).as_bytes());
        }
    }

    /// Nothing is to be added.
    pub fn end(mut self) -> Vec<u8> {
        if let Some(error) = self.error {
            return failure(self.query, error);
        }
        if self.query != "connection" {
            self.open();
            self.bytes.push(b']');
        }
        self.bytes.push(b'}');
        self.bytes
    }

    /// The question's name.
    pub fn query(&self) -> &'static str {
        self.query
    }
}

/// What `stats` answers.
#[derive(Serialize)]
struct Stats<'a> {
    machnetd: &'static str,
    pid: u32,
    uptime_s: u64,
    ip: Ipv4Addr,
    engines: Vec<EngineCounts>,
    port: PortCounts<'a>,
}

#[derive(Serialize)]
struct EngineCounts {
    engine: u16,
    /// Its own, and sums over its flows.
    counters: Counts<Cow<'static, str>>,
    queue: Counts<&'static str>,
}

#[derive(Serialize)]
struct PortCounts<'a> {
    driver: &'a str,
    state: &'static str,
    counters: Counts<&'static str>,
}

/// The answer to `stats`.
pub fn stats(stats: &crate::stats::Stats) -> Vec<u8> {
    let engines = (0..stats.shared.engines()).filter_map(|engine| {
        let samples = stats.shared.samples(engine)?;
        let counters = samples.counted_by_engine().map(|(name, sample)| (name, sample.value));
        Some(EngineCounts { engine, counters: Counts(counters.collect()), queue: Counts::of(&samples.queue) })
    });
    whole(
        "stats",
        Stats {
            machnetd: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            uptime_s: stats.uptime_s(),
            ip: stats.shared.config.neighbor.ip,
            engines: engines.collect(),
            port: PortCounts {
                driver: stats.port.driver(),
                state: stats.port.state().name(),
                counters: Counts::of(&stats.port.counters().samples()),
            },
        },
    )
}

/// What `health` answers.
#[derive(Serialize)]
struct Health<'a> {
    healthy: bool,
    engines: Vec<EngineHealth>,
    nic: NicHealth<'a>,
}

#[derive(Serialize)]
struct EngineHealth {
    engine: u16,
    state: &'static str,
    late_ns: u64,
}

#[derive(Serialize)]
struct NicHealth<'a> {
    driver: &'a str,
    state: &'static str,
}

/// The answer to `health`.
pub fn health(stats: &crate::stats::Stats) -> Vec<u8> {
    let states: Vec<_> = stats.pulses.states(crate::threads::now()).collect();
    let healthy = !states.iter().any(|state| matches!(state, EngineState::Stalled(_)));
    let engines = (0..).zip(states).map(|(engine, state)| match state {
        EngineState::Running => EngineHealth { engine, state: "running", late_ns: 0 },
        EngineState::Asleep => EngineHealth { engine, state: "asleep", late_ns: 0 },
        EngineState::Stalled(late) => EngineHealth { engine, state: "stalled", late_ns: late.0 },
    });
    let nic = NicHealth { driver: stats.port.driver(), state: stats.port.state().name() };
    whole("health", Health { healthy, engines: engines.collect(), nic })
}

/// Counters by name, in the order of their table; `null` is one that is not counted here.
struct Counts<N>(Vec<(N, Option<u64>)>);

impl Counts<&'static str> {
    /// Of these samples.
    fn of(samples: &[Sample]) -> Self {
        Counts(samples.iter().map(|sample| (sample.name, sample.value)).collect())
    }
}

impl<N: Serialize> Serialize for Counts<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

#[derive(Serialize)]
struct Channel {
    channel: u64,
    engine: u16,
    application: u64,
    pid: i32,
    uid: u32,
    state: &'static str,
    connections: u32,
    listeners: u32,
    units: Units,
}

#[derive(Serialize)]
struct Units {
    total: u32,
    submitted: u32,
    delivered: u32,
    reserved: u32,
}

impl From<&(Row, ChannelRow)> for Channel {
    fn from((known, row): &(Row, ChannelRow)) -> Channel {
        let draining = row.draining || known.state == State::Draining;
        let machnet_engine::Units { total, submitted, delivered, reserved } = row.units;
        Channel {
            channel: row.channel,
            engine: known.engine,
            application: known.application,
            pid: known.owner.pid,
            uid: known.owner.uid,
            state: if draining { "draining" } else { "attached" },
            connections: row.connections,
            listeners: row.listeners,
            units: Units { total, submitted, delivered, reserved },
        }
    }
}

#[derive(Serialize)]
struct Listener {
    port: u16,
    channel: u64,
    engine: u16,
    pid: i32,
    uid: u32,
    reuse_port: bool,
    group: bool,
    backlog: u32,
    waiting: u32,
}

impl From<&(Row, ListenerRow)> for Listener {
    fn from((known, row): &(Row, ListenerRow)) -> Listener {
        Listener {
            port: row.port,
            channel: row.channel,
            engine: known.engine,
            pid: known.owner.pid,
            uid: known.owner.uid,
            reuse_port: row.reuse_port,
            group: row.group,
            backlog: row.backlog,
            waiting: row.waiting,
        }
    }
}

#[derive(Serialize)]
struct Connection {
    engine: u16,
    connection: String,
    channel: Option<u64>,
    local: SocketAddrV4,
    peer: SocketAddrV4,
    state: &'static str,
    origin: &'static str,
    queued: u32,
    in_flight: u32,
    rtt_ns: Option<u64>,
}

impl Connection {
    fn new(engine: u16, row: &ConnectionRow) -> Connection {
        let address = |(ip, port)| SocketAddrV4::new(ip, port);
        Connection {
            engine,
            connection: row.connection.to_string(),
            channel: row.channel,
            local: address(row.local),
            peer: address(row.peer),
            state: match row.stage {
                ConnectionStage::Opening => "opening",
                ConnectionStage::Open => "open",
                ConnectionStage::Closing => "closing",
            },
            origin: if row.dialled { "dialled" } else { "accepted" },
            queued: row.queued,
            in_flight: row.in_flight,
            rtt_ns: row.rtt.map(|rtt| rtt.0),
        }
    }
}

#[derive(Serialize)]
struct Full {
    #[serde(flatten)]
    row: Connection,
    window: u32,
    unit_size: u32,
    credit: u32,
    promised: u32,
    waits: Option<&'static str>,
    timeout_ns: u64,
    next_hop: Option<Ipv4Addr>,
    next_hop_mac: Option<String>,
    local_udp_port: u16,
    peer_udp_port: u16,
    pair: Option<&'static str>,
    peer_queue: Option<u16>,
    misdirected: u64,
    counters: Counts<&'static str>,
}

impl Full {
    fn new(engine: u16, state: &ConnectionState) -> Full {
        Full {
            row: Connection::new(engine, &state.row),
            window: state.window,
            unit_size: state.unit_size,
            credit: state.credit,
            promised: state.promised,
            waits: state.waits.map(|waits| match waits {
                Waiting::Reader => "reader",
                Waiting::Units => "units",
                Waiting::ReceiveRing => "receive ring",
            }),
            timeout_ns: state.timeout.0,
            next_hop: state.next_hop.map(|(ip, _)| ip),
            next_hop_mac: state.next_hop.and_then(|(_, mac)| Some(mac?.to_string())),
            local_udp_port: state.udp_ports.0,
            peer_udp_port: state.udp_ports.1,
            pair: state.pairing.map(|pairing| match pairing {
                Pairing::Verified => "verified",
                Pairing::Searching => "searching",
                Pairing::Unverified => "unverified",
                Pairing::GivenUp => "given up",
            }),
            peer_queue: state.wanted_queue,
            misdirected: state.misdirected,
            counters: Counts::of(&state.counters.samples()),
        }
    }
}

#[derive(Serialize)]
struct PeerBody {
    ip: Ipv4Addr,
    next_hop: Option<Ipv4Addr>,
    mac: Option<String>,
    state: &'static str,
    connections: u32,
    heard_ns_ago: Option<u64>,
}

impl From<&Peer> for PeerBody {
    fn from(peer: &Peer) -> PeerBody {
        PeerBody {
            ip: peer.ip,
            next_hop: peer.next_hop,
            mac: peer.mac.as_ref().map(Mac::to_string),
            state: match peer.state {
                PeerState::Local => "local",
                PeerState::NextHop(NeighborState::Fixed) => "fixed",
                PeerState::NextHop(NeighborState::Known) => "known",
                PeerState::NextHop(NeighborState::Asking) => "asking",
                PeerState::NextHop(NeighborState::Unreachable) => "unreachable",
                PeerState::Unknown => "unknown",
            },
            connections: peer.connections,
            heard_ns_ago: peer.heard_ago.map(|Nanos(ago)| ago),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    fn row(port: u16) -> ConnectionRow {
        ConnectionRow {
            connection: "7-1".parse().unwrap(),
            channel: None,
            local: (Ipv4Addr::new(10, 0, 0, 1), port),
            peer: (Ipv4Addr::new(10, 0, 0, 2), 4000),
            stage: ConnectionStage::Open,
            dialled: false,
            queued: 2,
            in_flight: 1,
            rtt: None,
        }
    }

    #[test]
    fn a_list_is_one_document_however_many_parts_it_comes_in() {
        let shown = |port| {
            format!(
                r#"{{"engine":3,"connection":"7-1","channel":null,"local":"10.0.0.1:{port}","peer":"10.0.0.2:4000","state":"open","origin":"accepted","queued":2,"in_flight":1,"rtt_ns":null}}"#
            )
        };
        let mut document = Document::new("connections");
        document.add(&Listed::Connections(3, vec![row(1), row(2)]));
        document.add(&Listed::Connections(3, vec![]));
        document.add(&Listed::Connections(3, vec![row(3)]));
        let rows = [shown(1), shown(2), shown(3)].join(",");
        assert_eq!(
            text(document.end()),
            format!(r#"{{"version":1,"query":"connections","connections":[{rows}]}}"#)
        );
        let mut empty = Document::new("peers");
        empty.add(&Listed::Peers(vec![]));
        assert_eq!(text(empty.end()), r#"{"version":1,"query":"peers","peers":[]}"#);
    }

    #[test]
    fn a_connection_that_is_not_there_is_an_error() {
        let mut document = Document::new("connection");
        document.add(&Listed::Connection(1, None));
        assert_eq!(
            text(document.end()),
            r#"{"version":1,"query":"connection","error":"engine 1 has no such connection; it may be over"}"#
        );
    }

    #[test]
    fn a_refusal_names_the_question_where_it_was_read() {
        let refused = |query: Option<&str>| {
            text(refusal(&Refusal { query: query.map(str::to_owned), error: "no \"x\"".to_owned() }))
        };
        assert_eq!(refused(Some("stats")), r#"{"version":1,"query":"stats","error":"no \"x\""}"#);
        assert_eq!(refused(None), r#"{"version":1,"query":null,"error":"no \"x\""}"#);
    }

    #[test]
    fn a_count_of_zero_is_not_one_that_nobody_counts() {
        let counts = Counts(vec![("a", Some(1)), ("b", Some(0)), ("c", None)]);
        assert_eq!(serde_json::to_string(&counts).unwrap(), r#"{"a":1,"b":0,"c":null}"#);
    }
}
