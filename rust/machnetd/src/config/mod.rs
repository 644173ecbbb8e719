//! What the sidecar is told, from a file and from flags (flags win), checked whole before anything starts.
//!
//! [`settings`] is the one table of keys; [`file`](mod@file) and `args` fill it; [`Config::resolve`] gives it meaning.

pub mod args;
mod file;
pub mod settings;
mod values;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;
use machnet_engine::idle::Policy;
use machnet_nic::dpdk::{Device, Memif, Memory};
use machnet_wire::{Mac, Nanos};
use toml::Value;

pub use file::Source;
use settings::{Given, Origin, Settings};
use values::Reasoned;

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
    pub device: Device,
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
    /// Nothing else runs on the engines' cores.
    pub exclusive: bool,
    /// Frames and units at once, 1..=32.
    pub burst: u16,
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
    /// Silence that ends an attempt to connect.
    pub connect: Nanos,
    /// Silence that ends a connection.
    pub dead_peer: Nanos,
    /// Idle time before a sign of life is asked for; `None`: never.
    pub keepalive: Option<Nanos>,
    /// How much is logged.
    pub log: LevelFilter,
    /// Between two dumps of the counters.
    pub stats_interval: Option<Duration>,
}

impl Config {
    /// Gives the settings their meaning. `source` is the file that some of them came from.
    ///
    /// # Errors
    /// One sentence on the first mistake: where, key, value, and what is allowed.
    pub fn resolve(settings: &Settings, source: &Source) -> Result<Config, String> {
        let reader = Reader { source };
        let Settings { host, nic, engines, dpdk, control, channels, timeouts, log } = settings;

        let Some((ip, prefix)) = reader.take("host.ip", &host.ip, values::address_with_prefix)? else {
            return Err(
                "host.ip is not set; give --ip ADDRESS/PREFIX, or ip in the section [host]".to_owned()
            );
        };
        let gateway = reader.take("host.gateway", &host.gateway, values::address)?;
        if gateway == Some(ip) {
            return Err(reader.refuse(
                "host.gateway",
                &host.gateway,
                "this host's own address; use another's",
            ));
        }
        let neighbors =
            reader.take("host.neighbors", &host.neighbors, values::neighbors)?.unwrap_or_default();

        let cores = reader.take("engines.cores", &engines.cores, values::cores)?.unwrap_or_default();
        let count = reader.number("engines.count", &engines.count, 1..=64, cores.len().max(1) as i64)?;
        if !cores.is_empty() && cores.len() as i64 != count {
            let reason =
                format!("names {} for {count} engines; name one per engine", plural(cores.len(), "core"));
            return Err(reader.refuse("engines.cores", &engines.cores, &reason));
        }
        let idle = reader.take("engines.idle", &engines.idle, values::policy)?.unwrap_or_default();
        let exclusive = reader
            .take("engines.exclusive", &engines.exclusive, values::switch)?
            .unwrap_or(idle == Policy::Spin);
        let burst = reader.number("engines.burst", &engines.burst, 1..=32, if exclusive { 16 } else { 8 })?;

        let device = reader.device(nic, count)?;
        let mtu = reader.number("nic.mtu", &nic.mtu, 576..=9001, 1500)?;
        let descriptors = reader
            .take("nic.descriptors", &nic.descriptors, |v| values::power_of_two(v, 64..=4096))?
            .unwrap_or(256);

        let physical = matches!(device, Device::Pci(_) | Device::Mac(_));
        let huge = reader.take("dpdk.hugepages", &dpdk.hugepages, values::switch)?.unwrap_or(physical);
        // A queue needs about 2.5 MiB of buffers at an MTU of 1500 and 10 MiB at 9001, and EAL some itself.
        let usual = 32 + 32 * count;
        let mib = reader.number("dpdk.memory_mib", &dpdk.memory_mib, 16..=65536, usual)? as u32;
        let own_prefix = || format!("machnetd-{}", std::process::id());
        let keepalive = reader.number("timeouts.keepalive_ms", &timeouts.keepalive_ms, 0..=600_000, 1000)?;
        let interval = reader.number("log.stats_interval_s", &log.stats_interval_s, 0..=86_400, 0)?;

        Ok(Config {
            ip,
            prefix,
            gateway,
            neighbors,
            device,
            mtu: mtu as u16,
            set_mac: reader.take("nic.set_mac", &nic.set_mac, values::mac)?,
            descriptors: descriptors as u16,
            checksum_offload: reader
                .take("nic.checksum_offload", &nic.checksum_offload, values::switch)?
                .unwrap_or(true),
            interrupts: reader.take("nic.interrupts", &nic.interrupts, values::switch)?.unwrap_or(true),
            engines: count as u16,
            cores,
            idle,
            exclusive,
            burst: burst as u16,
            memory: if huge { Memory::Huge { mib } } else { Memory::NoHuge { mib } },
            file_prefix: reader
                .take("dpdk.file_prefix", &dpdk.file_prefix, values::file_prefix)?
                .unwrap_or_else(own_prefix),
            extra_args: reader.take("dpdk.extra_args", &dpdk.extra_args, values::words)?.unwrap_or_default(),
            socket: reader
                .take("control.socket", &control.socket, values::socket)?
                .unwrap_or_else(|| SOCKET.into()),
            owner: reader.take("control.owner", &control.owner, values::user)?,
            group: reader.take("control.group", &control.group, values::group)?,
            mode: reader.take("control.mode", &control.mode, values::mode)?.unwrap_or(0o660),
            max_channels: reader.number("control.max_channels", &control.max_channels, 1..=65_535, 1024)?
                as usize,
            units: reader
                .take("channels.units", &channels.units, |v| values::power_of_two(v, 16..=65_536))?
                .unwrap_or(1024) as u32,
            flows: reader.number("channels.flows", &channels.flows, 1..=65_536, 256)? as u32,
            connect: millis(reader.number("timeouts.connect_ms", &timeouts.connect_ms, 1..=600_000, 5000)?),
            dead_peer: millis(reader.number(
                "timeouts.dead_peer_ms",
                &timeouts.dead_peer_ms,
                10..=600_000,
                2000,
            )?),
            keepalive: (keepalive > 0).then(|| millis(keepalive)),
            log: reader.take("log.level", &log.level, values::level)?.unwrap_or(LevelFilter::Info),
            stats_interval: (interval > 0).then(|| Duration::from_secs(interval as u64)),
        })
    }
}

