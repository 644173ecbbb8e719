//! Prometheus' text format, version 0.0.4, of everything that is counted. Names follow Prometheus' conventions: what it is of, base units, and
//! `_total` for what only grows.

use std::borrow::Cow;
use std::fmt::Write;

use machnet_engine::{Counters, FlowCounters, Samples};
use machnet_nic::{PortCounters, PortState, QueueCounters};
use machnet_wire::Sample;
use machnet_wire::sample::{Definition, Kind, Unit};

/// What is shown, as of one moment.
pub struct Snapshot<'a> {
    /// By engine.
    pub engines: Vec<Samples>,
    /// The NIC's.
    pub port: Vec<Sample>,
    /// What drives the NIC.
    pub driver: &'a str,
    /// What the NIC is doing.
    pub state: PortState,
    /// When the process began, seconds since 1970.
    pub begun: f64,
}

/// A table of counters as Prometheus sees it.
pub struct Family {
    /// What all of its names begin with.
    pub prefix: &'static str,
    /// One sample for each engine, else one for the sidecar.
    pub per_engine: bool,
    /// What it has.
    pub table: &'static [Definition],
}

/// Every table, in the order in which they are shown.
pub const FAMILIES: [Family; 4] = [
    Family { prefix: "machnet_engine_", per_engine: true, table: &Counters::TABLE },
    Family { prefix: "machnet_flow_", per_engine: true, table: &FlowCounters::TABLE },
    Family { prefix: "machnet_queue_", per_engine: true, table: &QueueCounters::TABLE },
    Family { prefix: "machnet_port_", per_engine: false, table: &PortCounters::TABLE },
];

/// A counter's name.
pub fn name(prefix: &str, of: &Definition) -> String {
    let mut name = format!("{prefix}{}", of.name);
    let unit = match of.unit {
        Unit::Count => "",
        Unit::Bytes => "_bytes",
        Unit::Nanoseconds => "_seconds",
    };
    if !name.ends_with(unit) {
        name.push_str(unit);
    }
    if of.kind == Kind::Counter {
        name.push_str("_total");
    }
    name
}

/// The whole page.
pub fn page(snapshot: &Snapshot<'_>) -> String {
    let mut out = String::with_capacity(64 << 10);
    let version = env!("CARGO_PKG_VERSION");
    out.push_str("# HELP machnet_build_info the version of machnetd\n# TYPE machnet_build_info gauge\n");
    let _ = writeln!(out, "machnet_build_info{{version=\"{}\"}} 1", escaped(version));
    out.push_str("# HELP machnet_port_info what drives the NIC\n# TYPE machnet_port_info gauge\n");
    let _ = writeln!(out, "machnet_port_info{{driver=\"{}\"}} 1", escaped(snapshot.driver));
    out.push_str("# HELP machnet_port_up whether the device is there, in operation, and has its link\n");
    out.push_str("# TYPE machnet_port_up gauge\n");
    let _ = writeln!(out, "machnet_port_up {}", u8::from(snapshot.state == PortState::Up));
    out.push_str("# HELP process_start_time_seconds when the process began, in seconds since 1970\n");
    out.push_str("# TYPE process_start_time_seconds gauge\n");
    let _ = writeln!(out, "process_start_time_seconds {:.3}", snapshot.begun);
    let engines = &snapshot.engines;
    let [engine, flow, queue, port] = FAMILIES;
    family(&mut out, &engine, || engines.iter().map(|samples| &samples.engine[..]));
    family(&mut out, &flow, || engines.iter().map(|samples| &samples.flows[..]));
    family(&mut out, &queue, || engines.iter().map(|samples| &samples.queue[..]));
    family(&mut out, &port, || std::iter::once(&snapshot.port[..]));
    out
}

/// All counters of a table, each with what `members` have of it. One that nobody counts is left out.
fn family<'a, I: Iterator<Item = &'a [Sample]>>(out: &mut String, family: &Family, members: impl Fn() -> I) {
    for (at, of) in family.table.iter().enumerate() {
        let values = || members().enumerate().filter_map(|(i, samples)| Some((i, samples.get(at)?.value?)));
        if values().next().is_none() {
            continue;
        }
        let name = name(family.prefix, of);
        let kind = match of.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let help = of.help.replace('\\', r"\\").replace('\n', r"\n");
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (i, value) in values() {
            out.push_str(&name);
            if family.per_engine {
                let _ = write!(out, "{{engine=\"{i}\"}}");
            }
            let _ = match of.unit {
                Unit::Count | Unit::Bytes => writeln!(out, " {value}"),
                Unit::Nanoseconds => writeln!(out, " {}", value as f64 / 1e9),
            };
        }
    }
}

