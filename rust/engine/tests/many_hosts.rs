//! Many hosts, many connections.

use machnet_nic::sim::Link;
use machnet_shm::{Limit, Reason, Reply};
use machnet_sim::{World, pattern};

#[test]
fn everybody_talks_to_everybody() {
    for seed in 1..4 {
        let mut w = World::seeded(seed);
        let hosts: Vec<_> = (1..=8).map(|n| w.add(n, 1 + u16::from(n % 3))).collect();
        w.net.set_links(Link { loss: 0.01, ..Link::faulty(0.01) });
        let servers: Vec<_> = hosts.iter().map(|&h| w.app(h, 0)).collect();
        for &server in &servers {
            w.apps[server].echoes = true;
            w.listen(server, 8000);
        }
        let clients: Vec<_> = hosts
            .iter()
            .map(|&h| {
                let last = w.sidecars[h].shared.engines() - 1;
                w.app(h, last)
            })
            .collect();
        let mut flows = Vec::new();
        for &client in &clients {
            for &to in &hosts {
                let ip = w.sidecars[to].ip;
                let id = w.apps[client].dial(ip, 8000, 0, 0);
                flows.push((client, id));
            }
        }
        w.run("connecting", |w| flows.iter().all(|&(app, id)| w.apps[app].dialled(id).is_some()));
        for (i, &(app, id)) in flows.iter().enumerate() {
            let flow = w.apps[app].dialled(id).expect("there").flow;
            for j in 0..5 {
                w.apps[app].send(flow, pattern(i * 50 + j, i as u64));
            }
        }
        w.run("echoes", |w| {
            flows.iter().all(|&(app, id)| {
                let flow = w.apps[app].dialled(id).expect("there").flow;
                w.apps[app].conn(flow).received.len() == 5
            })
        });
        for (i, &(app, id)) in flows.iter().enumerate() {
            let flow = w.apps[app].dialled(id).expect("there").flow;
            for (j, message) in w.apps[app].conn(flow).received.iter().enumerate() {
                assert_eq!(*message, pattern(i * 50 + j, i as u64));
            }
        }
        w.net.set_links(Link::default());
        w.assert_nothing_is_lost();
    }
}

#[test]
fn connections_come_and_go_without_leaving_anything() {
    let mut w = World::seeded(9);
    let (a, b) = (w.add(1, 2), w.add(2, 2));
    let (client, server) = (w.app(a, 0), w.app(b, 0));
    w.listen(server, 8000);
    let ip = w.sidecars[b].ip;
    for i in 0..300 {
        let (near, far) = w.connect(client, server, ip, 8000);
        w.carry((client, near), (server, far), pattern(i, 1));
        w.apps[client].close(near);
        w.apps[server].close(far);
    }
    w.assert_nothing_is_lost();
}

#[test]
fn one_connection_too_many_is_refused_with_its_reason() {
    let mut w = World::seeded(10);
    let (a, b) = (w.add(1, 1), w.add(2, 1));
    let small = machnet_shm::Geometry { units: 64, flows: 4, unit_size: 1424 };
    let (client, server) = (w.app(a, 0), w.app_with(b, 0, small));
    w.listen(server, 8000);
    let ip = w.sidecars[b].ip;
    for _ in 0..4 {
        w.connect(client, server, ip, 8000);
    }
    let id = w.apps[client].dial(ip, 8000, 0, 0);
    w.run("refusal", |w| w.apps[client].reply(id).is_some());
    let reason = Reason::Full(Limit::PeerConnections, 4);
    assert_eq!(w.apps[client].take_reply(id), Some(Reply::ConnectFailed { id, reason }));
    assert!(w.counter(b, "syn_overflow") > 0);
    w.assert_nothing_is_lost();
}

#[test]
fn ten_thousand_connections_live_beside_each_other() {
    let mut w = World::seeded(11);
    let (a, b) = (w.add(1, 2), w.add(2, 1));
    let large = machnet_shm::Geometry { units: 1024, flows: 10_000, unit_size: 1424 };
    let (client, server) = (w.app_with(a, 0, large), w.app_with(b, 0, large));
    w.apps[server].echoes = true;
    w.listen(server, 8000);
    let ip = w.sidecars[b].ip;
    for batch in 0..200 {
        for _ in 0..50 {
            w.apps[client].dial(ip, 8000, 0, 0);
        }
        w.run("connecting", |w| w.apps[client].dialled.len() == 50 * (batch + 1));
    }
    for at in (0..10_000).step_by(997) {
        let flow = w.apps[client].dialled[at].flow;
        w.carry((client, flow), (client, flow), pattern(2000, at as u64));
    }
    assert_eq!(w.sidecars[b].engines[0].flows(), 10_000);
}

#[test]
fn a_hundred_connections_share_sixteen_units() {
    let mut w = World::seeded(12);
    let (a, b) = (w.add(1, 1), w.add(2, 1));
    let small = machnet_shm::Geometry { units: 16, flows: 200, unit_size: 1424 };
    let (client, server) = (w.app(a, 0), w.app_with(b, 0, small));
    w.listen(server, 8000);
    let ip = w.sidecars[b].ip;
    let flows: Vec<_> = (0..100).map(|_| w.connect(client, server, ip, 8000)).collect();
    let begun = w.now;
    for (i, (near, _)) in flows.iter().enumerate() {
        for j in 0..10 {
            w.apps[client].send(*near, pattern(1000 + j, i as u64));
        }
    }
    w.run("carrying", |w| flows.iter().all(|(_, far)| w.apps[server].conn(*far).received.len() == 10));
    let took = w.now - begun;
    assert!(took < machnet_wire::Nanos::secs(1), "{took:?}");
    w.assert_nothing_is_lost();
}
