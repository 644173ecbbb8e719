//! How long a connection takes to be set up, and how many packets: first contacts, for which neither host knows a port pair of the
//! other, and later connections, for which they do.

use std::fmt;

use machnet_nic::sim::Link;
use machnet_wire::Nanos;
use serde::Serialize;

use super::{ONE_WAY, SMALL, add_hosts, ip, micros, quantile, world};
use crate::{AppNo, World};

/// What is to be measured.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Engines of the server, and of the client.
    pub engines: (u16, u16),
    /// First contacts, and later connections.
    pub connections: u32,
    /// As the paper does it, to compare.
    pub paper: bool,
    pub seed: u64,
}

/// What was measured of one phase.
#[derive(Clone, PartialEq, Serialize, Debug)]
pub struct Row {
    pub link: &'static str,
    /// Server x client.
    pub engines: String,
    /// `first`: of two hosts that do not know each other yet. `pooled`: the second and later connections between two.
    pub phase: &'static str,
    pub connections: u32,
    /// Share of the connections whose both ends knew a verified pair before any timer of theirs ran.
    pub first_batch: f64,
    /// Packets of both hosts until Dial returned, mean.
    pub packets: f64,
    /// Packets of both hosts until both knew their pairs, mean.
    pub packets_settled: f64,
    /// From the request to the answer, at the application that dials.
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
}

/// The heading of a table of rows.
pub const HEADING: &str =
    "engines  phase   first batch  packets  until settled    p50 us    p99 us  p99.9 us";

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row { engines, phase, first_batch, packets, packets_settled, p50_us, p99_us, p999_us, .. } = self;
        write!(
            f,
            "{engines:<8} {phase:<7} {first_batch:>11.4} {packets:>8.2} {packets_settled:>14.2} {p50_us:>9.1} {p99_us:>9.1} {p999_us:>9.1}"
        )
    }
}

/// What is known of one set-up.
struct Sample {
    took: Nanos,
    packets: u64,
    packets_settled: u64,
    first_batch: bool,
}

/// Measures both phases.
pub fn run(setup: &Setup) -> [Row; 2] {
    [row(setup, "first", first(setup)), row(setup, "pooled", pooled(setup))]
}

fn row(setup: &Setup, phase: &'static str, samples: Vec<Sample>) -> Row {
    let count = samples.len() as f64;
    let mean = |of: fn(&Sample) -> u64| samples.iter().map(of).sum::<u64>() as f64 / count;
    let mut took: Vec<Nanos> = samples.iter().map(|sample| sample.took).collect();
    took.sort_unstable();
    let (server, client) = setup.engines;
    Row {
        link: "sim",
        engines: format!("{server}x{client}"),
        phase,
        connections: setup.connections,
        first_batch: mean(|sample| sample.first_batch.into()),
        packets: mean(|sample| sample.packets),
        packets_settled: mean(|sample| sample.packets_settled),
        p50_us: micros(quantile(&took, 0.5)),
        p99_us: micros(quantile(&took, 0.99)),
        p999_us: micros(quantile(&took, 0.999)),
    }
}

/// A server and a client that know nothing of each other yet.
struct Hosts {
    w: World,
}

impl Hosts {
    /// The `n`-th such two.
    fn new(setup: &Setup, n: u32) -> Hosts {
        let (server, client) = setup.engines;
        let mut w = world(setup.seed.wrapping_add(n.into()), Link { delay: ONE_WAY, ..Link::default() });
        add_hosts(&mut w, &[server, client], |config| config.rss.paper = setup.paper);
        Hosts { w }
    }

    /// A listener on one of the server's engines.
    fn listen(&mut self, engine: u16) {
        let app = self.w.app_with(0, engine, SMALL);
        self.w.listen(app, PORT + engine);
    }

    /// An application on one of the client's engines.
    fn client(&mut self, engine: u16) -> AppNo {
        self.w.app_with(1, engine, SMALL)
    }

    /// Sets up one connection from an application to the listener on an engine, and ends it.
    fn set_up(&mut self, client: AppNo, server: u16) -> Sample {
        let w = &mut self.w;
        let (begun, sent) = (w.now, w.net.counts().sent);
        let retried = timers(w);
        let id = w.apps[client].dial(ip(1), PORT + server, 0, 0);
        // What leaves in the moment of the answer does not count: it is the answer's acknowledgement.
        let (mut before, mut last) = (sent, sent);
        w.run("dialling", |w| {
            before = std::mem::replace(&mut last, w.net.counts().sent);
            w.apps[client].dialled(id).is_some()
        });
        let (took, packets) = (w.now - begun, before - sent);
        w.pass(SETTLED);
        let sample = Sample {
            took,
            packets,
            packets_settled: w.net.counts().sent - sent,
            first_batch: timers(w) == retried && took < TRIED_AGAIN,
        };
        for app in w.apps.iter_mut() {
            let open: Vec<u64> = app.conns.keys().copied().collect();
            open.into_iter().for_each(|flow| app.close(flow));
        }
        w.pass(CLOSED);
        sample
    }
}

/// The engines of the `n`-th connection's server and client: every combination comes, also where both have as many.
fn ends(setup: &Setup, n: u32) -> (u16, u16) {
    let (server, client) = (u32::from(setup.engines.0), u32::from(setup.engines.1));
    (((n / client + n) % server) as u16, (n % client) as u16)
}

fn first(setup: &Setup) -> Vec<Sample> {
    let one = |n| {
        let mut hosts = Hosts::new(setup, n);
        let (server, client) = ends(setup, n);
        hosts.listen(server);
        let client = hosts.client(client);
        hosts.set_up(client, server)
    };
    (0..setup.connections).map(one).collect()
}

fn pooled(setup: &Setup) -> Vec<Sample> {
    let mut hosts = Hosts::new(setup, 0);
    (0..setup.engines.0).for_each(|engine| hosts.listen(engine));
    let clients: Vec<_> = (0..setup.engines.1).map(|engine| hosts.client(engine)).collect();
    hosts.set_up(clients[0], 0);
    let one = |n| {
        let (server, client) = ends(setup, n);
        hosts.set_up(clients[usize::from(client)], server)
    };
    (1..=setup.connections).map(one).collect()
}

/// Timers that ran because a pair was not found in time, at both hosts.
fn timers(w: &World) -> u64 {
    let count = |host| TIMERS.iter().map(|name| w.counter(host, name)).sum::<u64>();
    count(0) + count(1)
}

const TIMERS: [&str; 2] = ["searches_retried", "searches_given_up"];
/// A set-up that takes longer was tried again: the paper's form does so after 300 ms, and counts no searches.
const TRIED_AGAIN: Nanos = Nanos::millis(100);
/// The first of the servers' ports.
const PORT: u16 = 8000;
/// After this both know their pairs, or a timer has run: it is 10 ms after the last probe.
const SETTLED: Nanos = Nanos::millis(12);
/// After this a connection is over at both hosts.
const CLOSED: Nanos = Nanos::millis(1);
