//! What an application is told of its connections, against what the network did and what the flows counted.

use machnet_nic::sim::Link;
use machnet_shm::{FlowId, FlowStats, Pairs, Reason, Reply, Stage, Waits};
use machnet_sim::{AppNo, World, pattern};
use machnet_wire::Nanos;

type End = (AppNo, FlowId);

/// Two hosts with an application each, and a connection between them.
fn rig(seed: u64, link: Link) -> (World, End, End) {
    let mut w = World::seeded(seed);
    let (a, b) = (w.add(1, 1), w.add(2, 1));
    w.net.set_links(link);
    let (client, server) = (w.app(a, 0), w.app(b, 0));
    w.listen(server, 8000);
    let ip = w.sidecars[b].ip;
    let (near, far) = w.connect(client, server, ip, 8000);
    (w, (client, near), (server, far))
}

fn told(w: &mut World, (app, flow): End) -> Option<FlowStats> {
    let id = w.apps[app].ask_about(flow);
    w.run("telling", |w| w.apps[app].reply(id).is_some());
    match w.apps[app].take_reply(id) {
        Some(Reply::Stats { stats, .. }) => stats,
        other => panic!("{other:?}"),
    }
}

fn stats(w: &mut World, end: End) -> FlowStats {
    told(w, end).expect("the connection is there")
}

#[test]
fn times_bytes_units_and_ports_are_those_of_the_connection() {
    let delay = Nanos::micros(50);
    let (mut w, near, far) = rig(1, Link { delay, ..Link::default() });
    for i in 0..20 {
        w.carry(near, far, pattern(3000, i));
        w.carry(far, near, pattern(64, i));
    }
    w.pass(Nanos::millis(1));
    let (here, there) = (stats(&mut w, near), stats(&mut w, far));
    let trip = u64::from(delay.0 as u32) * 2;
    assert!((trip..trip + 30_000).contains(&here.srtt_ns), "{} ns where the path has {trip}", here.srtt_ns);
    assert!(here.rtt_var_ns < trip / 2, "{} ns", here.rtt_var_ns);
    assert_eq!((here.bytes_sent, here.bytes_received), (20 * 3000, 20 * 64));
    assert_eq!((there.bytes_sent, there.bytes_received), (20 * 64, 20 * 3000));
    assert_eq!((here.units_sent, here.units_received), (20 * 3, 20));
    assert_eq!((here.retransmitted, here.timeouts, here.in_flight, here.queued), (0, 0, 0, 0));
    assert_eq!((here.stage, here.waits, here.reason), (Stage::Open, Waits::Nothing, None));
    assert_eq!((here.engine, here.pairing), (0, Pairs::Verified));
    assert!(here.window > 0 && here.udp_ports.0 > 0, "{here:?}");
    // Each sees the other's packets come by the ports that the other sends by.
    assert_eq!((here.udp_ports, there.udp_ports), (there.peer_udp_ports, here.peer_udp_ports));
}

#[test]
fn what_was_sent_again_is_counted_as_the_flow_counts_it() {
    let (mut w, near, far) = rig(2, Link { delay: Nanos::micros(20), loss: 0.05, ..Link::default() });
    for i in 0..40 {
        w.carry(near, far, pattern(20_000, i));
    }
    let here = stats(&mut w, near);
    // The host's counters are summed now and then.
    w.pass(Nanos::secs(1));
    assert!(here.retransmitted > 10, "{} of {} units", here.retransmitted, here.units_sent);
    assert_eq!(here.retransmitted, w.counter(0, "flow_retransmitted"), "seed {}", w.seed);
    assert_eq!(u64::from(here.timeouts), w.counter(0, "flow_rtos"), "seed {}", w.seed);
    assert_eq!((here.bytes_sent, here.units_sent), (800_000, 40 * 15));
}

