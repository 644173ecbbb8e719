//! The counters, for the log and, as JSON, for `machnet` over the control socket.

use std::borrow::Cow;
use std::fmt::Write;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use machnet_engine::Shared;
use machnet_nic::Port;
use serde::{Serialize, Serializer};

/// Where the counters are read from; the engines count without knowing of it.
pub struct Stats {
    shared: Arc<Shared>,
    port: Arc<dyn Port>,
    begun: Instant,
}

/// A channel, as `stats` shows it.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Attached {
    /// Its number.
    pub channel: u64,
    /// Its engine.
    pub engine: u16,
    /// The process that attached it.
    pub pid: i32,
    /// That process's user.
    pub uid: u32,
}

/// What `stats` answers.
#[derive(Serialize)]
struct Answer {
    version: &'static str,
    pid: u32,
    uptime_s: u64,
    ip: Ipv4Addr,
    engines: Vec<EngineCounts>,
    nic: Counts,
    channels: Vec<Attached>,
}

#[derive(Serialize)]
struct EngineCounts {
    engine: u16,
    counters: Counts,
}

/// Counters by name, in the order in which they are declared.
struct Counts(Vec<(Cow<'static, str>, u64)>);

impl Serialize for Counts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, n)| (name, n)))
    }
}

impl Stats {
    /// From now on.
    pub fn new(shared: Arc<Shared>, port: Arc<dyn Port>) -> Stats {
        Stats { shared, port, begun: Instant::now() }
    }

    /// One line per engine and one for the NIC, without zeros, at level info. One record, since the log sums up what repeats.
    pub fn dump(&self, channels: usize) {
        let up = Duration::from_secs(self.begun.elapsed().as_secs());
        let mut lines = format!("stats: up {up:?}, {channels} channels");
        for engine in 0..self.shared.engines() {
            let Some(counts) = self.counts(engine) else { continue };
            let _ = write!(lines, "\nstats: engine {engine}:{}", spaced(&counts));
        }
        log::info!("{lines}\nstats: nic:{}", spaced(&self.nic()));
    }

    /// Everything as one JSON object.
    pub fn json(&self, channels: impl Iterator<Item = Attached>) -> String {
        let engines = (0..self.shared.engines())
            .filter_map(|engine| Some(EngineCounts { engine, counters: self.counts(engine)? }));
        let answer = Answer {
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            uptime_s: self.begun.elapsed().as_secs(),
            ip: self.shared.config.neighbor.ip,
            engines: engines.collect(),
            nic: self.nic(),
            channels: channels.collect(),
        };
        serde_json::to_string(&answer)
            .unwrap_or_else(|error| unreachable!("names, numbers and an address: {error}"))
    }

    fn counts(&self, engine: u16) -> Option<Counts> {
        let samples = self.shared.samples(engine)?;
        Some(Counts(samples.named().filter_map(|(name, s)| Some((name, s.value?))).collect()))
    }

    fn nic(&self) -> Counts {
        let samples = self.port.counters().samples();
        Counts(samples.iter().filter_map(|s| Some((s.name.into(), s.value?))).collect())
    }
}

fn spaced(Counts(counts): &Counts) -> String {
    let line: String =
        counts.iter().filter(|(_, n)| *n > 0).map(|(name, n)| format!(" {name}={n}")).collect();
    if line.is_empty() { " nothing yet".to_owned() } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_leaves_out_zeros_and_json_does_not() {
        let counts = Counts(vec![("a".into(), 1), ("b".into(), 0), ("c".into(), 3)]);
        assert_eq!(spaced(&counts), " a=1 c=3");
        assert_eq!(spaced(&Counts(vec![("b".into(), 0)])), " nothing yet");
        assert_eq!(serde_json::to_string(&counts).unwrap(), r#"{"a":1,"b":0,"c":3}"#);
    }
}
