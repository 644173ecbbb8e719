//! Every setting once: its place in the file, its flag, its default and its one line of help. The file, the flags,
//! `--help` and the test of docs/configuration.md all read this table.

use std::ops::Range;

use serde::Serialize;
use toml::Value;

/// A value as somebody wrote it, and where; what it means is decided in `resolve`.
#[derive(Debug, Clone, PartialEq)]
pub struct Given {
    /// Where.
    pub set_by: SetBy,
    /// What was written.
    pub value: Value,
}

/// Where a value was written.
#[derive(Debug, Clone, PartialEq)]
pub enum SetBy {
    /// These bytes of the file.
    File(Range<usize>),
    /// This flag, with this text.
    Flag(&'static str, String),
}

/// One setting.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Key {
    /// The section of the file.
    pub section: &'static str,
    /// The key in that section.
    pub name: &'static str,
    /// The flag.
    pub flag: &'static str,
    /// The form of its value.
    pub kind: Kind,
    /// What stands for the value in `--help`.
    pub form: &'static str,
    /// What it is when not given.
    pub default: &'static str,
    /// One line.
    pub help: &'static str,
}

/// How a flag's text becomes the value that the file would hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// As it is.
    Text,
    /// A whole number.
    Number,
    /// `true` or `false`.
    Switch,
    /// Whole numbers with commas between them.
    Numbers,
    /// One word per use of the flag, which may be repeated.
    Words,
    /// One `name=value` per use of the flag, which may be repeated.
    Pairs,
}

impl Key {
    /// The flag's text as the value that the file would hold. What does not fit stays text, and is refused by the one
    /// who wants to use it, with the range at hand.
    fn value(&self, text: &str, before: Option<Value>) -> Value {
        let number = |text: &str| text.trim().parse().map_or(Value::String(text.to_owned()), Value::Integer);
        match self.kind {
            Kind::Text => Value::String(text.to_owned()),
            Kind::Number => number(text),
            Kind::Switch => text.parse().map_or(Value::String(text.to_owned()), Value::Boolean),
            Kind::Numbers => Value::Array(text.split(',').map(number).collect()),
            Kind::Words => {
                let mut words = before.and_then(|v| v.as_array().cloned()).unwrap_or_default();
                words.push(Value::String(text.to_owned()));
                Value::Array(words)
            }
            Kind::Pairs => {
                let mut pairs = before.and_then(|v| v.as_table().cloned()).unwrap_or_default();
                let (name, value) = text.split_once('=').unwrap_or((text, ""));
                pairs.insert(name.trim().to_owned(), Value::String(value.trim().to_owned()));
                Value::Table(pairs)
            }
        }
    }
}

