//! Questions to engines that are at work: a few rows a round, while packets come and connections begin and end.

use std::collections::{BTreeMap, BTreeSet};

use machnet_engine::{
    Answer, ChannelRow, ConnectionRow, ConnectionStage, ConnectionState, ListenerRow, PeerRow, Query, Report,
    Rows, Units, Waiting,
};
use machnet_shm::{FlowId, Geometry};
use machnet_sim::{AppNo, Cost, World, pattern};
use machnet_wire::Nanos;

/// Most rows that one round may bring.
const STEP: usize = 64;

/// Two hosts whose applications have many connections with each other.
struct Busy {
    w: World,
    client: AppNo,
    server: AppNo,
    /// Parts of answers that the client's host gave, and in how many rounds.
    parts: Vec<Answer>,
    rounds: u64,
}

impl Busy {
    fn new(seed: u64, connections: usize) -> Busy {
        let mut w = World::seeded(seed);
        let (a, b) = (w.add(1, 1), w.add(2, 1));
        let large = Geometry { units: 1024, flows: connections as u32 + 100, unit_size: 1424 };
        let (client, server) = (w.app_with(a, 0, large), w.app_with(b, 0, large));
        w.apps[server].echoes = true;
        w.listen(server, 8000);
        let mut busy = Busy { w, client, server, parts: Vec::new(), rounds: 0 };
        while busy.flows().len() < connections {
            let more = (connections - busy.flows().len()).min(50);
            busy.dial(more);
        }
        busy
    }

    fn dial(&mut self, more: usize) {
        let ip = self.w.sidecars[1].ip;
        let before = self.flows().len();
        for _ in 0..more {
            self.w.apps[self.client].dial(ip, 8000, 0, 0);
        }
        let Busy { client, server, .. } = *self;
        self.w.run("connecting", |w| {
            [w.apps[client].dialled.len(), w.apps[server].accepted.len()] == [before + more; 2]
        });
    }

    fn flows(&self) -> Vec<FlowId> {
        self.w.apps[self.client].dialled.iter().map(|e| e.flow).collect()
    }

    fn ask(&self, number: u64, query: Query) {
        let engine = self.w.sidecars[0].shared.handle(0).expect("an engine");
        assert!(engine.ask(number, query), "there is room for a note");
    }

    /// Runs until the answers to `questions` questions are whole, with `meanwhile` after each moment.
    fn answers(&mut self, questions: usize, mut meanwhile: impl FnMut(&mut World)) -> Vec<Answer> {
        let Busy { w, parts, rounds, .. } = self;
        parts.clear();
        *rounds = w.counter(0, "rounds");
        w.run("answering", |w| {
            let before = parts.len();
            while let Some(report) = w.sidecars[0].shared.next_report() {
                let Report::Answer(part) = report else { panic!("no channel ends here") };
                assert!(length(&part.rows) <= STEP, "{} rows at once", length(&part.rows));
                parts.push(part);
            }
            assert!(parts.len() <= before + 1, "each round works at one question");
            meanwhile(w);
            parts.iter().filter(|part| part.last).count() == questions
        });
        *rounds = w.counter(0, "rounds") - *rounds;
        std::mem::take(parts)
    }

    fn connections(&mut self, channel: Option<u64>, meanwhile: impl FnMut(&mut World)) -> Vec<ConnectionRow> {
        self.ask(1, Query::Connections { channel });
        let parts = self.answers(1, meanwhile);
        assert!(parts.iter().all(|part| (part.query, part.engine) == (1, 0)));
        let rows = parts.into_iter().map(|part| match part.rows {
            Rows::Connections(rows) => rows,
            other => panic!("{other:?}"),
        });
        rows.flatten().collect()
    }

    fn connection(&mut self, row: &ConnectionRow) -> Option<ConnectionState> {
        self.ask(2, Query::Connection(row.connection));
        match self.answers(1, |_| {}).pop().expect("an answer").rows {
            Rows::Connection(state) => state.map(|state| *state),
            other => panic!("{other:?}"),
        }
    }

    fn channels(&mut self) -> Vec<ChannelRow> {
        self.ask(3, Query::Channels);
        match self.answers(1, |_| {}).pop().expect("an answer").rows {
            Rows::Channels(rows) => rows,
            other => panic!("{other:?}"),
        }
    }

    fn peers(&mut self) -> Vec<PeerRow> {
        self.ask(4, Query::Peers);
        match self.answers(1, |_| {}).pop().expect("an answer").rows {
            Rows::Peers(rows) => rows,
            other => panic!("{other:?}"),
        }
    }
}

fn length(rows: &Rows) -> usize {
    match rows {
        Rows::Channels(rows) => rows.len(),
        Rows::Listeners(rows) => rows.len(),
        Rows::Connections(rows) => rows.len(),
        Rows::Connection(_) => 1,
        Rows::Peers(rows) => rows.len(),
    }
}

fn ports(rows: &[ConnectionRow]) -> BTreeSet<u16> {
    rows.iter().map(|row| row.local.1).collect()
}

