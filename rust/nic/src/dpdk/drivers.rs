//! Which drivers the DPDK in use has, and which its NICs of the clouds need, from which release on. The one table of such floors.

use super::error::DpdkError;
use super::ethdev;
use std::ffi::CStr;
use std::path::{Path, PathBuf};

/// The DPDK that this process is linked with: "DPDK 22.11.11".
pub fn version() -> String {
    // SAFETY: returns a C string that lives as long as the process; EAL need not run.
    unsafe { CStr::from_ptr(dpdk_sys::mdpdk_version()) }.to_string_lossy().into_owned()
}

/// The drivers of NICs that are installed for it, by name and in order: "net_ena"; `None` where they are no plugins in a folder.
pub fn drivers() -> Option<Vec<String>> {
    Installed::look().drivers
}

/// A DPDK and its drivers.
pub(super) struct Installed {
    version: String,
    folder: PathBuf,
    drivers: Option<Vec<String>>,
}

impl Installed {
    pub(super) fn look() -> Installed {
        // SAFETY: returns a C string that lives as long as the process.
        let folder =
            unsafe { CStr::from_ptr(dpdk_sys::mdpdk_driver_folder()) }.to_string_lossy().into_owned();
        Installed::of(version(), folder.into())
    }

    fn of(version: String, folder: PathBuf) -> Installed {
        let plugins = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        let name =
            |file: &str| Some(format!("net_{}", file.strip_prefix("librte_net_")?.strip_suffix(".so")?));
        let mut drivers: Vec<String> =
            plugins.filter_map(|plugin| name(plugin.file_name().to_str()?)).collect();
        drivers.sort_unstable();
        Installed { version, folder, drivers: (!drivers.is_empty()).then_some(drivers) }
    }

    /// Year and month of the release.
    fn release(&self) -> (u16, u16) {
        let mut numbers = self.version.split([' ', '.', '-']).filter_map(|part| part.parse().ok());
        (numbers.next().unwrap_or(u16::MAX), numbers.next().unwrap_or(0))
    }

    /// Refuses the device whose folder in /sys this is, when it is one of the table's and its driver is missing.
    pub(super) fn check(&self, device: &Path) -> Result<(), DpdkError> {
        let number = |file: &str| {
            let text = std::fs::read_to_string(device.join(file)).ok()?;
            u16::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()
        };
        let (Some(vendor), Some(model)) = (number("vendor"), number("device")) else { return Ok(()) };
        let same =
            |nic: &&Cloud| nic.vendor == vendor && (nic.models.is_empty() || nic.models.contains(&model));
        let (Some(nic), Some(drivers)) = (CLOUDS.iter().find(same), &self.drivers) else { return Ok(()) };
        if drivers.iter().any(|driver| driver == nic.driver) {
            return Ok(());
        }
        let (year, month) = nic.since;
        let remedy = if self.release() < nic.since {
            format!("Debian's has it from {year}.{month:02} on: use such a release (docs/clouds.md)")
        } else {
            let dash = if nic.driver.ends_with(|c: char| c.is_ascii_digit()) { "-" } else { "" };
            let package = nic.driver.replace('_', "-");
            format!(
                "install it (Debian, Ubuntu: librte-{package}{dash}{}, for {})",
                self.abi(),
                self.folder.display()
            )
        };
        Err(self.unfit(
            device.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            format!("has no driver {} for {}", nic.driver, nic.name),
            remedy,
        ))
    }

    /// Drivers' packages are called after it: 23 of pmds-23.0.
    fn abi(&self) -> String {
        let name = self.folder.file_name().unwrap_or_default().to_string_lossy();
        name.trim_start_matches("pmds-").split('.').next().unwrap_or_default().to_owned()
    }

    /// Refuses an open NIC of Google's that speaks a queue format that this driver does not know: the driver logs that, says that all is
    /// well, and has no function to receive with.
    pub(super) fn check_gve(
        &self,
        device: &str,
        driver: &str,
        was_said: impl Fn(&str) -> bool,
    ) -> Result<(), DpdkError> {
        if driver == "net_gve" && self.release() < GVE_DQO && was_said("DQO_RDA is not implemented") {
            let (year, month) = GVE_DQO;
            return Err(self.unfit(
                device.to_owned(),
                "has a driver net_gve that does not know the queue format DQO, which this NIC speaks"
                    .to_owned(),
                format!(
                    "from {year}.{month:02} on it does: use such a release, as of Debian 13 (docs/clouds.md)"
                ),
            ));
        }
        Ok(())
    }

