//! Long paths: what was promised is more than a ring holds, and comes spread over the round trip. Virtual time, as in `congestion.rs`.

use machnet_nic::sim::{Link, SwitchPort};
use machnet_shm::{FlowId, Geometry};
use machnet_sim::{AppNo, Cost, World, pattern};
use machnet_wire::Nanos;

/// Senders on hosts of their own, and one receiver far away behind a port that all share.
struct Far {
    w: World,
    receiver: AppNo,
    senders: Vec<(AppNo, FlowId, FlowId)>,
    /// Bytes received when it was looked at last.
    before: u64,
}

const PORT: u16 = 8000;
/// Units of each direction of a channel: a quarter of them for one connection.
const UNITS: u32 = 65_536;

impl Far {
    fn new(seed: u64, senders: u8, one_way: Nanos, link: Link) -> Self {
        let mut w = World::seeded(seed);
        w.cost = Cost::REAL;
        let host = w.add(1, 1);
        let geometry = Geometry { units: UNITS, flows: 128, ..Geometry::DEFAULT };
        let receiver = w.app_with(host, 0, geometry);
        w.apps[receiver].counts = true;
        w.listen(receiver, PORT);
        w.net.set_links(Link { delay: one_way, rate: None, ..link });
        w.net.set_port(host, link.rate.map(|rate| SwitchPort { rate, buffer: 8 << 20 }));
        let mut far = Far { w, receiver, senders: Vec::new(), before: 0 };
        for n in 0..senders {
            let host = far.w.add(n + 2, 1);
            let app = far.w.app_with(host, 0, geometry);
            let ip = far.w.sidecars[0].ip;
            let (near, there) = far.w.connect(app, receiver, ip, PORT);
            far.senders.push((app, near, there));
        }
        far
    }

    /// Keeps all sending for so long; payload in MB/s.
    fn run(&mut self, time: Nanos) -> f64 {
        let (senders, bulk) = (&self.senders, pattern(1 << 20, 1));
        self.w.run_for(time, |w| {
            for &(app, near, _) in senders {
                if w.apps[app].peek(near).outgoing.len() < 2 {
                    w.apps[app].send(near, bulk.clone());
                }
            }
            false
        });
        let receiver = self.receiver;
        let all: u64 = self.senders.iter().map(|s| self.w.apps[receiver].peek(s.2).bytes).sum();
        (all - std::mem::replace(&mut self.before, all)) as f64 * 1000.0 / time.0 as f64
    }

    fn sum(&self, name: &str) -> u64 {
        (1..=self.senders.len()).map(|host| self.w.counter(host, name)).sum()
    }
}

#[test]
fn explore_incast() {
    for (senders, ms, away) in [(64, 10, 0), (64, 50, 0), (16, 10, 0), (16, 10, 4), (4, 10, 4), (64, 10, 4), (1, 10, 4)] {
        let link = Link { rate: Some(10_000_000_000), ..Link::default() };
        let begun = std::time::Instant::now();
        let mut far = Far::new(2, senders, Nanos::millis(ms), link);
        let mut all = Vec::new();
        for _ in 0..15 {
            let before = far.w.net.counts().missed;
            if away > 0 {
                far.w.net.steal(0, Nanos::millis(away));
            }
            let rate = far.run(Nanos::millis(ms * 4));
            all.push((rate.round(), far.w.net.counts().missed - before));
        }
        println!("{senders} senders, {ms} ms, away {away}: {all:?}; budget_waits {} stalls {} lost {} rtos {} took {:?}", far.w.counter(0, "budget_waits"), far.w.counter(0, "stalls"), far.sum("flow_lost"), far.sum("flow_rtos"), begun.elapsed());
    }
}