#[test]
fn thousands_of_connections_are_listed_a_few_a_round_while_traffic_goes_on() {
    let mut busy = Busy::new(21, 3000);
    let (client, flow) = (busy.client, busy.flows()[1500]);
    for i in 0..100 {
        busy.w.apps[client].send(flow, pattern(5000, i));
    }
    let mut echoed = 0;
    let rows = busy.connections(None, |w| {
        if echoed < 20 {
            echoed = w.apps[client].conn(flow).received.len();
        }
    });
    assert_eq!((rows.len(), ports(&rows).len()), (3000, 3000));
    assert!(rows.iter().all(|row| row.stage == ConnectionStage::Open && row.dialled && row.peer.1 == 8000));
    assert!(busy.rounds >= 3000 / STEP as u64, "{} rounds", busy.rounds);
    let used = rows.iter().filter(|row| row.queued > 0).count();
    assert_eq!(used, 1, "one of them has something under way");
    busy.w.run("echoes", |w| w.apps[client].conn(flow).received.len() == 100);
}

#[test]
fn listeners_are_listed_with_whoever_waits_for_them() {
    let mut busy = Busy::new(24, 0);
    let local = busy.client;
    let more = busy.w.app(0, 0);
    busy.w.apps[local].accepts = false;
    busy.w.listen(local, 80);
    let shared: Vec<_> = [local, more].map(|app| (app, busy.w.apps[app].listen_shared(81, 7))).into();
    busy.w.run("listening", |w| shared.iter().all(|&(app, id)| w.apps[app].reply(id).is_some()));
    let ip = busy.w.sidecars[0].ip;
    (0..3).for_each(|_| {
        busy.w.apps[busy.server].dial(ip, 80, 0, 0);
    });
    busy.w.run("waiting", |w| w.apps[local].accepted.len() == 3);
    busy.ask(5, Query::Listeners);
    let mut rows: Vec<ListenerRow> = Vec::new();
    for part in busy.answers(1, |_| {}) {
        let Rows::Listeners(some) = part.rows else { panic!("{part:?}") };
        assert!(some.iter().all(|row| row.channel == some[0].channel), "one channel in each round");
        rows.extend(some);
    }
    rows.sort_by_key(|row| (row.channel, row.port));
    let row = |app: AppNo, port, reuse_port, backlog, waiting| ListenerRow {
        port,
        channel: busy.w.apps[app].number,
        reuse_port,
        group: false,
        backlog,
        waiting,
    };
    assert_eq!(rows, [row(local, 80, false, 64, 3), row(local, 81, true, 7, 0), row(more, 81, true, 7, 0)]);
}

#[test]
fn connections_that_begin_and_end_meanwhile_do_no_harm() {
    let mut busy = Busy::new(22, 1000);
    let Busy { client, server, .. } = busy;
    let ip = busy.w.sidecars[1].ip;
    let dialled = busy.w.apps[client].dialled.clone();
    let far: BTreeMap<u16, FlowId> =
        busy.w.apps[server].accepted.iter().map(|e| (e.peer.1, e.flow)).collect();
    // The handshake and the end of a connection take a few rounds, the list some more.
    busy.w.cost = Cost::Round { round: Nanos::micros(20), item: Nanos::ZERO };
    let (mut turn, mut ended) = (0, BTreeSet::new());
    let mut lived = Vec::new();
    let rows = busy.connections(None, |w| {
        // Two end each time, from both ends of the list, and as many begin, some of them in their places.
        turn += 1;
        for at in [turn * 3, 1000 - turn * 3].into_iter().filter(|_| turn <= 16) {
            let near = dialled[at];
            w.apps[client].close(near.flow);
            w.apps[server].close(far[&near.local.1]);
            ended.insert(near.local.1);
            w.apps[client].dial(ip, 8000, 0, 0);
        }
        lived.push(w.sidecars[0].engines[0].flows());
    });
    assert!(lived.iter().any(|&flows| flows != lived[0]), "some began or ended before the list was whole");
    let listed = ports(&rows);
    assert_eq!(listed.len(), rows.len(), "none is listed twice");
    let missing: Vec<_> = dialled.iter().map(|e| e.local.1).filter(|port| !listed.contains(port)).collect();
    assert!(missing.iter().all(|port| ended.contains(port)), "{missing:?} had been there all the time");
    busy.w.pass(Nanos::secs(1));
    assert_eq!(busy.connections(None, |_| {}).len(), 1000);
}

#[test]
fn the_connections_of_one_channel_are_looked_for_a_few_places_a_round() {
    let mut busy = Busy::new(23, 2000);
    let other = busy.w.app(0, 0);
    let ip = busy.w.sidecars[1].ip;
    let (near, _) = busy.w.connect(other, busy.server, ip, 8000);
    let number = busy.w.apps[other].number;
    let rows = busy.connections(Some(number), |_| {});
    let port = busy.w.apps[other].dialled.iter().find(|e| e.flow == near).expect("it was dialled").local.1;
    assert_eq!(rows.iter().map(|row| (row.channel, row.local.1)).collect::<Vec<_>>(), [(Some(number), port)]);
    assert!(busy.rounds >= 2000 / STEP as u64, "{} rounds", busy.rounds);
    assert!(busy.connections(Some(99), |_| {}).is_empty(), "nor is it an error to have none");
}