    /// Refuses an MTU above the NIC's own, which DPDK would do with a bare number.
    pub(super) fn check_mtu(&self, info: &dpdk_sys::mdpdk_port_info, mtu: u16) -> Result<(), DpdkError> {
        let (driver, most) = (ethdev::name(&info.driver), info.max_mtu);
        if mtu <= most {
            return Ok(());
        }
        let mut advice = format!("set nic.mtu (--mtu) to at most {most}");
        if driver == "net_gve" && self.release() < GVE_JUMBO {
            let (year, month) = GVE_JUMBO;
            advice += &format!(
                "; the driver of {} takes no more, that of {year}.{month:02} and later as much as the network",
                self.version
            );
        }
        Err(DpdkError::Config(format!(
            "an MTU of {mtu}: {} ({driver}) carries packets of at most {most} bytes; {advice}",
            ethdev::name(&info.device)
        )))
    }

    fn unfit(&self, device: String, lacks: String, remedy: String) -> DpdkError {
        DpdkError::Unfit { device, dpdk: self.version.clone(), lacks, remedy }
    }
}

/// NICs of a cloud.
struct Cloud {
    name: &'static str,
    vendor: u16,
    /// All of this vendor's, if none is listed.
    models: &'static [u16],
    driver: &'static str,
    /// The first release whose packages in Debian have the driver.
    since: (u16, u16),
}

