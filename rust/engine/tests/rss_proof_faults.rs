//! What happens to the paths of 100 connections changes while they are set up, or while one of them carries 8 MiB: nothing is lost, and
//! each is on a right queue again as soon as that can be.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use machnet_nic::sim::HashOver;
use machnet_shm::{FlowId, Geometry, Reply};
use machnet_sim::{AppNo, World, pattern};
use machnet_wire::Nanos;
use machnet_wire::frame::{self, Frame};

/// What changes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// Nothing: how long it takes without.
    None,
    /// The server's table leads each hash to the next queue.
    Table,
    /// The server's NIC draws another key.
    Key,
    /// The server's NIC hashes addresses only from now on.
    Addresses,
    /// It hashes nothing.
    Nothing,
    /// It puts each packet on the next queue.
    Turns,
    /// The server's sidecar dies and another begins, with another epoch and another key; its application attaches and listens anew.
    Restart,
    /// Nothing arrives at the server for a while.
    ThereBlocked,
    /// Nothing comes back from it for a while.
    BackBlocked,
    /// One of the network's two equal paths is gone for good, and with it half of all pairs, known and new, both ways.
    PathDown,
    /// Every pair that is in use at that moment is lost for good, both ways.
    PairsDown,
}

/// When.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Moment {
    SetUp,
    Message,
}

const A: usize = 0;
const B: usize = 1;
const ENGINES: u16 = 4;
const CONNS: usize = 100;
/// How long a direction is blocked.
const BLOCKED: Nanos = Nanos::millis(50);
/// No packet on a wrong queue for as long as this: what there is to find is found.
const QUIET: Nanos = Nanos::millis(300);

/// One connection as both applications know it.
#[derive(Clone, Copy)]
struct Conn {
    client: AppNo,
    near: FlowId,
    port: u16,
}

struct Scene {
    w: World,
    clients: Vec<AppNo>,
    servers: Vec<AppNo>,
    conns: Vec<Conn>,
    /// Echoes that each connection has brought back.
    beats: u64,
    /// Connections that ended by a fault, and were begun anew.
    redialled: usize,
    pairs: Arc<Mutex<Pairs>>,
}

/// UDP ports on the wire.
#[derive(Default)]
struct Pairs {
    seen: BTreeSet<(u16, u16)>,
    blocked: BTreeSet<(u16, u16)>,
    /// Half of all are.
    half: bool,
}

/// When things were well again, from the fault (or its end) on.
#[derive(Debug)]
struct Recovery {
    /// The last connection was answered.
    served: Nanos,
    /// The last packet came in on a wrong queue; `None`: they still do.
    right: Option<Nanos>,
}

impl Scene {
    fn new(seed: u64) -> Scene {
        let mut w = World::seeded(seed);
        w.add(1, ENGINES);
        w.add(2, ENGINES);
        let geometry = Geometry { flows: 256, ..Geometry::DEFAULT };
        let clients = (0..ENGINES).map(|engine| w.app_with(A, engine, geometry)).collect();
        let mut scene = Scene {
            w,
            clients,
            servers: Vec::new(),
            conns: Vec::new(),
            beats: 0,
            redialled: 0,
            pairs: Arc::default(),
        };
        scene.serve();
        for (from, to) in [(A, B), (B, A)] {
            let pairs = Arc::clone(&scene.pairs);
            scene.w.net.lose_if(from, to, move |bytes| pairs.lock().expect("one thread").pass(bytes));
        }
        scene
    }

    /// An application on each engine of the server that echoes.
    fn serve(&mut self) {
        let geometry = Geometry { flows: 256, ..Geometry::DEFAULT };
        self.servers = (0..ENGINES)
            .map(|engine| {
                let app = self.w.app_with(B, engine, geometry);
                self.w.apps[app].echoes = true;
                self.w.apps[app].listen_for(8000 + engine, 256);
                app
            })
            .collect();
    }

    /// Begins connections until there are as many as wanted; none of them is waited for.
    fn dial(&mut self) -> Vec<(AppNo, u32, u16)> {
        let missing = CONNS - self.conns.len();
        (0..missing)
            .map(|i| {
                let client = self.clients[i % self.clients.len()];
                let port = 8000 + (i / self.clients.len()) as u16 % ENGINES;
                let ip = self.w.sidecars[B].ip;
                (client, self.w.apps[client].dial(ip, port, 0, 0), port)
            })
            .collect()
    }