#[test]
fn a_sender_is_told_what_it_waits_for() {
    // The path is long and nothing has come back yet: for the window.
    let (mut w, near, far) = rig(3, Link { delay: Nanos::millis(10), ..Link::default() });
    w.apps[near.0].send(near.1, pattern(100_000, 1));
    let waits: Vec<_> = (0..10)
        .map(|_| {
            w.pass(Nanos::millis(5));
            stats(&mut w, near)
        })
        .filter(|here| here.waits == Waits::Window)
        .collect();
    assert!(!waits.is_empty());
    assert!(
        waits.iter().all(|here| here.in_flight == here.window && here.queued > here.in_flight),
        "{waits:?}"
    );
    w.run("arriving", |w| !w.apps[far.0].conn(far.1).received.is_empty());
    w.pass(Nanos::millis(50));
    assert_eq!(stats(&mut w, near).waits, Waits::Nothing);

    // The other end does not read: for credit.
    let (mut w, near, far) = rig(4, Link { delay: Nanos::micros(10), ..Link::default() });
    w.apps[far.0].reads = false;
    w.apps[near.0].send(near.1, pattern(2_000_000, 2));
    w.pass(Nanos::millis(500));
    let here = stats(&mut w, near);
    assert_eq!((here.waits, here.credit), (Waits::Credit, 0));
    assert!(here.queued > here.in_flight, "{here:?}");
    let there = stats(&mut w, far);
    assert_eq!(there.granted, 0, "nothing is promised where nobody reads");
    w.apps[far.0].reads = true;
    w.apps[far.0].touched = true;
    w.run("arriving", |w| !w.apps[far.0].conn(far.1).received.is_empty());
    w.pass(Nanos::millis(10));
    let here = stats(&mut w, near);
    assert_eq!((here.waits, here.queued, here.bytes_sent), (Waits::Nothing, 0, 2_000_000));
}

#[test]
fn a_connection_on_one_host_has_no_ports() {
    let mut w = World::seeded(5);
    let a = w.add(1, 1);
    let (client, server) = (w.app(a, 0), w.app(a, 0));
    w.listen(server, 8000);
    let ip = w.sidecars[a].ip;
    let (near, far) = w.connect(client, server, ip, 8000);
    w.carry((client, near), (server, far), pattern(100, 1));
    let here = stats(&mut w, (client, near));
    assert_eq!((here.udp_ports, here.peer_udp_ports, here.pairing), ((0, 0), (0, 0), Pairs::None));
}

/// As long as its application has the handle; then there is nothing to tell, and to ask is no fault.
#[test]
fn a_connection_that_is_over_tells_its_last_and_why_it_ended() {
    let (mut w, near, far) = rig(6, Link::default());
    w.carry(near, far, pattern(5000, 1));
    w.leave(far.0);
    w.run("ending", |w| w.apps[near.0].peek(near.1).over.is_some());
    let why = w.apps[near.0].peek(near.1).over;
    for _ in 0..2 {
        let last = stats(&mut w, near);
        assert_eq!((last.stage, last.reason), (Stage::Over, why));
        assert_eq!((last.bytes_sent, last.units_sent, last.in_flight), (5000, 4, 0));
    }
    assert!(matches!(why, Some(Reason::Gone | Reason::Reset)), "{why:?}");
    w.apps[near.0].close(near.1);
    w.pass(Nanos::millis(10));
    assert_eq!(told(&mut w, near), None);
    // Another connection at the same place is not told of the last one's end.
    let server = w.app(1, 0);
    w.listen(server, 8001);
    let ip = w.sidecars[1].ip;
    let (next, _) = w.connect(near.0, server, ip, 8001);
    assert_eq!(next.index, near.1.index, "the place is used again");
    let here = stats(&mut w, (near.0, next));
    assert_eq!((here.stage, here.reason, here.bytes_sent), (Stage::Open, None, 0));
    assert_eq!(told(&mut w, near), None, "nor is the last one found there");
}

/// A clean end is one as well.
#[test]
fn a_connection_that_has_finished_is_closing_and_then_over() {
    let (mut w, near, far) = rig(7, Link::default());
    w.apps[near.0].conn(near.1).outgoing.push_back(machnet_sim::Out::Fin);
    w.run("finishing", |w| w.apps[far.0].conn(far.1).fin);
    assert_eq!(stats(&mut w, near).stage, Stage::Closing);
    assert_eq!(stats(&mut w, far).stage, Stage::Open);
    w.apps[far.0].conn(far.1).outgoing.push_back(machnet_sim::Out::Fin);
    w.run("ending", |w| w.apps[near.0].peek(near.1).over.is_some());
    let last = stats(&mut w, near);
    assert_eq!((last.stage, last.reason), (Stage::Over, Some(Reason::Clean)));
}
