//! EAL: its arguments, its start, and what its refusals mean.

use super::error::DpdkError;
use super::find;
use super::gate::Gate;
use super::log::{self, Mark};
use crate::{Device, EalConfig, Memory};
use std::ffi::{CStr, CString, OsStr, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// DPDK's environment, running. Ports keep it alive.
pub struct Eal {
    pub(super) environment: Arc<Environment>,
}

/// What ports need of it.
pub(super) struct Environment {
    gate: Mutex<Option<Arc<Gate>>>,
    cpus: libc::cpu_set_t,
    /// Drivers share tables that they make with their first port: one port opens at a time.
    pub opening: Mutex<()>,
    /// Names of virtual devices and pools are unique per process.
    pub serial: std::sync::atomic::AtomicU32,
}

static STARTED: AtomicBool = AtomicBool::new(false);

impl Eal {
    /// Starts EAL and takes over its log (target `dpdk` of the `log` crate). `devices` are those that will be opened; without
    /// a physical one among them the PCI bus is not looked at. The calling thread's CPU affinity stays as it was, and SIGPIPE
    /// is ignored from now on: a memif peer that dies would send one.
    ///
    /// # Errors
    /// Every refusal of DPDK as one [`DpdkError`]. A second start in one process is always refused.
    pub fn start(config: &EalConfig, devices: &[Device]) -> Result<Eal, DpdkError> {
        let args = arguments(config, devices)?;
        if STARTED.swap(true, Ordering::AcqRel) {
            return Err(DpdkError::AlreadyStarted);
        }
        // SAFETY: SIG_IGN is a valid disposition and no handler code is involved.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
        log::take_over();
        let mark = Mark::now();
        let cpus = affinity();
        let result = log::quietly(|| init(with_core(args, &cpus)));
        set_affinity(&cpus);
        forget_folder();
        if let Err(errno) = result {
            return Err(classify(errno, &mark.complaints(), config));
        }
        // SAFETY: EAL runs; returns a static string.
        let version = unsafe { CStr::from_ptr(dpdk_sys::mdpdk_version()) };
        ::log::info!("{} started", version.to_string_lossy());
        Ok(Eal {
            environment: Arc::new(Environment {
                gate: Mutex::new(None),
                cpus,
                opening: Mutex::default(),
                serial: Default::default(),
            }),
        })
    }
}

impl Environment {
    /// The gate over EAL's interrupt thread, made when first needed.
    pub(super) fn gate(&self) -> Result<Arc<Gate>, DpdkError> {
        let mut gate = self.gate.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(gate) = &*gate {
            return Ok(gate.clone());
        }
        let made = Gate::install(self.cpus).map_err(|detail| DpdkError::Refused {
            step: "guard memif against a peer that leaves".to_owned(),
            errno: libc::EIO,
            detail,
        })?;
        Ok(gate.insert(made).clone())
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        // EAL itself is not cleaned up: it cannot start again anyway, leaves no files with these arguments (see `forget_folder`), and its
        // clean-up closes drivers while their helpers still run.
        if let Some(gate) = self.gate.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner()).take() {
            gate.uninstall();
        }
    }
}

/// Removes EAL's folder in the run directory. With our arguments EAL shares nothing by files and does not use the folder again, but it
/// would leave it behind when the process ends. Removed now, it is not left behind even after SIGKILL. A folder in which EAL has
/// put something, by arguments that a user added, stays: only an empty one can be removed.
fn forget_folder() {
    // SAFETY: returns a C string that lives as long as the process and no longer changes once EAL has started.
    let folder = unsafe { CStr::from_ptr(dpdk_sys::mdpdk_runtime_dir()) };
    if !folder.is_empty() {
        let _ = std::fs::remove_dir(OsStr::from_bytes(folder.to_bytes()));
    }
}

