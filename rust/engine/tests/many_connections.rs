//! As many connections as a busy host has: 8 engines on either side, several ports, all in virtual time.
//!
//! `MACHNET_CONNECTIONS=100000` runs it with that many instead of those that every test run has time for.

use machnet_shm::Geometry;
use machnet_sim::{AppNo, World, pattern};
use machnet_wire::Nanos;

const ENGINES: u16 = 8;
/// Ports of each server: an engine has some four thousand local ports towards one of a peer.
const PORTS: u16 = 4;

#[test]
fn every_one_of_them_is_set_up_and_carries_an_echo() {
    let all = std::env::var("MACHNET_CONNECTIONS").map_or(4000, |n| n.parse().expect("a number"));
    let each = all / usize::from(ENGINES);
    let mut w = World::seeded(21);
    let (a, b) = (w.add(1, ENGINES), w.add(2, ENGINES));
    // A client's connections lead to all servers, so a server may get a few more than its part.
    let large = Geometry { flows: (each + each / 8 + 64) as u32, ..Geometry::DEFAULT };
    let clients: Vec<AppNo> = (0..ENGINES).map(|engine| w.app_with(a, engine, large)).collect();
    let servers: Vec<AppNo> = (0..ENGINES).map(|engine| w.app_with(b, engine, large)).collect();
    let mut ports = Vec::new();
    for _ in 0..PORTS {
        for &server in &servers {
            w.apps[server].echoes = true;
            ports.push(w.listen(server, 8000 + ports.len() as u16));
        }
    }
    let ip = w.sidecars[b].ip;
    let mut dialled = 0;
    while dialled < each {
        let more = (each - dialled).min(32);
        for &client in &clients {
            for n in 0..more {
                w.apps[client].dial(ip, ports[(dialled + n) % ports.len()], 0, 0);
            }
        }
        dialled += more;
        w.run("connecting", |w| clients.iter().all(|&client| w.apps[client].dialled.len() == dialled));
    }
    let flows =
        |w: &World, host: usize| w.sidecars[host].engines.iter().map(|engine| engine.flows()).sum::<usize>();
    let set_up_after = w.now;
    assert_eq!((flows(&w, a), flows(&w, b)), (each * clients.len(), each * clients.len()), "seed {}", w.seed);
    // All at a time on an engine would wait for units of the channel; that is another test's matter.
    for at in 0..each {
        for &client in &clients {
            let flow = w.apps[client].dialled[at].flow;
            w.apps[client].send(flow, pattern(64, (at * clients.len() + client) as u64));
        }
        if at % 16 == 15 || at + 1 == each {
            w.run("echoes", |w| {
                clients.iter().all(|&client| {
                    let flow = w.apps[client].dialled[at].flow;
                    w.apps[client].peek(flow).received.len() == 1
                })
            });
        }
    }
    w.pass(Nanos::millis(5));
    for &client in &clients {
        for at in 0..each {
            let flow = w.apps[client].dialled[at].flow;
            let expected = pattern(64, (at * clients.len() + client) as u64);
            assert_eq!(w.apps[client].peek(flow).received, [expected], "seed {}", w.seed);
        }
    }
    println!(
        "{} connections: set up after {set_up_after:?}, all echoed after {:?}",
        each * clients.len(),
        w.now
    );
    for (name, host) in [("dialling host", a), ("accepting host", b)] {
        println!("{name}: {:?}", w.counters(host));
    }
    // Nobody says anything for a while but to show that they live.
    w.pass(Nanos::secs(3));
    assert_eq!((flows(&w, a), flows(&w, b)), (each * clients.len(), each * clients.len()), "seed {}", w.seed);
}