/// A label's value.
fn escaped(text: &str) -> Cow<'_, str> {
    if text.contains(['\\', '"', '\n']) {
        text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n").into()
    } else {
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn samples<const N: usize>(table: &[Definition; N], value: impl Fn(usize) -> Option<u64>) -> [Sample; N] {
        std::array::from_fn(|i| table[i].sample(value(i)))
    }

    /// Every value differs from every other.
    fn engine(number: u64) -> Samples {
        Samples {
            engine: samples(&Counters::TABLE, |i| Some(number * 1000 + i as u64)),
            flows: samples(&FlowCounters::TABLE, |i| Some(number * 1000 + 200 + i as u64)),
            queue: samples(&QueueCounters::TABLE, |i| {
                (number == 0 && QueueCounters::TABLE[i].name != "peer_full").then_some(400 + i as u64)
            }),
        }
    }

    fn snapshot() -> String {
        page(&Snapshot {
            engines: vec![engine(0), engine(1)],
            port: samples(&PortCounters::TABLE, |i| (i != 0).then_some(500 + i as u64)).to_vec(),
            driver: "a\"b",
            state: PortState::Up,
            begun: 1_700_000_000.25,
        })
    }

    #[test]
    fn names_are_prometheus_ones() {
        let of = |name, unit, kind| Definition { name, help: "", unit, kind };
        for (expected, of) in [
            ("x_frames_total", of("frames", Unit::Count, Kind::Counter)),
            ("x_flows", of("flows", Unit::Count, Kind::Gauge)),
            ("x_rx_bytes_total", of("rx_bytes", Unit::Bytes, Kind::Counter)),
            ("x_buffers_bytes", of("buffers", Unit::Bytes, Kind::Gauge)),
            ("x_slept_seconds_total", of("slept", Unit::Nanoseconds, Kind::Counter)),
        ] {
            assert_eq!(name("x_", &of), expected);
        }
    }

    #[test]
    fn every_value_is_shown_under_its_name_with_its_engine() {
        let page = snapshot();
        for line in [
            "machnet_build_info{version=\"0.1.0\"} 1",
            "machnet_port_info{driver=\"a\\\"b\"} 1",
            "machnet_port_up 1",
            "process_start_time_seconds 1700000000.250",
            "# HELP machnet_engine_rx_frames_total frames taken from the NIC",
            "# TYPE machnet_engine_rx_frames_total counter",
            "machnet_engine_rx_frames_total{engine=\"0\"} 1",
            "machnet_engine_rx_frames_total{engine=\"1\"} 1001",
            "# TYPE machnet_engine_flows gauge",
            "machnet_flow_packets_sent_total{engine=\"1\"} 1200",
            "machnet_queue_rx_frames_total{engine=\"0\"} 400",
            "machnet_port_tx_frames_total 501",
        ] {
            assert_eq!(page.lines().filter(|other| *other == line).count(), 1, "{line}\n{page}");
        }
        let shown = page.lines().filter(|line| !line.starts_with('#')).count();
        let per_engine = Counters::TABLE.len() + FlowCounters::TABLE.len();
        let expected =
            4 + 2 * per_engine + (QueueCounters::TABLE.len() - 1) + (PortCounters::TABLE.len() - 1);
        assert_eq!(shown, expected);
    }

    #[test]
    fn what_is_not_counted_is_left_out_whole() {
        let page = snapshot();
        assert!(!page.contains("machnet_queue_peer_full") && !page.contains("machnet_port_rx_frames"));
        assert!(!page.contains("machnet_queue_rx_frames_total{engine=\"1\"}"));
    }

    /// What promtool would find: each family once, in one piece, told before its samples, names and lines well formed.
    #[test]
    fn the_page_is_well_formed() {
        let page = snapshot();
        assert!(page.ends_with('\n') && page.is_ascii());
        let mut seen = HashSet::new();
        let mut family = "";
        let mut lines = page.lines().peekable();
        while let Some(line) = lines.next() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a help");
                assert!(seen.insert(name), "{name} twice");
                assert!(!help.is_empty() && !help.ends_with('.'), "{line}");
                let kind = lines.next().and_then(|line| line.strip_prefix(&format!("# TYPE {name} ")));
                assert_eq!(kind == Some("counter"), name.ends_with("_total"), "{name}: {kind:?}");
                assert!(matches!(kind, Some("counter" | "gauge")));
                assert!(lines.peek().is_some_and(|line| line.starts_with(name)), "{name} has a sample");
                let lower = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
                assert!(name.bytes().all(lower), "{name}");
                family = name;
            } else {
                let (name, value) = line.rsplit_once(' ').expect("a value");
                assert_eq!(name.split('{').next(), Some(family), "{line}");
                assert!(value.parse::<f64>().is_ok(), "{line}");
            }
        }
    }

    #[test]
    fn what_other_names_say_of_units_is_not_in_a_counters_own() {
        for family in &FAMILIES {
            for of in family.table {
                let words: Vec<_> = of.name.split('_').collect();
                for odd in
                    ["total", "counter", "gauge", "ns", "us", "ms", "nanoseconds", "count", "sum", "bucket"]
                {
                    assert!(!words.contains(&odd), "{}: say it by kind and unit", of.name);
                }
                assert_eq!(words.contains(&"bytes"), of.unit == Unit::Bytes, "{}", of.name);
            }
        }
    }
}
