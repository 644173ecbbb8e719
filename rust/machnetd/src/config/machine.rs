//! Whether this machine can do what the settings say: what cannot work is refused before anything starts, what is
//! doubtful is told once. The same for `--check` and for a real start.

use std::io;
use std::net::Ipv4Addr;

use machnet_engine::idle::Policy;
use machnet_nic::Memory;

use super::args::Loaded;
use super::settings::Given;
use super::{ChosenNic, Config, Mistake, nic, plural};
use crate::{CONTROL, ENGINE, NIC};
use crate::{metrics, pins, scheduling, socket, start};

/// What came of looking.
#[derive(Debug, Default)]
pub struct Findings {
    /// It cannot work.
    pub mistakes: Vec<Mistake>,
    /// It can, but hardly as it was meant. Each a sentence with the next step.
    pub doubts: Vec<String>,
}

/// Looks at the machine. Nothing is left changed.
pub fn look(loaded: &Loaded) -> Findings {
    let Loaded { config, settings, source } = loaded;
    let mut found = Findings::default();
    let refusal = |key: &str, given: &Option<Given>, reason: &str| source.refusal(key, given, reason);
    let mut refuse = |code, mistake: Mistake| found.mistakes.push(Mistake { code, ..mistake });

    for &core in &config.cores {
        if let Err(error) = run_on(core) {
            let reason = format!(
                "core {core} cannot be had: {error}; this machine has {}, and a container may have fewer",
                online()
            );
            refuse(ENGINE, refusal("engines.cores", &settings.engines.cores, &reason));
        }
    }
    if let Err(error) = scheduling::try_out(config.scheduler) {
        let reason = format!("engines may have no real-time priority: {error}; {}", scheduling::REMEDY);
        refuse(ENGINE, refusal("engines.scheduler", &settings.engines.scheduler, &reason));
    }
    if let Err(reason) = socket::try_folder(&config.socket, config.access()) {
        refuse(CONTROL, refusal("control.socket", &settings.control.socket, &reason));
    }
    if let Some(Err(reason)) = config.metrics.map(metrics::try_listen) {
        refuse(CONTROL, refusal("metrics.listen", &settings.metrics.listen, &reason));
    }
    let (key, given) = nic::chosen(&settings.nic).next().unwrap_or(("nic", &None));
    let nic = start::examine_nic(config).unwrap_or_else(|reason| {
        refuse(NIC, refusal(key, given, &reason));
        Vec::new()
    });

    let mut doubt = |key: &str, given: &Option<Given>, reason: &str| {
        found.doubts.push(source.refusal(key, given, reason).text);
    };
    for reason in nic {
        doubt(key, given, &reason);
    }
    let host = &settings.host;
    if let Some(reason) = odd_host(config.ip, config.prefix) {
        doubt("host.ip", &host.ip, reason);
    }
    if let Some(gateway) = config.gateway
        && same_subnet(config, gateway)
        && let Some(reason) = odd_host(gateway, config.prefix)
    {
        doubt("host.gateway", &host.gateway, reason);
    }
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    if config.idle == Policy::Spin && usize::from(config.engines) > cores {
        let reason = format!(
            "{} that spin share {}: each waits while another looks at nothing; use fewer, or another policy",
            plural(config.engines.into(), "engine"),
            plural(cores, "core")
        );
        doubt("engines.idle", &settings.engines.idle, &reason);
    }
    if let (ChosenNic::Dpdk(_), Some(reason)) = (&config.nic, too_much(&config.memory)) {
        doubt("dpdk.memory_mib", &settings.dpdk.memory_mib, &reason);
    }
    found
}

/// Why an address is hardly that of a host.
fn odd_host(ip: Ipv4Addr, prefix: u8) -> Option<&'static str> {
    let host = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
    match ip.to_bits() & host {
        _ if ip.is_loopback() => {
            Some("a loopback address, which other hosts take for themselves; use one of the link's subnet")
        }
        // With /31 and /32 every address is a host's (RFC 3021).
        0 if prefix < 31 => {
            Some("the first address of its subnet names the subnet; use one between the first and the last")
        }
        bits if bits == host && prefix < 31 => Some(
            "the last address of its subnet is the broadcast address; use one between the first and the last",
        ),
        _ => None,
    }
}

