//! Neighbours that change: a peer that is back with another MAC, hosts that swap their addresses, stations that claim an address which is
//! not theirs, and more dead hosts than anybody can remember.

use std::net::Ipv4Addr;

use machnet_nic::sim::Host;
use machnet_shm::{FlowId, Geometry, Reason, Reply};
use machnet_sim::{AppNo, World, pattern};
use machnet_wire::{Mac, Nanos, arp, ether};

const PORT: u16 = 8000;

/// Dials until it is connected, each time for `each` at most; how long that took.
fn reach(w: &mut World, client: AppNo, ip: Ipv4Addr, each: u32) -> (Nanos, FlowId) {
    let began = w.now;
    loop {
        let id = w.apps[client].dial(ip, PORT, 0, each);
        w.run("an answer", |w| w.apps[client].reply(id).is_some() || w.apps[client].dialled(id).is_some());
        if let Some(conn) = w.apps[client].dialled(id) {
            return (w.now - began, conn.flow);
        }
        assert!(w.now < began + Nanos::secs(100), "seed {}: {:?}", w.seed, w.apps[client].reply(id));
        w.pass(Nanos::millis(50));
    }
}

/// The host in the place of another, with its address and a MAC of its own; an application listens there.
fn replace(w: &mut World, old: usize, n: u8) -> (usize, AppNo) {
    let ip = w.sidecars[old].ip;
    w.sidecars[old].running = false;
    let new = w.add_on(n, Host::new(n), |config| config.neighbor.ip = ip);
    let app = w.app(new, 0);
    w.listen(app, PORT);
    (new, app)
}

/// Loses all announcements that leave a host.
fn mute(w: &mut World, from: usize, to: usize) {
    w.net.lose_if(from, to, |frame| {
        let broadcast = frame[..6] == [0xff; 6];
        broadcast && frame[12..14] == ether::kind::ARP.to_be_bytes() && frame[28..32] == frame[38..42]
    });
}

#[test]
fn a_peer_that_is_back_with_another_mac_is_reached_within_a_second_announced_or_not() {
    for (seed, muted) in [(1, false), (2, true)] {
        for away in [10, 300, 1100, 5000] {
            let mut w = World::seeded(seed);
            let (a, b) = (w.add(1, 1), w.add(2, 1));
            let (client, server) = (w.app(a, 0), w.app(b, 0));
            w.listen(server, PORT);
            let ip = w.sidecars[b].ip;
            let (near, _) = w.connect(client, server, ip, PORT);
            w.pass(Nanos::secs(3));
            w.sidecars[b].running = false;
            w.pass(Nanos::millis(away));
            if muted {
                mute(&mut w, 2, a);
            }
            let (_, back) = replace(&mut w, b, 3);
            let (took, _) = reach(&mut w, client, ip, 500);
            assert!(took < Nanos::secs(1), "{muted} {away}: {took:?}");
            w.run("accepting", |w| w.apps[back].accepted.len() == 1);
            if away < 2000 {
                w.run("the end of the old one", |w| w.apps[client].conn(near).over.is_some());
            }
        }
    }
}

#[test]
fn two_hosts_that_swap_their_addresses_are_reached_within_a_second_announced_or_not() {
    for muted in [false, true] {
        let mut w = World::seeded(3);
        let [a, b, c] = [1, 2, 3].map(|n| w.add(n, 1));
        let client = w.app(a, 0);
        let ips = [b, c].map(|host| w.sidecars[host].ip);
        for host in [b, c] {
            let server = w.app(host, 0);
            w.listen(server, PORT);
        }
        for ip in ips {
            reach(&mut w, client, ip, 500);
        }
        w.pass(Nanos::secs(3));
        for (host, ip) in [(b, ips[1]), (c, ips[0])] {
            if muted {
                mute(&mut w, host, a);
            }
            w.restart_with(host, |config| config.neighbor.ip = ip);
            let server = w.app(host, 0);
            w.listen(server, PORT);
        }
        for ip in ips {
            let (took, near) = reach(&mut w, client, ip, 500);
            assert!(took < Nanos::secs(1), "{muted} {ip}: {took:?}");
            w.run("an open connection", |w| w.apps[client].conn(near).over.is_none());
        }
    }
}

