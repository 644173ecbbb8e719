//! Several listeners on one port: of one user, on any engines. Each caller meets one of them, and whoever was told "connected" is accepted once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use machnet_engine::{Member, UserId};
use machnet_nic::sim::Link;
use machnet_shm::{Geometry, Reason, Reply};
use machnet_sim::{AppNo, World, pattern};
use machnet_wire::frame::{self, Frame};
use machnet_wire::{Kind, Nanos, Packet};

const PORT: u16 = 8000;
const CLIENT_ENGINES: u16 = 8;
const SERVER_ENGINES: u16 = 4;
const BACKLOG: u32 = 16;
/// Room for many connections, and little for data.
const WIDE: Geometry = Geometry { units: 4096, flows: 2048, unit_size: 1424 };

/// A host whose applications dial, one on each engine, and one with a listener on each engine, all on one port.
struct Rig {
    w: World,
    clients: Vec<AppNo>,
    /// By engine of the server: its application and its listener, while it listens.
    slots: Vec<(AppNo, Option<u32>)>,
    /// Everybody who ever listened.
    servers: Vec<AppNo>,
    /// Ends that were told "connected", by client and place in its list, whose connections were not closed yet.
    seen: Vec<usize>,
}

type End = (Ipv4Addr, u16);

impl Rig {
    fn new(seed: u64) -> Rig {
        let mut w = World::seeded(seed);
        w.descriptors = 1024;
        let (a, b) = (w.add(1, CLIENT_ENGINES), w.add(2, SERVER_ENGINES));
        let clients: Vec<_> = (0..CLIENT_ENGINES).map(|engine| w.app_with(a, engine, WIDE)).collect();
        let slots: Vec<_> = (0..SERVER_ENGINES).map(|engine| (w.app_with(b, engine, WIDE), None)).collect();
        let servers = slots.iter().map(|slot| slot.0).collect();
        let mut rig = Rig { w, seen: vec![0; clients.len()], clients, slots, servers };
        (0..SERVER_ENGINES.into()).for_each(|slot| rig.listen(slot, BACKLOG));
        rig
    }

    fn listen(&mut self, slot: usize, backlog: u32) {
        let app = self.slots[slot].0;
        let id = self.w.apps[app].listen_shared(PORT, backlog);
        self.w.run("listening", |w| w.apps[app].reply(id).is_some());
        assert_eq!(self.w.apps[app].take_reply(id), Some(Reply::Listening { id, port: PORT }));
        self.slots[slot].1 = Some(id);
    }

    fn unlisten(&mut self, slot: usize) {
        let (app, listener) = self.slots[slot];
        self.w.apps[app].unlisten(listener.expect("it listens"));
        self.slots[slot].1 = None;
    }

    /// The application of a slot ends, and another is started in its place.
    fn replace(&mut self, slot: usize) {
        self.w.leave(self.slots[slot].0);
        let app = self.w.app_with(1, slot as u16, WIDE);
        self.slots[slot] = (app, None);
        self.servers.push(app);
    }

    fn dial(&mut self, client: usize, timeout_ms: u32) -> u32 {
        let ip = self.w.sidecars[1].ip;
        self.w.apps[self.clients[client]].dial(ip, PORT, 0, timeout_ms)
    }

    /// Has each server take what waits for it.
    fn accept(&mut self) {
        for &app in &self.servers {
            let app = &mut self.w.apps[app];
            app.accepts = true;
            while app.alive && app.taken < app.accepted.len() {
                app.accept();
            }
        }
    }

    /// Closes, at the client, what was connected before the last call.
    fn close_old(&mut self) {
        for (at, &client) in self.clients.iter().enumerate() {
            let app = &mut self.w.apps[client];
            let flows: Vec<_> = app.dialled[self.seen[at]..].iter().map(|e| e.flow).collect();
            self.seen[at] += flows.len();
            flows.into_iter().for_each(|flow| app.close(flow));
        }
    }

    /// How many are connected to each server, by what the servers accepted.
    fn accepted(&self) -> Vec<usize> {
        self.servers.iter().map(|&app| self.w.apps[app].accepted.len()).collect()
    }

    fn told(&self) -> usize {
        self.clients.iter().map(|&app| self.w.apps[app].dialled.len()).sum()
    }

