//! Applications of several channels: their listeners share a port, the earliest that has room takes a caller, and nobody is refused while
//! an application attaches one channel more.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use machnet_engine::{ApplicationNumber, Member, UserId};
use machnet_shm::{Geometry, Limit, Reason, Reply};
use machnet_sim::{AppNo, World, keep_warnings, warnings};
use machnet_wire::Nanos;

const PORT: u16 = 8000;
const EIGHT: Geometry = Geometry { flows: 8, ..Geometry::DEFAULT };
const ADA: UserId = UserId(1000);
const BOB: UserId = UserId(1001);

/// A host whose application dials, and one with an application of several channels that listen on one port.
struct Rig {
    w: World,
    client: AppNo,
    /// By the order in which they were attached.
    channels: Vec<AppNo>,
    ids: Vec<u32>,
    geometry: Geometry,
    backlog: u32,
}

impl Rig {
    fn new(seed: u64, engines: u16, geometry: Geometry) -> Rig {
        let mut w = World::seeded(seed);
        w.descriptors = 1024;
        let (a, _) = (w.add(1, 1), w.add(2, engines));
        let large = Geometry { units: 4096, flows: 2048, ..Geometry::DEFAULT };
        let client = w.app_with(a, 0, large);
        Rig { w, client, channels: Vec::new(), ids: Vec::new(), geometry, backlog: 64 }
    }

    /// The application attaches a channel to an engine and listens on it.
    fn attach(&mut self, engine: u16) -> AppNo {
        let member = Member { user: ADA, application: Some(ApplicationNumber(1)) };
        let app = self.w.app_of(member, 1, engine, self.geometry);
        let id = self.w.apps[app].listen_grouped(PORT, self.backlog, false);
        self.w.run("listening", |w| w.apps[app].reply(id).is_some());
        assert_eq!(self.w.apps[app].take_reply(id), Some(Reply::Listening { id, port: PORT }));
        self.channels.push(app);
        self.ids.push(id);
        app
    }

    fn dial(&mut self, timeout_ms: u32) -> u32 {
        self.w.apps[self.client].dial(Ipv4Addr::new(10, 0, 0, 2), PORT, 0, timeout_ms)
    }

    /// Dials so often at once, and waits until as many more are connected.
    fn connect(&mut self, times: usize) {
        let before = self.told();
        (0..times).for_each(|_| {
            self.dial(0);
        });
        let client = self.client;
        self.w.run("connecting", |w| w.apps[client].dialled.len() == before + times);
        self.w.pass(Nanos::millis(1));
    }

    fn told(&self) -> usize {
        self.w.apps[self.client].dialled.len()
    }

    /// How many connections each channel was given.
    fn accepted(&self) -> Vec<usize> {
        self.channels.iter().map(|&app| self.w.apps[app].accepted.len()).collect()
    }

    fn failed(&self) -> BTreeMap<String, usize> {
        let mut failed = BTreeMap::new();
        for reply in &self.w.apps[self.client].replies {
            if let Reply::ConnectFailed { reason, .. } = reply {
                *failed.entry(format!("{reason:?}")).or_default() += 1;
            }
        }
        failed
    }

    /// Checks that who was told "connected" and who was accepted are the same, each once.
    fn assert_each_is_accepted_once(&self) {
        let mut told: BTreeSet<_> = self.w.apps[self.client].dialled.iter().map(|near| near.local).collect();
        assert_eq!(told.len(), self.told(), "seed {}: dialled twice", self.w.seed);
        for far in self.channels.iter().flat_map(|&app| &self.w.apps[app].accepted) {
            assert!(
                told.remove(&far.peer),
                "seed {}: {:?} accepted, and not told or twice",
                self.w.seed,
                far
            );
        }
        assert!(told.is_empty(), "seed {}: {told:?} told, and not accepted", self.w.seed);
    }
}