fn same_subnet(config: &Config, ip: Ipv4Addr) -> bool {
    let host = u32::MAX.checked_shr(config.prefix.into()).unwrap_or(0);
    config.ip.to_bits() | host == ip.to_bits() | host
}

/// Why so much memory will hardly be had.
fn too_much(memory: &Memory) -> Option<String> {
    match *memory {
        Memory::NoHuge { mib } => {
            let text = std::fs::read_to_string("/proc/meminfo").ok()?;
            let kib =
                text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.split_whitespace().next()?;
            let all = kib.parse::<u64>().ok()? / 1024;
            (u64::from(mib) > all).then(|| {
                format!("{mib} MiB are more than the {all} MiB of this machine: it ends when they are used; ask for less")
            })
        }
        Memory::Huge { mib } => {
            let free = free_huge_mib()?;
            (u64::from(mib) > free).then(|| {
                format!("{mib} MiB of huge pages are asked for and {free} MiB are free; reserve more (vm.nr_hugepages), or ask for less")
            })
        }
    }
}

fn free_huge_mib() -> Option<u64> {
    let sizes = std::fs::read_dir("/sys/kernel/mm/hugepages").ok()?;
    let each = sizes.flatten().filter_map(|size| {
        let kib: u64 =
            size.file_name().to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        let free: u64 =
            std::fs::read_to_string(size.path().join("free_hugepages")).ok()?.trim().parse().ok()?;
        Some(free * kib / 1024)
    });
    Some(each.sum())
}

/// Whether this process may run on a core: the calling thread goes there and comes back. A mask that was read is no
/// answer, since it may be widened.
fn run_on(core: usize) -> io::Result<()> {
    let before = pins::allowed(0);
    pins::bind(0, &[core])?;
    pins::bind(0, &before)
}

/// The cores of this machine, as the kernel lists them.
fn online() -> String {
    match std::fs::read_to_string("/sys/devices/system/cpu/online") {
        Ok(list) => format!("cores {}", list.trim()),
        Err(_) => "other cores (see nproc)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_no_host_has_are_told_apart() {
        let odd = |text: &str| {
            let (ip, prefix) = text.split_once('/').unwrap();
            odd_host(ip.parse().unwrap(), prefix.parse().unwrap())
                .map(|reason| reason.split(' ').nth(1).unwrap())
        };
        for (address, word) in [
            ("10.0.0.1/24", None),
            ("10.0.0.0/24", Some("first")),
            ("10.0.0.255/24", Some("last")),
            ("10.0.1.0/23", None),
            ("10.0.1.255/23", Some("last")),
            ("10.0.0.0/31", None),
            ("10.0.0.1/31", None),
            ("10.0.0.0/32", None),
            ("127.0.0.1/8", Some("loopback")),
            ("127.0.0.1/32", Some("loopback")),
        ] {
            assert_eq!(odd(address), word, "{address}");
        }
    }

    #[test]
    fn a_look_at_a_core_leaves_the_thread_where_it_was() {
        let allowed = || {
            std::fs::read_to_string("/proc/thread-self/status")
                .unwrap()
                .lines()
                .find(|line| line.starts_with("Cpus_allowed_list"))
                .unwrap()
                .to_owned()
        };
        let before = allowed();
        assert!(run_on(1023).is_err());
        let first: usize = before.split([':', ',', '-']).nth(1).unwrap().trim().parse().unwrap();
        run_on(first).unwrap();
        assert_eq!(allowed(), before);
    }

    #[test]
    fn memory_beyond_the_machines_is_told() {
        assert_eq!(too_much(&Memory::NoHuge { mib: 64 }), None);
        let reason = too_much(&Memory::NoHuge { mib: u32::MAX }).unwrap();
        assert!(reason.starts_with("4294967295 MiB are more than the "), "{reason}");
    }
}
