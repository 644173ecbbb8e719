//! When a silent peer is dead: 2 s after the question that it did not answer, or after its last sign of life, on whatever
//! connection and engine that came.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use machnet_shm::{FlowId, Geometry, KeepAlive, Reason};
use machnet_sim::{AppNo, World, pattern};
use machnet_wire::frame::{self, Frame};
use machnet_wire::{Kind, Nanos, Packet};

type End = (AppNo, FlowId);

/// How often a flow looks whether its peer is silent.
const STEP: Nanos = Nanos(2_000_000_000 / 32);

/// Two hosts, the first with `engines`, and on each of those an application with a connection to one server.
fn rig(seed: u64, engines: u16) -> (World, Vec<End>) {
    let mut w = World::seeded(seed);
    // The second host never takes its peer for dead, however long the first one stops.
    let (a, b) = (w.add(1, engines), w.add_with(2, 1, |c| c.flow.dead_after = Nanos::secs(600)));
    let server = w.app(b, 0);
    w.apps[server].echoes = true;
    w.listen(server, 8000);
    let ip = w.sidecars[b].ip;
    let mut ends = Vec::new();
    for engine in 0..engines {
        let client = w.app(a, engine);
        ends.push((client, w.connect(client, server, ip, 8000).0));
    }
    (w, ends)
}

fn echo(w: &mut World, (app, flow): End) {
    w.carry((app, flow), (app, flow), pattern(64, w.now.0));
}

/// Echoes every 20 ms for this time.
fn talk(w: &mut World, end: End, time: Nanos) {
    let until = w.now + time;
    while w.now < until {
        echo(w, end);
        w.pass(Nanos::millis(20));
    }
}

fn over(w: &mut World, (app, flow): End) -> Option<Reason> {
    w.apps[app].peek(flow).over
}

/// Runs until the connection is over; when that was.
fn death(w: &mut World, end: End) -> Nanos {
    w.run("dying", |w| over(w, end).is_some());
    assert_eq!(over(w, end), Some(Reason::Timeout));
    w.now
}

/// The peer stops at every phase of the idle connections' keep-alive, while a busy connection talks until then.
#[test]
fn no_connection_of_a_peer_dies_before_two_seconds_have_passed() {
    for phase in 0..25 {
        let (mut w, ends) = rig(phase, 1);
        let (app, busy) = ends[0];
        let ip = w.sidecars[1].ip;
        let server = 0;
        let idle: Vec<_> = (0..3)
            .map(|i| {
                w.pass(Nanos::millis(130 * i));
                (app, w.connect(app, server, ip, 8000).0)
            })
            .collect();
        talk(&mut w, (app, busy), Nanos::millis(1_500 + 41 * phase));
        w.sidecars[1].running = false;
        let stopped = w.now;
        w.apps[app].send(busy, pattern(64, 1));
        let asked = w.now;
        w.pass(Nanos::millis(1_999));
        let ends: Vec<_> = idle.into_iter().chain([(app, busy)]).collect();
        for &end in &ends {
            assert_eq!(over(&mut w, end), None, "phase {phase}: after {:?}", w.now - stopped);
        }
        let took = death(&mut w, (app, busy)) - asked;
        assert!(took < Nanos::secs(2) + STEP + Nanos::millis(10), "phase {phase}: busy: {took:?}");
        for end in ends {
            // The keep-alive sends its question within 1 s.
            let took = death(&mut w, end) - stopped;
            assert!(took < Nanos::secs(3) + STEP + Nanos::millis(10), "phase {phase}: idle: {took:?}");
        }
    }
}

#[test]
fn a_sign_of_life_on_another_engine_counts() {
    let (mut w, ends) = rig(30, 2);
    let (quiet, busy) = (ends[0], ends[1]);
    echo(&mut w, quiet);
    // From now on the peer's packets to the one connection are lost.
    let own = w.apps[quiet.0].dialled.first().expect("dialled").local.1;
    w.net.lose_if(1, 0, move |bytes| match frame::parse(bytes) {
        Ok(Frame::Udp { payload, .. }) => Packet::parse(payload).is_ok_and(|packet| packet.header.dst == own),
        _ => false,
    });
    talk(&mut w, busy, Nanos::secs(8));
    assert_eq!(over(&mut w, quiet), None);
    let last = w.now;
    w.sidecars[1].running = false;
    let took = death(&mut w, quiet) - last;
    assert!((Nanos::millis(1_980)..Nanos::secs(2) + STEP).contains(&took), "{took:?}");
    death(&mut w, busy);
}

