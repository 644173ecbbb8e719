//! What an application is told of its own connections, by its channel: of those that live, and of those that have ended while it still has
//! a handle of them.

use machnet_flow::Held;
use machnet_rss::Pair;
use machnet_shm::{FlowId, FlowStats, KeepAlive, Pairs, Reason, Stage, Waits};
use machnet_wire::Nanos;

use crate::conn::Conn;
use crate::ids::{ChannelIndex, EngineIndex};
use crate::path::OutPath;
use crate::rss::Pairing;
use crate::state::Core;

impl Core {
    /// What is known of the connection that an application's handle names, or named; `None`: there is none.
    #[cold]
    pub fn stats_of(&self, at: ChannelIndex, id: FlowId) -> Option<FlowStats> {
        let channel = self.channels.get(at)?;
        match channel.conn(id).and_then(|index| self.conns.get(index)) {
            Some(conn) if conn.bound.place() == Some((at, id)) => {
                Some(stats(conn, self.own.index(), self.clock.now))
            }
            _ => channel.ended(id),
        }
    }

    /// Asks the peer of a connection after so much silence whether it lives.
    #[cold]
    pub fn keep_alive(&mut self, at: ChannelIndex, id: FlowId, after: KeepAlive) {
        let Some(index) = self.channels.get(at).and_then(|channel| channel.conn(id)) else { return };
        if self.conns.get(index).is_none_or(|conn| conn.bound.place() != Some((at, id))) {
            return;
        }
        let after = match after {
            KeepAlive::Default => None,
            KeepAlive::Never => Some(Nanos::MAX),
            KeepAlive::Millis(ms) => Some(Nanos::millis(ms.into())),
        };
        self.with(index, |flow, io| flow.keep_alive(io.now(), after));
    }
}

/// What is known of a connection that is over.
pub(crate) fn last(conn: &Conn, engine: EngineIndex, now: Nanos, why: Reason) -> FlowStats {
    FlowStats { stage: Stage::Over, waits: Waits::Nothing, reason: Some(why), ..stats(conn, engine, now) }
}

fn stats(conn: &Conn, engine: EngineIndex, now: Nanos) -> FlowStats {
    let (flow, path) = (&conn.flow, &conn.path);
    let counted = flow.stats();
    let (bytes_sent, bytes_received) = flow.bytes();
    // None of a connection on this host.
    let ports = |pair: Pair| (pair.src, pair.dst);
    FlowStats {
        srtt_ns: flow.rtt().map_or(0, |rtt| rtt.0),
        rtt_var_ns: flow.rtt_variation().0,
        bytes_sent,
        bytes_received,
        units_sent: counted.units_sent,
        units_received: counted.units_delivered,
        retransmitted: counted.retransmitted,
        timeouts: u32::try_from(counted.rtos).unwrap_or(u32::MAX),
        window: flow.window(now),
        in_flight: flow.in_flight(),
        queued: flow.queued(),
        credit: flow.credit(),
        granted: flow.promised(),
        engine: engine.0,
        udp_ports: ports(path.pair()),
        peer_udp_ports: ports(path.came()),
        stage: match flow.is_established() {
            true if flow.is_finished() => Stage::Closing,
            true => Stage::Open,
            false => Stage::Opening,
        },
        waits: match flow.held(now) {
            Held::Idle => Waits::Nothing,
            Held::Window => Waits::Window,
            Held::Credit => Waits::Credit,
            Held::Pace => Waits::Pacing,
            Held::Not if path.is_unknown() => Waits::NextHop,
            Held::Not => Waits::Turn,
        },
        pairing: pairs(path),
        reason: None,
    }
}

fn pairs(path: &OutPath) -> Pairs {
    if path.is_local() {
        return Pairs::None;
    }
    match path.pairing() {
        Pairing::Verified => Pairs::Verified,
        Pairing::Searching => Pairs::Searching,
        Pairing::Unverified => Pairs::Unverified,
        Pairing::GivenUp => Pairs::GivenUp,
    }
}