    fn dialled(&mut self, ids: &[(AppNo, u32, u16)]) {
        self.w.run("connecting", |w| {
            ids.iter()
                .all(|&(app, id, _)| w.apps[app].dialled(id).is_some() || w.apps[app].reply(id).is_some())
        });
        for &(client, id, port) in ids {
            match self.w.apps[client].take_reply(id) {
                None => {
                    let near = self.w.apps[client].dialled(id).expect("dialled").flow;
                    self.conns.push(Conn { client, near, port });
                }
                Some(Reply::ConnectFailed { .. }) => self.redialled += 1,
                other => panic!("{other:?}"),
            }
        }
    }

    /// Has a message echoed on each connection but the first `spared`; connections that have ended meanwhile, each told of, are begun
    /// anew until all are served.
    fn beat(&mut self, spared: usize) {
        loop {
            self.beats += 1;
            let message = pattern(100, self.beats);
            let live = self.conns[spared..].to_vec();
            live.iter().for_each(|conn| self.w.apps[conn.client].send(conn.near, message.clone()));
            self.w.run("a beat", |w| {
                live.iter().all(|conn| {
                    let state = w.apps[conn.client].peek(conn.near);
                    state.over.is_some() || !state.received.is_empty()
                })
            });
            for conn in &live {
                let state = self.w.apps[conn.client].peek(conn.near);
                if state.over.is_none() {
                    assert_eq!(state.received.pop_front(), Some(message.clone()), "seed {}", self.w.seed);
                    assert!(state.received.is_empty(), "an echo twice");
                }
            }
            let before = self.conns.len();
            let w = &mut self.w;
            self.conns.retain(|conn| w.apps[conn.client].peek(conn.near).over.is_none());
            self.redialled += before - self.conns.len();
            if self.conns.len() == CONNS {
                return;
            }
            let ids = self.dial();
            self.dialled(&ids);
        }
    }

    /// Beats until all is well again, `since` a time at which `wrong` packets had come in on wrong queues.
    fn recover(&mut self, since: Nanos, mut wrong: u64, spared: usize) -> Recovery {
        self.beat(spared);
        let (served, mut right) = (self.w.now - since, Nanos::ZERO);
        let (mut quiet_since, end) = (self.w.now, self.w.now + Nanos::secs(3));
        while self.w.now - quiet_since < QUIET {
            let now = self.misdirected();
            if now != wrong {
                wrong = now;
                quiet_since = self.w.now;
                right = self.w.now - since;
            }
            if self.w.now >= end {
                return Recovery { served, right: None };
            }
            self.w.pass(Nanos::millis(1));
            self.beat(spared);
        }
        Recovery { served, right: Some(right) }
    }

    fn misdirected(&self) -> u64 {
        self.w.counter(A, "misdirected") + self.w.counter(B, "misdirected")
    }

    /// Does it. Returns when it is over.
    fn inflict(&mut self, fault: Fault) -> Nanos {
        match fault {
            Fault::None => {}
            Fault::Table => {
                let next = |entry: u16| (entry + 1) % ENGINES;
                self.w.net.set_table(B, (0..128).map(next).collect());
            }
            Fault::Key => self.w.net.rekey(B),
            Fault::Addresses => self.w.net.set_hash(B, HashOver::Addresses),
            Fault::Turns => self.w.net.set_hash(B, HashOver::Turns),
            Fault::Nothing => self.w.net.set_hash(B, HashOver::Nothing),
            Fault::Restart => {
                self.w.restart(B);
                self.serve();
            }
            Fault::ThereBlocked => return self.block(A, B),
            Fault::BackBlocked => return self.block(B, A),
            Fault::PathDown => self.pairs.lock().expect("one thread").half = true,
            Fault::PairsDown => {
                let mut pairs = self.pairs.lock().expect("one thread");
                pairs.blocked = pairs.seen.clone();
            }
        }
        self.w.now
    }

    fn block(&mut self, from: usize, to: usize) -> Nanos {
        let (net, until) = (self.w.net.clone(), self.w.now + BLOCKED);
        let link = machnet_nic::sim::Link::default();
        net.set_link(from, to, machnet_nic::sim::Link { loss: 1.0, ..link });
        self.w.pass(BLOCKED);
        net.set_link(from, to, link);
        until
    }
}

impl Pairs {
    /// Whether a frame is lost.
    fn pass(&mut self, bytes: &[u8]) -> bool {
        let Ok(Frame::Udp { udp, .. }) = frame::parse(bytes) else { return false };
        let pair = (udp.src, udp.dst);
        self.seen.insert(pair);
        let path = (u32::from(pair.0) << 16 | u32::from(pair.1)).wrapping_mul(0x9e37_79b1) >> 31;
        self.half && path == 1 || self.blocked.contains(&pair)
    }
}