/// What an engine heard of a peer is forgotten with its last connection to it: it must not keep the peer alive for the other engine.
#[test]
fn what_an_engine_without_connections_heard_is_forgotten() {
    let (mut w, ends) = rig(31, 2);
    talk(&mut w, ends[1], Nanos::millis(500));
    w.apps[ends[1].0].close(ends[1].1);
    w.pass(Nanos::secs(3));
    let ip = w.sidecars[1].ip;
    let again = w.connect(ends[1].0, 0, ip, 8000).0;
    w.sidecars[1].running = false;
    let stopped = w.now;
    for end in [ends[0], (ends[1].0, again)] {
        let took = death(&mut w, end) - stopped;
        assert!((Nanos::secs(2)..Nanos::secs(3) + STEP + STEP).contains(&took), "{took:?}");
    }
}

#[test]
fn a_stop_of_our_own_is_no_silence_of_the_peers() {
    for (seed, stop) in [(40, 1_500), (41, 1_970), (42, 5_000), (43, 60_000)] {
        let (mut w, ends) = rig(seed, 1);
        let (app, busy) = ends[0];
        let ip = w.sidecars[1].ip;
        let idle = w.connect(app, 0, ip, 8000).0;
        talk(&mut w, (app, busy), Nanos::millis(990));
        // We stop while a packet waits for its acknowledgement, which arrives while we are stopped, or is lost.
        for lost in [false, true] {
            w.apps[app].send(busy, pattern(64, 1));
            w.pass(Nanos::millis(80));
            w.net.lose_if(1, 0, move |_| lost);
            w.apps[app].send(busy, pattern(64, 1));
            w.pass(Nanos::millis(80));
            w.net.steal(0, Nanos::millis(stop));
            w.pass(Nanos::millis(stop));
            w.net.lose_if(1, 0, |_| false);
            w.pass(Nanos::secs(3));
        }
        assert_eq!([busy, idle].map(|flow| over(&mut w, (app, flow))), [None; 2], "stopped for {stop} ms");
        echo(&mut w, (app, idle));
    }
}

fn pings(w: &mut World, time: Nanos) -> u64 {
    // Counters of flows are summed now and then.
    w.pass(Nanos::secs(1));
    let before = w.counter(0, "flow_pings_sent");
    w.pass(time);
    w.pass(Nanos::secs(1));
    w.counter(0, "flow_pings_sent") - before
}

/// The other end never asks.
fn hush_peer(w: &mut World) {
    let far = w.apps.iter().position(|app| !app.accepted.is_empty()).expect("the server");
    let there = w.apps[far].accepted[0].flow;
    w.apps[far].keep_alive(there, KeepAlive::Never);
}

/// The second after the time that is counted in belongs to it, and so does what of the second before was summed late: a rate, within a fifth.
/// Each silence is up to a quarter shorter.
#[test]
fn a_connection_asks_after_a_silence_of_its_own() {
    for (after, each_ten_seconds) in [(10, 1000), (50, 200), (200, 50), (2_000, 5)] {
        let (mut w, ends) = rig(after, 1);
        let (app, flow) = ends[0];
        hush_peer(&mut w);
        w.apps[app].keep_alive(flow, KeepAlive::Millis(after as u32));
        let asked = pings(&mut w, Nanos::secs(9));
        let (least, most) = (each_ten_seconds * 4 / 5, each_ten_seconds * 8 / 5 + 1);
        assert!((least..=most).contains(&asked), "{asked} in ten seconds, after silences of {after} ms");
    }
}

#[test]
fn a_connection_that_never_asks_is_silent_for_ever_and_its_peer_dead_only_when_it_owes_an_answer() {
    let (mut w, ends) = rig(60, 1);
    let (app, flow) = ends[0];
    hush_peer(&mut w);
    w.apps[app].keep_alive(flow, KeepAlive::Never);
    assert_eq!(pings(&mut w, Nanos::secs(600)), 0);
    echo(&mut w, ends[0]);
    w.sidecars[1].running = false;
    w.pass(Nanos::secs(600));
    assert_eq!(over(&mut w, ends[0]), None, "nothing was asked, and nothing is owed");
    w.apps[app].send(flow, pattern(64, 1));
    let asked = w.now;
    let took = death(&mut w, ends[0]) - asked;
    assert!(took >= Nanos::secs(2) && took < Nanos::secs(2) + STEP + Nanos::millis(10), "{took:?}");
}

