//! Every fault with every other, on hosts with two queues of 256 descriptors: each message arrives exactly once, in order and
//! with equal bytes; when the faults stop nothing stalls for longer than two timeouts; at the end every buffer is back.
//!
//! `cargo test` runs rows in which each pair of levels occurs. `MACHNET_SEEDS=n` runs the full product with n seeds,
//! `MACHNET_SEED=n` one seed only, `MACHNET_ROW=n` one row only.

use machnet_nic::sim::{Link, Steal, SwitchPort};
use machnet_shm::FlowId;
use machnet_sim::{AppNo, Cost, World, pattern};
use machnet_wire::Nanos;

/// The levels of each factor.
const LOSS: [f64; 5] = [0.0, 0.001, 0.01, 0.05, 0.3];
const REORDER: [f64; 2] = [0.0, 0.05];
const DUPLICATION: [f64; 2] = [0.0, 0.05];
const CORRUPTION: [f64; 2] = [0.0, 0.02];
/// Milliseconds for which a vCPU is away each time.
const STEAL: [u64; 4] = [0, 1, 5, 20];
const FAN_IN: [u8; 4] = [1, 4, 16, 64];
const SIZE: [usize; 7] = [0, 64, 1424, 1425, 32 << 10, 1 << 20, 8 << 20];

const LEVELS: [usize; 7] =
    [LOSS.len(), REORDER.len(), DUPLICATION.len(), CORRUPTION.len(), STEAL.len(), FAN_IN.len(), SIZE.len()];

/// A level of each factor.
type Row = [usize; 7];

/// What a row costs in test time, roughly: bytes to be moved, times how long faults delay each of them.
fn cost(row: &Row) -> f64 {
    let bytes = f64::from(FAN_IN[row[5]]) * (SIZE[row[6]].max(1000) * count(row)) as f64;
    bytes * (1.0 + 20.0 * LOSS[row[0]]) * (1.0 + STEAL[row[4]] as f64 / 20.0)
}

/// Messages of each sender: enough for every fault to meet some.
fn count(row: &Row) -> usize {
    let many = 1500 / usize::from(FAN_IN[row[5]]);
    ((1 << 20) / SIZE[row[6]].max(1)).clamp(1, many.max(30))
}

/// Every row.
fn product() -> Vec<Row> {
    let mut rows = vec![[0; 7]];
    for (factor, &levels) in LEVELS.iter().enumerate() {
        rows = rows
            .iter()
            .flat_map(|row| {
                (0..levels).map(move |level| {
                    let mut row = *row;
                    row[factor] = level;
                    row
                })
            })
            .collect();
    }
    rows
}

/// Few and cheap rows in which any two levels of different factors occur together. Chosen greedily: the row with the most new
/// pairs for its cost comes first.
fn pairs() -> Vec<Row> {
    let mut open = std::collections::BTreeSet::new();
    let all = product();
    let pairs_of = |row: &Row| {
        let row = *row;
        (0..7).flat_map(move |a| (a + 1..7).map(move |b| (a, row[a], b, row[b])))
    };
    all.iter().for_each(|row| open.extend(pairs_of(row)));
    let mut rows = Vec::new();
    while !open.is_empty() {
        let gain = |row: &Row| pairs_of(row).filter(|pair| open.contains(pair)).count() as f64;
        // The square root keeps the number of rows small where cheap ones would each cover little.
        let worth = |row: &Row| gain(row) / (1e6 + cost(row)).sqrt();
        let best = *all.iter().max_by(|a, b| worth(a).total_cmp(&worth(b))).expect("rows");
        pairs_of(&best).for_each(|pair| {
            open.remove(&pair);
        });
        rows.push(best);
    }
    rows
}

/// What one row sends.
struct Load {
    label: String,
    size: usize,
    count: usize,
    receiver: AppNo,
    senders: Vec<Sender>,
}

struct Sender {
    app: AppNo,
    near: FlowId,
    far: FlowId,
    /// Messages that have arrived: at the receiver, or as an echo at the sender.
    arrived: usize,
    /// Bytes and messages that have arrived, and when that sum last grew.
    progress: u64,
    moved: Nanos,
}

impl Load {
    /// Whether the messages are small: these are echoed, and checked at the sender.
    fn echoes(&self) -> bool {
        self.size <= 32 << 10
    }

    fn message(&self, sender: usize, number: usize) -> Vec<u8> {
        pattern(self.size, (sender * 1000 + number) as u64)
    }

    fn total(&self) -> usize {
        self.count * self.senders.len()
    }

