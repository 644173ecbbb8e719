//! From a configuration to a running sidecar, and to its end.

use std::io::Read;
use std::sync::Arc;
use std::time::Instant;

use machnet_host::{Host, HostError};
use machnet_nic::{Opened, Queue, dpdk, xdp};

use crate::clients::Clients;
use crate::config::{ChosenNic, Config, plural};
use crate::control::Control;
use crate::limits::{self, Limits};
use crate::memory::Memory;
use crate::metrics::{self, Metrics};
use crate::pins;
use crate::signals::Signals;
use crate::socket::{self, ControlSocket};
use crate::stats::Stats;
use crate::threads::{self, Job, Stopped, Threads};
use crate::{CONTROL, ENGINE, NIC};

/// Why the sidecar does not run.
#[derive(Debug)]
pub struct Refusal {
    /// The exit code.
    pub code: u8,
    /// One sentence.
    pub text: String,
}

/// Runs until a signal says otherwise. `args` is where the configuration came from, to be read again.
///
/// # Errors
/// What could not be started. Nothing is left behind.
pub fn run(config: Config, args: Vec<String>) -> Result<(), Refusal> {
    // Before DPDK: a second sidecar by mistake must not disturb the first one's link.
    socket::look(&config.socket).map_err(control_error)?;
    let signals = Signals::take_over().map_err(engine_error)?;
    let descriptors = limits::raise_descriptors();
    limits::warn_if_few(descriptors, config.max_channels);
    let refused = |text: String| Refusal { code: NIC, text };
    // What follows after these lines works with any back end.
    match &config.nic {
        ChosenNic::Dpdk(device) => {
            let nic = dpdk::open(device, &config.port(), &config.eal());
            serve(config, args, nic.map_err(|error| refused(error.to_string()))?, &signals, descriptors)
        }
        ChosenNic::Xdp(device) => {
            let nic = xdp::open(device, &config.port(), config.ip);
            serve(config, args, nic.map_err(|error| refused(error.to_string()))?, &signals, descriptors)
        }
    }
}

/// Looks at the NIC without opening it. Returns what is doubtful, a sentence each.
///
/// # Errors
/// What [`run`] would be refused for.
pub fn examine_nic(config: &Config) -> Result<Vec<String>, String> {
    match &config.nic {
        ChosenNic::Dpdk(device) => {
            dpdk::examine(device, &config.port(), &config.eal(), config.ip).map_err(|error| error.to_string())
        }
        ChosenNic::Xdp(device) => {
            xdp::examine(device, &config.port(), config.ip).map_err(|error| error.to_string())
        }
    }
}

/// What can drive a NIC here: DPDK's version, and the drivers that are installed for it.
pub fn back_ends() -> String {
    let drivers = dpdk::drivers().map(|names| names.join(" ").replace("net_", ""));
    format!(
        "machnetd: {} with drivers: {}",
        dpdk::version(),
        drivers.as_deref().unwrap_or("those that are linked in")
    )
}

/// Serves applications with this NIC until a signal says otherwise.
fn serve<Q: Queue + 'static>(
    config: Config,
    args: Vec<String>,
    nic: Opened<Q>,
    signals: &Signals,
    descriptors: u64,
) -> Result<(), Refusal> {
    let limits = Limits::new(descriptors, config.max_channels);
    let channels = config.channels(limits.channels(descriptors));
    let Opened { queues, port } = nic;
    let engine_config = config.engine(random().map_err(engine_error)?);
    let mut host = Host::new(engine_config, channels, queues, threads::now()).map_err(|error| {
        let code = if matches!(error, HostError::Queues(_)) { NIC } else { ENGINE };
        Refusal { code, text: error.to_string() }
    })?;
    let info = host.nic();
    log::info!(
        "{} {}/{} on {}, MTU {}, {} of {} descriptors, checksums by {}, {}",
        info.mac,
        config.ip,
        config.prefix,
        port.driver(),
        info.mtu,
        plural(info.queues.into(), "queue"),
        info.descriptors,
        if info.tx_checksum && info.rx_checksum { "the NIC" } else { "software" },
        if info.interrupts { "interrupts" } else { "no interrupts: idle engines nap" },
    );

    let mut threads = Threads::new();
    for (index, engine) in (0..).zip(host.take_engines()) {
        let core = config.cores.get(usize::from(index)).copied();
        threads
            .start(Job { index, engine, core, idle: config.waiting(), scheduler: config.scheduler })
            .map_err(engine_error)?;
    }

    // What attaching costs is for these two threads, and not for the engines' cores.
    pins::keep_off(&config.cores);
    let cores = config.cores.clone();
    let memory = Memory::start(move || pins::keep_off(&cores)).map_err(engine_error)?;
    let pins = threads.take_pins();
    let subject = || metrics::Subject { shared: Arc::clone(host.shared()), port: Arc::clone(&port) };
    let metrics = config.metrics.map(|address| Metrics::start(address, subject())).transpose();
    let result = metrics.map_err(control_error).and_then(|metrics| {
        let listener = ControlSocket::bind(&config.socket, config.access()).map_err(control_error)?;
        log::info!("serving applications at {}", config.socket.display());
        let stats = Stats::new(Arc::clone(host.shared()), Arc::clone(&port), threads.pulses());
        let clients = Clients::new(listener, memory, limits);
        Control::new(config, args, &mut host, signals, stats, pins, clients).run();
        // Its thread holds the port, and the NIC is to close with the last engine.
        drop(metrics);
        Ok(())
    });
    // The control thread has closed the applications' sockets, by which they learn of the end; what they sent goes out now, and their
    // peers learn of it behind that.
    let begun = Instant::now();
    drop(port);
    match threads.stop(&mut host, || signals.hurried()) {
        Stopped::Done => log::info!("ended in {:?}", begun.elapsed()),
        Stopped::Hurried => log::warn!("told to end a second time; what was still under way is lost"),
        Stopped::Late(patience) => {
            log::warn!("an engine did not end within {patience:?}; its peers learn of it by silence");
        }
    }
    result
}

fn engine_error(text: String) -> Refusal {
    Refusal { code: ENGINE, text }
}

fn control_error(text: String) -> Refusal {
    Refusal { code: CONTROL, text }
}

/// An epoch that no earlier start had, and what tags and ports are drawn from.
fn random() -> Result<[u64; 3], String> {
    let mut random = [[0; 8]; 3];
    let mut source = std::fs::File::open("/dev/urandom").map_err(|e| format!("open /dev/urandom: {e}"))?;
    for word in &mut random {
        source.read_exact(word).map_err(|e| format!("read /dev/urandom: {e}"))?;
    }
    Ok(random.map(u64::from_ne_bytes))
}
