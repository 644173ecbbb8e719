//! Whether a quiet application feels what its neighbours do: a server of two engines, three noisy applications and a quiet one on it, behind
//! one link.

use std::fmt;

use machnet_nic::sim::{Link, SwitchPort};
use machnet_shm::{FlowId, Geometry};
use machnet_wire::Nanos;
use serde::Serialize;

use super::{ONE_WAY, add_hosts, ip, micros, quantile, world};
use crate::{AppNo, World, pattern};

/// Who shares what with whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arm {
    /// The quiet application has the server to itself.
    Unloaded,
    /// It has an engine of its own, and the packets of every connection reach their engine's queue.
    Dedicated,
    /// It shares an engine with the noisy ones; the other is idle.
    Shared,
    /// It has an engine of its own, but port pairs are random: packets reach either queue, and are handed over.
    Random,
}

impl Arm {
    /// All of them.
    pub const ALL: [Arm; 4] = [Arm::Unloaded, Arm::Dedicated, Arm::Shared, Arm::Random];

    fn name(self) -> &'static str {
        match self {
            Arm::Unloaded => "unloaded",
            Arm::Dedicated => "dedicated",
            Arm::Shared => "shared",
            Arm::Random => "random",
        }
    }
}

/// What was measured in one arm.
#[derive(Clone, PartialEq, Serialize, Debug)]
pub struct Row {
    pub arm: &'static str,
    /// Echoes of the quiet application, over all runs.
    pub samples: usize,
    /// How long they took.
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    /// Echoes of the noisy ones, a second.
    pub noisy_per_s: f64,
    /// Packets of each echo that the server handed from one engine to the other.
    pub handed_over: f64,
}

/// The heading of a table of rows.
pub const HEADING: &str = "arm        samples    p50 us    p99 us  p99.9 us  noisy echoes/s  handed over";

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row { arm, samples, p50_us, p99_us, p999_us, noisy_per_s, handed_over } = self;
        write!(
            f,
            "{arm:<10} {samples:>7} {p50_us:>9.1} {p99_us:>9.1} {p999_us:>9.1} {noisy_per_s:>15.0} {handed_over:>12.3}"
        )
    }
}

/// How it is measured.
#[derive(Clone, Copy, Debug)]
pub struct Isolation {
    /// Runs of each arm, each with a seed of its own: in an arm of chance one run shows one draw.
    pub runs: u32,
    /// Virtual time of each.
    pub time: Nanos,
    /// Descriptors of every receive ring. What peers may have on their way to a ring fits into it, so a short one keeps the noisy
    /// applications' queues short, too.
    pub ring: u16,
    pub seed: u64,
}

/// Measures every arm.
pub fn run(isolation: &Isolation) -> Vec<Row> {
    Arm::ALL.map(|arm| measure(arm, isolation)).to_vec()
}

/// Measures one arm.
pub fn measure(arm: Arm, isolation: &Isolation) -> Row {
    let Isolation { runs, time, ring, seed } = *isolation;
    let (mut took, mut noisy, mut handed) = (Vec::new(), 0, 0);
    for run in 0..runs {
        let mut scene = Scene::new(arm, ring, seed.wrapping_add(run.into()));
        scene.start();
        let before = (scene.noisy(), scene.w.counter(SERVER, "handover_out"));
        took.append(&mut scene.watch(time));
        noisy += scene.noisy() - before.0;
        handed += scene.w.counter(SERVER, "handover_out") - before.1;
    }
    took.sort_unstable();
    let all = noisy + took.len() as u64;
    Row {
        arm: arm.name(),
        samples: took.len(),
        p50_us: micros(quantile(&took, 0.5)),
        p99_us: micros(quantile(&took, 0.99)),
        p999_us: micros(quantile(&took, 0.999)),
        noisy_per_s: noisy as f64 * 1e9 / (time.0 as f64 * f64::from(runs)),
        handed_over: handed as f64 / all as f64,
    }
}

