//! Many to one, eight to one, one for long: rates, queues and rings on links with a rate, with cores whose rounds take
//! time. Everything here is virtual time: the figures are the same on every machine.

use machnet_nic::sim::{Link, SwitchPort};
use machnet_shm::FlowId;
use machnet_sim::{AppNo, Cost, World, pattern};
use machnet_wire::Nanos;

/// Senders on hosts of their own, and one receiver behind a port that all share.
struct Incast {
    w: World,
    receiver: AppNo,
    senders: Vec<Sender>,
    link: Link,
}

struct Sender {
    app: AppNo,
    near: FlowId,
    far: FlowId,
    /// Bytes received when it was looked at last.
    before: u64,
}

/// What was measured over some time.
struct Seen {
    /// Bytes that each sender's messages brought to the receiver.
    bytes: Vec<u64>,
    /// All of them together, as a share of the link's rate. Headers and gaps take 7.4 % of it.
    share: f64,
    /// Queueing delay at the port, sorted.
    waits: Vec<Nanos>,
    /// Frames that found the ring full.
    missed: u64,
}

impl Seen {
    /// The queueing delay that `percent` of the moments were below.
    fn wait(&self, percent: usize) -> Nanos {
        self.waits[(self.waits.len() * percent / 100).min(self.waits.len() - 1)]
    }
}

const RTT: Nanos = Nanos::micros(30);
const PORT: u16 = 8000;
/// Bytes of a message of the bulk senders.
const BULK: usize = 256 << 10;

impl Incast {
    fn new(seed: u64, count: u8, gigabits: u64) -> Self {
        let mut i = Self::empty(seed, gigabits, RTT);
        (0..count).for_each(|_| i.join());
        i.w.pass(Nanos::millis(5));
        i
    }

    /// Nobody sends yet.
    fn empty(seed: u64, gigabits: u64, rtt: Nanos) -> Self {
        let mut w = World::seeded(seed);
        w.cost = Cost::REAL;
        let host = w.add(1, 1);
        let receiver = w.app(host, 0);
        w.apps[receiver].counts = true;
        w.listen(receiver, PORT);
        let rate = gigabits * 1_000_000_000;
        let link = Link { delay: rtt / 2, rate: Some(rate), ..Link::default() };
        w.net.set_links(link);
        w.net.set_port(host, Some(SwitchPort { rate, buffer: 4 << 20 }));
        Incast { w, receiver, senders: Vec::new(), link }
    }

    /// One more host, connected.
    fn join(&mut self) {
        let w = &mut self.w;
        let host = w.add(self.senders.len() as u8 + 2, 1);
        let app = w.app(host, 0);
        let ip = w.sidecars[0].ip;
        let (near, far) = w.connect(app, self.receiver, ip, PORT);
        self.senders.push(Sender { app, near, far, before: 0 });
    }

    /// Keeps the first `busy` senders sending for this long.
    fn run(&mut self, busy: usize, time: Nanos) -> Seen {
        let (senders, missed) = (&self.senders, self.w.net.counts().missed);
        let (bulk, mut waits) = (pattern(BULK, 1), Vec::new());
        self.w.run_for(time, |w| {
            for s in &senders[..busy] {
                if w.apps[s.app].peek(s.near).outgoing.len() < 2 {
                    w.apps[s.app].send(s.near, bulk.clone());
                }
            }
            waits.push(w.net.port_wait(0));
            false
        });
        waits.sort_unstable();
        let bytes: Vec<u64> = self
            .senders
            .iter_mut()
            .map(|s| {
                let all = self.w.apps[self.receiver].peek(s.far).bytes;
                all - std::mem::replace(&mut s.before, all)
            })
            .collect();
        let rate = self.link.rate.expect("a rate") as f64;
        let share = bytes.iter().sum::<u64>() as f64 * 8e9 / time.0 as f64 / rate;
        let seen = Seen { bytes, share, waits, missed: self.w.net.counts().missed - missed };
        println!(
            "{busy} senders for {time:?}: share {:.3}, Jain {:.3}, queueing {:?} {:?} {:?}, missed {}",
            seen.share,
            jain(&seen.bytes[..busy]),
            seen.wait(1),
            seen.wait(50),
            seen.wait(99),
            seen.missed
        );
        seen
    }

    fn counter(&self, host: usize, name: &str) -> u64 {
        self.w.counter(host, name)
    }
}

/// Jain's fairness index: 1 when all are equal, 1/n when one has it all.
fn jain(x: &[u64]) -> f64 {
    let sum: f64 = x.iter().map(|&x| x as f64).sum();
    let squares: f64 = x.iter().map(|&x| (x as f64).powi(2)).sum();
    sum * sum / (x.len() as f64 * squares)
}