#[test]
fn the_earliest_channel_that_has_room_takes_a_caller() {
    let mut rig = Rig::new(1, 1, EIGHT);
    (0..3).for_each(|_| {
        rig.attach(0);
    });
    rig.connect(5);
    assert_eq!(rig.accepted(), [5, 0, 0], "later ones are spare");
    rig.connect(7);
    assert_eq!(rig.accepted(), [8, 4, 0]);
    // A place that is free again comes before the others.
    let first = rig.channels[0];
    let (near, far) = (rig.w.apps[rig.client].dialled[0].flow, rig.w.apps[first].accepted[0].flow);
    rig.w.apps[rig.client].close(near);
    rig.w.apps[first].close(far);
    rig.w.pass(Nanos::secs(1));
    rig.connect(1);
    assert_eq!(rig.accepted(), [9, 4, 0]);
    rig.connect(12);
    assert_eq!((rig.accepted(), rig.failed()), (vec![9, 8, 8], BTreeMap::new()));
    // Nobody had to ask twice, and nobody was left out without need.
    assert_eq!((rig.w.counter(1, "syn_backlog"), rig.w.counter(1, "syn_refused")), (0, 0));
    rig.assert_each_is_accepted_once();
    rig.w.assert_nothing_is_lost();
    assert_eq!(rig.w.sidecars[1].shared.ports.claimed(), 0);
}

#[test]
fn a_channel_whose_backlog_is_full_leaves_its_callers_to_the_next() {
    let mut rig = Rig { backlog: 3, ..Rig::new(2, 1, EIGHT) };
    (0..2).for_each(|_| {
        let app = rig.attach(0);
        rig.w.apps[app].accepts = false;
    });
    rig.connect(6);
    assert_eq!(rig.accepted(), [3, 3]);
    rig.dial(0);
    rig.w.pass(Nanos::millis(30));
    assert_eq!((rig.told(), rig.failed()), (6, BTreeMap::new()), "it waits");
    let second = rig.channels[1];
    rig.w.apps[second].accept();
    rig.w.run("a place", |w| w.apps[second].accepted.len() == 4);
    rig.w.pass(Nanos::millis(1));
    rig.assert_each_is_accepted_once();
}

#[test]
fn callers_wait_while_an_application_attaches_one_more_channel() {
    for seed in 10..20 {
        let mut rig = Rig::new(seed, 2, EIGHT);
        rig.attach(0);
        rig.connect(8);
        // It attaches another in the nick of time: the grace began when the first was full.
        rig.w.pass(Nanos::millis(20 * (seed - 10)));
        (0..20).for_each(|_| {
            rig.dial(0);
        });
        rig.w.pass(Nanos::millis(30));
        assert_eq!((rig.told(), rig.failed()), (8, BTreeMap::new()), "seed {seed}");
        rig.attach(1);
        rig.w.pass(Nanos::millis(240));
        assert_eq!((rig.told(), rig.failed()), (16, BTreeMap::new()), "seed {seed}: the second is full, too");
        rig.attach(0);
        rig.w.pass(Nanos::millis(240));
        rig.attach(1);
        let client = rig.client;
        rig.w.run("everybody", |w| w.apps[client].dialled.len() == 28);
        assert_eq!(rig.failed(), BTreeMap::new(), "seed {seed}");
        rig.w.pass(Nanos::millis(1));
        assert_eq!(rig.accepted(), [8, 8, 8, 4], "seed {seed}");
        rig.assert_each_is_accepted_once();
    }
}

#[test]
fn an_application_that_attaches_no_other_channel_is_full_after_the_grace() {
    keep_warnings();
    let mut rig = Rig::new(3, 2, EIGHT);
    (0..2).for_each(|engine| {
        rig.attach(engine);
    });
    rig.connect(16);
    let full = rig.w.now;
    rig.dial(0);
    let client = rig.client;
    rig.w.run("refused", |w| !w.apps[client].replies.is_empty());
    // A caller asks again after at most 200 ms.
    let took = rig.w.now - full;
    assert!((Nanos::millis(998)..Nanos::millis(1210)).contains(&took), "after {took:?}");
    let reason = Reason::Full(Limit::PeerConnections, 16);
    assert_eq!(rig.failed(), BTreeMap::from([(format!("{reason:?}"), 1)]));
    // It stays full: the next ones are told at once.
    for _ in 0..3 {
        let asked = rig.w.now;
        let id = rig.dial(0);
        rig.w.run("refused", |w| w.apps[client].reply(id).is_some());
        assert!(rig.w.now - asked < Nanos::millis(1), "after {:?}", rig.w.now - asked);
        assert_eq!(rig.w.apps[client].take_reply(id), Some(Reply::ConnectFailed { id, reason }));
    }
    rig.assert_each_is_accepted_once();
    let warnings = warnings();
    assert!(
        warnings[0].contains(
            "a connection from 10.0.0.1 to port 8000 refused: its application has 16 connections, as many as its \
             channels hold; it should close some, or attach more channels (--channels-per-application), or larger ones (--flows)"
        ),
        "{warnings:?}"
    );
    // Its own dials say what the channel holds, as it has others: no warning.
    let (server, ip) = (rig.channels[0], rig.w.sidecars[0].ip);
    let id = rig.w.apps[server].dial(ip, PORT, 0, 0);
    rig.w.run("refused", |w| w.apps[server].reply(id).is_some());
    let reason = Reason::Full(Limit::Connections, 8);
    assert_eq!(rig.w.apps[server].take_reply(id), Some(Reply::ConnectFailed { id, reason }));
    assert_eq!(machnet_sim::warnings().len(), 0);
    // And a place that comes is given.
    let (near, far) = (rig.w.apps[client].dialled[3].flow, rig.w.apps[server].accepted[0].flow);
    rig.w.apps[server].close(far);
    let near = rig.w.apps[client].dialled.iter().map(|e| e.flow).find(|&flow| flow == near).expect("dialled");
    rig.w.apps[client].close(near);
    let peers: Vec<_> = rig.w.apps[client].dialled.iter().map(|e| e.flow).collect();
    peers.into_iter().for_each(|flow| rig.w.apps[client].close(flow));
    rig.w.pass(Nanos::secs(1));
    let told = rig.told();
    rig.dial(0);
    rig.w.run("connected", |w| w.apps[client].dialled.len() == told + 1);
}

