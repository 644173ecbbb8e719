//! What can be known before anything is opened: most of what would be refused, in plain words, and what would start and hardly do
//! what was meant.

use super::error::XdpError;
use super::{Xdp, XdpMode};
use crate::PortConfig;
use crate::kernel::{self, KernelDevice};
use std::net::Ipv4Addr;

/// Looks at the device and opens nothing. Returns what is doubtful, a sentence each.
///
/// # Errors
/// What [`open`](super::open) would be refused for, as far as looking tells.
pub fn examine(asked: &Xdp, config: &PortConfig, ip: Ipv4Addr) -> Result<Vec<String>, XdpError> {
    config.check().map_err(XdpError::Config)?;
    let device = fits(asked, config)?;
    let name = &asked.interface;
    if let Some(capability) = missing() {
        return Err(XdpError::NeedsCapability { device: name.clone(), capability });
    }
    if kernel::addresses(name).contains(&ip) {
        return Err(XdpError::Config(format!(
            "AF_XDP on {name}: the kernel has {ip} there, and its own traffic would go to the sidecar; give the sidecar an address of its own (in a cloud a secondary private address of this NIC, which the kernel is not told of), or take it from the kernel (ip address del {ip}/PREFIX dev {name})"
        )));
    }
    let mut doubts = Vec::new();
    if !device.up {
        doubts.push(format!("{name} is down: nothing can be sent or received (ip link set dev {name} up)"));
    }
    if asked.mode != XdpMode::Copy && device.mtu > NATIVE_MTU {
        doubts.push(format!(
            "{name} has an MTU of {}, with which most drivers cannot run XDP programs themselves, and the kernel's slower generic way is left; up to {NATIVE_MTU} they can (ip link set dev {name} mtu {NATIVE_MTU})",
            device.mtu
        ));
    }
    Ok(doubts)
}

/// The device, if it has what is asked for.
pub(super) fn fits(asked: &Xdp, config: &PortConfig) -> Result<KernelDevice, XdpError> {
    let name = &asked.interface;
    let gone = |_| XdpError::NoSuchDevice(name.clone());
    let device = kernel::look(name).map_err(gone)?;
    let queues = kernel::receive_queues(name).map_err(gone)?;
    let (engines, mtu) = (u32::from(config.queues), u32::from(config.mtu));
    let no = |text: String| Err(XdpError::Config(format!("AF_XDP on {name}: {text}")));
    if config.mac.is_some_and(|mac| mac != device.mac) {
        return no(
            "the kernel has the same device, and one MAC address is for both; leave set_mac out".to_owned()
        );
    }
    if mtu > MOST_MTU {
        return no(format!(
            "an MTU of {mtu}: a frame has to fit a page with what the kernel keeps there, which leaves 576 to {MOST_MTU}; use that, or --vdev net_af_packet0,iface={name}, which carries 9001"
        ));
    }
    if device.mtu < mtu {
        return no(format!(
            "it carries packets of at most {} bytes, which is less than the MTU of {mtu}; use that, or raise it at both ends of the link (ip link set dev {name} mtu {mtu})",
            device.mtu
        ));
    }
    if queues != engines {
        let so_many = if engines > queues {
            "more engines than that have nothing to read".to_owned()
        } else {
            format!("frames for us on the {} others would go to the kernel and be lost", queues - engines)
        };
        return no(format!(
            "{} for {}: {so_many}; use --engines {queues}, or change the device (ethtool -L {name} combined {engines}, or rx {engines} where it counts them apart; ethtool -l {name} shows which)",
            plural(queues, "receive queue"),
            plural(engines, "engine"),
        ));
    }
    Ok(device)
}

/// The first capability that this process needs and lacks.
fn missing() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    lacking(u64::from_str_radix(line.trim(), 16).ok()?)
}

fn lacking(effective: u64) -> Option<String> {
    let has = |number: u32| effective >> number & 1 == 1;
    let lacks = |(name, held): &(&str, bool)| (!held).then(|| (*name).to_owned());
    [
        ("CAP_NET_ADMIN", has(CAP_NET_ADMIN)),
        ("CAP_NET_RAW", has(CAP_NET_RAW)),
        ("CAP_BPF", has(CAP_BPF) || has(CAP_SYS_ADMIN)),
    ]
    .iter()
    .find_map(lacks)
}

fn plural(n: u32, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// linux/capability.h.
const CAP_NET_ADMIN: u32 = 12;
const CAP_NET_RAW: u32 = 13;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_BPF: u32 = 39;

/// The largest IP packet: a page of 4096 bytes without XDP's headroom (256) and Ethernet's header (14).
const MOST_MTU: u32 = 4096 - 256 - 14;
/// What drivers that keep a frame in one page can do: the page without XDP's headroom (256), the end that becomes the kernel's
/// `skb_shared_info` (320), Ethernet's header and two VLAN tags (22). ENA says 3498, i40e and veth a little more.
const NATIVE_MTU: u32 = 3498;

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(asked: &Xdp, config: &PortConfig) -> String {
        examine(asked, config, Ipv4Addr::new(10, 0, 0, 1)).unwrap_err().to_string()
    }

    #[test]
    fn what_the_device_does_not_have_is_refused_with_the_bound_and_the_next_step() {
        let usual = PortConfig::default();
        let lo = |config: PortConfig| refused(&Xdp::new("lo"), &config);
        let none = refused(&Xdp::new("nonesuch9"), &usual);
        assert!(none.starts_with("find the device nonesuch9 for AF_XDP"), "{none}");
        let said = lo(PortConfig { mtu: 9001, ..usual.clone() });
        assert!(said.contains("an MTU of 9001") && said.contains("576 to 3826"), "{said}");
        let said = lo(PortConfig { queues: 2, ..usual.clone() });
        assert!(said.contains("1 receive queue for 2 engines") && said.contains("--engines 1"), "{said}");
        let said = lo(PortConfig { mac: Some(machnet_wire::Mac([2, 0, 0, 0, 0, 1])), ..usual.clone() });
        assert!(said.contains("leave set_mac out"), "{said}");
        let said = lo(PortConfig { descriptors: 100, ..usual });
        assert!(said.contains("descriptors 100"), "{said}");
    }

    #[test]
    fn the_first_capability_that_is_missing_is_named() {
        let of = |numbers: &[u32]| lacking(numbers.iter().fold(0, |all, n| all | 1 << n));
        assert_eq!(of(&[]).as_deref(), Some("CAP_NET_ADMIN"));
        assert_eq!(of(&[CAP_NET_ADMIN]).as_deref(), Some("CAP_NET_RAW"));
        assert_eq!(of(&[CAP_NET_ADMIN, CAP_NET_RAW]).as_deref(), Some("CAP_BPF"));
        assert_eq!(of(&[CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF]), None);
        assert_eq!(of(&[CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN]), None);
    }
}