/// EAL's command line without the program's name and the core.
pub(super) fn arguments(config: &EalConfig, devices: &[Device]) -> Result<Vec<String>, DpdkError> {
    let prefix = &config.file_prefix;
    if prefix.is_empty()
        || prefix.len() > 64
        || !prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    {
        return Err(DpdkError::Config(format!(
            "file prefix {prefix:?}: needs 1 to 64 letters, digits, '-', '_' or '.'"
        )));
    }
    let mut args: Vec<String> = vec!["--no-telemetry".into(), "--file-prefix".into(), prefix.clone()];
    let mib = match config.memory {
        // No shared configuration: no secondary process ever joins, so no files and no lock on the prefix.
        Memory::NoHuge { mib } => {
            args.extend(["--no-huge".into(), "--no-shconf".into()]);
            mib
        }
        Memory::Huge { mib } => {
            args.push("--in-memory".into());
            mib
        }
    };
    if mib == 0 {
        return Err(DpdkError::Config("memory: 0 MiB; needs at least 16".to_owned()));
    }
    args.extend(["-m".into(), mib.to_string()]);

    let mut allowed = Vec::new();
    let mut unknown_mac = false;
    for device in devices {
        match device {
            Device::Pci(address) => allowed.push(find::pci_address(address)?),
            Device::Mac(mac) => match find::pci_by_mac(*mac) {
                Some(address) => allowed.push(address),
                None => unknown_mac = true, // already with vfio-pci, or on another bus: look at everything
            },
            Device::Vdev(_) | Device::Memif(_) => {}
        }
    }
    if !allowed.is_empty() && matches!(config.memory, Memory::NoHuge { .. }) && !iommu() {
        return Err(DpdkError::Config(format!(
            "PCI device {} with memory without huge pages: without an IOMMU it can only reach huge pages; configure huge pages",
            allowed[0]
        )));
    }
    for address in &allowed {
        find::check_pci(address)?;
        if !unknown_mac {
            args.extend(["-a".into(), address.clone()]);
        }
    }
    if allowed.is_empty() && !unknown_mac {
        args.push("--no-pci".into());
    }
    args.extend(config.extra_args.iter().cloned());
    Ok(args)
}

/// One core for EAL: it pins the calling thread there, which we undo. More would be worker threads we do not use.
fn with_core(mut args: Vec<String>, cpus: &libc::cpu_set_t) -> Vec<String> {
    // SAFETY: `cpus` is a whole set, and the index stays below its size.
    let first =
        (0..libc::CPU_SETSIZE as usize).find(|&cpu| unsafe { libc::CPU_ISSET(cpu, cpus) }).unwrap_or(0);
    // Core number 0 of EAL on that CPU: EAL's own numbers end at 127, the machine's may not.
    args.extend(["--lcores".into(), format!("0@{first}")]);
    args
}

fn init(args: Vec<String>) -> Result<(), i32> {
    let mut owned = vec![CString::from(c"machnet")];
    for arg in args {
        owned.push(CString::new(arg).map_err(|_| libc::EINVAL)?);
    }
    // EAL's getopt keeps pointers into its arguments, and it reads them again later: they stay for ever.
    let mut pointers: Vec<*mut c_char> = owned.into_iter().map(CString::into_raw).collect();
    let count = pointers.len() as c_int;
    pointers.push(std::ptr::null_mut());
    let argv: &'static mut [*mut c_char] = Box::leak(pointers.into_boxed_slice());
    // SAFETY: `argv` holds `count` writable C strings and a null, all leaked; EAL was not started before.
    match unsafe { dpdk_sys::mdpdk_eal_init(count, argv.as_mut_ptr()) } {
        0 => Ok(()),
        errno => Err(-errno),
    }
}

/// What EAL's refusal means. It has few error numbers; what it logs says more.
fn classify(errno: i32, said: &str, config: &EalConfig) -> DpdkError {
    let detail = || {
        if said.is_empty() { std::io::Error::from_raw_os_error(errno).to_string() } else { said.to_owned() }
    };
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if errno == libc::EALREADY || has(&["already called initialization"]) {
        return DpdkError::AlreadyStarted;
    }
    if has(&["Is another primary process running", "Cannot create lock on"]) {
        return DpdkError::PrefixInUse(config.file_prefix.clone());
    }
    if has(&["Invalid 'command line' arguments", "Invalid command line arguments"]) {
        return DpdkError::Config(format!(
            "DPDK's own arguments {:?} (--dpdk-arg, dpdk.extra_args): {said}; leave out what this DPDK does not know",
            config.extra_args
        ));
    }
    if has(&["Permission denied", "Operation not permitted"]) {
        return DpdkError::NoPermission(detail());
    }
    match config.memory {
        Memory::Huge { mib }
            if errno == libc::ENOMEM || has(&["hugepage", "Hugepage", "hugetlbfs", "Cannot init memory"]) =>
        {
            // The first complaint is the reason, the others repeat it.
            let detail = detail().split("; ").next().unwrap_or_default().to_owned();
            DpdkError::NoHugePages { mib, detail: format!("{detail} ({})", free_hugepages()) }
        }
        Memory::NoHuge { .. } if errno == libc::ENOMEM || has(&["Cannot init memory", "mmap() failed"]) => {
            DpdkError::NoMemory(detail())
        }
        // Last: "permission denied" is also what EAL's number says where there simply are no huge pages.
        _ if errno == libc::EACCES || errno == libc::EPERM => DpdkError::NoPermission(detail()),
        _ => DpdkError::Refused { step: "start DPDK".to_owned(), errno, detail: said.to_owned() },
    }
}

