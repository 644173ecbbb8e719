//! What is known of a sidecar's settings and of its NIC, as JSON: the answer to `about`, and what `--check --json` prints. Programs that
//! help people (`machnet doctor`) read it instead of reading the settings a second time.

use std::net::Ipv4Addr;
use std::path::Path;

use machnet_engine::idle::Policy;
use machnet_nic::{Device, Info, Memory};
use serde::Serialize;

use crate::config::machine::Findings;
use crate::config::{ChosenNic, Config, Mistake};

/// Settings, as they are in force.
#[derive(Debug, Serialize)]
pub struct Settings<'a> {
    ip: Ipv4Addr,
    prefix: u8,
    gateway: Option<Ipv4Addr>,
    /// By which key the NIC is chosen, such as `pci`, and the value, such as `0000:00:05.0`.
    nic: (&'static str, String),
    mtu: u16,
    descriptors: u16,
    checksum_offload: bool,
    engines: u16,
    cores: &'a [usize],
    idle: &'static str,
    exclusive: bool,
    /// First and last.
    udp_ports: (u16, u16),
    reverse: &'static str,
    hugepages: bool,
    memory_mib: u32,
    socket: &'a Path,
}

impl<'a> From<&'a Config> for Settings<'a> {
    fn from(config: &'a Config) -> Settings<'a> {
        let (hugepages, memory_mib) = match config.memory {
            Memory::Huge { mib } => (true, mib),
            Memory::NoHuge { mib } => (false, mib),
        };
        Settings {
            ip: config.ip,
            prefix: config.prefix,
            gateway: config.gateway,
            nic: match &config.nic {
                ChosenNic::Dpdk(Device::Memif(link)) => ("memif", link.socket.display().to_string()),
                ChosenNic::Dpdk(Device::Pci(address)) => ("pci", address.clone()),
                ChosenNic::Dpdk(Device::Mac(mac)) => ("mac", mac.to_string()),
                ChosenNic::Dpdk(Device::Vdev(args)) => ("vdev", args.clone()),
                ChosenNic::Xdp(xdp) => ("xdp", xdp.interface.clone()),
            },
            mtu: config.mtu,
            descriptors: config.descriptors,
            checksum_offload: config.checksum_offload,
            engines: config.engines,
            cores: &config.cores,
            idle: match config.idle {
                Policy::Spin => "spin",
                Policy::Yield => "yield",
                Policy::Adaptive => "adaptive",
                Policy::Block => "block",
            },
            exclusive: config.exclusive,
            udp_ports: (*config.udp_ports.start(), *config.udp_ports.end()),
            reverse: if config.mirrored { "mirrored" } else { "own" },
            hugepages,
            memory_mib,
            socket: &config.socket,
        }
    }
}

/// A running sidecar's answer to `about`.
#[derive(Debug, Serialize)]
pub struct About<'a> {
    machnetd: &'static str,
    pid: u32,
    dpdk: String,
    /// The version of the channel, which applications must have, too.
    channel: u32,
    settings: Settings<'a>,
    nic: Nic<'a>,
}

/// The NIC as it was opened, which may be less than was asked for.
#[derive(Debug, Serialize)]
struct Nic<'a> {
    driver: &'a str,
    mac: String,
    mtu: u16,
    queues: u16,
    descriptors: u16,
    tx_checksum: bool,
    rx_checksum: bool,
    interrupts: bool,
}

impl<'a> About<'a> {
    /// Of this process.
    pub fn new(config: &'a Config, driver: &'a str, nic: &Info) -> About<'a> {
        About {
            machnetd: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            dpdk: machnet_nic::dpdk::version(),
            channel: machnet_shm::ABI_VERSION,
            settings: config.into(),
            nic: Nic {
                driver,
                mac: nic.mac.to_string(),
                mtu: nic.mtu,
                queues: nic.queues,
                descriptors: nic.descriptors,
                tx_checksum: nic.tx_checksum,
                rx_checksum: nic.rx_checksum,
                interrupts: nic.interrupts,
            },
        }
    }
}

/// What `--check --json` prints, in one line.
#[derive(Debug, Serialize)]
struct Checked<'a> {
    version: u32,
    machnetd: &'static str,
    dpdk: String,
    /// Of NICs; `None` where they are linked in.
    drivers: Option<Vec<String>>,
    channel: u32,
    /// `None` where they hold mistakes.
    settings: Option<Settings<'a>>,
    mistakes: Vec<Told<'a>>,
    warnings: Vec<&'a str>,
}

/// A mistake, and what a start would end with for it: the exit codes of docs/configuration.md.
#[derive(Debug, Serialize)]
struct Told<'a> {
    code: u8,
    text: &'a str,
}

impl<'a> From<&'a Mistake> for Told<'a> {
    fn from(mistake: &'a Mistake) -> Told<'a> {
        Told { code: mistake.code, text: &mistake.text }
    }
}

/// The document of `--check --json`: settings, if they are right in themselves, and what came of looking.
pub fn checked(config: Option<&Config>, mistakes: &[Mistake], warnings: &[String]) -> String {
    let document = Checked {
        version: 1,
        machnetd: env!("CARGO_PKG_VERSION"),
        dpdk: machnet_nic::dpdk::version(),
        drivers: machnet_nic::dpdk::drivers(),
        channel: machnet_shm::ABI_VERSION,
        settings: config.map(Settings::from),
        mistakes: mistakes.iter().map(Told::from).collect(),
        warnings: warnings.iter().map(String::as_str).collect(),
    };
    serde_json::to_string(&document).unwrap_or_else(|error| unreachable!("names, numbers and texts: {error}"))
        + "\n"
}

impl Findings {
    /// The same of what was found on this machine.
    pub fn json(&self, config: &Config) -> String {
        checked(Some(config), &self.mistakes, &self.doubts)
    }
}