    /// Failed dials.
    fn failed(&self) -> BTreeMap<String, usize> {
        let mut failed = BTreeMap::new();
        for reply in self.clients.iter().flat_map(|&app| &self.w.apps[app].replies) {
            if let Reply::ConnectFailed { reason, .. } = reply {
                *failed.entry(format!("{reason:?}")).or_default() += 1;
            }
        }
        failed
    }

    /// Checks that whatever was accepted was dialled by somebody who was told so, once; gives who was told and is not accepted.
    fn unserved(&self) -> BTreeSet<End> {
        let dialled = self.clients.iter().flat_map(|&app| &self.w.apps[app].dialled);
        let mut waiting: BTreeSet<End> = BTreeSet::new();
        for near in dialled {
            assert!(waiting.insert(near.local), "seed {}: {:?} dialled twice", self.w.seed, near.local);
        }
        for far in self.servers.iter().flat_map(|&app| &self.w.apps[app].accepted) {
            let known = waiting.remove(&far.peer);
            assert!(known, "seed {}: {:?} accepted, and not connected or twice", self.w.seed, far.peer);
        }
        waiting
    }

    /// Whether a client whose end this is knows that its connection is over, or has closed it itself.
    fn is_over(&self, end: End) -> bool {
        self.clients.iter().map(|&app| &self.w.apps[app]).any(|app| {
            let near = app.dialled.iter().find(|near| near.local == end).map(|near| near.flow);
            let key = near.map(|flow| u64::from(flow.generation) << 32 | u64::from(flow.index));
            key.and_then(|key| app.conns.get(&key)).is_some_and(|conn| conn.over.is_some() || conn.closed)
        })
    }

    /// Ends everything; then no claim is left, and every backlog has all its places.
    fn assert_no_place_is_lost(&mut self) {
        self.accept();
        // Half-open ones expire after 5 s.
        self.w.pass(Nanos::secs(6));
        self.close_old();
        for slot in 0..self.slots.len() {
            let app = self.slots[slot].0;
            let flows: Vec<u64> = self.w.apps[app].conns.keys().copied().collect();
            flows.into_iter().for_each(|flow| self.w.apps[app].close(flow));
        }
        self.w.run("ending", |w| w.sidecars.iter().flat_map(|s| &s.engines).all(|e| e.flows() == 0));
        assert_eq!(self.w.sidecars[1].shared.ports.claimed(), 0, "seed {}", self.w.seed);
        for slot in 0..self.slots.len() {
            let app = self.slots[slot].0;
            if self.slots[slot].1.is_none() {
                self.listen(slot, BACKLOG);
            }
            self.w.apps[app].accepts = false;
        }
        let before = self.told();
        let backlogs = BACKLOG as usize * self.slots.len();
        (0..backlogs + 40).for_each(|n| {
            self.dial(n % self.clients.len(), 800);
        });
        self.w.pass(Nanos::secs(1));
        assert_eq!(self.told() - before, backlogs, "seed {}: places", self.w.seed);
        for slot in &self.slots {
            let app = &self.w.apps[slot.0];
            assert_eq!(app.accepted.len() - app.taken, BACKLOG as usize, "seed {}", self.w.seed);
        }
    }
}

/// Keeps a copy of each SYN that host 0 sends to host 1.
fn keep_syns(w: &World) -> Arc<Mutex<Vec<Vec<u8>>>> {
    let syns: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let kept = Arc::clone(&syns);
    w.net.lose_if(0, 1, move |bytes| {
        let Ok(Frame::Udp { payload, .. }) = frame::parse(bytes) else { return false };
        if Packet::parse(payload).is_ok_and(|packet| packet.header.kind == Kind::Syn) {
            kept.lock().expect("not poisoned").push(bytes.to_vec());
        }
        false
    });
    syns
}

/// The same frame from a UDP port `by` higher to one as much lower, so that its checksum stays and its receive queue changes.
fn on_other_ports(frame: &[u8], by: u16) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let port = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    let (src, dst) = (port(34) + by, port(36) - by);
    frame[34..36].copy_from_slice(&src.to_be_bytes());
    frame[36..38].copy_from_slice(&dst.to_be_bytes());
    frame
}

/// Random numbers of a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

