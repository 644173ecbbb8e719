//! Hosts whose cores are wanted elsewhere: their engines are late, again and again, for thousands of connections, and what comes meanwhile overruns
//! their receive rings. All in virtual time.
//!
//! `MACHNET_CONNECTIONS` and `MACHNET_SEEDS` say how many instead of those that every test run has time for.

use std::ops::Range;

use machnet_nic::sim::Link;
use machnet_shm::Geometry;
use machnet_sim::{AppNo, World, pattern};
use machnet_wire::Nanos;

fn number(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).map_or(usual, |n| n.parse().expect("a number"))
}

/// Random numbers of a seed.
struct Dice(u64);

impl Dice {
    /// A time of so many microseconds.
    fn within(&mut self, range: &Range<u64>) -> Nanos {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Nanos::micros(range.start + (self.0 >> 33) % (range.end - range.start))
    }
}

struct Late {
    w: World,
    client: AppNo,
    connections: usize,
    dice: Dice,
}

impl Late {
    /// Two hosts with connections, and links that lose this part of what they carry from now on.
    fn new(seed: u64, engines: u16, loss: f64) -> Self {
        let connections = number("MACHNET_CONNECTIONS", 1000) as usize;
        let mut w = World::seeded(seed);
        let (a, b) = (w.add(1, engines), w.add(2, engines));
        let large = Geometry { flows: connections as u32, units: 4096, ..Geometry::DEFAULT };
        let (client, server) = (w.app_with(a, 0, large), w.app_with(b, engines - 1, large));
        w.apps[server].echoes = true;
        let (ip, port) = (w.sidecars[b].ip, w.listen(server, 8000));
        while w.apps[client].dialled.len() < connections {
            let next = (w.apps[client].dialled.len() + 50).min(connections);
            for _ in w.apps[client].dialled.len()..next {
                w.apps[client].dial(ip, port, 0, 0);
            }
            w.run("connecting", |w| w.apps[client].dialled.len() == next);
        }
        w.pass(Nanos::millis(100));
        w.net.set_links(Link { loss, ..Link::default() });
        Self { w, client, connections, dice: Dice(seed) }
    }

    fn frames(&self) -> u64 {
        [0, 1]
            .iter()
            .map(|&host| self.w.counter(host, "tx_frames") - self.w.counter(host, "flow_pings_sent"))
            .sum()
    }

    fn is_done(&mut self) -> bool {
        let app = &mut self.w.apps[self.client];
        (0..self.connections).all(|i| app.peek(app.dialled[i].flow).received.len() == 1)
    }

    /// Every connection sends a message and waits for its echo, while each host stops for times of `stops` and runs for times of `runs`, in
    /// microseconds: until `quiet`, or to the end. Gives how long the last echo takes, from `quiet` or from the beginning, and how many frames
    /// beside PINGs both hosts send for each.
    fn echo(&mut self, stops: Range<u64>, runs: Range<u64>, quiet: Option<Nanos>) -> (Nanos, u64) {
        let (begun, before) = (self.w.now, self.frames());
        for i in 0..self.connections {
            let flow = self.w.apps[self.client].dialled[i].flow;
            self.w.apps[self.client].send(flow, pattern(64, i as u64));
        }
        let mut from = begun + quiet.unwrap_or(Nanos::ZERO);
        let until = if quiet.is_some() { from } else { begun + LONGEST };
        let mut due = [begun; 2];
        while self.w.now < until && !self.is_done() {
            let now = self.w.now;
            for (host, due) in due.iter_mut().enumerate().filter(|(_, due)| **due <= now) {
                let stop = self.dice.within(&stops);
                self.w.net.steal(host, stop);
                *due = now + stop + self.dice.within(&runs);
            }
            self.w.pass(due[0].min(due[1]).min(until) - now);
        }
        if quiet.is_some() {
            let back = [0, 1].iter().filter_map(|&host| self.w.net.stolen_until(host)).max();
            from = back.unwrap_or(from);
            self.w.pass(from - self.w.now);
        }
        while !self.is_done() {
            assert!(
                self.w.now < from + LONGEST,
                "seed {}: not after {LONGEST:?}\n{}",
                self.w.seed,
                self.w.net.trace()
            );
            self.w.pass(Nanos::millis(1));
        }
        let took = self.w.now - from;
        let app = &mut self.w.apps[self.client];
        for i in 0..self.connections {
            let conn = app.peek(app.dialled[i].flow);
            assert_eq!(
                (conn.received.pop_front(), conn.over),
                (Some(pattern(64, i as u64)), None),
                "seed {}",
                self.w.seed
            );
        }
        let frames = (self.frames() - before) / self.connections as u64;
        let of = |name| [0, 1].map(|host| self.w.counter(host, name));
        println!(
            "seed {}: {} echoes after {took:?}, {frames} frames each; so far stalls {:?}, missed {:?}, timeouts {:?}",
            self.w.seed,
            self.connections,
            of("stalls"),
            of("queue_rx_missed"),
            of("flow_rtos"),
        );
        (took, frames)
    }
}

/// An echo that takes longer never comes.
const LONGEST: Nanos = Nanos::secs(20);

/// A timeout that has backed off is longer than an engine runs between two stops: it has to pass nevertheless, or what was lost is never sent again.
#[test]
fn hosts_that_are_late_every_few_milliseconds_deliver_what_is_lost() {
    for seed in 0..number("MACHNET_SEEDS", 3) {
        let mut late = Late::new(600 + seed, 1, 0.3);
        for _ in 0..3 {
            let (took, frames) = late.echo(2_000..10_000, 500..5_000, None);
            assert!(
                took < Nanos::secs(5) && frames < 40,
                "seed {seed}: after {took:?}, {frames} frames each"
            );
        }
    }
}

#[test]
fn what_waits_while_hosts_stop_for_long_arrives_soon_after() {
    for seed in 0..number("MACHNET_SEEDS", 3) {
        let mut late = Late::new(700 + seed, 1 + seed as u16 % 2, 0.0);
        let (took, frames) = late.echo(50_000..1_500_000, 1_000..100_000, Some(Nanos::secs(5)));
        assert!(took < Nanos::secs(1) && frames < 60, "seed {seed}: after {took:?}, {frames} frames each");
    }
}
