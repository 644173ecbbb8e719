//! The arguments of virtual devices (DPDK's devargs). A driver that is given one argument that it does not know says nothing and
//! ignores all the others too: a memif server with a typo becomes a client at the default socket. So they are compared first.

use super::error::DpdkError;

/// Refuses arguments that the device's driver does not know. Drivers that are not listed here are left to check them.
pub(super) fn check(args: &str) -> Result<(), DpdkError> {
    let bad = |text: String| Err(DpdkError::Config(format!("virtual device {args}: {text}")));
    let mut parts = args.split(',');
    let device = parts.next().unwrap_or_default();
    let driver = device.trim_end_matches(|c: char| c.is_ascii_digit());
    if matches!(driver, "net_af_xdp" | "eth_af_xdp") {
        let name = args.split(',').find_map(|part| part.strip_prefix("iface=")).unwrap_or("DEVICE");
        return bad(format!(
            "DPDK's driver for AF_XDP is not used; give --xdp {name} (nic.xdp) instead of it"
        ));
    }
    let Some((_, known)) = KNOWN.iter().find(|(name, _)| *name == driver) else { return Ok(()) };
    for part in parts {
        let Some((name, _)) = part.split_once('=') else {
            return bad(format!("{part:?}: has no value; write {part}=VALUE"));
        };
        if !known.contains(&name) {
            return bad(format!(
                "{name}: the driver {driver} has no such argument; it has {}",
                known.join(", ")
            ));
        }
    }
    Ok(())
}

/// By driver, as `strings librte_net_X.so` shows them (22.11), and those that came until 25.11.
const KNOWN: [(&str, &[&str]); 7] = [
    (
        "net_memif",
        &[
            "id",
            "role",
            "bsize",
            "rsize",
            "socket",
            "socket-abstract",
            "owner-uid",
            "owner-gid",
            "mac",
            "zero-copy",
            "secret",
        ],
    ),
    ("net_af_packet", &["iface", "qpairs", "blocksz", "framesz", "framecnt", "qdisc_bypass", "fanout_mode"]),
    ("net_tap", &["iface", "remote", "mac", "persist"]),
    ("net_tun", &["iface", "persist"]),
    ("net_null", &["size", "copy", "no-rx"]),
    (
        "net_virtio_user",
        &[
            "path",
            "mac",
            "cq",
            "queue_size",
            "queues",
            "iface",
            "server",
            "mrg_rxbuf",
            "in_order",
            "packed_vq",
            "speed",
            "vectorized",
        ],
    ),
    (
        "net_vhost",
        &[
            "iface",
            "queues",
            "client",
            "dequeue-zero-copy",
            "iommu-support",
            "postcopy-support",
            "tso",
            "linear-buffer",
            "ext-buffer",
            "legacy-ol-flags",
        ],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_that_the_driver_does_not_know_is_named_with_those_it_knows() {
        let said = |args: &str| check(args).unwrap_err().to_string();
        assert_eq!(
            said("net_null0,sise=4"),
            "NIC configuration: virtual device net_null0,sise=4: sise: the driver net_null has no such argument; it has size, copy, no-rx"
        );
        assert!(
            said("net_memif7,role=server,sokcet=/x")
                .contains(": sokcet: the driver net_memif has no such argument")
        );
        assert!(
            said("net_af_xdp0,iface=eth1,start_queue=1")
                .contains(": DPDK's driver for AF_XDP is not used; give --xdp eth1 (nic.xdp)")
        );
        assert!(said("net_tap0,iface").contains("\"iface\": has no value; write iface=VALUE"));
        for good in [
            "net_null0",
            "net_memif0,role=server,id=7,socket=/a,socket-abstract=no",
            "net_ring0,nodeaction=x:0:CREATE",
            "net_new0,whatever",
            "net_af_packet0,iface=eth1,qdisc_bypass=0",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
    }
}