macro_rules! settings {
    ($($section:ident: $Section:ident { $($name:ident: $flag:literal $kind:ident $form:literal, $default:literal, $help:literal;)+ })+) => {
        /// What was given, by section. Absent: the default.
        #[derive(Debug, Clone, Default)]
        pub struct Settings { $(#[doc = concat!("`[", stringify!($section), "]`")] pub $section: $Section,)+ }

        $(
            #[doc = concat!("`[", stringify!($section), "]`")]
            #[derive(Debug, Clone, Default)]
            pub struct $Section { $(#[doc = $help] pub $name: Option<Given>,)+ }
        )+

        /// Every setting, in the order of the documentation.
        pub const KEYS: &[Key] = &[$($(Key {
            section: stringify!($section), name: stringify!($name), flag: $flag, kind: Kind::$kind, form: $form,
            default: $default, help: $help,
        },)+)+];

        impl Settings {
            fn slot(&mut self, key: &Key) -> Option<&mut Option<Given>> {
                $(if key.section == stringify!($section) {
                    return match key.name { $(stringify!($name) => Some(&mut self.$section.$name),)+ _ => None };
                })+
                None
            }
        }
    };
}

settings! {
    host: Host {
        ip: "--ip" Text "ADDRESS/PREFIX", "none, must be given", "this host's IPv4 address and its subnet";
        gateway: "--gateway" Text "ADDRESS", "none", "where packets for other subnets go";
        neighbors: "--neighbor" Pairs "ADDRESS=MAC", "none", "a host known for good, without ARP; may be repeated";
    }
    nic: Nic {
        memif: "--memif" Text "ROLE:SOCKET", "none", "shared memory to another sidecar; ROLE is server or client";
        pci: "--pci" Text "ADDRESS", "none", "the NIC at this PCI address, such as 0000:00:05.0";
        mac: "--mac" Text "MAC", "none", "the NIC with this MAC address";
        vdev: "--vdev" Text "DEVICE", "none", "a virtual device in DPDK's words, such as net_af_packet0,iface=veth0";
        xdp: "--xdp" Text "DEVICE", "none", "a network device that the kernel keeps, such as eth0, by AF_XDP sockets";
        xdp_mode: "--xdp-mode" Text "MODE", "auto", "auto: the fastest way that the device has; zero-copy or copy: that way or none";
        memif_id: "--memif-id" Number "N", "0", "the interface's number on the memif socket, 0 to 255, the same at both ends";
        memif_peer_queues: "--memif-peer-queues" Number "N", "1", "how many engines the other end of the memif has";
        mtu: "--mtu" Number "BYTES", "1500", "the largest IP packet, 576 to 9001";
        set_mac: "--set-mac" Text "MAC", "the device's", "the MAC address to use instead of the device's own";
        descriptors: "--descriptors" Number "N", "256", "ring entries per queue and direction, a power of two, 64 to 4096";
        checksum_offload: "--checksum-offload" Switch "BOOL", "true", "use the NIC's checksums where it offers them";
        interrupts: "--interrupts" Switch "BOOL", "true", "sleep on the NIC's receive interrupts where it has them";
    }
    engines: Engines {
        count: "--engines" Number "N", "1, or one per core", "engines, each with a thread and a NIC queue, 1 to 64";
        cores: "--cores" Numbers "N,N...", "not pinned", "the core of each engine";
        idle: "--idle" Text "POLICY", "adaptive, or block with rr", "how engines wait for work: spin, yield, adaptive or block";
        scheduler: "--scheduler" Text "NAME", "normal", "how the kernel schedules engines: normal, or rr with idle block";
        exclusive: "--exclusive" Switch "BOOL", "true if idle is spin", "nothing else runs on the engines' cores";
        burst: "--burst" Number "N", "8, or 16 if exclusive", "frames and units taken at once, 1 to 32";
    }
    rss: Rss {
        udp_ports: "--udp-ports" Text "FIRST-LAST", "31580-32603", "UDP ports, source and destination, of what leaves here, 1 to 65535";
        retry_ms: "--rss-retry" Number "MS", "10", "time until a missed queue is tried for again, 1 to 10000 ms";
        reverse: "--reverse" Text "FORM", "own", "pairs of answers: own, or mirrored where only replies get in";
        paper: "--paper" Switch "BOOL", "false", "set-up as in the paper, to compare: no hand-over, 300 ms retry";
    }
    dpdk: Dpdk {
        hugepages: "--hugepages" Switch "BOOL", "true for pci and mac", "keep packet buffers in huge pages";
        memory_mib: "--memory" Number "MIB", "32 + 32 per engine", "memory for packet buffers, 16 to 65536 MiB";
        file_prefix: "--file-prefix" Text "NAME", "machnetd-PID", "DPDK's name for this process on this machine";
        extra_args: "--dpdk-arg" Words "ARG", "none", "passed to DPDK as it is; may be repeated";
    }
    control: Control {
        socket: "--socket" Text "PATH", "/var/run/machnet/machnet.sock", "the socket at which applications attach";
        owner: "--owner" Text "USER", "the process's", "the socket's owner, by name or number";
        group: "--group" Text "GROUP", "the process's", "the socket's group, by name or number";
        mode: "--mode" Text "OCTAL", "0660", "the socket's permissions: who may write may attach";
        max_channels: "--max-channels" Number "N", "1024", "applications attached at once, however many channels each has, 1 to 65535";
    }
    channels: Channels {
        units: "--units" Number "N", "1024", "packets in flight per channel and direction, a power of two, 16 to 65536";
        flows: "--flows" Number "N", "256", "connections per channel, 1 to 65536";
        per_application: "--channels-per-application" Number "N", "256", "channels that one application may have, 1 to 65535";
    }
    timeouts: Timeouts {
        connect_ms: "--connect-timeout" Number "MS", "5000", "silence that ends a connection attempt, 1 to 600000 ms";
        dead_peer_ms: "--dead-peer" Number "MS", "2000", "silence that ends a connection in use, 10 to 600000 ms";
        no_progress_ms: "--no-progress" Number "MS", "5000", "time without progress that ends a connection, 100 to 600000 ms";
        keepalive_ms: "--keepalive" Number "MS", "1000", "idle time before a peer is asked for a sign of life; 0: never";
        linger_ms: "--linger" Number "MS", "1000", "time to deliver what was sent before an exit; 0: none";
    }
    log: Log {
        level: "--log" Text "LEVEL", "info", "off, error, warn, info, debug or trace";
        stats_interval_s: "--stats-interval" Number "S", "0", "seconds between two dumps of the counters; 0: none";
    }
    metrics: Metrics {
        listen: "--metrics" Text "ADDRESS:PORT", "none", "serve /metrics for Prometheus there, such as 127.0.0.1:9464";
    }
}

impl Settings {
    /// The setting behind a flag.
    pub fn flag(name: &str) -> Option<&'static Key> {
        KEYS.iter().find(|key| key.flag == name)
    }

    /// Takes what the file says.
    pub fn write(&mut self, key: &Key, at: Range<usize>, value: Value) {
        if let Some(slot) = self.slot(key) {
            *slot = Some(Given { set_by: SetBy::File(at), value });
        }
    }

    /// Takes a flag; it replaces what the file says, and adds to an earlier use where the flag may be repeated.
    pub fn set(&mut self, key: &'static Key, text: &str) {
        let Some(slot) = self.slot(key) else { return };
        let before = match slot.take() {
            Some(Given { set_by: SetBy::Flag(..), value }) => Some(value),
            _ => None,
        };
        let set_by = SetBy::Flag(key.flag, text.to_owned());
        *slot = Some(Given { set_by, value: key.value(text, before) });
    }
}