#[test]
fn a_peer_that_stops_is_dead_two_seconds_after_the_question_however_often_it_is_asked() {
    for after in [10, 50, 300] {
        let (mut w, ends) = rig(70 + after, 1);
        let (app, flow) = ends[0];
        w.apps[app].keep_alive(flow, KeepAlive::Millis(after as u32));
        w.pass(Nanos::millis(777));
        w.sidecars[1].running = false;
        let stopped = w.now;
        let took = death(&mut w, ends[0]) - stopped;
        let most = Nanos::secs(2) + Nanos::millis(after) + STEP + Nanos::millis(10);
        assert!(
            took >= Nanos::secs(2) - Nanos::millis(1) && took < most,
            "{took:?} with silences of {after} ms"
        );
    }
    // As all do once more.
    let (mut w, ends) = rig(80, 1);
    let (app, flow) = ends[0];
    hush_peer(&mut w);
    w.apps[app].keep_alive(flow, KeepAlive::Never);
    w.pass(Nanos::millis(10));
    w.apps[app].keep_alive(flow, KeepAlive::Default);
    assert!(pings(&mut w, Nanos::secs(9)) >= 8, "after a second each");
}

/// Connections that were all heard at one moment, as after a stall, do not ask at one moment whether their peers live, ever after.
/// `MACHNET_CONNECTIONS` says how many instead of those that every test run has time for.
#[test]
fn many_idle_connections_ask_in_turn_though_they_fell_silent_together() {
    let all: usize = std::env::var("MACHNET_CONNECTIONS").map_or(2000, |n| n.parse().expect("a number"));
    let mut w = World::seeded(50);
    let (a, b) = (w.add(1, 1), w.add(2, 1));
    let large = Geometry { flows: all as u32, ..Geometry::DEFAULT };
    let (client, server) = (w.app_with(a, 0, large), w.app_with(b, 0, large));
    w.listen(server, 8000);
    let ip = w.sidecars[b].ip;
    for dialled in (0..all).step_by(50).map(|n| (n + 50).min(all)) {
        (w.apps[client].dialled.len()..dialled).for_each(|_| {
            w.apps[client].dial(ip, 8000, 0, 0);
        });
        w.run("connecting", |w| w.apps[client].dialled.len() == dialled);
    }
    // Both hosts stop for longer than the keep-alive: what is due then is due at once.
    [0, 1].iter().for_each(|&host| w.net.steal(host, Nanos::millis(1_500)));
    w.pass(Nanos::millis(1_600));
    let pings: Arc<[AtomicUsize; 2]> = Arc::default();
    for (from, to) in [(0, 1), (1, 0)] {
        let pings = Arc::clone(&pings);
        w.net.lose_if(from, to, move |bytes| {
            if let Ok(Frame::Udp { payload, .. }) = frame::parse(bytes)
                && Packet::parse(payload).is_ok_and(|packet| packet.header.kind == Kind::Ping)
            {
                pings[from].fetch_add(1, Relaxed);
            }
            false
        });
    }
    // In the second after that they still follow each other closely: of a quarter of a second, as many as there are. Then less.
    w.pass(Nanos::secs(2));
    let (mut most, mut sum) = (0, 0);
    let took = |pings: &[AtomicUsize; 2]| pings.iter().map(|one| one.swap(0, Relaxed)).sum::<usize>();
    took(&pings);
    for _ in 0..2000 {
        w.pass(Nanos::millis(1));
        let asked = took(&pings);
        (most, sum) = (most.max(asked), sum + asked);
    }
    println!("{all} idle connections: {sum} pings in 2 s, at most {most} in a millisecond");
    // Each asks every 750 to 1000 ms, by one of its ends.
    assert!((2 * all..2 * all * 3 / 2).contains(&sum), "seed {}: {sum} pings of {all}", w.seed);
    assert!(most <= 10 + all / 100, "seed {}: {most} pings of {all} in a millisecond", w.seed);
    assert_eq!(w.apps[client].conns.values().filter(|conn| conn.over.is_some()).count(), 0);
}