#[test]
fn other_applications_and_users_do_not_get_the_port() {
    let mut w = World::seeded(4);
    let host = w.add(1, 2);
    let of = |application: u64| (application > 0).then_some(ApplicationNumber(application));
    let mut listens = |user: UserId, application, group: bool, reuse_port| {
        let app = w.app_of(Member { user, application: of(application) }, host, 0, EIGHT);
        let id = match (group, reuse_port) {
            (true, _) => w.apps[app].listen_grouped(PORT, 1, reuse_port),
            (false, true) => w.apps[app].listen_shared(PORT, 1),
            (false, false) => w.apps[app].listen(PORT),
        };
        w.run("an answer", |w| w.apps[app].reply(id).is_some());
        match w.apps[app].take_reply(id) {
            Some(Reply::Listening { .. }) => true,
            Some(Reply::ListenFailed { reason: Reason::InUse, .. }) => {
                w.leave(app);
                false
            }
            other => panic!("{other:?}"),
        }
    };
    assert!(listens(ADA, 1, true, true), "a free port");
    assert!(listens(ADA, 1, true, true), "its second channel");
    assert!(listens(ADA, 1, true, false), "a third, which shares with these alone");
    assert!(!listens(ADA, 2, true, true), "another application, as not all share with its user");
    assert!(!listens(ADA, 0, true, true), "nor with a channel that is alone");
    assert!(!listens(ADA, 1, false, true) && !listens(ADA, 1, false, false));
    assert!(!listens(BOB, 1, false, true) && !listens(BOB, 3, true, true));
    assert_eq!(w.counter(host, "listens_refused"), 6);
}

#[test]
fn applications_that_share_a_port_as_users_get_equal_parts() {
    let mut w = World::seeded(5);
    w.descriptors = 1024;
    let (a, b) = (w.add(1, 1), w.add(2, 2));
    let large = Geometry { units: 4096, flows: 2048, ..Geometry::DEFAULT };
    let client = w.app_with(a, 0, large);
    // One with three channels, one with one, and one that has no group.
    let mut servers = Vec::new();
    for (application, engine) in [(1, 0), (1, 0), (1, 1), (2, 1), (0, 0)] {
        let of = (application > 0).then_some(ApplicationNumber(application));
        let app = w.app_of(Member { user: ADA, application: of }, b, engine, large);
        let id = match application {
            0 => w.apps[app].listen_shared(PORT, 64),
            _ => w.apps[app].listen_grouped(PORT, 64, true),
        };
        w.run("listening", |w| w.apps[app].reply(id).is_some());
        servers.push(app);
    }
    let ip = w.sidecars[b].ip;
    for n in 1..=30 {
        (0..40).for_each(|_| {
            w.apps[client].dial(ip, PORT, 0, 0);
        });
        w.run("connecting", |w| w.apps[client].dialled.len() == 40 * n);
    }
    w.pass(Nanos::millis(1));
    let accepted: Vec<_> = servers.iter().map(|&app| w.apps[app].accepted.len()).collect();
    let parts = [accepted[..3].iter().sum::<usize>(), accepted[3], accepted[4]];
    assert!(parts.iter().all(|part| (340..460).contains(part)), "{parts:?} of 1200");
    assert_eq!(accepted[1], 0, "{accepted:?}: spare, beside an earlier one of its engine");
    assert!(accepted[0] > 100 && accepted[2] > 100, "{accepted:?}: each engine takes what reaches it");
}