#[test]
fn a_port_is_shared_by_listeners_of_one_user_that_all_ask_so() {
    let mut w = World::seeded(1);
    let host = w.add(1, 2);
    let apps = [(7, 0), (7, 1), (8, 1)]
        .map(|(user, engine)| w.app_of(Member::alone(UserId(user)), host, engine, WIDE));
    let mut listen = |app: AppNo, shared: bool| {
        let id = if shared { w.apps[app].listen_shared(PORT, 1) } else { w.apps[app].listen(PORT) };
        w.run("an answer", |w| w.apps[app].reply(id).is_some());
        match w.apps[app].take_reply(id) {
            Some(Reply::Listening { .. }) => Ok(id),
            Some(Reply::ListenFailed { reason, .. }) => Err(reason),
            other => panic!("{other:?}"),
        }
    };
    let first = listen(apps[0], true).expect("a free port");
    let second = listen(apps[1], true).expect("the same user's");
    assert!(listen(apps[0], true).is_ok(), "a second one of one application");
    assert_eq!(listen(apps[1], false), Err(Reason::InUse), "one that does not ask so");
    assert_eq!(listen(apps[2], true), Err(Reason::InUse), "another user's");
    w.apps[apps[0]].unlisten(first);
    w.apps[apps[1]].unlisten(second);
    w.run("none but the third", |w| w.sidecars[host].shared.ports.listeners() == 1);
    w.leave(apps[0]);
    w.run("none", |w| w.sidecars[host].shared.ports.listeners() == 0);
    assert_eq!(w.counter(host, "listens_refused"), 2);
}

#[test]
fn each_listener_of_a_port_gets_its_part_of_the_connections() {
    let mut rig = Rig::new(2);
    rig.accept();
    let dials = 4000;
    for n in 0..dials {
        rig.dial(n % rig.clients.len(), 0);
        if n % 40 == 39 {
            rig.w.run("connecting", |w| {
                w.apps[..8].iter().map(|app| app.dialled.len()).sum::<usize>() == n + 1
            });
            rig.close_old();
        }
    }
    rig.w.run("accepting", |w| w.apps[8..].iter().map(|app| app.accepted.len()).sum::<usize>() == dials);
    assert!(rig.unserved().is_empty());
    let parts = rig.accepted();
    let mean = dials as f64 / parts.len() as f64;
    // 3 degrees of freedom: beyond 16.27 is one in a thousand.
    let chi_square: f64 = parts.iter().map(|&n| (n as f64 - mean).powi(2) / mean).sum();
    assert!(chi_square < 16.27, "seed {}: {parts:?}: {chi_square}", rig.w.seed);
    rig.assert_no_place_is_lost();
}

#[test]
fn a_listener_without_room_passes_its_callers_on() {
    let mut rig = Rig::new(3);
    rig.servers.iter().for_each(|&app| rig.w.apps[app].accepts = false);
    let places = BACKLOG as usize * rig.slots.len();
    (0..places).for_each(|n| {
        rig.dial(n % rig.clients.len(), 0);
    });
    // No SYN is asked for twice: a place is found for each at once.
    rig.w.pass(Nanos::millis(5));
    assert_eq!((rig.told(), rig.accepted()), (places, vec![BACKLOG as usize; rig.slots.len()]));
    assert!(rig.w.counter(1, "syn_passed_on") > 0);
    assert_eq!(rig.w.counter(1, "syn_backlog"), 0);
    // Now none has room, and a flood of others is not passed from one to the next.
    let passed = rig.w.counter(1, "syn_passed_on");
    (0..400).for_each(|n| {
        rig.dial(n % rig.clients.len(), 5);
    });
    rig.w.pass(Nanos::millis(9));
    assert!(rig.w.counter(1, "syn_backlog") >= 400);
    let more = rig.w.counter(1, "syn_passed_on") - passed;
    assert!(more <= 100, "{more} times");
    // The next caller waits for whoever has room first.
    rig.dial(0, 0);
    rig.w.pass(Nanos::millis(5));
    assert!(rig.told() == places && rig.w.counter(1, "syn_backlog") > 0);
    let third = rig.servers[2];
    rig.w.apps[third].accept();
    rig.w.pass(Nanos::millis(50));
    assert_eq!((rig.told(), rig.w.apps[third].accepted.len()), (places + 1, BACKLOG as usize + 1));
    assert!(rig.unserved().is_empty());
    assert_eq!(rig.failed(), BTreeMap::from([("Timeout".to_owned(), 400)]));
}

