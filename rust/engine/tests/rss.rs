//! RSS--: how connections find the queues of each other's NIC, whose keys are secret, and how few packets that takes.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use machnet_rss::spray;
use machnet_shm::FlowId;
use machnet_sim::{AppNo, World, pattern};
use machnet_wire::frame::{self, Frame};
use machnet_wire::{Kind, Nanos, Packet};

/// Two sidecars with so many engines, an application on each engine, listening on port 8000 + engine on the second sidecar.
struct Pair {
    w: World,
    clients: Vec<AppNo>,
    servers: Vec<AppNo>,
}

impl Pair {
    fn new(seed: u64, n: u16, m: u16) -> Self {
        let mut w = World::seeded(seed);
        let (a, b) = (w.add(1, m), w.add(2, n));
        let clients = (0..m).map(|engine| w.app(a, engine)).collect();
        let servers: Vec<_> = (0..n).map(|engine| w.app(b, engine)).collect();
        for (engine, &server) in servers.iter().enumerate() {
            w.listen(server, 8000 + engine as u16);
        }
        Self { w, clients, servers }
    }

    fn connect(&mut self, client: usize, server: usize) -> (FlowId, FlowId) {
        let ip = self.w.sidecars[1].ip;
        self.w.connect(self.clients[client], self.servers[server], ip, 8000 + server as u16)
    }

    fn count(&self, name: &str) -> [u64; 2] {
        [0, 1].map(|host| self.w.counter(host, name))
    }

    fn sum(&self, name: &str) -> u64 {
        self.count(name).iter().sum()
    }
}

/// Both directions of a connection that has been set up stay on their engines' queues.
#[test]
fn a_first_contact_finds_both_queues() {
    for (seed, n, m) in [(1, 2, 2), (2, 4, 4), (3, 8, 8), (4, 1, 8), (5, 8, 1), (6, 3, 5)] {
        let mut p = Pair::new(seed, n, m);
        let (near, far) = p.connect(usize::from(m) - 1, usize::from(n) - 1);
        let batch = spray::batch(m);
        let sprayed = p.count("syn_sprayed");
        assert_eq!(sprayed, [if m > 1 { batch.into() } else { 0 }, 0], "seed {seed}");
        // Before any timer has run.
        p.w.pass(Nanos::millis(2));
        // What SYNs and SYN-ACKs have found is no search.
        assert_eq!(p.sum("searches") > 0, p.sum("probes_sent") > 0, "seed {seed}");
        assert!(p.sum("searches") == 0 || n > m, "seed {seed}");
        // A server that is sent to as it wishes has nothing to say of pairs, unless it is asked.
        if n <= m {
            assert_eq!(p.count("paths_sent")[1], 0, "seed {seed}");
        }
        let quiet = p.sum("misdirected");
        let (client, server) = (p.clients[usize::from(m) - 1], p.servers[usize::from(n) - 1]);
        p.w.carry((client, near), (server, far), pattern(100_000, 1));
        p.w.carry((server, far), (client, near), pattern(100_000, 2));
        assert_eq!(p.sum("misdirected"), quiet, "seed {seed}: {:#?}", [p.w.counters(0), p.w.counters(1)]);
        assert_eq!(p.sum("rx_bad_machnet"), 0);
        p.w.assert_nothing_is_lost();
    }
}

#[test]
fn a_second_connection_takes_one_syn_and_one_syn_ack() {
    for (seed, n, m) in [(11, 4, 4), (12, 8, 8), (13, 1, 8), (14, 8, 1), (15, 3, 5)] {
        let mut p = Pair::new(seed, n, m);
        p.connect(0, 0);
        // Counts of flows are a second old at most.
        p.w.pass(Nanos::millis(1100));
        let before = p.count("flow_hellos_sent");
        p.connect(0, 0);
        p.w.pass(Nanos::millis(1100));
        let after = p.count("flow_hellos_sent");
        assert_eq!([after[0] - before[0], after[1] - before[1]], [1, 1], "seed {seed}");
        p.w.assert_nothing_is_lost();
    }
}