#[test]
fn an_incast_of_64_loses_nothing_at_a_ring_of_256_and_fills_the_link() {
    for gigabits in [10, 25] {
        let mut i = Incast::new(1, 64, gigabits);
        i.run(64, RTT);
        let start = i.run(64, Nanos::millis(2));
        assert_eq!(start.missed, 0, "after the first round trip");
        assert!(start.share >= 0.8, "{gigabits} Gb/s");
        let steady = i.run(64, Nanos::millis(20));
        assert_eq!(steady.missed, 0, "{gigabits} Gb/s");
        assert!(steady.share >= 0.9 && jain(&steady.bytes) >= 0.95, "{gigabits} Gb/s");
        assert_eq!(i.w.net.counts().queue_full, 0);
        i.w.pass(Nanos::secs(2));
        for host in 1..=64 {
            assert_eq!((i.counter(host, "flow_lost"), i.counter(host, "flow_rtos")), (0, 0), "host {host}");
        }
        i.w.assert_nothing_is_lost();
    }
}

/// A ring of 256 is full after 126 us at 25 Gb/s, and a vCPU is away for longer.
#[test]
fn what_was_promised_fits_the_ring_of_a_receiver_that_is_away() {
    // On a path of 100 us the link itself holds 200 frames.
    let mut i = Incast::empty(2, 25, Nanos::micros(100));
    (0..16).for_each(|_| i.join());
    i.run(16, Nanos::millis(5));
    for _ in 0..10 {
        let before = i.w.net.counts().delivered;
        i.w.net.steal(0, Nanos::micros(170));
        let seen = i.run(16, Nanos::micros(500));
        assert!(i.w.net.counts().delivered > before + 192);
        assert_eq!(seen.missed, 0);
        i.run(16, Nanos::millis(1));
    }
}

/// Senders that come later measure a round trip that includes a queue, and must not take it for the path's base round trip.
#[test]
fn eight_hosts_that_come_one_after_the_other_share_a_link_evenly() {
    for (gigabits, rtt) in [(10, 26), (10, 30), (10, 41), (25, 30), (25, 38)] {
        let mut i = Incast::empty(3, gigabits, Nanos::micros(rtt));
        for busy in 1..8 {
            i.join();
            let seen = i.run(busy, Nanos::millis(4));
            assert!(seen.share >= 0.8, "{gigabits} Gb/s, {rtt} us, {busy} senders");
        }
        i.join();
        i.run(8, Nanos::millis(8));
        for _ in 0..3 {
            let seen = i.run(8, Nanos::millis(8));
            let even = jain(&seen.bytes);
            assert!(even >= 0.95 && seen.share >= 0.89, "{gigabits} Gb/s, {rtt} us: {even}, {}", seen.share);
        }
    }
}

#[test]
fn a_steady_flow_keeps_its_queue_near_the_target() {
    // The port is slower than the link, so that its queue is the one that counts.
    for gigabits in [10, 25] {
        let mut i = Incast::new(4, 1, gigabits);
        i.w.net.set_links(Link { rate: None, ..i.link });
        i.run(1, Nanos::millis(10));
        let seen = i.run(1, Nanos::millis(20));
        // The target is 25 us and a little for the size of the window.
        assert!((Nanos::micros(10)..Nanos::micros(30)).contains(&seen.wait(50)), "{gigabits} Gb/s");
        assert!(seen.wait(99) < Nanos::micros(50), "{gigabits} Gb/s");
        assert!(seen.share >= 0.9, "{gigabits} Gb/s");
    }
}

#[test]
fn random_loss_of_1_percent_costs_little() {
    let goodput = |loss| {
        let mut i = Incast::new(5, 1, 10);
        i.w.net.set_links(Link { loss, ..i.link });
        i.run(1, Nanos::millis(5));
        i.run(1, Nanos::millis(50)).share
    };
    let (lossless, lossy) = (goodput(0.0), goodput(0.01));
    assert!(lossless >= 0.9, "{lossless}");
    assert!(lossy >= 0.8 * lossless, "{lossy} of {lossless}");
}