#[test]
fn the_engine_that_a_syn_reaches_takes_it_and_hands_nothing_over() {
    let mut rig = Rig::new(6, 4, EIGHT);
    (0..4).for_each(|engine| {
        rig.attach(engine);
    });
    rig.connect(12);
    assert_eq!((rig.w.counter(1, "syn_passed_on"), rig.w.counter(1, "misdirected")), (0, 0));
    // Where its own is full, others take it.
    rig.connect(20);
    assert_eq!((rig.accepted(), rig.failed()), (vec![8; 4], BTreeMap::new()));
    rig.assert_each_is_accepted_once();
}

#[test]
fn the_others_serve_on_when_a_channel_leaves() {
    for seed in 20..30 {
        let mut rig = Rig::new(seed, 2, EIGHT);
        (0..3).for_each(|n| {
            rig.attach(n % 2);
        });
        (0..12).for_each(|_| {
            rig.dial(0);
        });
        // Some are half-open now, and some open.
        rig.w.pass(Nanos::micros(6 + 3 * (seed - 20)));
        let first = rig.channels[0];
        if seed % 2 == 0 {
            rig.w.leave(first);
        } else {
            rig.w.apps[first].unlisten(rig.ids[0]);
        }
        rig.w.pass(Nanos::millis(600));
        assert_eq!((rig.told(), rig.failed()), (12, BTreeMap::new()), "seed {seed}");
        rig.connect(4);
        // Whoever was told "connected" is served, or hears that it is over: with its channel, or half-open when that listened no more.
        let client = rig.client;
        let flows: Vec<_> = rig.w.apps[client].dialled.iter().map(|near| near.flow).collect();
        flows.iter().for_each(|&flow| rig.w.apps[client].send(flow, machnet_sim::pattern(64, seed)));
        rig.w.pass(Nanos::millis(50));
        let is_over =
            |at: usize| rig.w.apps[client].conns.values().nth(at).is_some_and(|conn| conn.over.is_some());
        let over = (0..flows.len()).filter(|&at| is_over(at)).count();
        let alive = rig.channels.iter().filter(|&&app| rig.w.apps[app].alive);
        let served: usize = alive.map(|&app| rig.w.apps[app].conns.len()).sum();
        assert_eq!((served + over, flows.len()), (16, 16), "seed {seed}: {served} served");
    }
}

#[test]
fn a_listener_that_closes_while_its_application_goes_on_loses_no_caller() {
    for seed in 40..80 {
        let mut rig = Rig::new(seed, 2, EIGHT);
        (0..2).for_each(|engine| {
            rig.attach(engine);
        });
        (0..12).for_each(|_| {
            rig.dial(0);
        });
        // At every moment between the first SYN and the last ACK.
        rig.w.pass(Nanos::micros(2 * (seed - 40)));
        let (first, id) = (rig.channels[0], rig.ids[0]);
        rig.w.apps[first].unlisten(id);
        rig.w.run("the end of the listener", |w| w.apps[first].reply(id).is_some());
        assert_eq!(rig.w.apps[first].take_reply(id), Some(Reply::Unlistened { id }), "seed {seed}");
        // Nothing comes after that: an application that looks once more has seen everything.
        rig.w.apps[first].poll();
        let last = rig.w.apps[first].accepted.len();
        let client = rig.client;
        rig.w.run_for(Nanos::millis(500), |w| w.apps[client].dialled.len() == 12);
        assert_eq!(rig.accepted()[0], last, "seed {seed}");
        if last + 8 < 12 {
            rig.attach(1);
        }
        rig.w.run("everybody", |w| w.apps[client].dialled.len() == 12);
        rig.w.pass(Nanos::millis(1));
        assert_eq!(rig.failed(), BTreeMap::new(), "seed {seed}");
        rig.assert_each_is_accepted_once();
        let flows: Vec<_> = rig.w.apps[client].dialled.iter().map(|near| near.flow).collect();
        flows.iter().for_each(|&flow| rig.w.apps[client].send(flow, machnet_sim::pattern(64, seed)));
        rig.w.pass(Nanos::millis(50));
        let over = rig.w.apps[client].conns.values().filter(|conn| conn.over.is_some()).count();
        assert_eq!(over, 0, "seed {seed}: reset though they were told that they are connected");
        // A second request, for what is closed already, is answered at once.
        rig.w.apps[first].unlisten(id);
        rig.w.run("the answer", |w| w.apps[first].reply(id).is_some());
    }
}