/// A SYN goes where the last connection to its port lives: from the second one on no packet is handed over.
#[test]
fn later_connections_to_a_port_need_no_hand_over() {
    for (seed, n, m) in [(41, 4, 4), (42, 8, 8), (43, 8, 1), (44, 3, 5)] {
        let mut p = Pair::new(seed, n, m);
        p.connect(0, usize::from(n) - 1);
        p.w.pass(Nanos::millis(200));
        let before = p.sum("handover_out");
        for _ in 0..20 {
            p.connect(0, usize::from(n) - 1);
        }
        p.w.pass(Nanos::millis(200));
        assert_eq!(p.sum("handover_out"), before, "seed {seed}");
        p.w.assert_nothing_is_lost();
    }
}

/// Each SYN of a batch has a pair of its own, and so has each of the SYN-ACKs that it buys.
#[test]
fn each_packet_of_a_batch_tries_another_pair() {
    let mut p = Pair::new(31, 4, 4);
    let tried = [(0, 1, Kind::Syn), (1, 0, Kind::SynAck)].map(|(from, to, kind)| {
        let tried = Arc::new(Mutex::new(BTreeSet::new()));
        let copy = Arc::clone(&tried);
        p.w.net.lose_if(from, to, move |frame| {
            if let Ok(Frame::Udp { udp, payload, .. }) = frame::parse(frame)
                && Packet::parse(payload).is_ok_and(|packet| packet.header.kind == kind)
            {
                copy.lock().expect("one thread").insert((udp.src, udp.dst));
            }
            false
        });
        tried
    });
    p.connect(0, 0);
    p.w.pass(Nanos::millis(5));
    let batch = usize::from(spray::batch(4));
    assert_eq!(tried.map(|tried| tried.lock().expect("one thread").len()), [batch, batch]);
}

/// However long the first answer to ARP takes: all SYNs of the batch go then, and not only the one that a timer asks for.
#[test]
fn a_batch_waits_whole_for_its_next_hop() {
    let mut p = Pair::new(32, 4, 4);
    let (asked, syns) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(0)));
    let copies = (Arc::clone(&asked), Arc::clone(&syns));
    // The hosts have announced themselves: who is being asked for is known as soon as he does that.
    p.w.pass(Nanos::millis(1));
    p.w.net.lose_if(0, 1, move |frame| match frame::parse(frame) {
        Ok(Frame::Udp { payload, .. }) => {
            let is_syn = Packet::parse(payload).is_ok_and(|packet| packet.header.kind == Kind::Syn);
            *copies.1.lock().expect("one thread") += usize::from(is_syn);
            false
        }
        _ => {
            let mut asked = copies.0.lock().expect("one thread");
            *asked += 1;
            *asked <= 1
        }
    });
    let begun = p.w.now;
    p.connect(0, 0);
    assert!(*asked.lock().expect("one thread") > 1 && p.w.now - begun > Nanos::millis(10));
    p.w.pass(Nanos::millis(5));
    // A timer may ask for one more in the same moment.
    let (syns, batch) = (*syns.lock().expect("one thread"), usize::from(spray::batch(4)));
    assert!((batch..=batch + 1).contains(&syns), "{syns} SYNs");
}

/// One queue at each end: nothing is searched for, nothing is told.
#[test]
fn single_queues_cost_nothing() {
    let mut p = Pair::new(21, 1, 1);
    let (near, far) = p.connect(0, 0);
    let (client, server) = (p.clients[0], p.servers[0]);
    p.w.carry((client, near), (server, far), pattern(100_000, 1));
    p.w.pass(Nanos::millis(1100));
    for name in ["syn_sprayed", "probes_sent", "paths_sent", "searches", "misdirected", "pairs_verified"] {
        assert_eq!(p.sum(name), 0, "{name}");
    }
    assert_eq!(p.sum("flow_hellos_sent"), 2);
    p.w.assert_nothing_is_lost();
}
