//! A listener's backlog: as many connections as it says wait to be taken, whoever was told "connected" is among them, and
//! all others ask again until there is a place or their time is up.

use machnet_nic::sim::Link;
use machnet_shm::{FlowId, Reason, Reply};
use machnet_sim::{AppNo, World, pattern};
use machnet_wire::frame::{self, Frame};
use machnet_wire::{Kind, Nanos, Packet};

const PORT: u16 = 8000;

/// Two hosts, and on the second a listener with this backlog that takes nothing by itself.
struct Rig {
    w: World,
    client: AppNo,
    server: AppNo,
    listener: u32,
}

impl Rig {
    fn new(seed: u64, engines: u16, backlog: u32) -> Rig {
        let mut w = World::seeded(seed);
        let (a, b) = (w.add(1, engines), w.add(2, engines));
        let (client, server) = (w.app(a, 0), w.app(b, engines - 1));
        w.apps[server].accepts = false;
        let listener = w.apps[server].listen_for(PORT, backlog);
        w.run("listening", |w| w.apps[server].take_reply(listener).is_some());
        Rig { w, client, server, listener }
    }

    fn dial(&mut self, timeout_ms: u32) -> u32 {
        let ip = self.w.sidecars[1].ip;
        self.w.apps[self.client].dial(ip, PORT, 0, timeout_ms)
    }

    fn dials(&mut self, count: usize, timeout_ms: u32) -> Vec<u32> {
        (0..count).map(|_| self.dial(timeout_ms)).collect()
    }

    /// How many of `dials` were told "connected", and how many "timed out".
    fn told(&self, dials: &[u32]) -> (usize, usize) {
        let app = &self.w.apps[self.client];
        let timed_out =
            |id| matches!(app.reply(id), Some(Reply::ConnectFailed { reason: Reason::Timeout, .. }));
        (
            dials.iter().filter(|&&id| app.dialled(id).is_some()).count(),
            dials.iter().filter(|&&id| timed_out(id)).count(),
        )
    }

    fn waiting(&self) -> usize {
        let app = &self.w.apps[self.server];
        app.accepted.len() - app.taken
    }

    fn accept_all(&mut self) {
        self.w.apps[self.server].accepts = true;
        while self.waiting() > 0 {
            self.w.apps[self.server].accept();
        }
    }

    fn connected(&mut self, dial: u32) -> FlowId {
        let client = self.client;
        self.w.run("connecting", |w| w.apps[client].dialled(dial).is_some());
        self.w.apps[client].dialled(dial).expect("connected").flow
    }

    /// Checks that each of these dials led to a connection with one accepted end at the server, and that a message arrives there.
    fn assert_served(&mut self, dials: &[u32]) {
        for &dial in dials {
            let near = self.w.apps[self.client].dialled(dial).expect("connected");
            let server = self.server;
            self.w.run("its other end", |w| w.apps[server].accepted.iter().any(|far| far.peer == near.local));
            let far = self.w.apps[server].accepted.iter().filter(|far| far.peer == near.local);
            let far: Vec<_> = far.map(|far| far.flow).collect();
            assert_eq!(far.len(), 1, "seed {}: ends of dial {dial}", self.w.seed);
            self.w.carry((self.client, near.flow), (server, far[0]), pattern(100, dial.into()));
        }
    }
}

#[test]
fn as_many_connect_as_the_backlog_holds_and_the_rest_time_out() {
    let mut rig = Rig::new(1, 1, 16);
    let dials = rig.dials(60, 1000);
    rig.w.pass(Nanos::millis(999));
    assert_eq!((rig.told(&dials), rig.waiting()), ((16, 0), 16));
    rig.w.pass(Nanos::millis(2));
    assert_eq!((rig.told(&dials), rig.waiting()), ((16, 44), 16));
    // Each of the 44 asked at once, after pauses that double from 10 ms on, and every 150 to 200 ms then.
    let unanswered = rig.w.counter(1, "syn_backlog");
    assert!((44 * 9..44 * 12).contains(&unanswered), "{unanswered} SYNs");
    rig.accept_all();
    let served: Vec<_> = dials.iter().copied().filter(|&id| rig.told(&[id]) == (1, 0)).collect();
    rig.assert_served(&served);
    assert_eq!(rig.w.counter(0, "resets_received"), 0);
    rig.w.assert_nothing_is_lost();
}

