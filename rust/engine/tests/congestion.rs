//! Many to one, eight to one, one for long: rates, queues and rings on links with a rate, with cores whose rounds take
//! time. Everything here is virtual time: the figures are the same on every machine.

mod common;

use common::{AppNo, Cost, World, pattern};
use machnet_nic::sim::{Link, Port};
use machnet_shm::FlowId;
use machnet_wire::Nanos;

/// Senders on hosts of their own, and one receiver behind a port that all share.
struct Incast {
    w: World,
    receiver: AppNo,
    senders: Vec<Sender>,
    rate: u64,
}

struct Sender {
    app: AppNo,
    near: FlowId,
    far: FlowId,
    /// Bytes received when it was looked at last.
    before: u64,
}

const GIGABIT: u64 = 1_000_000_000;
/// What a message of the bulk senders is long.
const BULK: usize = 256 << 10;

impl Incast {
    fn new(seed: u64, count: u8, rate: u64, rtt: Nanos) -> Self {
        let mut w = World::seeded(seed);
        w.cost = Cost::REAL;
        let host = w.add(1, 1);
        let receiver = w.app(host, 0);
        w.apps[receiver].counts = true;
        w.listen(receiver, 8000);
        let link = Link { delay: rtt / 2, rate: Some(rate), ..Link::default() };
        w.net.set_links(link);
        w.net.set_port(host, Some(Port { rate, buffer: 4 << 20 }));
        let ip = w.sidecars[host].ip;
        let senders = (0..count)
            .map(|i| {
                let from = w.add(i + 2, 1);
                let app = w.app(from, 0);
                let (near, far) = w.connect(app, receiver, ip, 8000);
                Sender { app, near, far, before: 0 }
            })
            .collect();
        w.pass(Nanos::millis(5));
        Incast { w, receiver, senders, rate }
    }

    /// Keeps the first `busy` senders sending for this long. What each one's messages brought there, bytes.
    fn run(&mut self, busy: usize, time: Nanos, mut look: impl FnMut(&mut World)) -> Vec<u64> {
        let (senders, receiver) = (&self.senders, self.receiver);
        let bulk = pattern(BULK, 1);
        self.w.run_for(time, |w| {
            for s in &senders[..busy] {
                if w.apps[s.app].conns.values().all(|c| c.outgoing.len() < 2) {
                    w.apps[s.app].send(s.near, bulk.clone());
                }
            }
            look(w);
            false
        });
        self.senders
            .iter_mut()
            .map(|s| {
                let all = self.w.apps[receiver].conn(s.far).bytes;
                all - std::mem::replace(&mut s.before, all)
            })
            .collect()
    }

    /// Payload of these bytes in this time, as a share of the link's rate.
    fn share(&self, bytes: &[u64], time: Nanos) -> f64 {
        bytes.iter().sum::<u64>() as f64 * 8e9 / time.0 as f64 / self.rate as f64
    }
}

fn jain(x: &[u64]) -> f64 {
    let sum: f64 = x.iter().map(|&x| x as f64).sum();
    let squares: f64 = x.iter().map(|&x| (x as f64).powi(2)).sum();
    sum * sum / (x.len() as f64 * squares)
}

#[test]
fn explore() {
    let mut i = Incast::new(2, 64, 10 * GIGABIT, Nanos::micros(30));
    for step in 0..15 {
        let t = Nanos::millis(200);
        let mut waits = Vec::new();
        let got = i.run(64, t, |w| waits.push(w.net.port_wait(0).0));
        waits.sort();
        println!(
            "long incast {step} share {:.3} jain {:.3} wait min {} p50 {} p99 {} missed {}",
            i.share(&got, t),
            jain(&got),
            waits[0],
            waits[waits.len() / 2],
            waits[waits.len() * 99 / 100],
            i.w.net.counts().missed
        );
    }
    // A path that becomes longer.
    let mut i = Incast::new(2, 2, 10 * GIGABIT, Nanos::micros(30));
    for step in 0..30 {
        if step == 3 {
            i.w.net.set_links(Link { delay: Nanos::micros(60), rate: Some(10 * GIGABIT), ..Link::default() });
        }
        let t = Nanos::millis(100);
        let mut waits = Vec::new();
        let got = i.run(2, t, |w| waits.push(w.net.port_wait(0).0));
        waits.sort();
        println!(
            "longer {step} share {:.3} jain {:.3} wait p50 {}",
            i.share(&got, t),
            jain(&got),
            waits[waits.len() / 2]
        );
    }
}

#[test]
fn incast() {
    for rate in [10, 25] {
        for n in [4u8, 16, 64] {
            let mut i = Incast::new(1, n, rate * GIGABIT, Nanos::micros(30));
            i.run(n.into(), Nanos::micros(200), |_| ());
            let first = i.w.net.counts();
            let mut waits = Vec::new();
            for _ in 0..4 {
                let t = Nanos::millis(5);
                let got = i.run(n.into(), t, |w| waits.push(w.net.port_wait(0).0));
                waits.sort();
                println!(
                    "{rate}G {n}:1 share {:.3} jain {:.3} missed {} / {} port wait p50 {} p99 {} max {}",
                    i.share(&got, t),
                    jain(&got),
                    first.missed,
                    i.w.net.counts().missed,
                    waits[waits.len() / 2],
                    waits[waits.len() * 99 / 100],
                    waits[waits.len() - 1]
                );
                waits.clear();
            }
            i.w.pass(Nanos::secs(2));
            println!(
                "{:?}",
                i.w.counters(0)
                    .into_iter()
                    .filter(|(k, _)| k.starts_with("flow_") || k.starts_with("budget"))
                    .collect::<Vec<_>>()
            );
            println!(
                "{:?}",
                i.w.counters(1).into_iter().filter(|(k, _)| k.starts_with("flow_")).collect::<Vec<_>>()
            );
        }
    }
}
