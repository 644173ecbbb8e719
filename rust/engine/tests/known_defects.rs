//! Defects that stacks of this kind are known to have had, and what keeps each away from this one.
//!
//! | defect | held off by |
//! |---|---|
//! | units kept out of order only 64 ahead; SACK bits shifted, or counted in a byte | `flow/tests/loss.rs: a_whole_window_behind_a_lost_unit_is_kept_..`, `flow/src/sack.rs` |
//! | a timeout of 3 s, and silence towards the application after three of them | `flow/tests/loss.rs: the_timeout_doubles_..`, `flow/tests/life.rs: a_peer_that_falls_silent_..` |
//! | one lost packet in a hundred leaves 20 replies a second | `flow/tests/loss.rs: one_percent_of_loss_..` |
//! | an application that does not read kills the sidecar | `two_hosts.rs: an_application_that_does_not_read_..` |
//! | one bogus index in shared memory kills the sidecar | `faulty_app.rs`, `shm/tests/hostile_peer.rs` |
//! | one application sends on another's connection | here |
//! | all channels land on one engine; detaching one hits another engine | here |
//! | the memory of one that left is used on | here, and `two_hosts.rs: an_application_that_leaves_..` |
//! | only the engine that RSS chose accepts a SYN | `two_engines.rs` |
//! | no half close, no reason of a reset, ports blocked after a close | `flow/tests/life.rs` |
//! | an accepted connection that dies frees its listener's port | here |
//! | data before the handshake's last packet is dropped | `flow/tests/life.rs: data_that_overtakes_..` |
//! | a UDP header is read before its length is checked; a short datagram on a live connection aborts | here, `wire/tests/hostile.rs` |
//! | an acknowledgement of its own for each packet | `two_hosts.rs: a_small_request_and_its_reply_are_two_packets` |
//! | a full transmit ring is waited for in a loop, or starves flows | `congestion.rs: flows_of_one_engine_share_by_bytes` |
//! | messages of 8 MiB fail | `two_hosts.rs: eight_mebibytes_in_one_message`, `matrix.rs` |
//! | connecting takes seconds | `flow/tests/life.rs: a_connection_takes_three_packets_..` |
//! | without checksum offload nothing starts | every test here: `nic::sim` offers none unless asked |

use machnet_shm::{Fragment, Geometry};
use machnet_sim::{World, pattern};
use machnet_wire::frame::{self, Route};
use machnet_wire::{Mac, Nanos, unit_size};
use std::net::Ipv4Addr;

#[test]
fn an_application_cannot_send_on_anothers_connection() {
    let mut w = World::seeded(1);
    let (a, b) = (w.add(1, 1), w.add(2, 1));
    let (one, other, server) = (w.app(a, 0), w.app(a, 0), w.app(b, 0));
    w.listen(server, 8000);
    let ip = w.sidecars[b].ip;
    // `second` is a handle of the other application's channel; on the channel of `one` it names no connection.
    let (near, far) = w.connect(one, server, ip, 8000);
    w.connect(other, server, ip, 8000);
    let (second, _) = w.connect(other, server, ip, 8000);
    assert_ne!(second, near);
    let whole = Fragment { begin: true, end: true, message_len: 3 };
    let _ = w.apps[one].end.tx.data(second, whole, b"bad");
    w.apps[one].end.tx.flush();
    w.pass(Nanos::millis(1));
    assert_eq!(w.counter(a, "channels_faulty"), 1);
    assert!(w.apps[server].conns.values().all(|conn| conn.received.is_empty()), "nothing was sent");
    assert!(w.apps[server].peek(far).over.is_some(), "its own connection went with its channel");
    w.apps[one].alive = false;
    w.assert_nothing_is_lost();
}

#[test]
fn channels_are_served_by_the_engine_they_name_and_leave_alone() {
    let mut w = World::seeded(2);
    let (a, b) = (w.add(1, 3), w.add(2, 1));
    let server = w.app(b, 0);
    w.apps[server].echoes = true;
    w.listen(server, 8000);
    let ip = w.sidecars[b].ip;
    let apps: Vec<_> = (0..6).map(|n| w.app(a, n % 3)).collect();
    let flows: Vec<_> = apps.iter().map(|&app| w.connect(app, server, ip, 8000).0).collect();
    let channels =
        |w: &World| -> Vec<usize> { w.sidecars[a].engines.iter().map(|e| e.usage().len()).collect() };
    assert_eq!(channels(&w), [2, 2, 2]);
    // Those of engine 1 leave in the middle of a message.
    for n in [1, 4] {
        w.apps[apps[n]].send(flows[n], pattern(3 << 20, 1));
        w.pass(Nanos::micros(300));
        let app = &mut w.apps[apps[n]];
        app.alive = false;
        app.conns.clear();
        assert!(app.engine.detach(app.number));
    }
    w.run("two gone", |w| channels(w) == [2, 0, 2]);
    for n in [0, 2, 3, 5] {
        w.carry((apps[n], flows[n]), (apps[n], flows[n]), pattern(10_000, n as u64));
    }
    w.assert_nothing_is_lost();
}