/// Reads settings, and says where a bad one was written.
struct Reader<'a> {
    source: &'a Source,
}

impl Reader<'_> {
    fn take<T>(
        &self,
        key: &str,
        given: &Option<Given>,
        read: impl FnOnce(&Value) -> Reasoned<T>,
    ) -> Result<Option<T>, String> {
        match given {
            None => Ok(None),
            Some(value) => read(&value.value).map(Some).map_err(|reason| self.refuse(key, given, &reason)),
        }
    }

    fn number(
        &self,
        key: &str,
        given: &Option<Given>,
        range: std::ops::RangeInclusive<i64>,
        default: i64,
    ) -> Result<i64, String> {
        Ok(self.take(key, given, |value| values::number(value, range))?.unwrap_or(default))
    }

    /// `machnetd.toml:7: engines.idle = "fast": reason`, or `--idle fast: reason`.
    fn refuse(&self, key: &str, given: &Option<Given>, reason: &str) -> String {
        match given.as_ref().map(|given| &given.origin) {
            Some(Origin::File(span)) => {
                format!("{}: {key} = {}: {reason}", self.source.place(span), self.source.quote(span))
            }
            Some(Origin::Flag(flag, text)) => format!("{flag} {text}: {reason}"),
            None => format!("{key}: {reason}"),
        }
    }

    fn device(&self, nic: &settings::Nic, engines: i64) -> Result<Device, String> {
        let choices = [("memif", &nic.memif), ("pci", &nic.pci), ("mac", &nic.mac), ("vdev", &nic.vdev)];
        let mut chosen = choices.iter().filter(|(_, given)| given.is_some());
        let Some((first, _)) = chosen.next() else {
            return Err(
                "no NIC is chosen; give one of --memif ROLE:SOCKET, --pci ADDRESS, --mac MAC or --vdev DEVICE, or its key in the section [nic]"
                    .to_owned(),
            );
        };
        if let Some((second, given)) = chosen.next() {
            let reason = format!("nic.{first} chooses a NIC already; use one of memif, pci, mac and vdev");
            return Err(self.refuse(&format!("nic.{second}"), given, &reason));
        }
        if let Some((role, socket)) = self.take("nic.memif", &nic.memif, values::memif)? {
            let peer_queues = self.number("nic.memif_peer_queues", &nic.memif_peer_queues, 1..=16, 1)?;
            if peer_queues * engines > 128 {
                let reason =
                    format!("with {engines} engines that makes more than 128 rings; use fewer of either");
                return Err(self.refuse("nic.memif_peer_queues", &nic.memif_peer_queues, &reason));
            }
            let id = self.number("nic.memif_id", &nic.memif_id, 0..=i64::from(u32::MAX), 0)?;
            // The driver wants it whole; an abstract name begins with @ and is whole. There is no error but an empty path,
            // which `values::memif` refuses.
            let abstract_name = socket.as_os_str().as_encoded_bytes().starts_with(b"@");
            let socket = if abstract_name { socket } else { std::path::absolute(&socket).unwrap_or(socket) };
            return Ok(Device::Memif(Memif {
                id: id as u32,
                peer_queues: peer_queues as u16,
                ..Memif::new(socket, role)
            }));
        }
        for (key, given) in
            [("nic.memif_id", &nic.memif_id), ("nic.memif_peer_queues", &nic.memif_peer_queues)]
        {
            if given.is_some() {
                return Err(self.refuse(
                    key,
                    given,
                    &format!("of use to a memif only, and the NIC is chosen by nic.{first}"),
                ));
            }
        }
        if let Some(address) = self.take("nic.pci", &nic.pci, values::pci)? {
            return Ok(Device::Pci(address));
        }
        if let Some(mac) = self.take("nic.mac", &nic.mac, values::mac)? {
            return Ok(Device::Mac(mac));
        }
        let vdev = self.take("nic.vdev", &nic.vdev, values::text)?;
        Ok(Device::Vdev(vdev.unwrap_or_default()))
    }
}

fn millis(n: i64) -> Nanos {
    Nanos::millis(n as u64)
}

fn plural(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// Where applications look when nobody tells them otherwise.
const SOCKET: &str = "/var/run/machnet/machnet.sock";

#[cfg(test)]
mod tests;
