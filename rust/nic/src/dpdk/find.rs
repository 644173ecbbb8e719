//! What the kernel says about a PCI device before DPDK is asked: DPDK itself only reports that nothing came up.

use super::drivers::Installed;
use super::error::DpdkError;
use machnet_wire::Mac;
use std::fs;
use std::path::{Path, PathBuf};

/// A PCI address with its domain, lower case: `0000:00:05.0`.
pub(super) fn pci_address(text: &str) -> Result<String, DpdkError> {
    let full = if text.matches(':').count() == 1 { format!("0000:{text}") } else { text.to_owned() };
    let full = full.to_ascii_lowercase();
    let mut parts = full.split([':', '.']);
    let widths = [4, 2, 2, 1];
    let well_formed = widths.iter().all(|&width| {
        parts.next().is_some_and(|part| part.len() == width && part.bytes().all(|b| b.is_ascii_hexdigit()))
    });
    if well_formed && parts.next().is_none() && full.as_bytes()[7] == b':' && full.as_bytes()[10] == b'.' {
        Ok(full)
    } else {
        Err(DpdkError::Config(format!("PCI address {text}: expected a form such as 0000:00:05.0")))
    }
}

/// Refuses a device that is not there, that its kernel driver keeps for itself, or that this DPDK has no driver for.
pub(super) fn check_pci(address: &str) -> Result<(), DpdkError> {
    check_pci_in(Path::new("/sys"), address)
}

fn check_pci_in(sys: &Path, address: &str) -> Result<(), DpdkError> {
    let device = sys.join("bus/pci/devices").join(address);
    if !device.exists() {
        return Err(DpdkError::NoSuchDevice(format!("at PCI address {address}")));
    }
    let driver =
        fs::read_link(device.join("driver")).ok().and_then(|to| to.file_name().map(|name| name.to_owned()));
    match driver.as_deref().and_then(|name| name.to_str()) {
        None => Err(DpdkError::NoDriver {
            device: address.to_owned(),
            detail: "no kernel driver is bound to it, not even one that hands it to a process".to_owned(),
        }),
        Some(name) if SHARED.contains(&name) => Installed::look().check(&device),
        Some(name) => Err(DpdkError::KernelDriver { pci: address.to_owned(), driver: name.to_owned() }),
    }
}

/// The PCI address of the kernel's network interface with this MAC address, if the kernel has one on the PCI bus.
pub(super) fn pci_by_mac(mac: Mac) -> Option<String> {
    pci_by_mac_in(Path::new("/sys"), mac)
}

fn pci_by_mac_in(sys: &Path, mac: Mac) -> Option<String> {
    let wanted = text(mac);
    let interfaces = fs::read_dir(sys.join("class/net")).ok()?;
    let mut found: Vec<PathBuf> = interfaces
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| fs::read_to_string(path.join("address")).is_ok_and(|a| a.trim() == wanted))
        .collect();
    found.sort();
    found.iter().find_map(|path| {
        let device = fs::canonicalize(path.join("device")).ok()?;
        pci_address(device.file_name()?.to_str()?).ok()
    })
}

/// Six pairs of hexadecimal digits, lower case.
pub(super) fn text(mac: Mac) -> String {
    let [a, b, c, d, e, f] = mac.0;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

/// Kernel drivers that hand a device to a process, or share it with one.
const SHARED: [&str; 6] = ["vfio-pci", "uio_pci_generic", "igb_uio", "mlx4_core", "mlx5_core", "mana"];

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn addresses_are_completed_and_checked() {
        assert_eq!(pci_address("00:05.0").unwrap(), "0000:00:05.0");
        assert_eq!(pci_address("0000:AF:00.1").unwrap(), "0000:af:00.1");
        for bad in ["", "eth0", "0000:00:05", "00:05.0,x", "0000:00:05.0.0", "zz:05.0"] {
            assert!(pci_address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_kernels_driver_is_named_unless_it_shares() {
        let sys = std::env::temp_dir().join(format!("machnet-sys-{}", std::process::id()));
        let device = |address: &str, driver: Option<&str>| {
            let dir = sys.join("bus/pci/devices").join(address);
            fs::create_dir_all(&dir).unwrap();
            if let Some(driver) = driver {
                symlink(format!("../../../bus/pci/drivers/{driver}"), dir.join("driver")).unwrap();
            }
        };
        device("0000:00:01.0", Some("ena"));
        device("0000:00:02.0", Some("vfio-pci"));
        device("0000:00:03.0", None);
        let driver = |address: &str| check_pci_in(&sys, address);
        let pci = "0000:00:01.0".to_owned();
        assert_eq!(driver(&pci.clone()), Err(DpdkError::KernelDriver { pci, driver: "ena".to_owned() }));
        assert_eq!(driver("0000:00:02.0"), Ok(()));
        assert!(matches!(driver("0000:00:03.0"), Err(DpdkError::NoDriver { .. })));
        assert!(matches!(driver("0000:00:04.0"), Err(DpdkError::NoSuchDevice(_))));

        fs::create_dir_all(sys.join("class/net/eth7")).unwrap();
        fs::write(sys.join("class/net/eth7/address"), "02:00:00:00:00:07\n").unwrap();
        symlink("../../../bus/pci/devices/0000:00:01.0", sys.join("class/net/eth7/device")).unwrap();
        assert_eq!(pci_by_mac_in(&sys, Mac([2, 0, 0, 0, 0, 7])).as_deref(), Some("0000:00:01.0"));
        assert_eq!(pci_by_mac_in(&sys, Mac([2, 0, 0, 0, 0, 8])), None);
        fs::remove_dir_all(&sys).unwrap();
    }
}