/// Else an application could have its engine keep count of listeners without end, while a peer leaves connections half open.
#[test]
fn a_listener_that_is_closing_is_told_once_and_its_number_is_free_after_that() {
    let mut closing = 0;
    for seed in 80..100 {
        let mut rig = Rig::new(seed, 2, EIGHT);
        (0..2).for_each(|engine| {
            rig.attach(engine);
        });
        (0..12).for_each(|_| {
            rig.dial(0);
        });
        rig.w.pass(Nanos::micros(4 * (seed - 80)));
        let (first, id) = (rig.channels[0], rig.ids[0]);
        let app = &mut rig.w.apps[first];
        app.unlisten(id);
        app.listen_as(id, PORT, 1);
        app.unlisten(id);
        rig.w.pass(Nanos::secs(1));
        let invalid = Reply::ListenFailed { id, reason: Reason::Invalid };
        match &rig.w.apps[first].replies[..] {
            // It was over before the others were read.
            [
                Reply::Unlistened { .. },
                Reply::ListenFailed { reason: Reason::InUse, .. },
                Reply::Unlistened { .. },
            ] => {}
            [failed, Reply::Unlistened { .. }] if *failed == invalid => closing += 1,
            other => panic!("seed {seed}: {other:?}"),
        }
        rig.w.apps[first].replies.clear();
        rig.w.apps[first].listen_as(id, PORT + 1, 1);
        rig.w.run("listening", |w| w.apps[first].reply(id).is_some());
        assert_eq!(rig.w.apps[first].take_reply(id), Some(Reply::Listening { id, port: PORT + 1 }));
    }
    assert!(closing > 3, "{closing} of 20 runs found it closing");
}

/// Ten thousand connections of one application at either end through one engine each, with default channels, of which another is attached
/// when there is room for fewer than a backlog; `MACHNET_CONNECTIONS` says how many instead.
#[test]
fn ten_thousand_connections_of_one_application_are_set_up_on_one_port() {
    let all: usize = std::env::var("MACHNET_CONNECTIONS").map_or(3000, |n| n.parse().expect("a number"));
    let mut rig = Rig { backlog: 128, ..Rig::new(7, 1, Geometry::DEFAULT) };
    let each = Geometry::DEFAULT.flows as usize;
    let mut clients: Vec<AppNo> = Vec::new();
    let told = |w: &World, clients: &[AppNo]| clients.iter().map(|&c| w.apps[c].dialled.len()).sum::<usize>();
    let mut dialled = 0;
    while dialled < all {
        if rig.channels.len() * each < (dialled + 128).min(all) {
            rig.attach(0);
        }
        if dialled % each == 0 {
            let member = Member { user: ADA, application: Some(ApplicationNumber(1)) };
            clients.push(rig.w.app_of(member, 0, 0, Geometry::DEFAULT));
        }
        let more = (each - dialled % each).min(64).min(all - dialled);
        let client = *clients.last().expect("attached");
        (0..more).for_each(|_| {
            rig.w.apps[client].dial(Ipv4Addr::new(10, 0, 0, 2), PORT, 0, 0);
        });
        dialled += more;
        rig.w.run("connecting", |w| told(w, &clients) == dialled);
    }
    rig.w.pass(Nanos::millis(5));
    let accepted = rig.accepted();
    assert_eq!(accepted.iter().sum::<usize>(), all, "seed {}", rig.w.seed);
    assert!(accepted[..accepted.len() - 1].iter().all(|&n| n == each), "{accepted:?}: the earliest first");
    for host in [0, 1] {
        assert_eq!(rig.w.sidecars[host].engines[0].flows(), all);
        for limit in ["full_connections", "full_engine", "full_ports", "syn_refused", "syn_overflow"] {
            assert_eq!(rig.w.counter(host, limit), 0, "{limit} of host {host}");
        }
    }
    // Each says something, however many say nothing.
    for &client in &clients {
        for at in [0, rig.w.apps[client].dialled.len() - 1] {
            let near = rig.w.apps[client].dialled[at];
            let far = rig.channels.iter().find_map(|&app| {
                let accepted = &rig.w.apps[app].accepted;
                accepted.iter().find(|far| far.peer == near.local).map(|far| (app, far.flow))
            });
            rig.w.carry((client, near.flow), far.expect("accepted"), machnet_sim::pattern(3000, at as u64));
        }
    }
    println!("{all} connections over {} channels: set up and heard after {:?}", accepted.len(), rig.w.now);
}
