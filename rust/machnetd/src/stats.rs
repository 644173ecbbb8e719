//! Where the counters are, and how the log shows them.

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use machnet_engine::Shared;
use machnet_nic::Port;

/// Where the counters are read from; the engines count without knowing of it.
pub struct Stats {
    /// The engines' counters.
    pub shared: Arc<Shared>,
    /// The NIC's.
    pub port: Arc<dyn Port>,
    begun: Instant,
}

impl Stats {
    /// From now on.
    pub fn new(shared: Arc<Shared>, port: Arc<dyn Port>) -> Stats {
        Stats { shared, port, begun: Instant::now() }
    }

    /// Seconds since the start.
    pub fn uptime_s(&self) -> u64 {
        self.begun.elapsed().as_secs()
    }

    /// One line per engine and one for the NIC, without zeros, at level info. One record, since the log sums up what repeats.
    pub fn dump(&self, channels: usize) {
        let up = Duration::from_secs(self.uptime_s());
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
    fn the_log_leaves_out_zeros_and_what_is_not_counted() {
        let counts = [("a", Some(1)), ("b", Some(0)), ("c", None), ("d", Some(3))];
        let named = |range: &[(&'static str, Option<u64>)]| {
            range.iter().map(|&(name, n)| (name.into(), n)).collect::<Vec<_>>().into_iter()
        };
        assert_eq!(spaced(named(&counts)), " a=1 d=3");
        assert_eq!(spaced(named(&counts[1..3])), " nothing yet");
    }
}