#[test]
fn a_listener_outlives_its_connections() {
    let mut w = World::seeded(3);
    let (a, b) = (w.add(1, 1), w.add(2, 1));
    let (client, server) = (w.app(a, 0), w.app(b, 0));
    w.listen(server, 8000);
    let ip = w.sidecars[b].ip;
    for reset_by_server in [true, false, true] {
        let (near, far) = w.connect(client, server, ip, 8000);
        let (app, flow) = if reset_by_server { (server, far) } else { (client, near) };
        w.apps[app].end.tx.reset(flow);
        w.apps[app].end.tx.flush();
        let (peer, peers) = if reset_by_server { (client, near) } else { (server, far) };
        w.run("reset", |w| w.apps[peer].peek(peers).over.is_some());
    }
    let (near, far) = w.connect(client, server, ip, 8000);
    w.carry((client, near), (server, far), pattern(100, 1));
}

#[test]
fn datagrams_shorter_than_their_header_do_nothing_to_a_live_connection() {
    let mut w = World::seeded(4);
    let (a, b) = (w.add(1, 1), w.add(2, 1));
    let (client, server) = (w.app(a, 0), w.app(b, 0));
    w.listen(server, 8000);
    let ip = w.sidecars[b].ip;
    let (near, far) = w.connect(client, server, ip, 8000);
    let route = Route {
        src_mac: Mac([2, 0, 0, 0, 0, 1]),
        dst_mac: Mac([2, 0, 0, 0, 0, 2]),
        src_ip: Ipv4Addr::new(10, 0, 0, 1),
        dst_ip: ip,
        src_port: 31580,
        dst_port: 31580,
    };
    for len in 0..machnet_wire::header::LEN {
        let mut datagram = vec![0; frame::UDP_HEADERS + len];
        frame::emit_udp(&route, len, &mut datagram);
        frame::write_udp_checksum(&mut datagram);
        w.net.inject(b, &datagram);
        // And cut off in the middle of UDP's header.
        w.net.inject(b, &datagram[..34 + len % 8]);
    }
    w.pass(Nanos::millis(1));
    let refused = w.counter(b, "rx_bad_machnet") + w.counter(b, "rx_short") + w.counter(b, "rx_bad_ip");
    assert_eq!(refused, 2 * machnet_wire::header::LEN as u64, "{:?}", w.counters(b));
    w.carry((client, near), (server, far), pattern(5000, 1));
    w.assert_nothing_is_lost();
}

/// Each cloud has its own MTU; two hosts use the smaller of theirs.
#[test]
fn the_smaller_mtu_counts() {
    for (near_mtu, far_mtu) in [(9001, 9001), (9001, 1460), (1460, 9001), (1500, 1460), (8896, 1500)] {
        let mut w = World::seeded(5);
        w.mtu = near_mtu;
        let a = w.add(1, 1);
        w.mtu = far_mtu;
        let b = w.add(2, 1);
        let geometry = |mtu: u16| Geometry { unit_size: unit_size(mtu, 0) as u32, ..Geometry::DEFAULT };
        let client = w.app_with(a, 0, geometry(near_mtu));
        let server = w.app_with(b, 0, geometry(far_mtu));
        w.apps[server].echoes = true;
        w.listen(server, 8000);
        let ip = w.sidecars[b].ip;
        let (near, _) = w.connect(client, server, ip, 8000);
        for len in [1384, 1385, 1424, 1425, 8925, 8926, 100_000] {
            w.carry((client, near), (client, near), pattern(len, 1));
        }
        let counts = w.net.counts();
        assert_eq!((counts.refused, counts.lost), (0, 0), "{near_mtu} and {far_mtu}: every frame fits both");
        w.assert_nothing_is_lost();
    }
}
