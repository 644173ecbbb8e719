//! Engines that are bound to a core, and stay so: when a core is taken from the process and given back (a cpuset that changes, taskset),
//! the kernel leaves its threads wherever they may run. Looked at once a second by the control thread.

use std::time::{Duration, Instant};

use machnet_engine::Shared;

/// The threads of pinned engines.
#[derive(Debug, Default)]
pub struct Pins {
    pins: Vec<Pin>,
    next: Option<Instant>,
}

#[derive(Debug)]
struct Pin {
    engine: u16,
    core: usize,
    thread: libc::pid_t,
    /// It is somewhere else, and was said to be.
    lost: bool,
}

impl Pins {
    /// Watches over a thread that is pinned now.
    pub fn add(&mut self, engine: u16, core: usize, thread: libc::pid_t) {
        self.pins.push(Pin { engine, core, thread, lost: false });
        self.next = self.next.or_else(|| Some(Instant::now() + EVERY));
    }

    /// When to look next; `None`: nothing is pinned.
    pub fn due(&self) -> Option<Instant> {
        self.next
    }

    /// Pins those again that have lost their core, if it is time.
    pub fn look(&mut self, now: Instant, shared: &Shared) {
        if self.next.is_none_or(|at| at > now) {
            return;
        }
        self.next = Some(now + EVERY);
        for pin in &mut self.pins {
            if pin.look()
                && let Some(counters) = shared.counters(pin.engine)
            {
                counters.pins_lost.add(1);
            }
        }
    }
}

impl Pin {
    /// Whether it was found off its core, for the first time.
    fn look(&mut self) -> bool {
        let cores = allowed(self.thread);
        let Pin { engine, core, .. } = *self;
        if cores.iter().eq([&core]) {
            // Newer kernels remember where it was bound.
            if std::mem::take(&mut self.lost) {
                log::info!("engine {engine}: core {core} is back, and it is bound to it again");
            }
            return false;
        }
        let first = !std::mem::replace(&mut self.lost, true);
        match bind(self.thread, &[core]) {
            Ok(()) => {
                log::warn!(
                    "engine {engine}: somebody let it run on {}; bound to core {core} again",
                    list(&cores)
                );
                self.lost = false;
            }
            Err(error) if first => log::warn!(
                "engine {engine}: core {core} was taken from this process ({error}); it runs on {}, and is bound again when core {core} is back",
                list(&cores)
            ),
            Err(_) => {}
        }
        first
    }
}

/// The cores that a thread may use; 0 is the calling one.
pub fn allowed(thread: libc::pid_t) -> Vec<usize> {
    // SAFETY: all bits zero is an empty set.
    let mut cpus: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `cpus` is writable and as large as told. A refusal leaves it empty.
    unsafe { libc::sched_getaffinity(thread, size_of::<libc::cpu_set_t>(), &raw mut cpus) };
    // SAFETY: below the size of a set.
    (0..libc::CPU_SETSIZE as usize).filter(|&core| unsafe { libc::CPU_ISSET(core, &cpus) }).collect()
}

/// Binds a thread to cores; 0 is the calling one.
pub fn bind(thread: libc::pid_t, cores: &[usize]) -> std::io::Result<()> {
    // SAFETY: all bits zero is an empty set.
    let mut cpus: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for &core in cores {
        // SAFETY: the configuration keeps cores below the size of a set, and so does `allowed`.
        unsafe { libc::CPU_SET(core, &mut cpus) };
    }
    // SAFETY: `cpus` is a whole set.
    match unsafe { libc::sched_setaffinity(thread, size_of::<libc::cpu_set_t>(), &cpus) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Keeps the calling thread off the engines' cores; whether it is. It is not where engines are bound to none, or where the process has no others.
pub fn keep_off(engines: &[usize]) -> bool {
    let others: Vec<_> = allowed(0).into_iter().filter(|core| !engines.contains(core)).collect();
    !engines.is_empty() && !others.is_empty() && bind(0, &others).is_ok()
}

fn list(cores: &[usize]) -> String {
    let names: Vec<_> = cores.iter().map(usize::to_string).collect();
    if names.len() == 1 { format!("core {}", names[0]) } else { format!("cores {}", names.join(", ")) }
}

const EVERY: Duration = Duration::from_secs(1);