/// One fault at one moment, and the time until all was well.
fn suffer(fault: Fault, moment: Moment, seed: u64) {
    let mut s = Scene::new(seed);
    let ids = s.dial();
    let mut big = None;
    let (over, wrong, spared) = match moment {
        Moment::SetUp => {
            // SYNs are on their way, or have just come.
            s.w.pass(Nanos::micros(15));
            let over = s.inflict(fault);
            let wrong = s.misdirected();
            s.dialled(&ids);
            (over, wrong, 0)
        }
        Moment::Message => {
            s.dialled(&ids);
            s.beat(0);
            s.w.pass(Nanos::millis(100));
            let conn = s.conns[0];
            s.w.apps[conn.client].send(conn.near, pattern(8 << 20, seed));
            let accepted_by = s.servers[usize::from(conn.port - 8000)];
            s.w.run("half of the message", |w| {
                w.apps[accepted_by].conns.values().any(|conn| conn.bytes >= 4 << 20)
            });
            s.pairs.lock().expect("one thread").seen.clear();
            s.beat(1);
            big = Some(conn);
            let over = s.inflict(fault);
            (over, s.misdirected(), 1)
        }
    };
    let recovery = s.recover(over, wrong, spared);
    let mut arrived = "-".to_owned();
    if let Some(conn) = big {
        s.w.run("the long message's echo", |w| {
            let state = w.apps[conn.client].peek(conn.near);
            state.over.is_some() || !state.received.is_empty()
        });
        let state = s.w.apps[conn.client].peek(conn.near);
        if fault == Fault::Restart {
            assert!(
                state.over.is_some(),
                "seed {seed}: nobody said that the message is lost with its receiver"
            );
        } else {
            let whole = state.received.pop_front() == Some(pattern(8 << 20, seed));
            assert!(whole, "seed {seed}: {fault:?}: the message came back as another");
            arrived = "whole".to_owned();
        }
    }
    let right = recovery.right.map_or("never".to_owned(), |time| format!("{:.2}", time.0 as f64 / 1e6));
    println!(
        "{:<14} {:<8} {:>8.2} {right:>8} {arrived:>6} {:>9} {:>8} {:>8}",
        format!("{fault:?}"),
        format!("{moment:?}"),
        recovery.served.0 as f64 / 1e6,
        s.redialled,
        s.w.counter(A, "searches") + s.w.counter(B, "searches"),
        s.w.counter(A, "repathed") + s.w.counter(B, "repathed"),
    );
    if fault != Fault::Restart {
        assert_eq!(s.redialled, 0, "seed {seed}: {fault:?} {moment:?} ended connections");
    }
    match fault {
        Fault::Addresses | Fault::Nothing => {
            assert!(s.w.counter(A, "searches_given_up") > 0, "seed {seed}: nobody gave up")
        }
        Fault::Turns => {
            let (probes, remaps) = (s.w.counter(A, "probes_sent"), s.w.counter(A, "rss_remapped"));
            assert!(
                probes <= 2000,
                "seed {seed}: {probes} probes after {remaps} remaps: the search has no end"
            );
        }
        _ => assert!(
            recovery.right.is_some(),
            "seed {seed}: {fault:?} {moment:?}: packets still come in wrong"
        ),
    }
    let most = match fault {
        // Both ends try other paths at their own timeouts, until both have one that works at the same time.
        Fault::PathDown | Fault::PairsDown => Nanos::secs(5),
        // A sidecar sends 1000 resets a second, and each packet of what was under way may ask for one.
        Fault::Restart => Nanos::millis(500),
        _ => Nanos::millis(100),
    };
    assert!(recovery.served <= most, "seed {seed}: {fault:?} {moment:?}: {recovery:?}");
    s.w.assert_nothing_is_lost();
}

fn each(fault: Fault) {
    println!(
        "fault          moment     served    right    big redialled searches repathed   (times in ms from the fault's end)"
    );
    suffer(fault, Moment::SetUp, 81);
    suffer(fault, Moment::Message, 82);
}

#[test]
fn without_a_fault_all_are_served_at_once() {
    each(Fault::None);
}

#[test]
fn another_table_is_noticed_and_each_connection_finds_its_queue_again() {
    each(Fault::Table);
    each(Fault::Key);
}

#[test]
fn a_nic_that_hashes_addresses_or_nothing_or_spreads_by_turns_is_served_by_hand_over() {
    each(Fault::Addresses);
    each(Fault::Nothing);
    each(Fault::Turns);
}

#[test]
fn another_sidecar_in_a_peers_place_is_believed_and_learned_anew() {
    each(Fault::Restart);
}

#[test]
fn a_blocked_direction_costs_its_time_and_no_connection() {
    each(Fault::ThereBlocked);
    each(Fault::BackBlocked);
}

#[test]
fn pairs_that_fall_silent_are_replaced() {
    each(Fault::PathDown);
    each(Fault::PairsDown);
}