#[test]
fn dials_wait_for_a_slow_server_and_are_all_served() {
    let mut rig = Rig::new(2, 1, 128);
    rig.w.apps[rig.server].alive = false;
    let dials = rig.dials(120, 5000);
    rig.w.pass(Nanos::millis(20));
    let dials = [dials, rig.dials(80, 5000)].concat();
    rig.w.pass(Nanos::secs(1));
    assert_eq!(rig.told(&dials), (128, 0));
    rig.w.apps[rig.server].alive = true;
    rig.w.apps[rig.server].accepts = true;
    // The longest pause between two SYNs.
    rig.w.pass(Nanos::millis(201));
    assert_eq!(rig.told(&dials), (200, 0));
    rig.assert_served(&dials);
    rig.w.assert_nothing_is_lost();
}

/// Any packet may be lost, also the one that makes a side believe that it is connected.
#[test]
fn whoever_is_told_that_he_is_connected_is_served_whatever_is_lost() {
    let mut sum = 0;
    for seed in 10..40 {
        let mut rig = Rig::new(seed, 1, 3);
        // The hosts know each other's MAC.
        let first = rig.dial(0);
        rig.connected(first);
        rig.w.run("the other end", |w| w.apps[1].accepted.len() == 1);
        rig.w.apps[rig.server].accept();
        rig.w.net.set_links(Link::faulty(0.25));
        let dials = rig.dials(30, 600);
        // The server takes one now and then, too slowly for all of them.
        for _ in 0..12 {
            rig.w.pass(Nanos::millis(47));
            assert!(rig.waiting() <= 3, "seed {seed}: {} wait", rig.waiting());
            if rig.waiting() > 0 {
                rig.w.apps[rig.server].accept();
            }
        }
        rig.w.pass(Nanos::millis(100));
        let (connected, timed_out) = rig.told(&dials);
        assert_eq!(connected + timed_out, 30, "seed {seed}");
        assert!(connected >= 5 && timed_out >= 10, "seed {seed}: {connected} connected");
        sum += connected;
        rig.w.net.set_links(Link::default());
        rig.accept_all();
        let served: Vec<_> = dials.into_iter().filter(|&id| rig.told(&[id]) == (1, 0)).collect();
        rig.assert_served(&served);
    }
    assert!(sum > 300, "{sum} of 900 connected");
}

#[test]
fn a_place_that_is_free_is_found_by_the_next_syn_though_nobody_rang() {
    let mut rig = Rig::new(3, 1, 4);
    let dials = rig.dials(4, 0);
    rig.w.run("four wait", |w| w.apps[1].accepted.len() == 4);
    // Its engine sleeps while SYNs come and the application takes what there is.
    rig.w.pass(Nanos::millis(1));
    rig.w.sidecars[1].running = false;
    let more = rig.dials(4, 0);
    rig.w.pass(Nanos::millis(1));
    for _ in 0..4 {
        rig.w.apps[rig.server].accept();
    }
    rig.w.sidecars[1].running = true;
    rig.w.pass(Nanos::millis(1));
    assert_eq!((rig.told(&more), rig.w.counter(1, "syn_backlog")), ((4, 0), 0));
    rig.accept_all();
    rig.assert_served(&[dials, more].concat());
    rig.w.assert_nothing_is_lost();
}

