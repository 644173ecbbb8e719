//! Engines of one sidecar: packets that land on the wrong one, listeners of another, local connections between two.

mod common;

use common::{World, pattern};
use machnet_wire::Nanos;

#[test]
fn an_echo_passes_by_hand_over() {
    let mut w = World::seeded(1);
    let (a, b) = (w.add(1, 2), w.add(2, 2));
    let (client, server) = (w.app(a, 0), w.app(b, 1));
    w.apps[server].echoes = true;
    w.listen(server, 8000);
    let ip = w.sidecars[b].ip;
    let flows: Vec<_> = (0..32).map(|_| w.connect(client, server, ip, 8000).0).collect();
    for (i, &flow) in flows.iter().enumerate() {
        w.apps[client].send(flow, pattern(100 * i, i as u64));
    }
    w.run("echoes", |w| flows.iter().all(|&flow| !w.apps[client].conn(flow).received.is_empty()));
    for (i, &flow) in flows.iter().enumerate() {
        assert_eq!(w.apps[client].conn(flow).received.pop_front(), Some(pattern(100 * i, i as u64)));
    }
    for sidecar in [a, b] {
        let (out, taken) = (w.counter(sidecar, "handover_out"), w.counter(sidecar, "handover_in"));
        assert!(out > 20 && out == taken, "{out} handed over, {taken} taken");
        assert_eq!(w.counter(sidecar, "rx_no_flow"), 0);
    }
    w.assert_nothing_is_lost();
}

#[test]
fn connections_outlive_a_change_of_the_hash_key() {
    let mut w = World::seeded(2);
    let (a, b) = (w.add(1, 4), w.add(2, 4));
    let (client, server) = (w.app(a, 3), w.app(b, 2));
    w.listen(server, 8000);
    let ip = w.sidecars[b].ip;
    let (near, far) = w.connect(client, server, ip, 8000);
    for i in 0..20 {
        w.net.rekey(a);
        w.net.rekey(b);
        w.carry((client, near), (server, far), pattern(5000, i));
    }
    w.assert_nothing_is_lost();
}

#[test]
fn local_applications_of_different_engines_talk_without_the_nic() {
    let mut w = World::seeded(3);
    let a = w.add(1, 2);
    let (client, server) = (w.app(a, 0), w.app(a, 1));
    w.listen(server, 8000);
    let ip = w.sidecars[a].ip;
    let (near, far) = w.connect(client, server, ip, 8000);
    w.carry((client, near), (server, far), pattern(1 << 20, 1));
    w.carry((server, far), (client, near), pattern(70, 2));
    assert_eq!(w.net.counts().sent, 0);
    assert!(w.counter(a, "handover_in") > 700);
    w.assert_nothing_is_lost();
}

#[test]
fn a_port_is_taken_for_all_engines_of_a_sidecar() {
    let mut w = World::seeded(4);
    let a = w.add(1, 2);
    let (first, second) = (w.app(a, 0), w.app(a, 1));
    w.listen(first, 8000);
    let id = w.apps[second].listen(8000);
    w.run("answer", |w| w.apps[second].reply(id).is_some());
    assert!(matches!(w.apps[second].take_reply(id), Some(machnet_shm::Reply::ListenFailed { .. })));
    let number = w.apps[first].number;
    w.apps[first].alive = false;
    w.apps[first].engine.detach(number);
    w.pass(Nanos::millis(1));
    w.listen(second, 8000);
}
