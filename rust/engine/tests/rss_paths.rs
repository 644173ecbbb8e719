//! What connections do about paths and queues when they have nothing to say, when paths die, and when hosts are short of time.

use std::sync::{Arc, Mutex};

use machnet_engine::EngineConfig;
use machnet_nic::sim::{HashOver, Host};
use machnet_shm::{FlowId, Geometry};
use machnet_sim::{AppNo, World, pattern};
use machnet_wire::Nanos;
use machnet_wire::frame::{self, Frame};

/// Two sidecars with an application on the last engine of each; the second one listens on port 8000.
struct Two {
    w: World,
    client: AppNo,
    server: AppNo,
}

impl Two {
    fn new(seed: u64, host: impl Fn(u8) -> Host) -> Self {
        Self::with(seed, host, |_| {})
    }

    fn with(seed: u64, host: impl Fn(u8) -> Host, change: impl Fn(&mut EngineConfig)) -> Self {
        let mut w = World::seeded(seed);
        let (n, m) = (host(2).queues, host(1).queues);
        let (a, b) = (w.add_on(1, host(1), &change), w.add_on(2, host(2), &change));
        let geometry = Geometry { flows: 4096, ..Geometry::DEFAULT };
        let (client, server) = (w.app_with(a, m - 1, geometry), w.app_with(b, n - 1, geometry));
        w.listen(server, 8000);
        Self { w, client, server }
    }

    fn connect(&mut self) -> (FlowId, FlowId) {
        let ip = self.w.sidecars[1].ip;
        self.w.connect(self.client, self.server, ip, 8000)
    }

    fn count(&self, name: &str) -> [u64; 2] {
        [0, 1].map(|host| self.w.counter(host, name))
    }
}

/// Frames that go either way from now on, those to be lost included.
fn watch(w: &World, lose: impl Fn(u16, u16) -> bool + Send + Sync + 'static) -> Arc<Mutex<[u64; 2]>> {
    let frames = Arc::new(Mutex::new([0; 2]));
    let lose = Arc::new(lose);
    for (from, to) in [(0, 1), (1, 0)] {
        let (frames, lose) = (Arc::clone(&frames), Arc::clone(&lose));
        w.net.lose_if(from, to, move |bytes| {
            frames.lock().expect("one thread")[from] += 1;
            matches!(frame::parse(bytes), Ok(Frame::Udp { udp, .. }) if lose(udp.src, udp.dst))
        });
    }
    frames
}

/// NICs at both ends that keep no pair on its queue: two idle connections' ends have little to say to each other, and no complaint is
/// answered by another without end.
#[test]
fn idle_connections_over_bad_nics_say_little() {
    for hash in [HashOver::Addresses, HashOver::Nothing, HashOver::Turns] {
        let mut t = Two::new(1, |n| Host { hash, ..Host::new(n).queues(4) });
        (0..10).for_each(|_| {
            t.connect();
        });
        t.w.pass(Nanos::secs(2));
        let frames = watch(&t.w, |_, _| false);
        t.w.pass(Nanos::secs(10));
        let sent = *frames.lock().expect("one thread");
        println!("{hash:?}: {sent:?} frames of 10 idle connections in 10 s");
        // A question or its answer a second from each end, and as many complaints.
        assert!(sent.iter().all(|&frames| frames <= 10 * 10 * 2), "{hash:?}: {sent:?}");
        t.w.assert_nothing_is_lost();
    }
}