/// The hosts and applications of one run. Every application echoes, so a message that was sent once comes and goes for ever.
struct Scene {
    w: World,
    noisy: Vec<(AppNo, Vec<FlowId>)>,
    quiet: (AppNo, FlowId),
}

impl Scene {
    fn new(arm: Arm, ring: u16, seed: u64) -> Scene {
        let mut w = world(seed, Link { delay: ONE_WAY, rate: Some(RATE), ..Link::default() });
        w.descriptors = ring;
        // Each noisy application has an engine of its client's, so that the server is what they wait for.
        add_hosts(&mut w, &[2, NOISY, 1], |config| config.rss.off = arm == Arm::Random);
        w.net.set_port(SERVER, Some(SwitchPort { rate: RATE, buffer: 4 << 20 }));
        let quiet_engine = u16::from(arm != Arm::Shared);
        let noisy = if arm == Arm::Unloaded { 0 } else { NOISY };
        let noisy = (0..noisy).map(|n| Self::pair(&mut w, (0, PORT + n), (1, n), FLOWS)).collect();
        let quiet = Self::pair(&mut w, (quiet_engine, PORT + NOISY), (2, 0), 1);
        Scene { w, noisy, quiet: (quiet.0, quiet.1[0]) }
    }

    /// An application of the server by its engine and port, and one of a client by its host and engine, with connections between
    /// them. Gives the client's ends.
    fn pair(w: &mut World, at: (u16, u16), from: (usize, u16), flows: u32) -> (AppNo, Vec<FlowId>) {
        let (server, client) = (w.app_with(SERVER, at.0, CHANNEL), w.app_with(from.0, from.1, CHANNEL));
        w.listen(server, at.1);
        w.apps[server].echoes = true;
        w.apps[client].echoes = true;
        (client, (0..flows).map(|_| w.connect(client, server, ip(1), at.1).0).collect())
    }

    /// Lets pairs be found, and then the messages begin.
    fn start(&mut self) {
        let w = &mut self.w;
        w.pass(SETTLED);
        for (app, flows) in &self.noisy {
            for flow in flows {
                (0..IN_FLIGHT).for_each(|n| w.apps[*app].send(*flow, pattern(64, n)));
            }
        }
        let (app, flow) = self.quiet;
        w.apps[app].send(flow, pattern(64, 0));
        w.pass(WARM);
    }

    /// Echoes that the noisy applications have had so far.
    fn noisy(&self) -> u64 {
        let bytes =
            self.noisy.iter().flat_map(|(app, _)| self.w.apps[*app].conns.values()).map(|conn| conn.bytes);
        bytes.sum::<u64>() / 64
    }

    /// How long each echo of the quiet application takes, for this long.
    fn watch(&mut self, time: Nanos) -> Vec<Nanos> {
        let (quiet, flow) = self.quiet;
        let mut took = Vec::new();
        let mut last: Option<(u64, Nanos)> = None;
        self.w.run_for(time, |w| {
            let (bytes, now) = (w.apps[quiet].peek(flow).bytes, w.now);
            match last {
                Some((before, _)) if before == bytes => {}
                Some((_, begun)) => {
                    took.push(now - begun);
                    last = Some((bytes, now));
                }
                None => last = Some((bytes, now)),
            }
            false
        });
        // The first was under way when the watch began.
        if !took.is_empty() {
            took.remove(0);
        }
        took
    }
}

const SERVER: usize = 0;
/// Noisy applications, each with so many connections and messages of 64 bytes under way on each.
const NOISY: u16 = 3;
/// A channel with so many units that no connection waits for any: the engine is what is shared.
const CHANNEL: Geometry = Geometry { units: 4096, flows: 64, unit_size: 1424 };
const FLOWS: u32 = 16;
const IN_FLIGHT: u64 = 8;
/// Bits per second of every link, and of the port before the server.
const RATE: u64 = 25_000_000_000;
/// The first of the server's ports.
const PORT: u16 = 8000;
/// After this pairs are found.
const SETTLED: Nanos = Nanos::millis(30);
/// After this windows have settled.
const WARM: Nanos = Nanos::millis(2);
