//! What the sidecar is told, from a file and from flags (flags win), checked whole before anything starts.
//!
//! [`settings`] is the one table of keys; [`file`](mod@file) and `args` fill it; [`Config::resolve`] gives it meaning, that of
//! the NIC in `nic`; [`machine`] asks whether this machine can do it; [`reload`] says what changes while it runs.

pub mod args;
mod file;
pub mod machine;
mod nic;
mod parts;
pub mod reload;
pub mod settings;
mod values;

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;
use machnet_engine::UDP_PORT;
use machnet_engine::idle::Policy;
use machnet_nic::Memory;
use machnet_wire::{Mac, Nanos};
use toml::Value;

use crate::scheduling::Scheduler;

pub use file::Source;
pub use nic::ChosenNic;
use settings::{Given, Settings};
use values::Reasoned;
pub use values::level;

/// Everything, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Our address.
    pub ip: Ipv4Addr,
    /// Bits of the subnet, 1..=32.
    pub prefix: u8,
    /// The way to other subnets.
    pub gateway: Option<Ipv4Addr>,
    /// Hosts known for good.
    pub neighbors: Vec<(Ipv4Addr, Mac)>,
    /// Which NIC.
    pub nic: ChosenNic,
    /// Largest IP packet, bytes, 576..=9001.
    pub mtu: u16,
    /// Instead of the device's own.
    pub set_mac: Option<Mac>,
    /// Per queue and direction.
    pub descriptors: u16,
    /// Use the NIC's checksums.
    pub checksum_offload: bool,
    /// Use the NIC's receive interrupts.
    pub interrupts: bool,
    /// Engines and NIC queues, 1..=64.
    pub engines: u16,
    /// One per engine, or empty.
    pub cores: Vec<usize>,
    /// How engines wait.
    pub idle: Policy,
    /// How the kernel schedules engines.
    pub scheduler: Scheduler,
    /// Nothing else runs on the engines' cores.
    pub exclusive: bool,
    /// Frames and units at once, 1..=32.
    pub burst: u16,
    /// UDP ports of our packets.
    pub udp_ports: RangeInclusive<u16>,
    /// From a batch of probes that missed to the next, and from a SYN to its first repetition.
    pub rss_retry: Nanos,
    /// Answers come on the mirrors of our pairs.
    pub mirrored: bool,
    /// Set-up as in the paper.
    pub paper: bool,
    /// Where packet buffers live.
    pub memory: Memory,
    /// DPDK's name for this process.
    pub file_prefix: String,
    /// Passed to DPDK.
    pub extra_args: Vec<String>,
    /// Where applications attach.
    pub socket: PathBuf,
    /// The socket's owner.
    pub owner: Option<u32>,
    /// The socket's group.
    pub group: Option<u32>,
    /// The socket's permissions.
    pub mode: u32,
    /// Channels at once.
    pub max_channels: usize,
    /// Packets in flight per channel and direction.
    pub units: u32,
    /// Connections per channel.
    pub flows: u32,
    /// Channels per application.
    pub per_application: usize,
    /// Silence that ends an attempt to connect.
    pub connect: Nanos,
    /// Silence that ends a connection.
    pub dead_peer: Nanos,
    /// How long a connection may go without progress while something is under way.
    pub no_progress: Nanos,
    /// Idle time before a sign of life is asked for; `None`: never.
    pub keepalive: Option<Nanos>,
    /// How long what an application sent may still take when it has left, or when the sidecar ends.
    pub linger: Nanos,
    /// How much is logged.
    pub log: LevelFilter,
    /// Between two dumps of the counters.
    pub stats_interval: Option<Duration>,
    /// Where `/metrics` is served.
    pub metrics: Option<SocketAddr>,
}

/// One mistake, whole: where, key, value, and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The sentence.
    pub text: String,
    /// Of the program that does not start for it.
    pub code: u8,
    /// The byte of the file; what is in none comes last.
    at: usize,
    /// It is against the rules of TOML: what could be read of that line means nothing.
    syntax: bool,
}

impl Mistake {
    fn new(at: usize, text: String) -> Mistake {
        Mistake { text, code: crate::SETTINGS, at, syntax: false }
    }

    /// One that stands at no place.
    fn somewhere(text: impl Into<String>) -> Mistake {
        Mistake::new(usize::MAX, text.into())
    }
}

impl Config {
    /// Gives the settings their meaning. `source` is the file that some of them came from, `mistakes` what was wrong
    /// with it so far.
    ///
    /// # Errors
    /// All mistakes, in the order of the file.
    pub fn resolve(
        settings: &Settings,
        source: &Source,
        mistakes: Vec<Mistake>,
    ) -> Result<Config, Vec<Mistake>> {
        let unreadable = mistakes.iter().any(|mistake| mistake.syntax);
        let reader = Reader { source, mistakes: RefCell::new(mistakes) };
        let config = reader.config(settings, unreadable);
        let mut mistakes = reader.mistakes.into_inner();
        mistakes.sort_by_key(|mistake| mistake.at);
        if mistakes.is_empty() { Ok(config) } else { Err(mistakes) }
    }
}