/// "64 of 512 pages of 2048kB free", for every size the kernel has.
fn free_hugepages() -> String {
    let read = |path: std::path::PathBuf| {
        std::fs::read_to_string(path).map_or("?".to_owned(), |s| s.trim().to_owned())
    };
    let mut sizes: Vec<String> = std::fs::read_dir("/sys/kernel/mm/hugepages")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let size = entry.file_name().to_str()?.strip_prefix("hugepages-")?.to_owned();
            let (free, all) =
                (read(entry.path().join("free_hugepages")), read(entry.path().join("nr_hugepages")));
            Some(format!("{free} of {all} pages of {size} free"))
        })
        .collect();
    sizes.sort();
    if sizes.is_empty() { "the kernel has no huge pages".to_owned() } else { sizes.join(", ") }
}

fn iommu() -> bool {
    std::fs::read_dir("/sys/kernel/iommu_groups").is_ok_and(|mut groups| groups.next().is_some())
}

fn affinity() -> libc::cpu_set_t {
    // SAFETY: all bits zero is an empty set.
    let mut cpus: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `cpus` is writable for the size given; 0 names the calling thread.
    if unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut cpus) } != 0 {
        // More CPUs than the set holds: any of the first ones.
        // SAFETY: the index is below the set's size.
        (0..libc::CPU_SETSIZE as usize).for_each(|cpu| unsafe { libc::CPU_SET(cpu, &mut cpus) });
    }
    cpus
}

fn set_affinity(cpus: &libc::cpu_set_t) {
    // SAFETY: `cpus` is a whole set; 0 names the calling thread. A refusal leaves the thread where EAL put it.
    unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), cpus) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Memif, MemifRole};
    use machnet_wire::Mac;

    fn config(memory: Memory) -> EalConfig {
        EalConfig { memory, ..EalConfig::unprivileged("p") }
    }

    #[test]
    fn virtual_devices_need_no_pci_bus_and_leave_no_files() {
        let devices = [Device::Memif(Memif::new("/x", MemifRole::Client)), Device::Vdev("net_null0".into())];
        let args = arguments(&config(Memory::NoHuge { mib: 64 }), &devices).unwrap().join(" ");
        assert_eq!(args, "--no-telemetry --file-prefix p --no-huge --no-shconf -m 64 --no-pci");
    }

    #[test]
    fn a_mac_nobody_knows_leaves_the_pci_bus_to_be_searched() {
        let devices = [Device::Mac(Mac([0xfe, 0xff, 0xff, 1, 2, 3]))];
        let args = arguments(&config(Memory::Huge { mib: 256 }), &devices).unwrap().join(" ");
        assert_eq!(args, "--no-telemetry --file-prefix p --in-memory -m 256");
    }

    #[test]
    fn a_prefix_cannot_smuggle_arguments() {
        for bad in ["", "a b", "../x", "a,b"] {
            assert!(
                matches!(arguments(&EalConfig::unprivileged(bad), &[]), Err(DpdkError::Config(_))),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn refusals_are_told_apart() {
        let huge = config(Memory::Huge { mib: 64 });
        let small = config(Memory::NoHuge { mib: 64 });
        type Case<'a> = (i32, &'a str, &'a EalConfig, fn(&DpdkError) -> bool);
        let cases: [Case; 8] = [
            (
                libc::EINVAL,
                "machnet: unrecognized option '--bogus'; EAL: Invalid 'command line' arguments.",
                &small,
                |e| matches!(e, DpdkError::Config(text) if text.contains("unrecognized option '--bogus'")),
            ),
            (libc::EACCES, "EAL: Cannot get hugepage information.", &huge, |e| {
                matches!(e, DpdkError::NoHugePages { .. })
            }),
            (libc::EACCES, "", &small, |e| matches!(e, DpdkError::NoPermission(_))),
            (libc::ENOMEM, "EAL: open: Permission denied", &huge, |e| {
                matches!(e, DpdkError::NoPermission(_))
            }),
            (libc::ENOMEM, "EAL: Cannot init memory", &huge, |e| {
                matches!(e, DpdkError::NoHugePages { mib: 64, .. })
            }),
            (libc::ENOMEM, "EAL: Cannot init memory", &small, |e| matches!(e, DpdkError::NoMemory(_))),
            (
                1,
                "EAL: Cannot create lock on '/run/dpdk/p/config'. Is another primary process running?",
                &small,
                |e| matches!(e, DpdkError::PrefixInUse(p) if p == "p"),
            ),
            (libc::ENODEV, "EAL: something new", &small, |e| {
                matches!(e, DpdkError::Refused { errno: libc::ENODEV, .. })
            }),
        ];
        for (errno, said, config, expected) in cases {
            let error = classify(errno, said, config);
            assert!(expected(&error), "{errno} {said}: {error:?}");
        }
    }
}
