//! Engines of one sidecar: packets that land on the wrong one, listeners of another, local connections between two.

use machnet_shm::Reason;
use machnet_sim::{World, pattern};
use machnet_wire::frame::{self, Frame, Route};
use machnet_wire::{Header, Kind, Nanos, Packet, Reset};
use std::sync::{Arc, Mutex};

#[test]
fn an_echo_passes_between_engines_of_any_number() {
    let mut w = World::seeded(1);
    let (a, b) = (w.add(1, 2), w.add(2, 2));
    let (client, server) = (w.app(a, 0), w.app(b, 1));
    w.apps[server].echoes = true;
    w.listen(server, 8000);
    let ip = w.sidecars[b].ip;
    let flows: Vec<_> = (0..32).map(|_| w.connect(client, server, ip, 8000).0).collect();
    w.pass(Nanos::millis(1));
    let met = [a, b].map(|sidecar| w.counter(sidecar, "handover_out"));
    for (i, &flow) in flows.iter().enumerate() {
        w.apps[client].send(flow, pattern(100 * i, i as u64));
    }
    w.run("echoes", |w| flows.iter().all(|&flow| !w.apps[client].conn(flow).received.is_empty()));
    for (i, &flow) in flows.iter().enumerate() {
        assert_eq!(w.apps[client].conn(flow).received.pop_front(), Some(pattern(100 * i, i as u64)));
    }
    // SYNs meet any engine; what follows goes by ports that lead to the right one.
    for (sidecar, met) in [a, b].into_iter().zip(met) {
        let (out, taken) = (w.counter(sidecar, "handover_out"), w.counter(sidecar, "handover_in"));
        assert_eq!((out, taken), (met, met), "handed over, taken");
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
    assert_eq!((w.net.counts().sent, w.counter(a, "arp_announced")), (1, 1));
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

/// The reset comes from a peer that has forgotten the connection, and may land on any queue.
#[test]
fn a_reset_without_a_tag_reaches_its_connection_on_any_engine() {
    let mut w = World::seeded(5);
    let (a, b) = (w.add(1, 4), w.add(2, 4));
    let (client, server) = (w.app(a, 0), w.app(b, 3));
    w.listen(server, 8000);
    let ip = w.sidecars[b].ip;
    let last = Arc::new(Mutex::new(Vec::new()));
    let copy = Arc::clone(&last);
    w.net.lose_if(b, a, move |frame| {
        *copy.lock().expect("one thread") = frame.to_vec();
        false
    });
    for port in 0..32 {
        let (near, far) = w.connect(client, server, ip, 8000);
        w.carry((server, far), (client, near), pattern(100, 1));
        let bytes = last.lock().expect("one thread").clone();
        let Ok(Frame::Udp { ether, ip, payload, .. }) = frame::parse(&bytes) else { panic!("{bytes:?}") };
        let said = Packet::parse(payload).expect("a packet").header;
        let header = Header { src: said.dst, dst: said.src, ..Header::new(Kind::Rst) };
        let body = Reset { epoch: 1, echo: said.tag, reason: machnet_wire::Reason::Closed }.emit();
        let (src_port, dst_port) = (31_580 + port, 31_580);
        let route = Route {
            src_mac: ether.dst,
            dst_mac: ether.src,
            src_ip: ip.dst,
            dst_ip: ip.src,
            src_port,
            dst_port,
        };
        let len = machnet_wire::header::LEN + body.len();
        let mut reset = vec![0; frame::UDP_HEADERS + len];
        let at = frame::emit_udp(&route, len, &mut reset);
        let at = at + header.emit(&[], &mut reset[at..]);
        reset[at..].copy_from_slice(&body);
        frame::write_udp_checksum(&mut reset);
        w.net.inject(b, &reset);
        w.pass(Nanos::micros(10));
        assert_eq!(w.apps[server].conn(far).over, Some(Reason::Gone), "by port {src_port}");
    }
    assert!(w.counter(b, "handover_in") > 30);
}