    /// Checks what has arrived. Returns how many messages have, and the longest time for which an unfinished sender made no progress.
    fn look(&mut self, w: &mut World) -> (usize, Nanos) {
        let (mut arrived, mut longest) = (0, Nanos::ZERO);
        for n in 0..self.senders.len() {
            let s = &self.senders[n];
            let (app, flow) = if self.echoes() { (s.app, s.near) } else { (self.receiver, s.far) };
            let conn = w.apps[app].peek(flow);
            let (bytes, messages) = (conn.bytes, std::mem::take(&mut conn.received));
            for message in messages {
                let number = self.senders[n].arrived;
                assert!(message == self.message(n, number), "{}: sender {n}, message {number}", self.label);
                self.senders[n].arrived += 1;
            }
            let s = &mut self.senders[n];
            arrived += s.arrived;
            // Messages without bytes count as progress, too.
            let progress = bytes + s.arrived as u64;
            if s.progress != progress {
                (s.progress, s.moved) = (progress, w.now);
            }
            if s.arrived < self.count {
                longest = longest.max(w.now - s.moved);
            }
        }
        (arrived, longest)
    }
}

/// The hosts, connected, and everything submitted.
fn set_up(w: &mut World, row: &Row, seed: u64) -> Load {
    let size = SIZE[row[6]];
    let label = format!(
        "seed {seed}: loss {} reorder {} duplication {} corruption {} steal {} ms fan-in {} size {size}",
        LOSS[row[0]], REORDER[row[1]], DUPLICATION[row[2]], CORRUPTION[row[3]], STEAL[row[4]], FAN_IN[row[5]]
    );
    let host = w.add(1, 2);
    w.net.set_port(host, Some(SwitchPort { rate: 25_000_000_000, buffer: 4 << 20 }));
    let receiver = w.app(host, 0);
    w.listen(receiver, 8000);
    let ip = w.sidecars[host].ip;
    let senders = (0..FAN_IN[row[5]])
        .map(|n| {
            let from = w.add(n + 2, 2);
            let app = w.app(from, u16::from(n % 2));
            let (near, far) = w.connect(app, receiver, ip, 8000);
            Sender { app, near, far, arrived: 0, progress: 0, moved: w.now }
        })
        .collect();
    let load = Load { label, size, count: count(row), receiver, senders };
    w.apps[receiver].echoes = load.echoes();
    for (n, s) in load.senders.iter().enumerate() {
        (0..load.count).for_each(|m| w.apps[s.app].send(s.near, load.message(n, m)));
    }
    load
}

fn run(row: &Row, seed: u64) {
    let mut w = World::seeded(seed);
    w.cost = Cost::REAL;
    let clean = Link { delay: Nanos::micros(15), rate: Some(10_000_000_000), ..Link::default() };
    w.net.set_links(clean);
    let mut load = set_up(&mut w, row, seed);

    w.net.set_links(Link {
        loss: LOSS[row[0]],
        reorder: REORDER[row[1]],
        duplication: DUPLICATION[row[2]],
        corruption: CORRUPTION[row[3]],
        ..clean
    });
    let victims = [0, 1];
    if STEAL[row[4]] > 0 {
        let length = Nanos::millis(STEAL[row[4]]);
        w.pass(Nanos::micros(200));
        for host in victims {
            w.net.steal(host, length);
            w.net.set_steal(host, Some(Steal { every: length * 2, length }));
        }
    }
    let (total, longest_faults) = (load.total(), Nanos::millis(200));
    w.run_for(longest_faults, |w| load.look(w).0 * 3 >= total * 2);

    w.net.set_links(clean);
    victims.iter().for_each(|&host| w.net.set_steal(host, None));
    let back = victims.iter().filter_map(|&host| w.net.stolen_until(host)).max().unwrap_or(w.now);
    w.pass(back - w.now);
    let engines = w.sidecars.iter().flat_map(|s| &s.engines);
    let timeout = engines.map(|engine| engine.longest_timeout()).max().expect("engines");
    load.senders.iter_mut().for_each(|s| s.moved = w.now);
    let label = load.label.clone();
    w.run(&label, |w| {
        let (arrived, stalled) = load.look(w);
        assert!(stalled <= timeout * 2, "{label}: {stalled:?} without progress, the timeout was {timeout:?}");
        arrived == total
    });
    w.assert_nothing_is_lost();
}

#[test]
fn every_message_arrives_once_in_order_and_intact() {
    let number = |name| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let seeds = number("MACHNET_SEEDS");
    let rows = if seeds.is_some() { product() } else { pairs() };
    let seeds = number("MACHNET_SEED").map_or(1..seeds.unwrap_or(1) + 1, |seed| seed..seed + 1);
    let only = number("MACHNET_ROW");
    for seed in seeds {
        for (_, row) in rows.iter().enumerate().filter(|(i, _)| only.is_none_or(|only| only == *i as u64)) {
            run(row, seed);
        }
    }
}
