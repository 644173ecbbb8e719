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

    /// Loses so much of what senders send.
    fn lose(&mut self, loss: f64) {
        for host in 1..=self.senders.len() {
            let mut state = host as u64;
            let most = (loss * (1u64 << 31) as f64) as u64;
            self.w.net.lose_if(host, 0, move |_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                state >> 33 < most
            });
        }
    }

    fn sum(&self, name: &str) -> u64 {
        (1..=self.senders.len()).map(|host| self.w.counter(host, name)).sum()
    }
}

/// Payload that a link of 1 Gb/s can carry, MB/s: headers and gaps take 7.4 % of it.
const FULL: f64 = 115.7;
const GIGABIT: Option<u64> = Some(1_000_000_000);

#[test]
fn a_ring_of_256_takes_a_gigabit_from_any_distance() {
    for ms in [1, 10, 50] {
        let mut far = Far::new(1, 1, Nanos::millis(ms), Link { rate: GIGABIT, ..Link::default() });
        let begin = far.run(Nanos::millis(ms * 40));
        let steady = far.run(Nanos::millis(ms * 40));
        println!("{ms} ms each way: {begin:.1} MB/s in the first 20 round trips, then {steady:.1}");
        assert!(steady >= 0.8 * FULL, "{ms} ms: {steady:.1} MB/s");
        assert_eq!((far.w.net.counts().missed, far.sum("flow_retransmitted")), (0, 0), "{ms} ms");
    }
}

#[test]
fn random_loss_and_jitter_cost_a_long_path_little() {
    for (loss, jitter) in [(0.001, 0), (0.01, 0), (0.001, 1000), (0.01, 1000), (0.03, 200), (0.05, 200)] {
        let link = Link { rate: GIGABIT, jitter: Nanos::micros(jitter), ..Link::default() };
        let mut far = Far::new(3, 1, Nanos::millis(10), link);
        // What senders send is lost, and no acknowledgement, so that the losses are known.
        far.lose(loss);
        let begin = far.run(Nanos::millis(800));
        let steady = far.run(Nanos::millis(600));
        let (lost, again) = (far.w.net.counts().lost, far.sum("flow_retransmitted"));
        let (needless, rtos) = (far.sum("flow_needless"), far.sum("flow_rtos"));
        println!(
            "{} % lost, up to {jitter} us late: {begin:.1} MB/s, then {steady:.1}; {again} sent again for {lost}, {needless} needlessly, {rtos} timeouts",
            loss * 100.0
        );
        assert!(again as f64 <= 1.2 * lost as f64, "{loss}: {again} for {lost}");
        assert_eq!(rtos, 0, "{loss}");
        assert!(loss > 0.01 || steady >= 0.8 * FULL, "{loss}: {steady:.1} MB/s");
    }
}

#[test]
fn nothing_is_dropped_at_the_ring_though_many_send_from_afar_and_it_goes_unattended() {
    for (senders, away) in [(16, 1), (4, 4), (1, 4)] {
        let link = Link { rate: Some(10_000_000_000), ..Link::default() };
        let mut far = Far::new(2, senders, Nanos::millis(10), link);
        // What one stall costs is known from then on; one that never was before may be too long.
        far.w.net.steal(0, Nanos::millis(away));
        far.run(Nanos::millis(400));
        let missed = far.w.net.counts().missed;
        let mut rate = 0.0;
        for _ in 0..8 {
            far.w.net.steal(0, Nanos::millis(away));
            rate = far.run(Nanos::millis(30));
        }
        println!("{senders} senders, away for {away} ms each 30: {rate:.1} MB/s");
        assert_eq!(far.w.net.counts().missed, missed, "{senders} senders, away for {away} ms");
        // 192 units a round trip are 13.7 MB/s.
        assert!(rate > 20.0, "{rate}");
    }
}