/// Reads settings, and says where a bad one was written.
struct Reader<'a> {
    source: &'a Source,
    mistakes: RefCell<Vec<Mistake>>,
}

impl Reader<'_> {
    /// What is wrong is noted, and stands as its default.
    fn config(&self, settings: &Settings, unreadable: bool) -> Config {
        let Settings { host, nic, engines, rss, dpdk, control, channels, timeouts, log, metrics } = settings;

        let ip = self.take("host.ip", &host.ip, values::address_with_prefix);
        // With a line that is no TOML nobody knows what is missing.
        if host.ip.is_none() && !unreadable {
            self.note(Mistake::somewhere(
                "host.ip is not set; give --ip ADDRESS/PREFIX, or ip in the section [host]",
            ));
        }
        let gateway = self.take("host.gateway", &host.gateway, values::address);
        let neighbors = self.take("host.neighbors", &host.neighbors, values::neighbors).unwrap_or_default();
        if let Some((ip, prefix)) = ip {
            if gateway == Some(ip) {
                self.refuse("host.gateway", &host.gateway, "this host's own address; use another's");
            }
            if neighbors.iter().any(|(neighbor, _)| *neighbor == ip) {
                self.refuse("host.neighbors", &host.neighbors, "names this host's own address; leave it out");
            }
            if prefix == 32 && host.gateway.is_none() && host.neighbors.is_none() && !unreadable {
                let reason = "with /32 nobody is on the link, and there is no gateway: nobody could be reached; give --gateway ADDRESS, or gateway in the section [host], or the prefix length of the subnet";
                self.refuse("host.ip", &host.ip, reason);
            }
        }
        let (ip, prefix) = ip.unwrap_or((Ipv4Addr::UNSPECIFIED, 24));

        let cores = self.take("engines.cores", &engines.cores, values::cores).unwrap_or_default();
        let count = self.number("engines.count", &engines.count, 1..=64, cores.len().max(1) as i64);
        if !cores.is_empty() && cores.len() as i64 != count {
            let reason =
                format!("names {} for {count} engines; name one per engine", plural(cores.len(), "core"));
            self.refuse("engines.cores", &engines.cores, &reason);
        }
        let scheduler =
            self.take("engines.scheduler", &engines.scheduler, values::scheduler).unwrap_or_default();
        let usual = match scheduler {
            Scheduler::Normal => Policy::default(),
            Scheduler::RoundRobin => Policy::Block,
        };
        let idle = self.take("engines.idle", &engines.idle, values::policy).unwrap_or(usual);
        if scheduler == Scheduler::RoundRobin && idle != Policy::Block {
            let reason = "a real-time thread that stays ready keeps its core from everybody else; use idle = \"block\" with it";
            self.refuse("engines.scheduler", &engines.scheduler, reason);
        }
        let exclusive = self
            .take("engines.exclusive", &engines.exclusive, values::switch)
            .unwrap_or(idle == Policy::Spin);
        let burst = self.number("engines.burst", &engines.burst, 1..=32, if exclusive { 16 } else { 8 });

        let chosen = self.nic(nic, count, unreadable);
        let mtu = self.number("nic.mtu", &nic.mtu, 576..=9001, 1500);
        let descriptors = self
            .take("nic.descriptors", &nic.descriptors, |v| values::power_of_two(v, 64..=4096))
            .unwrap_or(256);

        let mirrored = self.take("rss.reverse", &rss.reverse, values::reverse).unwrap_or(false);
        let paper = self.take("rss.paper", &rss.paper, values::switch).unwrap_or(false);
        if mirrored && paper {
            self.refuse(
                "rss.paper",
                &rss.paper,
                "the paper has no mirrored form; use reverse = \"own\" with it",
            );
        }

        if let ChosenNic::Xdp(_) = chosen {
            for (key, given) in [
                ("dpdk.hugepages", &dpdk.hugepages),
                ("dpdk.memory_mib", &dpdk.memory_mib),
                ("dpdk.file_prefix", &dpdk.file_prefix),
                ("dpdk.extra_args", &dpdk.extra_args),
            ] {
                if given.is_some() {
                    self.refuse(
                        key,
                        given,
                        "of use to DPDK only, and the NIC is chosen by nic.xdp; leave it out",
                    );
                }
            }
        }
        let huge =
            self.take("dpdk.hugepages", &dpdk.hugepages, values::switch).unwrap_or(chosen.is_physical());
        // A queue needs about 2.5 MiB of buffers at an MTU of 1500 and 10 MiB at 9001, and EAL some itself.
        let usual = 32 + 32 * count;
        let mib = self.number("dpdk.memory_mib", &dpdk.memory_mib, 16..=65536, usual) as u32;
        let own_prefix = || format!("machnetd-{}", std::process::id());
        let keepalive = self.number("timeouts.keepalive_ms", &timeouts.keepalive_ms, 0..=600_000, 1000);
        let interval = self.number("log.stats_interval_s", &log.stats_interval_s, 0..=86_400, 0);

        Config {
            ip,
            prefix,
            gateway,
            neighbors,
            nic: chosen,
            mtu: mtu as u16,
            set_mac: self.take("nic.set_mac", &nic.set_mac, values::mac),
            descriptors: descriptors as u16,
            checksum_offload: self
                .take("nic.checksum_offload", &nic.checksum_offload, values::switch)
                .unwrap_or(true),
            interrupts: self.take("nic.interrupts", &nic.interrupts, values::switch).unwrap_or(true),
            engines: count as u16,
            cores,
            idle,
            scheduler,
            exclusive,
            burst: burst as u16,
            udp_ports: self
                .take("rss.udp_ports", &rss.udp_ports, values::ports)
                .unwrap_or(UDP_PORT..=UDP_PORT + 1023),
            rss_retry: millis(self.number("rss.retry_ms", &rss.retry_ms, 1..=10_000, 10)),
            mirrored,
            paper,
            memory: if huge { Memory::Huge { mib } } else { Memory::NoHuge { mib } },
            file_prefix: self
                .take("dpdk.file_prefix", &dpdk.file_prefix, values::file_prefix)
                .unwrap_or_else(own_prefix),
            extra_args: self.take("dpdk.extra_args", &dpdk.extra_args, values::words).unwrap_or_default(),
            socket: self
                .take("control.socket", &control.socket, values::socket)
                .unwrap_or_else(|| SOCKET.into()),
            owner: self.take("control.owner", &control.owner, values::user),
            group: self.take("control.group", &control.group, values::group),
            mode: self.take("control.mode", &control.mode, values::mode).unwrap_or(0o660),
            max_channels: self.number("control.max_channels", &control.max_channels, 1..=65_535, 1024)
                as usize,
            units: self
                .take("channels.units", &channels.units, |v| values::power_of_two(v, 16..=65_536))
                .unwrap_or(1024) as u32,
            flows: self.number("channels.flows", &channels.flows, 1..=65_536, 256) as u32,
            per_application: self.number(
                "channels.per_application",
                &channels.per_application,
                1..=65_535,
                256,
            ) as usize,
            connect: millis(self.number("timeouts.connect_ms", &timeouts.connect_ms, 1..=600_000, 5000)),
            dead_peer: millis(self.number(
                "timeouts.dead_peer_ms",
                &timeouts.dead_peer_ms,
                10..=600_000,
                2000,
            )),
            no_progress: millis(self.number(
                "timeouts.no_progress_ms",
                &timeouts.no_progress_ms,
                100..=600_000,
                5000,
            )),
            linger: millis(self.number("timeouts.linger_ms", &timeouts.linger_ms, 0..=600_000, 1000)),
            keepalive: (keepalive > 0).then(|| millis(keepalive)),
            log: self.take("log.level", &log.level, values::level).unwrap_or(LevelFilter::Info),
            stats_interval: (interval > 0).then(|| Duration::from_secs(interval as u64)),
            metrics: self.take("metrics.listen", &metrics.listen, values::listener),
        }
    }

    fn take<T>(
        &self,
        key: &str,
        given: &Option<Given>,
        read: impl FnOnce(&Value) -> Reasoned<T>,
    ) -> Option<T> {
        match read(&given.as_ref()?.value) {
            Ok(value) => Some(value),
            Err(reason) => {
                self.refuse(key, given, &reason);
                None
            }
        }
    }

    fn number(&self, key: &str, given: &Option<Given>, range: RangeInclusive<i64>, default: i64) -> i64 {
        self.take(key, given, |value| values::number(value, range)).unwrap_or(default)
    }

    fn refuse(&self, key: &str, given: &Option<Given>, reason: &str) {
        self.note(self.source.refusal(key, given, reason));
    }

    fn note(&self, mistake: Mistake) {
        let mut mistakes = self.mistakes.borrow_mut();
        // What is left of a line that is no TOML says nothing.
        if !mistakes.iter().any(|other| other.syntax && self.source.same_line(other.at, mistake.at)) {
            mistakes.push(mistake);
        }
    }
}

fn millis(n: i64) -> Nanos {
    Nanos::millis(n as u64)
}

/// A number with a noun that has an ordinary plural.
pub fn plural(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// Where applications look when nobody tells them otherwise.
const SOCKET: &str = "/var/run/machnet/machnet.sock";

#[cfg(test)]
mod tests;
