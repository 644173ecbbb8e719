//! How many requests a server answers with 1, 2, 4 and 8 engines.

use std::fmt;

use machnet_nic::sim::Link;
use machnet_shm::FlowId;
use machnet_wire::Nanos;
use serde::Serialize;

use super::{ONE_WAY, add_hosts, ip, world};
use crate::{AppNo, pattern};

/// What was measured with so many engines.
#[derive(Clone, PartialEq, Serialize, Debug)]
pub struct Row {
    /// `on`; or `off`: port pairs are random, and packets are handed over.
    pub rss: &'static str,
    pub engines: u16,
    pub requests_per_s: f64,
    /// Of what so many servers of one engine would answer.
    pub efficiency: f64,
    /// Packets of each request that the server handed from one engine to another.
    pub handed_over: f64,
}

/// The heading of a table of rows.
pub const HEADING: &str = "RSS--  engines   requests/s  efficiency  handed over";

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row { rss, engines, requests_per_s, efficiency, handed_over } = self;
        write!(f, "{rss:<6} {engines:>7} {requests_per_s:>12.0} {efficiency:>11.3} {handed_over:>12.3}")
    }
}

/// Measures with each number of engines, RSS-- on and off, for `time` each.
pub fn run(seed: u64, engines: &[u16], time: Nanos) -> Vec<Row> {
    let one = rate(seed, 1, false, time).0;
    let row = |off: bool, engines: u16| {
        let (requests_per_s, handed_over) = rate(seed, engines, off, time);
        Row {
            rss: if off { "off" } else { "on" },
            engines,
            requests_per_s,
            efficiency: requests_per_s / (one * f64::from(engines)),
            handed_over,
        }
    };
    [false, true]
        .into_iter()
        .flat_map(|off| engines.iter().map(move |&n| (off, n)))
        .map(|(off, n)| row(off, n))
        .collect()
}

/// Requests a second of a server with so many engines, and packets that it handed over for each.
fn rate(seed: u64, engines: u16, off: bool, time: Nanos) -> (f64, f64) {
    let mut w = world(seed, Link { delay: ONE_WAY, rate: Some(RATE), ..Link::default() });
    // A client's engine does as much for a request as a server's, so there are twice as many.
    let hosts: Vec<u16> = std::iter::once(engines).chain((0..engines).map(|_| 2)).collect();
    add_hosts(&mut w, &hosts, |config| config.rss.off = off);
    let mut clients: Vec<(AppNo, Vec<FlowId>)> = Vec::new();
    for engine in 0..engines {
        let server = w.app(0, engine);
        w.listen(server, PORT + engine);
        w.apps[server].echoes = true;
        for client_engine in 0..2 {
            let client = w.app(usize::from(engine) + 1, client_engine);
            w.apps[client].echoes = true;
            let flows: Vec<_> =
                (0..FLOWS).map(|_| w.connect(client, server, ip(1), PORT + engine).0).collect();
            clients.push((client, flows));
        }
    }
    w.pass(SETTLED);
    for (client, flows) in &clients {
        for flow in flows {
            (0..IN_FLIGHT).for_each(|n| w.apps[*client].send(*flow, pattern(64, n)));
        }
    }
    w.pass(WARM);
    let so_far = |w: &crate::World| -> (u64, u64) {
        let bytes = clients.iter().flat_map(|(app, _)| w.apps[*app].conns.values()).map(|conn| conn.bytes);
        (bytes.sum::<u64>() / 64, w.counter(0, "handover_out"))
    };
    let before = so_far(&w);
    w.pass(time);
    let after = so_far(&w);
    let requests = (after.0 - before.0) as f64;
    (requests * 1e9 / time.0 as f64, (after.1 - before.1) as f64 / requests)
}

/// Connections of a client's application, and messages of 64 bytes under way on each: 256 for each engine of the server.
const FLOWS: u32 = 8;
const IN_FLIGHT: u64 = 16;
/// Bits per second of a link.
const RATE: u64 = 100_000_000_000;
/// The first of the server's ports.
const PORT: u16 = 8000;
/// After this pairs are found.
const SETTLED: Nanos = Nanos::millis(30);
/// After this windows have settled.
const WARM: Nanos = Nanos::millis(2);