#[test]
fn the_others_serve_on_when_one_closes_or_dies() {
    for seed in 10..20 {
        let mut rig = Rig::new(seed);
        rig.servers.iter().for_each(|&app| rig.w.apps[app].accepts = false);
        for n in 0..24 {
            rig.dial(n % rig.clients.len(), 0);
        }
        // Some are half-open now, some wait to be accepted.
        rig.w.pass(Nanos::micros(8 + 3 * (seed - 10)));
        if seed % 2 == 0 {
            rig.unlisten(0)
        } else {
            rig.replace(0)
        }
        rig.w.pass(Nanos::millis(400));
        rig.accept();
        rig.w.pass(Nanos::millis(1));
        assert_eq!((rig.told(), rig.failed()), (24, BTreeMap::new()), "seed {seed}");
        // Whoever had been told so before is told that it is over.
        for end in rig.unserved() {
            assert!(rig.is_over(end), "seed {seed}: {end:?} hears nothing");
        }
        let (near, far) = {
            let server = rig.slots[1].0;
            let far = rig.w.apps[server].accepted[0];
            let (client, near) = rig
                .clients
                .iter()
                .find_map(|&app| {
                    let near = rig.w.apps[app].dialled.iter().find(|near| near.local == far.peer)?;
                    Some((app, near.flow))
                })
                .expect("its other end");
            ((client, near), (server, far.flow))
        };
        rig.w.carry(near, far, pattern(5000, seed));
    }
}

/// 10 000 connections from 8 engines to 4 listeners, while SYNs come on several engines, at once and late, packets are lost and come twice,
/// and listeners come and go.
#[test]
fn of_ten_thousand_callers_each_that_is_told_so_is_accepted_once() {
    let mut rig = Rig::new(4);
    let mut dice = Dice(4);
    rig.w.net.set_links(Link {
        loss: 0.05,
        duplication: 0.2,
        reorder: 0.1,
        reorder_by: Nanos::micros(50),
        ..Link::default()
    });
    rig.accept();
    let syns = keep_syns(&rig.w);
    let mut late: Vec<Vec<u8>> = Vec::new();
    let (mut dials, mut step, mut closed, mut copies) = (0, 0, 0, 0);
    while dials < 10_000 {
        step += 1;
        for client in 0..rig.clients.len() {
            for _ in 0..dice.below(5) {
                rig.dial(client, 0);
                dials += 1;
            }
        }
        // One server after the other is slow, so that its backlog fills.
        let slow = rig.slots[(step / 20) % rig.slots.len()].0;
        rig.accept();
        rig.w.apps[slow].accepts = false;
        rig.w.pass(Nanos::micros(30));
        for syn in syns.lock().expect("not poisoned").drain(..) {
            (1..4).for_each(|by| rig.w.net.inject(1, &on_other_ports(&syn, by)));
            copies += 3;
            late.push(syn);
        }
        rig.w.pass(Nanos::micros(270));
        while late.len() > 200 {
            let syn = late.swap_remove(dice.below(200) as usize);
            rig.w.net.inject(1, &on_other_ports(&syn, 5));
        }
        if step % 3 == 0 {
            rig.w.net.rekey(1);
        }
        if step % 4 == 0 {
            let slot = dice.below(4) as usize;
            let open = rig.slots.iter().filter(|slot| slot.1.is_some()).count();
            match rig.slots[slot].1 {
                None => rig.listen(slot, BACKLOG),
                Some(_) if open < 3 => {}
                Some(_) => {
                    closed += 1;
                    if dice.below(2) == 0 { rig.unlisten(slot) } else { rig.replace(slot) }
                }
            }
        }
        if step % 8 == 0 {
            rig.close_old();
        }
    }
    assert!(closed > 40, "{closed} listeners closed");
    rig.w.net.set_links(Link::default());
    rig.accept();
    rig.w.run("all are told", |w| {
        let clients = || w.apps[..usize::from(CLIENT_ENGINES)].iter();
        let failed = |reply: &&Reply| matches!(reply, Reply::ConnectFailed { .. });
        clients().map(|app| app.dialled.len() + app.replies.iter().filter(failed).count()).sum::<usize>()
            >= dials
    });
    rig.w.pass(Nanos::secs(1));
    assert_eq!((rig.told(), rig.failed()), (dials, BTreeMap::new()), "seed {}", rig.w.seed);
    let unserved = rig.unserved();
    for &end in &unserved {
        assert!(rig.is_over(end), "seed {}: {end:?} hears nothing", rig.w.seed);
    }
    assert!(unserved.len() <= closed * BACKLOG as usize);
    assert!(copies > 25_000 && rig.w.counter(1, "rx_bad_checksum") == 0, "{copies} copies");
    println!(
        "{dials} connected to {:?}; {} of {closed} listeners that closed",
        rig.accepted(),
        unserved.len()
    );
    rig.assert_no_place_is_lost();
}