#[test]
fn a_connection_that_its_caller_has_left_waits_all_the_same() {
    let mut rig = Rig::new(4, 1, 1);
    let first = rig.dial(0);
    let near = rig.connected(first);
    rig.w.apps[rig.client].send(near, pattern(50, 1));
    rig.w.pass(Nanos::millis(1));
    rig.w.apps[rig.client].end.tx.reset(near);
    rig.w.apps[rig.client].end.tx.flush();
    let late = rig.dial(100);
    rig.w.pass(Nanos::millis(150));
    assert_eq!(rig.told(&[late]), (0, 1), "it still has its place");
    let far = rig.w.apps[rig.server].accept().flow;
    let conn = rig.w.apps[rig.server].conn(far);
    assert_eq!((conn.received.pop_front(), conn.over), (Some(pattern(50, 1)), Some(Reason::Reset)));
    let next = rig.dial(100);
    rig.w.pass(Nanos::millis(1));
    assert_eq!(rig.told(&[next]), (1, 0));
    rig.accept_all();
    rig.w.apps[rig.client].conns.clear();
    rig.w.apps[rig.server].close(far);
}

#[test]
fn a_connection_that_is_closed_and_not_taken_frees_its_place_once() {
    let mut rig = Rig::new(5, 1, 2);
    let dials = rig.dials(2, 0);
    rig.w.run("two wait", |w| w.apps[1].accepted.len() == 2);
    let server = rig.server;
    let first = rig.w.apps[server].accepted[0].flow;
    // The application takes the connection and resets it at once: the engine reads of the reset first.
    rig.w.apps[server].accept();
    rig.w.apps[server].end.tx.reset(first);
    rig.w.apps[server].end.tx.flush();
    rig.w.pass(Nanos::millis(1));
    let more = rig.dials(2, 100);
    rig.w.pass(Nanos::millis(150));
    assert_eq!((rig.told(&more), rig.waiting()), ((1, 1), 2), "one place was free");
    let second = rig.w.apps[server].accepted[1].flow;
    rig.w.apps[server].end.tx.reset(second);
    rig.w.apps[server].end.tx.flush();
    rig.w.pass(Nanos::millis(1));
    let last = rig.dial(100);
    rig.w.pass(Nanos::millis(1));
    assert_eq!(rig.told(&[last]), (1, 0));
    assert_eq!(rig.w.counter(1, "channels_faulty"), 0);
    assert_eq!(rig.told(&dials), (2, 0));
}

fn kind(bytes: &[u8]) -> Option<Kind> {
    match frame::parse(bytes) {
        Ok(Frame::Udp { payload, .. }) => Packet::parse(payload).ok().map(|packet| packet.header.kind),
        _ => None,
    }
}

#[test]
fn a_caller_that_gives_up_leaves_its_place_at_once_and_a_silent_one_in_five_seconds() {
    let mut rig = Rig::new(6, 1, 2);
    let (a, b) = (0, 1);
    // The SYN takes one of two places in the backlog, and no SYN-ACK reaches the client.
    rig.w.net.lose_if(b, a, |frame| kind(frame) == Some(Kind::SynAck));
    let silent = rig.dial(1000);
    rig.w.pass(Nanos::millis(1100));
    assert_eq!((rig.told(&[silent]), rig.w.counter(b, "accepts")), ((0, 1), 0));
    rig.w.net.lose_if(b, a, |_| false);
    // The other is for those who show that they are there, by a cookie.
    let other = rig.dial(1000);
    rig.w.pass(Nanos::millis(1));
    assert_eq!((rig.told(&[other]), rig.w.counter(b, "cookies_accepted")), ((1, 0), 1));
    let patient = rig.dial(10_000);
    rig.w.pass(Nanos::millis(3799));
    assert_eq!(rig.told(&[patient]), (0, 0), "half-open for 4.9 s");
    rig.w.pass(Nanos::millis(320));
    assert_eq!(rig.told(&[patient]), (1, 0), "and not any more");
    rig.w.apps[rig.server].accept();

    // A SYN-ACK that comes after its dial was given up is answered by a reset.
    let start = rig.w.now;
    rig.w.net.set_links(Link { delay: Nanos::millis(2), ..Link::default() });
    let hasty = rig.dial(1000);
    rig.w.pass(Nanos::millis(3));
    let client = rig.client;
    assert!(rig.w.apps[client].end.tx.request(machnet_shm::Request::Cancel { id: hasty }));
    rig.w.apps[client].end.tx.flush();
    let next = rig.dial(1000);
    rig.connected(next);
    assert!(rig.w.now - start < Nanos::millis(50), "it took {:?}", rig.w.now - start);
    rig.w.pass(Nanos::millis(10));
    assert_eq!(rig.w.counter(b, "accepts"), 3);
}

