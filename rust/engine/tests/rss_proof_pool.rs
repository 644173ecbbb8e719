//! What the pool knows is used: from the second connection to a peer on, one SYN and one SYN-ACK, whatever port and engine it is for; and
//! where data goes then.

mod field;

use field::{Field, count};
use machnet_shm::FlowId;
use machnet_sim::{AppNo, World, pattern};
use machnet_wire::{Kind, Nanos};

/// Connections to the same peer, after the first.
const LATER: usize = 200;

#[test]
fn from_the_second_connection_on_dial_takes_two_packets_to_any_port_on_any_engine() {
    println!("m x n   later  began with a pair  searches  probes  PATHS each");
    for (seed, (m, n)) in (90..).zip([(1, 1), (1, 4), (4, 1), (2, 2), (4, 4), (8, 8), (3, 5)]) {
        later_connections(seed, m, n);
    }
}

fn later_connections(seed: u64, m: u16, n: u16) {
    let mut field = Field::new(seed, 1, m, n);
    let (clients, servers) = field.more_apps();
    let w = &mut field.w;
    // The first one pays for all.
    let to = ip(w);
    w.connect(clients[0], servers[0], to, 9000);
    w.pass(Nanos::millis(200));
    let counted = ["pool_hits", "searches", "probes_sent", "paths_sent"];
    let sum = |w: &World, name: &str| count(w, 0, name) + count(w, 1, name);
    let before = counted.map(|name| sum(w, name));
    for later in 0..LATER {
        let (client, server) = (clients[later * 7 % clients.len()], servers[later * 5 % servers.len()]);
        let port = 9000 + (later * 5 % servers.len()) as u16;
        field.tap(0);
        let w = &mut field.w;
        let (accepted, to) = (w.apps[server].accepted.len(), ip(w));
        let id = w.apps[client].dial(to, port, 0, 0);
        w.run("dial", |w| w.apps[client].dialled(id).is_some());
        let heard = field.heard();
        let dialled = (heard.of(Kind::Syn), heard.of(Kind::SynAck));
        assert_eq!(dialled, (1, 1), "seed {seed}, {m} x {n}: SYN, SYN-ACK of dial {later}");
        // The engine that tells the application confirms in the same round, or has the rest of a batch sent.
        let more = [Kind::Ack, Kind::Paths, Kind::Ping].map(|kind| heard.of(kind));
        assert_eq!(
            heard.all(),
            2 + more.iter().sum::<u64>(),
            "seed {seed}, {m} x {n}: dial {later}: {heard:?}"
        );
        let w = &mut field.w;
        w.run("accept", |w| w.apps[server].accepted.len() > accepted);
        let near = w.apps[client].dialled(id).expect("dialled").flow;
        let far = w.apps[server].accepted[accepted].flow;
        // Where the pool has no pair for these two queues a search begins; at the latest then no packet comes in wrong.
        w.pass(Nanos::millis(200));
        stays_right(w, (client, near), (server, far));
        w.apps[client].close(near);
        w.apps[server].close(far);
        w.run("ending", |w| {
            w.sidecars.iter().flat_map(|s| &s.engines).map(|e| e.flows()).sum::<usize>() == 2
        });
    }
    let [hits, searches, probes, paths] =
        std::array::from_fn(|at| (sum(&field.w, counted[at]) - before[at]) as f64);
    let each = 1.0 / LATER as f64;
    println!(
        "{m} x {n} {LATER:>7} {:>18.2} {searches:>9} {:>7.2} {:>7.2}",
        hits * each,
        probes * each,
        paths * each
    );
    if m > 1 || n > 1 {
        assert!(hits > 0.0, "seed {seed}, {m} x {n}: no connection began with a verified pair");
        // Each pair of queues is found once, and not by every connection.
        assert!(searches <= f64::from(m * n) * 2.0, "seed {seed}, {m} x {n}: {searches} searches");
    }
}

/// Messages both ways come in on their engines' queues.
fn stays_right(w: &mut World, near: (AppNo, FlowId), far: (AppNo, FlowId)) {
    let wrong = |w: &World| ["misdirected", "handover_in"].map(|name| count(w, 0, name) + count(w, 1, name));
    let before = wrong(w);
    w.carry(near, far, pattern(20_000, 1));
    w.carry(far, near, pattern(20_000, 2));
    assert_eq!(wrong(w), before, "seed {}: packets on a wrong queue, packets handed over", w.seed);
}

fn ip(w: &World) -> std::net::Ipv4Addr {
    w.sidecars[1].ip
}
