//! DPDK's functions about devices and ports, with Rust's types and with the words of its log as reasons.

use super::error::DpdkError;
use super::log::Mark;
use std::ffi::{CStr, CString, c_char};

/// Creates a virtual device; `args` begins with its name. Returns its port number.
pub(super) fn create_vdev(args: &str) -> Result<u16, DpdkError> {
    let mark = Mark::now();
    let (device, rest) = args.split_once(',').unwrap_or((args, ""));
    let unknown = || DpdkError::UnknownVdev { vdev: args.to_owned(), detail: none_if_silent(&mark) };
    match init_vdev(device, rest) {
        Ok(()) => port_by_name(device).map_err(|_| unknown()),
        Err(libc::EEXIST) => Err(DpdkError::Config(format!("virtual device {device}: the name is taken"))),
        Err(_) => Err(match not_permitted(&mark) {
            Some(said) => DpdkError::NoPermission(format!("create {device}: {said}")),
            None => unknown(),
        }),
    }
}

/// The error is an errno.
fn init_vdev(name: &str, args: &str) -> Result<(), i32> {
    let c = |text| CString::new(text).map_err(|_| libc::EINVAL);
    let (name, args) = (c(name)?, c(args)?);
    // SAFETY: C strings, copied by the callee; EAL runs.
    match unsafe { dpdk_sys::mdpdk_vdev_init(name.as_ptr(), args.as_ptr()) } {
        0 => Ok(()),
        errno => Err(-errno),
    }
}

/// Has EAL look for a device. The error is an errno.
pub(super) fn probe(devargs: &str) -> Result<(), i32> {
    let devargs = CString::new(devargs).map_err(|_| libc::EINVAL)?;
    // SAFETY: a C string, copied by the callee; EAL runs.
    match unsafe { dpdk_sys::mdpdk_probe(devargs.as_ptr()) } {
        0 => Ok(()),
        errno => Err(-errno),
    }
}

/// The port number of a device that EAL has found. The error is an errno.
pub(super) fn port_by_name(device: &str) -> Result<u16, i32> {
    let device = CString::new(device).map_err(|_| libc::EINVAL)?;
    // SAFETY: a C string that lives through the call.
    let port = unsafe { dpdk_sys::mdpdk_port_by_name(device.as_ptr()) };
    u16::try_from(port).map_err(|_| -port)
}

/// All port numbers.
pub(super) fn ports() -> impl Iterator<Item = u16> {
    let mut last = -1;
    std::iter::from_fn(move || {
        // SAFETY: no pointers.
        last = unsafe { dpdk_sys::mdpdk_port_next(last) };
        u16::try_from(last).ok()
    })
}

/// What a port is and offers.
pub(super) fn port_info(id: u16) -> Result<dpdk_sys::mdpdk_port_info, DpdkError> {
    let mut info = dpdk_sys::mdpdk_port_info::default();
    // SAFETY: `info` is writable.
    done(unsafe { dpdk_sys::mdpdk_port_info_get(id, &mut info) }, "ask the port what it is")?;
    Ok(info)
}

/// What speaks against packets coming in on all of `queues` queues, by the UDP ports that they carry; `None`: nothing that the driver
/// tells. A table of 0 entries is one that the driver does not show.
pub(super) fn doubt_of_spreading(info: &dpdk_sys::mdpdk_port_info, queues: u16) -> Option<String> {
    let driver = name(&info.driver);
    let handed = "what comes in on another engine's queue is handed over, which costs that engine time (see docs/rss.md)";
    if queues <= 1 {
        None
    } else if info.rss_udp == 0 {
        Some(format!(
            "{driver} offers no hash over UDP ports: all packets of a peer may come in on one of {queues} queues; {handed}"
        ))
    } else if (1..queues).contains(&info.rss_table) {
        let entries = info.rss_table;
        Some(format!(
            "{driver} has an indirection table of {entries} entries: of {queues} queues at most {entries} get packets; {handed}; set engines.count (--engines) to at most {entries}"
        ))
    } else {
        None
    }
}

/// Refuses several queues where all packets come in on the first: a driver of a physical NIC that offers no hash takes the wish for one
/// without a word. Some offer none because the cloud's side spreads by one of its own.
pub(super) fn check_spreading(info: &dpdk_sys::mdpdk_port_info, queues: u16) -> Result<(), DpdkError> {
    let driver = name(&info.driver);
    if queues <= 1 || info.rss != 0 || SPREAD_BY_THE_HOST.contains(&driver.as_str()) {
        return Ok(());
    }
    Err(DpdkError::Config(format!(
        "{queues} engines on {} ({driver}): it has no hash, and all that comes in does so on its first queue; set engines.count (--engines) to 1",
        name(&info.device)
    )))
}

