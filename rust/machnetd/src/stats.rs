//! The counters, for the log and for whoever asks at the control socket.

use std::borrow::Cow;
use std::fmt::Write;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use machnet_engine::Shared;
use machnet_nic::Port;
use serde::Serialize;

use crate::queries::{Counts, whole};

/// Where the counters are read from; the engines count without knowing of it.
pub struct Stats {
    shared: Arc<Shared>,
    port: Arc<dyn Port>,
    begun: Instant,
}

/// What `stats` answers.
#[derive(Serialize)]
struct Body<'a> {
    machnetd: &'static str,
    pid: u32,
    uptime_s: u64,
    ip: Ipv4Addr,
    engines: Vec<EngineCounts>,
    port: PortCounts<'a>,
}

#[derive(Serialize)]
struct EngineCounts {
    engine: u16,
    /// Its own, and sums over its flows.
    counters: Counts<Cow<'static, str>>,
    queue: Counts<&'static str>,
}

#[derive(Serialize)]
struct PortCounts<'a> {
    driver: &'a str,
    counters: Counts<&'static str>,
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
            let Some(samples) = self.shared.samples(engine) else { continue };
            let all = samples.named().map(|(name, sample)| (name, sample.value));
            let _ = write!(lines, "\nstats: engine {engine}:{}", spaced(all));
        }
        let port = self.port.counters().samples();
        let port = port.iter().map(|sample| (sample.name.into(), sample.value));
        log::info!("{lines}\nstats: nic:{}", spaced(port));
    }

    /// Everything as one JSON document.
    pub fn document(&self) -> Vec<u8> {
        let engines = (0..self.shared.engines()).filter_map(|engine| {
            let samples = self.shared.samples(engine)?;
            let counters = samples.counted_by_engine().map(|(name, sample)| (name, sample.value));
            Some(EngineCounts {
                engine,
                counters: Counts(counters.collect()),
                queue: Counts::of(&samples.queue),
            })
        });
        whole(
            "stats",
            Body {
                machnetd: env!("CARGO_PKG_VERSION"),
                pid: std::process::id(),
                uptime_s: self.begun.elapsed().as_secs(),
                ip: self.shared.config.neighbor.ip,
                engines: engines.collect(),
                port: PortCounts {
                    driver: self.port.driver(),
                    counters: Counts::of(&self.port.counters().samples()),
                },
            },
        )
    }
}

/// What is neither zero nor uncounted.
fn spaced(counts: impl Iterator<Item = (Cow<'static, str>, Option<u64>)>) -> String {
    let counted = counts.filter_map(|(name, value)| Some((name, value.filter(|&n| n > 0)?)));
    let line: String = counted.map(|(name, n)| format!(" {name}={n}")).collect();
    if line.is_empty() { " nothing yet".to_owned() } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_leaves_out_zeros_and_what_is_not_counted_and_json_does_not() {
        let counts = [("a", Some(1)), ("b", Some(0)), ("c", None), ("d", Some(3))];
        let named = |range: &[(&'static str, Option<u64>)]| {
            range.iter().map(|&(name, n)| (name.into(), n)).collect::<Vec<_>>().into_iter()
        };
        assert_eq!(spaced(named(&counts)), " a=1 d=3");
        assert_eq!(spaced(named(&counts[1..3])), " nothing yet");
        let json = serde_json::to_string(&Counts(counts.to_vec())).unwrap();
        assert_eq!(json, r#"{"a":1,"b":0,"c":null,"d":3}"#);
    }
}