#[test]
fn copies_of_a_syn_meet_one_flow_whatever_becomes_of_the_listeners() {
    let mut rig = Rig::new(5);
    rig.accept();
    (1..4).for_each(|slot| rig.unlisten(slot));
    rig.w.pass(Nanos::millis(1));
    let answered = Arc::new(AtomicBool::new(false));
    let answers = Arc::clone(&answered);
    rig.w.net.lose_if(1, 0, move |_| !answers.load(Relaxed));
    // The hosts know each other's MAC.
    answered.store(true, Relaxed);
    let first = rig.dial(0, 0);
    rig.w.run("the first", |w| w.apps[0].dialled(first).is_some());
    answered.store(false, Relaxed);
    // More of them would get cookies.
    let dials = BACKLOG as usize / 2;
    (0..dials).for_each(|n| {
        rig.dial(n % rig.clients.len(), 0);
    });
    let flows = |rig: &Rig| rig.w.sidecars[1].engines.iter().map(|e| e.flows()).collect::<Vec<_>>();
    rig.w.pass(Nanos::millis(1));
    assert_eq!(flows(&rig), [dials + 1, 0, 0, 0]);
    (1..4).for_each(|slot| rig.listen(slot, BACKLOG));
    for _ in 0..10 {
        rig.w.net.rekey(1);
        rig.w.pass(Nanos::millis(20));
    }
    assert_eq!(flows(&rig), [dials + 1, 0, 0, 0], "copies began others");
    answered.store(true, Relaxed);
    rig.w.pass(Nanos::millis(300));
    assert_eq!((rig.told(), rig.accepted()), (dials + 1, vec![dials + 1, 0, 0, 0]));
    assert!(rig.unserved().is_empty());
}

#[test]
fn packets_of_a_connection_pass_a_half_open_one_of_the_same_ports_on_another_engine() {
    let mut w = World::seeded(6);
    let (a, b) = (w.add(1, 1), w.add(2, 2));
    let (client, old, new) = (w.app(a, 0), w.app(b, 0), w.app(b, 1));
    let syns = keep_syns(&w);
    let ip = w.sidecars[b].ip;
    let id = w.apps[old].listen(PORT);
    w.run("listening", |w| w.apps[old].take_reply(id).is_some());
    let (near, far) = w.connect(client, old, ip, PORT);
    w.apps[old].unlisten(id);
    w.run("free", |w| w.sidecars[b].shared.ports.listeners() == 0);
    w.listen(new, PORT);
    // A late copy of the SYN begins a connection for the new listener, by whatever engine it comes.
    let syn = syns.lock().expect("not poisoned")[0].clone();
    let mut salt = 0;
    while w.sidecars[b].engines[1].flows() == 0 {
        w.net.rekey(b);
        w.net.inject(b, &syn);
        w.carry((client, near), (old, far), pattern(3000, salt));
        salt += 1;
        assert!(salt < 64, "no copy came by the second engine");
    }
    for salt in 64..96 {
        w.net.rekey(b);
        w.carry((client, near), (old, far), pattern(3000, salt));
    }
    assert!(w.counter(b, "handover_out") > 5 && w.counter(b, "rx_bad_tag") == 0);
    w.pass(Nanos::secs(6));
    assert_eq!((w.sidecars[b].engines[1].flows(), w.apps[new].accepted.len()), (0, 0));
    w.carry((client, near), (old, far), pattern(3000, 1));
    w.assert_nothing_is_lost();
}
