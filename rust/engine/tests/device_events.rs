//! A NIC that is started again, or taken away and given back, under a hundred connections: what takes less time than peers wait for one another
//! costs a retransmission, what takes longer ends connections and nothing else.

use machnet_nic::sim::Away;
use machnet_shm::{FlowId, Reason};
use machnet_sim::{AppNo, World, pattern};
use machnet_wire::Nanos;

const A: usize = 0;
const B: usize = 1;
const ENGINES: u16 = 4;
const EACH: usize = 25;

struct Rig {
    w: World,
    servers: Vec<AppNo>,
    clients: Vec<AppNo>,
    /// The clients' ends.
    conns: Vec<(AppNo, FlowId)>,
}

/// Two hosts of four engines; every engine of the second has a server that echoes, every engine of the first 25 connections to them.
fn rig(seed: u64) -> Rig {
    let mut w = World::seeded(seed);
    w.add(1, ENGINES);
    w.add(2, ENGINES);
    let servers: Vec<AppNo> = (0..ENGINES).map(|engine| w.app(B, engine)).collect();
    let clients: Vec<AppNo> = (0..ENGINES).map(|engine| w.app(A, engine)).collect();
    for (i, &server) in servers.iter().enumerate() {
        w.apps[server].echoes = true;
        w.listen(server, 8000 + i as u16);
    }
    let mut rig = Rig { w, servers, clients, conns: Vec::new() };
    for i in 0..EACH * usize::from(ENGINES) {
        rig.connect(i);
    }
    rig.echo_all();
    rig.w.pass(Nanos::millis(100));
    rig
}

impl Rig {
    fn connect(&mut self, i: usize) {
        let (client, at) =
            (self.clients[i % self.clients.len()], i / self.clients.len() % self.servers.len());
        let ip = self.w.sidecars[B].ip;
        let flow = self.w.connect(client, self.servers[at], ip, 8000 + at as u16).0;
        self.conns.push((client, flow));
    }

    fn ask_all(&mut self) {
        for (i, &(app, flow)) in self.conns.iter().enumerate() {
            self.w.apps[app].send(flow, pattern(200, i as u64));
        }
    }

    /// Every connection has had its answer, which is what it sent.
    fn answered_all(&mut self) {
        let conns = self.conns.clone();
        self.w.run("answered", |w| {
            conns.iter().all(|&(app, flow)| !w.apps[app].peek(flow).received.is_empty())
        });
        for (i, (app, flow)) in conns.into_iter().enumerate() {
            let answer = self.w.apps[app].conn(flow).received.pop_front();
            assert_eq!(answer, Some(pattern(200, i as u64)), "seed {}", self.w.seed);
        }
    }

    fn echo_all(&mut self) {
        self.ask_all();
        self.answered_all();
    }

    fn over(&mut self, (app, flow): (AppNo, FlowId)) -> Option<Reason> {
        self.w.apps[app].peek(flow).over
    }

    fn port(&self, host: usize) -> machnet_nic::PortCounters {
        self.w.net.port_counters(host)
    }
}

#[test]
fn connections_live_through_a_reset_and_a_removal_of_300_ms() {
    for (seed, why, side) in
        [(1, Away::Reset, B), (2, Away::Removal, B), (3, Away::Reset, A), (4, Away::Removal, A)]
    {
        let mut rig = rig(seed);
        rig.ask_all();
        rig.w.net.put_away(side, Nanos::millis(300), why);
        let begun = rig.w.now;
        rig.answered_all();
        let took = rig.w.now - begun;
        assert!(took > Nanos::millis(300), "{why:?}: answered without a NIC, after {took:?}");
        let conns = rig.conns.clone();
        assert!(conns.into_iter().all(|end| rig.over(end).is_none()), "{why:?}");

        // The NIC hashes by another key now: its peer learns new ports, and then nothing comes to a wrong engine any more.
        rig.echo_all();
        rig.w.pass(Nanos::secs(1));
        rig.echo_all();
        let misdirected = |rig: &Rig| [A, B].map(|host| rig.w.counter(host, "misdirected"));
        let before = misdirected(&rig);
        assert!(before[side] > 0, "{why:?}: another key was not noticed");
        rig.echo_all();
        assert_eq!(misdirected(&rig), before, "{why:?}");

        let counted = rig.port(side);
        let (resets, removals) = if why == Away::Reset { (1, 0) } else { (0, 1) };
        assert_eq!((counted.resets, counted.removals), (Some(resets), Some(removals)));
        assert_eq!((counted.returns, counted.link_downs), (Some(removals), Some(removals)));
        // The side that asks sends again and again meanwhile; the other has nothing to answer.
        let dropped = rig.w.counter(side, "queue_link_down");
        assert!(side == B || dropped > 100, "what is sent meanwhile is counted: {dropped}");
    }
}

#[test]
fn a_removal_longer_than_peers_wait_ends_connections_and_leaves_listeners_and_local_ones() {
    let mut rig = rig(5);
    let ip = rig.w.sidecars[B].ip;
    let neighbour = rig.w.app(B, 1);
    let (near, _) = rig.w.connect(neighbour, rig.servers[0], ip, 8000);
    rig.ask_all();
    rig.w.net.put_away(B, Nanos::secs(5), Away::Removal);
    let begun = rig.w.now;
    // Applications of the same host talk on while there is no NIC.
    while rig.w.now < begun + Nanos::millis(4_500) {
        rig.w.carry((neighbour, near), (neighbour, near), pattern(1000, rig.w.now.0));
        rig.w.pass(Nanos::millis(100));
    }
    for end in rig.conns.clone() {
        assert_eq!(rig.over(end), Some(Reason::Timeout), "and not before their time, and not later");
    }
    rig.w.pass(Nanos::secs(1));
    assert_eq!((rig.port(B).removals, rig.port(B).returns), (Some(1), Some(1)));

    // The same listeners take new connections, from the same host.
    rig.conns.clear();
    for i in 0..EACH * usize::from(ENGINES) {
        rig.connect(i);
    }
    rig.echo_all();
    rig.w.carry((neighbour, near), (neighbour, near), pattern(1000, 1));
}
