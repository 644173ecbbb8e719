//! The counters, for the log and, as JSON, for `machnet` over the control socket.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use machnet_engine::Shared;
use machnet_nic::dpdk::Port;

/// Where the counters are read from; the engines count without knowing of it.
pub struct Stats {
    shared: Arc<Shared>,
    port: Arc<Port>,
    begun: Instant,
}

/// A channel, as `stats` shows it.
#[derive(Debug, Clone, Copy)]
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

impl Stats {
    /// From now on.
    pub fn new(shared: Arc<Shared>, port: Arc<Port>) -> Stats {
        Stats { shared, port, begun: Instant::now() }
    }

    /// One line per engine and one for the NIC, without zeros, at level info. One record, since the log sums up what repeats.
    pub fn dump(&self, channels: usize) {
        let up = Duration::from_secs(self.begun.elapsed().as_secs());
        let mut lines = format!("stats: up {up:?}, {channels} channels");
        for engine in 0..self.shared.engines() {
            let Some(counters) = self.shared.counters(engine) else { continue };
            let samples = counters.snapshot().into_iter().map(|s| (s.name, s.value));
            let _ = write!(lines, "\nstats: engine {engine}:{}", spaced(samples));
        }
        log::info!("{lines}\nstats: nic:{}", spaced(self.nic()));
    }

    /// Everything as one JSON object. Names of counters are identifiers, so nothing needs to be escaped.
    pub fn json(&self, channels: impl Iterator<Item = Attached>) -> String {
        let mut json = String::with_capacity(4096);
        let _ = write!(
            json,
            r#"{{"version":"{}","pid":{},"uptime_s":{},"ip":"{}","engines":["#,
            env!("CARGO_PKG_VERSION"),
            std::process::id(),
            self.begun.elapsed().as_secs(),
            self.shared.config.neighbor.ip
        );
        for engine in 0..self.shared.engines() {
            let Some(counters) = self.shared.counters(engine) else { continue };
            let comma = if engine > 0 { "," } else { "" };
            let members = members(counters.snapshot().into_iter().map(|s| (s.name, s.value)));
            let _ = write!(json, r#"{comma}{{"engine":{engine},"counters":{{{members}}}}}"#);
        }
        let _ = write!(json, r#"],"nic":{{{}}},"channels":["#, members(self.nic()));
        for (i, c) in channels.enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let _ = write!(
                json,
                r#"{comma}{{"channel":{},"engine":{},"pid":{},"uid":{}}}"#,
                c.channel, c.engine, c.pid, c.uid
            );
        }
        json.push_str("]}");
        json
    }

    fn nic(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let nic = self.port.stats();
        [
            ("rx_frames", nic.rx_frames),
            ("tx_frames", nic.tx_frames),
            ("rx_bytes", nic.rx_bytes),
            ("tx_bytes", nic.tx_bytes),
            ("rx_missed", nic.rx_missed),
            ("rx_errors", nic.rx_errors),
            ("tx_errors", nic.tx_errors),
            ("rx_no_buffer", nic.rx_no_buffer),
            ("link_ups", nic.link_ups),
            ("link_downs", nic.link_downs),
            ("link_refused", nic.link_refused),
        ]
        .into_iter()
    }
}

fn spaced(samples: impl Iterator<Item = (&'static str, u64)>) -> String {
    let line: String = samples.filter(|(_, n)| *n > 0).map(|(name, n)| format!(" {name}={n}")).collect();
    if line.is_empty() { " nothing yet".to_owned() } else { line }
}

fn members(samples: impl Iterator<Item = (&'static str, u64)>) -> String {
    samples.map(|(name, n)| format!(r#""{name}":{n}"#)).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_leaves_out_zeros_and_json_does_not() {
        let samples = [("a", 1), ("b", 0), ("c", 3)];
        assert_eq!(spaced(samples.into_iter()), " a=1 c=3");
        assert_eq!(spaced([("b", 0)].into_iter()), " nothing yet");
        assert_eq!(members(samples.into_iter()), r#""a":1,"b":0,"c":3"#);
    }
}