/// By the PCI ids of the drivers' sources. Floors are those of Debian's packages: 22.11 is the oldest that Machnet builds with, and
/// holds MANA's source, too, but Debian 12 has not the library (rdma-core 44 and later) that it builds with.
const CLOUDS: [Cloud; 7] = [
    Cloud {
        name: "Amazon's ENA",
        vendor: 0x1d0f,
        models: &[0xec20, 0xec21],
        driver: "net_ena",
        since: OLDEST,
    },
    Cloud { name: "Google's gVNIC", vendor: 0x1ae0, models: &[0x0042], driver: "net_gve", since: OLDEST },
    Cloud {
        name: "Microsoft's MANA",
        vendor: 0x1414,
        models: &[0x00b9, 0x00ba],
        driver: "net_mana",
        since: (24, 11),
    },
    Cloud {
        name: "NVIDIA's ConnectX-3",
        vendor: 0x15b3,
        models: &[0x1003, 0x1004, 0x1007],
        driver: "net_mlx4",
        since: OLDEST,
    },
    Cloud { name: "NVIDIA's ConnectX", vendor: 0x15b3, models: &[], driver: "net_mlx5", since: OLDEST },
    Cloud {
        name: "virtio-net",
        vendor: 0x1af4,
        models: &[0x1000, 0x1041],
        driver: "net_virtio",
        since: OLDEST,
    },
    Cloud {
        name: "VMware's vmxnet3",
        vendor: 0x15ad,
        models: &[0x07b0],
        driver: "net_vmxnet3",
        since: OLDEST,
    },
];
const OLDEST: (u16, u16) = (22, 11);
/// The release whose gve driver speaks DQO, the queue format of Google's newer machines.
const GVE_DQO: (u16, u16) = (23, 7);
/// And the one that knows the network's own limit of packets.
const GVE_JUMBO: (u16, u16) = (23, 11);

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// Folders of a DPDK's plugins and of a PCI device.
    struct Machine(PathBuf);

    impl Machine {
        fn new(name: &str, plugins: &[&str]) -> Machine {
            let folder = std::env::temp_dir().join(format!("machnet-drivers-{name}-{}", std::process::id()));
            fs::create_dir_all(folder.join("pmds-25.0")).unwrap();
            for plugin in plugins {
                fs::write(folder.join("pmds-25.0").join(plugin), "").unwrap();
            }
            Machine(folder)
        }

        fn check(&self, version: &str, vendor: &str, model: &str) -> Result<(), String> {
            let device = self.0.join("0000:00:05.0");
            fs::create_dir_all(&device).unwrap();
            fs::write(device.join("vendor"), format!("{vendor}\n")).unwrap();
            fs::write(device.join("device"), format!("{model}\n")).unwrap();
            let installed = Installed::of(version.to_owned(), self.0.join("pmds-25.0"));
            installed.check(&device).map_err(|error| error.to_string())
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn a_missing_driver_is_named_with_the_release_or_the_package_that_has_it() {
        let machine =
            Machine::new("missing", &["librte_net_ena.so", "librte_net_ena.so.25", "librte_mempool_ring.so"]);
        assert_eq!(machine.check("DPDK 22.11.11", "0x1d0f", "0xec20"), Ok(()));
        assert_eq!(machine.check("DPDK 22.11.11", "0x8086", "0x10ed"), Ok(()), "no cloud's");
        assert_eq!(
            machine.check("DPDK 22.11.11", "0x1414", "0x00ba").unwrap_err(),
            "open 0000:00:05.0: DPDK 22.11.11 has no driver net_mana for Microsoft's MANA; Debian's has it from 24.11 on: use such a release (docs/clouds.md)"
        );
        let said = machine.check("DPDK 24.11.8", "0x1414", "0x00ba").unwrap_err();
        assert!(
            said.contains("has no driver net_mana")
                && said.contains("install it (Debian, Ubuntu: librte-net-mana25, for "),
            "{said}"
        );
        let said = machine.check("DPDK 24.11.8", "0x15ad", "0x07b0").unwrap_err();
        assert!(said.contains("librte-net-vmxnet3-25"), "{said}");
        for (model, driver) in [("0x1004", "net_mlx4"), ("0x101e", "net_mlx5")] {
            assert!(machine.check("DPDK 24.11.8", "0x15b3", model).unwrap_err().contains(driver), "{model}");
        }
        let none = Machine::new("none", &[]);
        assert_eq!(none.check("DPDK 22.11.11", "0x1414", "0x00ba"), Ok(()), "drivers may be linked in");
    }

    #[test]
    fn this_dpdk_tells_its_version_and_drivers() {
        let installed = Installed::look();
        assert!(
            installed.version.starts_with("DPDK 2") && installed.release() >= OLDEST,
            "{}",
            installed.version
        );
        let drivers = installed.drivers.expect("Debian's drivers are plugins");
        assert!(drivers.iter().any(|driver| driver == "net_memif"), "{drivers:?}");
        let release = |version: &str| Installed::of(version.to_owned(), PathBuf::new()).release();
        assert_eq!([release("DPDK 23.07.0"), release("DPDK 25.11.0-rc2")], [(23, 7), (25, 11)]);
    }

    #[test]
    fn an_mtu_above_the_nics_is_refused_with_the_bound() {
        let refused = |version: &str, driver: &str, most| {
            let mut info = dpdk_sys::mdpdk_port_info { max_mtu: most, ..Default::default() };
            for (to, from) in info.driver.iter_mut().zip(driver.bytes()) {
                *to = from as std::ffi::c_char;
            }
            let installed = Installed::of(version.to_owned(), PathBuf::new());
            installed.check_mtu(&info, 1500).map_err(|error| error.to_string())
        };
        assert_eq!(refused("DPDK 22.11.11", "net_gve", 1500), Ok(()));
        let said = refused("DPDK 22.11.11", "net_gve", 1460).unwrap_err();
        assert!(
            said.contains(
                "(net_gve) carries packets of at most 1460 bytes; set nic.mtu (--mtu) to at most 1460; "
            ),
            "{said}"
        );
        assert!(
            said.contains("the driver of DPDK 22.11.11 takes no more, that of 23.11 and later"),
            "{said}"
        );
        assert!(!refused("DPDK 24.11.8", "net_gve", 1460).unwrap_err().contains("24.11"));
    }

    #[test]
    fn a_gve_driver_that_does_not_speak_dqo_is_refused() {
        let said = "gve_dev_init(): DQO_RDA is not implemented and will be added in the future";
        let check = |version: &str, driver: &str, said: &str| {
            let installed = Installed::of(version.to_owned(), PathBuf::new());
            let checked = installed.check_gve("0000:00:04.0", driver, |words| said.contains(words));
            checked.map_err(|error| error.to_string())
        };
        assert_eq!(check("DPDK 22.11.11", "net_gve", ""), Ok(()), "GQI, the older format");
        assert_eq!(check("DPDK 22.11.11", "net_ena", said), Ok(()));
        assert_eq!(check("DPDK 24.11.8", "net_gve", said), Ok(()));
        let refused = check("DPDK 22.11.11", "net_gve", said).unwrap_err();
        assert!(
            refused.starts_with("open 0000:00:04.0: DPDK 22.11.11 has a driver net_gve that does not know the queue format DQO"),
            "{refused}"
        );
        assert!(refused.contains("from 23.07 on it does"), "{refused}");
    }
}