/// virtio without VIRTIO_NET_F_RSS, gve before DPDK 24.03, and netvsc on old hosts.
const SPREAD_BY_THE_HOST: [&str; 3] = ["net_virtio", "net_gve", "net_netvsc"];

/// Configures the port; returns whether it has receive interrupts, if it is to be asked. Drivers that have none refuse.
pub(super) fn configure(
    id: u16,
    rings: u16,
    mtu: u16,
    (tx_checksum, rx_checksum): (bool, bool),
    interrupts: bool,
) -> Result<bool, DpdkError> {
    let mut asked = dpdk_sys::mdpdk_port_config {
        rx_queues: rings,
        tx_queues: rings,
        mtu,
        tx_checksum: tx_checksum.into(),
        rx_checksum: rx_checksum.into(),
        interrupts: 0,
    };
    if interrupts {
        asked.interrupts = 1;
        // SAFETY: `asked` lives through the call; the port exists and is stopped.
        if unsafe { dpdk_sys::mdpdk_port_configure(id, &asked) } == 0 {
            // Some accept the wish and have none all the same.
            // SAFETY: the port is configured.
            let has = unsafe { dpdk_sys::mdpdk_rx_intr_fd(id, 0) } >= 0;
            if has {
                return Ok(true);
            }
        }
        asked.interrupts = 0;
    }
    // SAFETY: as above.
    done(unsafe { dpdk_sys::mdpdk_port_configure(id, &asked) }, "configure the port")?;
    Ok(false)
}

/// Turns a result of the shim into an error that names the step.
pub(super) fn done(ret: i32, step: &str) -> Result<(), DpdkError> {
    if ret >= 0 {
        return Ok(());
    }
    Err(DpdkError::Refused { step: step.to_owned(), errno: -ret, detail: String::new() })
}

/// The complaint that something is not permitted. Not by the number: drivers return -1 for anything, which is EPERM's.
pub(super) fn not_permitted(mark: &Mark) -> Option<String> {
    let said = mark.complaints();
    let denied = |line: &&str| {
        ["Operation not permitted", "Permission denied"].iter().any(|words| line.contains(words))
    };
    said.split("; ").find(denied).map(str::to_owned)
}

/// What DPDK complained of since the mark.
pub(super) fn none_if_silent(mark: &Mark) -> String {
    let said = mark.complaints();
    if said.is_empty() { "DPDK gave no reason".to_owned() } else { said }
}

/// A C string out of a fixed array.
pub(super) fn name(raw: &[c_char]) -> String {
    // SAFETY: the shim always writes a closing zero within the array.
    unsafe { CStr::from_ptr(raw.as_ptr()) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_that_does_not_spread_is_doubted_and_a_table_of_any_size_is_not() {
        let doubt = |rss_udp, rss_table, queues| {
            let info = dpdk_sys::mdpdk_port_info { rss_udp, rss_table, ..Default::default() };
            doubt_of_spreading(&info, queues)
        };
        for (table, queues) in [(0, 8), (4, 4), (64, 8), (128, 3), (512, 64)] {
            assert_eq!(doubt(1, table, queues), None, "{queues} queues, table of {table}");
        }
        assert_eq!(doubt(0, 128, 1), None, "one queue needs no hash");
        let said = doubt(0, 128, 4).expect("no hash over ports");
        assert!(said.contains("no hash over UDP ports") && said.contains("one of 4 queues"), "{said}");
        let refusal = |driver: &str, rss, queues| {
            let mut info = dpdk_sys::mdpdk_port_info { rss, ..Default::default() };
            for (to, from) in info.driver.iter_mut().zip(driver.bytes()) {
                *to = from as c_char;
            }
            check_spreading(&info, queues).map_err(|error| error.to_string())
        };
        assert_eq!(refusal("net_e1000_em", 0, 1), Ok(()));
        assert_eq!(refusal("net_e1000_igb", 1, 4), Ok(()));
        assert_eq!(refusal("net_virtio", 0, 4), Ok(()), "the host spreads");
        let said = refusal("net_e1000_em", 0, 2).unwrap_err();
        assert!(
            said.contains("2 engines on") && said.ends_with("set engines.count (--engines) to 1"),
            "{said}"
        );
        let said = doubt(1, 2, 4).expect("a table that is too small");
        assert!(said.contains("table of 2 entries") && said.contains("--engines) to at most 2"), "{said}");
    }
}
