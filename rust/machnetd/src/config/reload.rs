//! Which settings a running sidecar takes anew, and which wait for the next start.

use super::Config;

/// One part of the configuration and the settings that make it up.
struct Part {
    /// `section.name`.
    keys: &'static [&'static str],
    same: fn(&Config, &Config) -> bool,
    /// How, where a running sidecar can.
    take: Option<fn(&mut Config, &Config)>,
}

/// What a reload comes to, by keys.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// In force from now on.
    pub taken: Vec<&'static str>,
    /// Kept as they were until the next start.
    pub kept: Vec<&'static str>,
}

/// Takes over what `new` has changed and a running sidecar can.
pub fn take(config: &mut Config, new: &Config) -> Changes {
    let mut changes = Changes::default();
    for part in PARTS {
        if (part.same)(config, new) {
            continue;
        }
        match part.take {
            Some(take) => {
                take(config, new);
                changes.taken.extend(part.keys);
            }
            None => changes.kept.extend(part.keys),
        }
    }
    changes
}

macro_rules! parts {
    ($($when:ident: $($key:literal)+ => $($field:ident)+;)+) => {
        &[$(Part {
            keys: &[$($key),+],
            same: |old, new| true $(&& old.$field == new.$field)+,
            take: parts!(@$when $($field)+),
        },)+]
    };
    (@live $($field:ident)+) => { Some(|to, from| { $(to.$field = from.$field.clone();)+ }) };
    (@start $($field:ident)+) => { None };
}

/// Every setting, in the order of the documentation.
const PARTS: &[Part] = parts! {
    start: "host.ip" => ip prefix;
    start: "host.gateway" => gateway;
    live: "host.neighbors" => neighbors;
    start: "nic.memif" "nic.pci" "nic.mac" "nic.vdev" "nic.xdp" "nic.xdp_mode" "nic.memif_id" "nic.memif_peer_queues" => nic;
    start: "nic.mtu" => mtu;
    start: "nic.set_mac" => set_mac;
    start: "nic.descriptors" => descriptors;
    start: "nic.checksum_offload" => checksum_offload;
    start: "nic.interrupts" => interrupts;
    start: "engines.count" => engines;
    start: "engines.cores" => cores;
    start: "engines.idle" => idle;
    start: "engines.scheduler" => scheduler;
    start: "engines.exclusive" => exclusive;
    start: "engines.burst" => burst;
    start: "rss.udp_ports" => udp_ports;
    start: "rss.retry_ms" => rss_retry;
    start: "rss.reverse" => mirrored;
    start: "rss.paper" => paper;
    start: "dpdk.hugepages" "dpdk.memory_mib" => memory;
    start: "dpdk.file_prefix" => file_prefix;
    start: "dpdk.extra_args" => extra_args;
    start: "control.socket" => socket;
    live: "control.owner" => owner;
    live: "control.group" => group;
    live: "control.mode" => mode;
    live: "control.max_channels" => max_channels;
    live: "channels.units" => units;
    live: "channels.flows" => flows;
    live: "channels.per_application" => per_application;
    live: "timeouts.connect_ms" => connect;
    start: "timeouts.dead_peer_ms" => dead_peer;
    start: "timeouts.no_progress_ms" => no_progress;
    start: "timeouts.keepalive_ms" => keepalive;
    start: "timeouts.linger_ms" => linger;
    live: "log.level" => log;
    live: "log.stats_interval_s" => stats_interval;
    start: "metrics.listen" => metrics;
};

#[cfg(test)]
mod tests {
    use super::super::settings::KEYS;
    use super::*;

    #[test]
    fn every_setting_is_in_one_part_and_in_the_table_of_the_documentation() {
        let all: Vec<&str> = PARTS.iter().flat_map(|part| part.keys.iter().copied()).collect();
        let known: Vec<String> = KEYS.iter().map(|key| format!("{}.{}", key.section, key.name)).collect();
        assert_eq!(all, known);

        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
        let page = std::fs::read_to_string(page).expect("docs/configuration.md");
        let table =
            page.split("## Reload\n").nth(1).expect("a section on reloading").split("\n## ").next().unwrap();
        let rows: Vec<&str> =
            table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
        let live: Vec<&str> = PARTS
            .iter()
            .filter(|part| part.take.is_some())
            .flat_map(|part| part.keys.iter().copied())
            .collect();
        assert_eq!(rows, live);
    }
}
