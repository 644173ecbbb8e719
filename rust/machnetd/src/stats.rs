//! Where the counters and the engines' signs of life are, and how the log shows them.

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use machnet_engine::Shared;
use machnet_nic::Port;

use crate::config::plural;
use crate::pulse::{EngineState, Pulses};
use crate::threads;

/// Where the counters are read from; the engines count without knowing of it.
pub struct Stats {
    /// The engines' counters.
    pub shared: Arc<Shared>,
    /// The NIC's.
    pub port: Arc<dyn Port>,
    /// Whether the engines are alive.
    pub pulses: Pulses,
    begun: Instant,
}

impl Stats {
    /// From now on.
    pub fn new(shared: Arc<Shared>, port: Arc<dyn Port>, pulses: Pulses) -> Stats {
        Stats { shared, port, pulses, begun: Instant::now() }
    }

    /// Seconds since the start.
    pub fn uptime_s(&self) -> u64 {
        self.begun.elapsed().as_secs()
    }

    /// Whether all engines are.
    pub fn alive(&self) -> bool {
        self.pulses.alive(threads::now())
    }

    /// How the sidecar is, in one line for people.
    pub fn status(&self, channels: usize) -> String {
        let stalled = |(engine, state): (u16, EngineState)| match state {
            EngineState::Stalled(late) => {
                Some(format!("engine {engine} has not moved for {} s", late.0 / 1_000_000_000))
            }
            EngineState::Running | EngineState::Asleep => None,
        };
        let stalled: Vec<_> = (0..).zip(self.pulses.states(threads::now())).filter_map(stalled).collect();
        if stalled.is_empty() {
            let (channels, engines) =
                (plural(channels, "channel"), plural(self.shared.engines().into(), "engine"));
            format!("{channels}, {engines}, {} {}", self.port.driver(), self.port.state().name())
        } else {
            stalled.join(", ")
        }
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