#[test]
fn a_listener_that_closes_resets_who_has_a_place_and_another_begins_afresh() {
    let mut rig = Rig::new(7, 1, 2);
    let dials = rig.dials(4, 400);
    rig.w.pass(Nanos::millis(20));
    assert_eq!((rig.told(&dials), rig.waiting()), ((2, 0), 2));
    let (server, listener) = (rig.server, rig.listener);
    rig.w.apps[server].unlisten(listener);
    rig.w.run("closing", |w| w.apps[server].take_reply(listener).is_some());
    rig.w.pass(Nanos::millis(100));
    // Those that still asked are refused: nobody listens.
    assert_eq!(rig.w.counter(1, "syn_refused"), 2);
    // A new listener under the same number. Our libraries never reuse one, but an application may.
    rig.w.apps[server].listen_as(listener, PORT, 2);
    rig.w.run("listening", |w| w.apps[server].take_reply(listener).is_some());
    // The old ones, which the application has to close one by one, do not count.
    let fresh = rig.dials(3, 100);
    rig.w.pass(Nanos::millis(150));
    assert_eq!(rig.told(&fresh), (2, 1));
    for _ in 0..4 {
        rig.w.apps[server].accept();
    }
    let more = rig.dials(3, 100);
    rig.w.pass(Nanos::millis(150));
    assert_eq!(rig.told(&more), (2, 1), "and free no places of the new one's");
}

/// The client is connected while the server's end is still half-open.
#[test]
fn a_listener_that_closes_before_the_last_packet_of_the_handshake_resets_and_does_not_refuse() {
    let mut rig = Rig::new(11, 1, 2);
    let (a, b) = (0, 1);
    rig.w.net.lose_if(a, b, |frame| kind(frame) == Some(Kind::Ack));
    let dial = rig.dial(0);
    let near = rig.connected(dial);
    let (client, server, listener) = (rig.client, rig.server, rig.listener);
    rig.w.apps[server].unlisten(listener);
    rig.w.run("the reset", |w| w.apps[client].peek(near).over.is_some());
    assert_eq!(rig.w.apps[client].peek(near).over, Some(Reason::Reset));
    assert_eq!(rig.w.counter(b, "accepts"), 0);
}

#[test]
fn the_rule_is_the_same_for_syns_that_land_on_another_engine() {
    let mut rig = Rig::new(8, 4, 5);
    let dials = rig.dials(40, 2000);
    rig.w.pass(Nanos::millis(500));
    assert_eq!((rig.told(&dials), rig.waiting()), ((5, 0), 5));
    assert!(rig.w.counter(1, "handover_in") > 40);
    rig.accept_all();
    rig.w.pass(Nanos::millis(201));
    assert_eq!(rig.told(&dials), (40, 0));
    rig.assert_served(&dials);
    rig.w.assert_nothing_is_lost();
}

#[test]
fn a_client_on_the_same_host_waits_as_any_other() {
    let mut rig = Rig::new(9, 2, 2);
    let near = rig.w.app(1, 0);
    let ip = rig.w.sidecars[1].ip;
    let dials: Vec<_> = (0..6).map(|_| rig.w.apps[near].dial(ip, PORT, 0, 1000)).collect();
    rig.client = near;
    rig.w.pass(Nanos::millis(300));
    assert_eq!((rig.told(&dials), rig.waiting()), ((2, 0), 2));
    rig.accept_all();
    rig.w.pass(Nanos::millis(201));
    assert_eq!(rig.told(&dials), (6, 0));
    rig.assert_served(&dials);
    rig.w.assert_nothing_is_lost();
}