#[test]
fn a_link_that_drops_instead_of_queueing_is_congested_all_the_same() {
    let mut i = Incast::new(6, 4, 10);
    // Ten frames: the queue is never long enough to be seen as delay.
    i.w.net.set_port(0, Some(SwitchPort { rate: 10_000_000_000, buffer: 15_000 }));
    i.run(4, Nanos::millis(10));
    let before = i.w.net.counts();
    let seen = i.run(4, Nanos::millis(50));
    let after = i.w.net.counts();
    let lost = (after.queue_full - before.queue_full) as f64 / (after.copies - before.copies) as f64;
    println!("{lost:.3} of the frames dropped");
    // If losses were not counted as congestion, each flow would send all that its credit allows, and lose most of it.
    assert!(lost < 0.1 && seen.share >= 0.85 && jain(&seen.bytes) >= 0.9);
}

#[test]
fn a_path_that_becomes_longer_is_recognised() {
    let mut i = Incast::new(7, 2, 10);
    i.run(2, Nanos::millis(20));
    i.link.delay = Nanos::micros(60);
    i.w.net.set_links(i.link);
    i.run(2, Nanos::millis(60));
    let seen = i.run(2, Nanos::millis(40));
    assert!(seen.share >= 0.85 && jain(&seen.bytes) >= 0.9);
}

/// Two applications of one host, a link that one of them keeps full with messages of 8 MiB.
#[test]
fn a_small_message_does_not_wait_behind_anothers_large_one() {
    let mut i = Incast::new(8, 1, 10);
    let (sender, receiver) = (i.senders[0].app, i.receiver);
    let from = i.w.apps[sender].sidecar;
    let prober = i.w.app(from, 0);
    let echo = i.w.app(0, 0);
    i.w.apps[echo].echoes = true;
    i.w.listen(echo, 9000);
    let ip = i.w.sidecars[0].ip;
    let (probe, _) = i.w.connect(prober, echo, ip, 9000);
    let bulk = i.senders[0].near;
    // A second bulk flow shares the channel of the small messages: connections of one application do not wait for each other either.
    let (beside, _) = i.w.connect(prober, receiver, ip, PORT);
    for (app, flow) in [(sender, bulk), (prober, beside)] {
        (0..8).for_each(|_| i.w.apps[app].send(flow, pattern(8 << 20, 1)));
    }
    i.w.pass(Nanos::millis(10));
    let mut worst = Nanos::ZERO;
    for n in 0..500 {
        let begun = i.w.now;
        i.w.apps[prober].send(probe, pattern(64, n));
        i.w.run("echo", |w| !w.apps[prober].peek(probe).received.is_empty());
        assert_eq!(i.w.apps[prober].peek(probe).received.pop_front(), Some(pattern(64, n)));
        worst = worst.max(i.w.now - begun);
        i.w.pass(Nanos::micros(20));
    }
    println!("worst round trip of 64 B beside two flows of 8 MiB messages: {worst:?}");
    assert!(i.w.apps[sender].peek(bulk).outgoing.len() > 2, "the link was full all the time");
    // 30 us of path, the queue that both flows keep, and their bursts. A message of 8 MiB alone would be 7 ms.
    assert!(worst < Nanos::micros(150), "{worst:?}");
}

/// A transmit ring of eight descriptors is full in each round, so that the turns alone decide who sends how much.
#[test]
fn flows_of_one_engine_share_by_bytes() {
    let mut w = World::seeded(9);
    w.cost = Cost::Round { round: Nanos::micros(5), item: Nanos::ZERO };
    w.descriptors = 8;
    let a = w.add(1, 1);
    w.descriptors = 256;
    let b = w.add(2, 1);
    let receiver = w.app(b, 0);
    w.apps[receiver].counts = true;
    w.listen(receiver, PORT);
    let ip = w.sidecars[b].ip;
    let sizes = [64, 700, 1424];
    let flows = sizes.map(|_| {
        let app = w.app(a, 0);
        let (near, far) = w.connect(app, receiver, ip, PORT);
        (app, near, far)
    });
    let mut before = [0; 3];
    for time in [Nanos::millis(20), Nanos::millis(40)] {
        w.run_for(time, |w| {
            for (&(app, near, _), size) in flows.iter().zip(sizes) {
                while w.apps[app].peek(near).outgoing.len() < 300 {
                    w.apps[app].send(near, pattern(size, 1));
                }
            }
            false
        });
        let now = flows.map(|(_, _, far)| w.apps[receiver].peek(far).bytes);
        // On the wire each unit has 90 bytes more.
        let sent: [u64; 3] =
            std::array::from_fn(|i| (now[i] - before[i]) * (sizes[i] as u64 + 90) / sizes[i] as u64);
        before = now;
        println!("bytes on the wire: {sent:?}, Jain {:.3}", jain(&sent));
        assert!(time < Nanos::millis(30) || jain(&sent) > 0.95);
    }
    assert!(w.counter(a, "tx_full") > 1000, "the ring was full");
}
