//! What the log says where a NIC keeps no queue for a pair of UDP ports: once, with what was seen, and not again within a minute.

use machnet_nic::sim::{HashOver, Host};
use machnet_sim::{World, keep_warnings, pattern, warnings};
use machnet_wire::Nanos;

/// Four engines at each end, and a connection that is used after each `change` of the world.
fn used(server: Host, changes: usize, change: impl Fn(&World)) -> World {
    keep_warnings();
    let mut w = World::seeded(11);
    let (a, b) = (w.add_on(1, Host::new(1).queues(4), |_| {}), w.add_on(2, server.queues(4), |_| {}));
    let (client, server) = (w.app(a, 3), w.app(b, 3));
    w.listen(server, 8000);
    let ip = w.sidecars[b].ip;
    // Some, so that no one of them meets its queue by chance.
    let flows: Vec<_> = (0..4).map(|_| w.connect(client, server, ip, 8000)).collect();
    w.pass(Nanos::millis(100));
    for _ in 0..changes {
        change(&w);
        for &(near, far) in &flows {
            w.carry((client, near), (server, far), pattern(20_000, 1));
            w.carry((server, far), (client, near), pattern(20_000, 2));
        }
        w.pass(Nanos::millis(50));
    }
    w
}

#[test]
fn a_nic_that_uses_one_queue_is_warned_of_once() {
    let w = used(Host { hash: HashOver::Nothing, ..Host::new(2) }, 3, |_| {});
    let said = warnings();
    let [text] = &said[..] else { panic!("seed {}: {said:#?}", w.seed) };
    let seen = "10.0.0.2: whatever UDP ports our packets have, they come to its receive queue 0 of 4";
    assert!(text.starts_with(seen) && text.contains("see docs/rss.md"), "{text}");
}

#[test]
fn a_nic_whose_pairs_wander_is_warned_of_and_searched_no_more() {
    let w = used(Host::new(2), 40, |w| w.net.rekey(1));
    let said = warnings();
    let [text] = &said[..] else { panic!("seed {}: {said:#?}", w.seed) };
    let seen = "10.0.0.2: the same UDP ports lead to one of its receive queues and then to another";
    assert!(text.starts_with(seen), "{text}");
    assert!(w.counter(0, "searches_given_up") > 0, "seed {}", w.seed);
    assert!(w.counter(0, "rss_remapped") < 20, "seed {}: {}", w.seed, w.counter(0, "rss_remapped"));
}