/// A caller that is back with another MAC, and a server that has not heard of it: the caller knows the server, and asks nobody.
#[test]
fn a_caller_with_another_mac_is_answered_though_it_never_asked_for_ours() {
    let mut w = World::seeded(4);
    let (a, b) = (w.add(1, 1), w.add(2, 1));
    let (caller, server) = (w.app(a, 0), w.app(b, 0));
    w.listen(server, PORT);
    let ip = w.sidecars[b].ip;
    let (_, _) = w.connect(caller, server, ip, PORT);
    w.pass(Nanos::secs(3));
    w.sidecars[a].running = false;
    mute(&mut w, 2, b);
    let (mac, own) = (Mac([2, 0, 0, 0, 0, 2]), w.sidecars[a].ip);
    let back = w.add_on(3, Host::new(3), |config| {
        config.neighbor.ip = own;
        config.neighbor.fixed.push((ip, mac));
    });
    let caller = w.app(back, 0);
    let (took, _) = reach(&mut w, caller, ip, 2000);
    assert!(took < Nanos::secs(1), "{took:?}");
    assert!(w.counter(b, "arp_doubts") >= 1);
}

#[test]
fn whoever_claims_the_address_of_a_neighbour_changes_nothing_while_that_one_answers() {
    let mut w = World::seeded(5);
    let (a, b) = (w.add(1, 1), w.add(2, 1));
    let (client, server) = (w.app(a, 0), w.app(b, 0));
    w.listen(server, PORT);
    let ip = w.sidecars[b].ip;
    let ends = w.connect(client, server, ip, PORT);
    let third = Mac([2, 0, 0, 0, 9, 9]);
    for round in 0..50 {
        for k in 0..7 {
            for (victim, target) in [(a, ip), (b, w.sidecars[a].ip)] {
                let mut frame = vec![0; 60];
                ether::Header { dst: Mac::BROADCAST, src: third, kind: ether::kind::ARP }.emit(&mut frame);
                let operation = if k % 2 == 0 { arp::Operation::Reply } else { arp::Operation::Request };
                let own = w.sidecars[victim].ip;
                // Gratuitous, and as if they answered or asked.
                let target_ip = if k < 4 { target } else { own };
                arp::Packet { operation, sender_mac: third, sender_ip: target, target_mac: third, target_ip }
                    .emit(&mut frame[ether::LEN..]);
                w.net.inject(victim, &frame);
            }
        }
        w.carry((client, ends.0), (server, ends.1), pattern(20_000, round));
        w.carry((server, ends.1), (client, ends.0), pattern(20_000, round));
        w.pass(Nanos::millis(77));
    }
    assert_eq!([a, b].map(|host| w.counter(host, "arp_claims")), [350, 350]);
    assert_eq!([a, b].map(|host| w.counter(host, "flow_retransmitted")), [0, 0]);
    // Twice a second and a half for each neighbour, whatever is claimed.
    let asked = w.counter(a, "arp_requests");
    assert!((6..12).contains(&asked), "{asked} requests in {:?}", w.now);
    w.assert_nothing_is_lost();
}

#[test]
fn a_live_host_is_reached_beside_five_thousand_dead_ones_and_they_are_forgotten() {
    let mut w = World::seeded(6);
    let wide = |config: &mut machnet_engine::EngineConfig| config.neighbor.prefix = 16;
    let (a, b) = (w.add_with(1, 1, wide), w.add_with(2, 1, wide));
    let many = Geometry { units: 64, flows: 6000, unit_size: 1424 };
    let (dead, live, server) = (w.app_with(a, 0, many), w.app(a, 0), w.app(b, 0));
    w.listen(server, PORT);
    let mut dials = Vec::new();
    for k in 0..5000u16 {
        let [high, low] = (1000 + k).to_be_bytes();
        dials.push(w.apps[dead].dial(Ipv4Addr::new(10, 0, high, low), PORT, 0, 3000));
        if k % 100 == 99 {
            w.pass(Nanos::millis(1));
        }
    }
    // All of them are due to be asked for again when the engine is back.
    w.sidecars[a].running = false;
    w.pass(Nanos::millis(400));
    w.sidecars[a].running = true;
    let ip = w.sidecars[b].ip;
    for _ in 0..20 {
        let id = w.apps[live].dial(ip, PORT, 0, 1000);
        w.pass(Nanos::millis(100));
        let near = w.apps[live].dialled(id).expect("connected within 100 ms").flow;
        w.apps[live].close(near);
    }
    w.pass(Nanos::secs(3));
    for id in dials {
        let failed = w.apps[dead].take_reply(id);
        assert!(
            matches!(
                failed,
                Some(Reply::ConnectFailed { reason: Reason::Unreachable | Reason::Timeout, .. })
            ),
            "{failed:?}"
        );
    }
    assert_eq!((w.counter(a, "control_dropped"), w.counter(a, "arp_failed")), (0, 5000));
    w.pass(Nanos::secs(70));
    let table = w.sidecars[a].shared.neighbors.page(std::ops::Bound::Unbounded, 10_000);
    assert!(table.len() <= 1, "{} are remembered", table.len());
}