/// Half of all pairs are dead from some moment on, those to come included, both ways: there is no other connection, and it lives.
#[test]
fn a_lone_connection_survives_the_end_of_half_of_all_paths() {
    for queues in [1, 4] {
        for idle in [false, true] {
            let mut times = Vec::new();
            for seed in 100..140 {
                let mut t = Two::new(seed, |n| Host::new(n).queues(queues));
                let (near, far) = t.connect();
                t.w.carry((t.client, near), (t.server, far), pattern(100, 1));
                t.w.pass(Nanos::millis(20));
                watch(&t.w, move |src, dst| {
                    let ports = u64::from(src) << 16 | u64::from(dst);
                    let mixed = (ports ^ seed << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                    (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 63 == 1
                });
                if idle {
                    t.w.pass(Nanos::secs(8));
                }
                let begun = t.w.now;
                t.w.carry((t.client, near), (t.server, far), pattern(100, 2));
                t.w.carry((t.server, far), (t.client, near), pattern(100, 3));
                times.push(t.w.now - begun);
                assert_eq!(t.count("flow_timeouts"), [0, 0], "seed {seed}, {queues} queues, idle {idle}");
            }
            times.sort_unstable();
            println!("{queues} queues, idle {idle}: median {:?}, worst {:?}", times[20], times[39]);
        }
    }
}

/// Both hosts lose the processor for 20 ms again and again: connections try other pairs, and what was known of the pairs is confirmed
/// and not lost.
#[test]
fn hosts_short_of_time_forget_no_pair() {
    let mut t = Two::new(1, |n| Host::new(n).queues(4));
    let flows: Vec<_> = (0..20).map(|_| t.connect()).collect();
    t.w.pass(Nanos::millis(100));
    let before = t.count("syn_sprayed");
    for i in 0..50 {
        for &(near, far) in &flows {
            t.w.apps[t.client].send(near, pattern(1000, i));
            t.w.apps[t.server].send(far, pattern(1000, i));
        }
        t.w.pass(Nanos::micros(5));
        t.w.net.steal((i % 2) as usize, Nanos::millis(20));
        t.w.pass(Nanos::millis(40));
        let hits = t.count("pool_hits");
        t.connect();
        assert_eq!(t.count("pool_hits"), hits.map(|hits| hits + 1), "round {i}");
    }
    println!(
        "repathed {:?}, probes {:?}, searches {:?}",
        t.count("repathed"),
        t.count("probes_sent"),
        t.count("searches")
    );
    assert!(t.count("repathed").iter().all(|&n| n > 0), "nobody noticed");
    assert_eq!(t.count("syn_sprayed"), before);
}

/// A question that comes again after its answer was heard is none that comes again for want of one.
#[test]
fn keep_alives_that_follow_each_other_closely_say_nothing_of_the_path() {
    for keep_alive in [100, 200, 400, 1000] {
        let keep_alive = Nanos::millis(keep_alive);
        // One end alone asks.
        let mut t = Two::with(
            1,
            |n| Host::new(n).queues(4),
            |config| {
                let asks = config.neighbor.ip.octets()[3] == 1;
                config.flow.keep_alive = if asks { keep_alive } else { Nanos::secs(100) };
            },
        );
        t.connect();
        t.w.pass(Nanos::secs(5));
        assert!(t.count("flow_pings_sent")[0] >= 4, "it asks");
        assert_eq!(t.count("repathed"), [0, 0], "{keep_alive:?}");
    }
}

/// A thousand connections that time out together have not all lost their way: the peer is late. If each felt for another pair, feelers would
/// make it later still.
#[test]
fn a_host_that_is_late_for_a_thousand_connections_is_not_buried_in_feelers() {
    const CONNECTIONS: usize = 1000;
    let mut w = World::seeded(31);
    let (a, b) = (w.add(1, 1), w.add(2, 1));
    let large = Geometry { flows: CONNECTIONS as u32, units: 4096, ..Geometry::DEFAULT };
    let (client, server) = (w.app_with(a, 0, large), w.app_with(b, 0, large));
    w.apps[server].echoes = true;
    let (ip, port) = (w.sidecars[b].ip, w.listen(server, 8000));
    while w.apps[client].dialled.len() < CONNECTIONS {
        let before = w.apps[client].dialled.len();
        for _ in 0..50 {
            w.apps[client].dial(ip, port, 0, 0);
        }
        w.run("connecting", |w| w.apps[client].dialled.len() == before + 50);
    }
    w.pass(Nanos::millis(100));
    assert_eq!(w.counter(a, "repathed") + w.counter(b, "repathed"), 0, "seed {}", w.seed);
    for i in 0..CONNECTIONS {
        let flow = w.apps[client].dialled[i].flow;
        w.apps[client].send(flow, pattern(64, i as u64));
    }
    w.net.steal(b, Nanos::millis(100));
    w.run("echoes", |w| {
        (0..CONNECTIONS).all(|i| {
            let flow = w.apps[client].dialled[i].flow;
            w.apps[client].peek(flow).received.len() == 1
        })
    });
    let (repathed, limited) = (w.counter(a, "repathed"), w.counter(a, "repaths_limited"));
    // Two hundred at once, and two each millisecond.
    assert!(
        limited > 0 && (200..500).contains(&repathed),
        "repathed {repathed}, limited {limited}, seed {}",
        w.seed
    );
}