#[test]
fn questions_take_turns() {
    let mut busy = Busy::new(24, 1000);
    busy.ask(7, Query::Connections { channel: None });
    busy.ask(8, Query::Connections { channel: None });
    let parts: Vec<u64> = busy.answers(2, |_| {}).iter().map(|part| part.query).collect();
    assert_eq!(parts.len(), 2 * 1000usize.div_ceil(STEP));
    assert!(parts.chunks(2).all(|both| both == [7, 8]), "{parts:?}");
}

#[test]
fn one_connection_tells_everything_and_is_not_found_when_it_is_over() {
    let mut busy = Busy::new(25, 3);
    let (client, server) = (busy.client, busy.server);
    let flow = busy.flows()[0];
    let far = busy.w.apps[server].accepted[0].flow;
    busy.w.carry((client, flow), (client, flow), pattern(64, 1));
    let row = busy.connections(None, |_| {})[0];
    let state = busy.connection(&row).expect("it is there");
    assert_eq!(state.row.connection, row.connection);
    assert_eq!((state.unit_size, state.waits), (1424, None));
    assert!(state.window > 0 && state.timeout > Nanos::ZERO && state.row.rtt > Some(Nanos::ZERO));
    assert_eq!(state.next_hop.map(|(ip, mac)| (ip, mac.is_some())), Some((busy.w.sidecars[1].ip, true)));
    assert_eq!((state.counters.units_sent, state.counters.units_delivered), (1, 1));

    // An application that does not read is what its peer waits for.
    (busy.w.apps[server].echoes, busy.w.apps[client].reads) = (false, false);
    for i in 0..1000 {
        busy.w.apps[server].send(far, pattern(1000, i));
    }
    busy.w.pass(Nanos::millis(200));
    let state = busy.connection(&row).expect("it is there");
    assert_eq!(state.waits, Some(Waiting::Reader));
    let channel = busy.channels()[0];
    let Units { total, submitted, delivered, .. } = channel.units;
    assert_eq!((total, submitted, channel.connections, channel.listeners), (1024, 0, 3, 0));
    assert!(delivered > 0, "some wait for the application");

    busy.w.apps[client].reads = true;
    busy.w.apps[client].close(flow);
    busy.w.apps[server].close(far);
    busy.w.pass(Nanos::secs(1));
    assert_eq!(busy.connection(&row), None);
    assert_eq!(busy.connections(None, |_| {}).len(), 2);
}

#[test]
fn peers_are_listed_with_their_connections_while_they_have_some() {
    let mut busy = Busy::new(26, 5);
    let ip = busy.w.sidecars[1].ip;
    let [peer] = busy.peers()[..] else { panic!("one peer") };
    assert_eq!((peer.ip, peer.connections), (ip, 5));
    assert!(peer.heard_ago < Nanos::secs(2), "{peer:?}");
    for flow in busy.flows() {
        busy.w.apps[busy.client].close(flow);
    }
    for at in 0..5 {
        let far = busy.w.apps[busy.server].accepted[at].flow;
        busy.w.apps[busy.server].close(far);
    }
    busy.w.pass(Nanos::secs(1));
    assert!(busy.peers().is_empty());
}

#[test]
fn an_engine_does_not_sleep_before_it_has_answered_nor_end() {
    let mut busy = Busy::new(27, 200);
    busy.w.pass(Nanos::secs(2));
    let engine = &mut busy.w.sidecars[0].engines[0];
    assert!(engine.prepare_sleep(), "nothing is under way");
    engine.wake();
    busy.ask(1, Query::Connections { channel: None });
    let engine = &mut busy.w.sidecars[0].engines[0];
    assert!(!engine.prepare_sleep(), "a question was asked");
    engine.run_once(busy.w.now);
    assert!(!engine.prepare_sleep(), "it is not answered in full");
    let first = busy.w.sidecars[0].shared.next_report();
    assert!(matches!(first, Some(Report::Answer(Answer { query: 1, last: false, .. }))));
    assert_eq!(1 + busy.answers(1, |_| {}).len(), 200usize.div_ceil(STEP));
    assert!(busy.w.sidecars[0].engines[0].prepare_sleep(), "nothing is left to do");
    busy.w.sidecars[0].engines[0].wake();

    busy.ask(2, Query::Connections { channel: None });
    assert!(busy.w.sidecars[0].shared.handle(0).expect("an engine").shutdown());
    let mut last = false;
    busy.w.run("the end", |w| {
        while let Some(report) = w.sidecars[0].shared.next_report() {
            last |= matches!(report, Report::Answer(Answer { query: 2, last: true, .. }));
        }
        w.sidecars[0].engines[0].is_drained()
    });
    assert!(last, "the answer was whole before the engine had ended");
}
