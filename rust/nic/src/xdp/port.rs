//! The device as a whole: what its queues share, and what the kernel counts.

use super::attach::{Attached, Filter};
use super::error::XdpError;
use super::examine;
use super::queue::XdpQueue;
use super::socket::Socket;
use super::sys;
use super::watch;
use super::{Way, Xdp};
use crate::kernel::KernelDevice;
use crate::{Info, Opened, Port, PortConfig, PortCounters, PortState};
use machnet_wire::Mac;
use std::io::{PipeReader, PipeWriter};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Opens a device and its queues for a host with this address. It closes when they, and the port, are dropped.
///
/// # Errors
/// Every refusal as one [`XdpError`].
pub fn open(asked: &Xdp, config: &PortConfig, ip: Ipv4Addr) -> Result<Opened<XdpQueue>, XdpError> {
    config.check().map_err(XdpError::Config)?;
    let name = &asked.interface;
    let device = examine::fits(asked, config)?;
    let filter = Filter::load(name, ip, config.queues)?;
    let mut attached = filter.attach(name, &device, (config.queues, config.descriptors), asked.mode)?;
    let sockets = std::mem::take(&mut attached.sockets);
    attached.tell(name);
    let shared = Arc::new(Shared::new(asked, config, filter, &device, attached, &sockets));
    let (stopped, stop) = std::io::pipe().map_err(|error| thread_error(name, error))?;
    let thread = watch::start(Arc::clone(&shared), stopped).map_err(|error| thread_error(name, error))?;
    let port = Arc::new(XdpPort { shared, stop: Some(stop), thread: Some(thread) });
    let info = Info {
        mac: device.mac,
        mtu: config.mtu,
        queues: config.queues,
        index: 0,
        descriptors: config.descriptors,
        tx_checksum: false,
        rx_checksum: false,
        interrupts: config.interrupts,
    };
    let queues = (0..config.queues)
        .zip(sockets)
        .map(|(index, socket)| XdpQueue::new(Arc::clone(&port), Info { index, ..info.clone() }, socket));
    Ok(Opened { queues: queues.collect(), port: port.clone() as Arc<dyn Port> })
}

fn thread_error(name: &str, error: std::io::Error) -> XdpError {
    XdpError::Refused {
        device: name.to_owned(),
        step: "start the thread that watches it".to_owned(),
        error,
        hint: String::new(),
    }
}

impl Attached {
    /// Says which way was taken, and why no faster one.
    pub(super) fn tell(&self, name: &str) {
        let reasons = self.reasons.iter().map(|reason| format!("; {reason}")).collect::<String>();
        log::info!("{name}: {}{reasons}", self.way.name());
    }
}

/// An open device.
pub(super) struct XdpPort {
    pub shared: Arc<Shared>,
    /// Closed, it ends the thread.
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

/// What the queues, the thread that watches, and the port share.
pub(super) struct Shared {
    pub asked: Xdp,
    pub config: PortConfig,
    pub filter: Filter,
    /// The device's address, by which peers know us.
    pub mac: Mac,
    /// What the queues look at before each burst: [`UP`], and above it a count of what was put into `lanes`.
    pub word: AtomicU32,
    /// By queue: what it takes over when the word tells.
    pub lanes: Vec<Mutex<Option<Handed>>>,
    pub device: Mutex<Device>,
    way: AtomicU8,
    pub ups: AtomicU64,
    pub downs: AtomicU64,
    pub removals: AtomicU64,
    pub returns: AtomicU64,
    /// Descriptors of the kernel's that led nowhere.
    pub strange: AtomicU64,
}

/// What a queue is handed.
pub(super) enum Handed {
    /// The device is there.
    Socket(Box<Socket>),
    /// The device is gone. Hangs up when it is back.
    Gone(PipeReader),
}

/// The device as it was last seen.
pub(super) struct Device {
    /// The number of the one that we are on, and our hold on it; none while it is gone.
    pub on: Option<(u32, OwnedFd)>,
    /// Of the queues' sockets, to be asked what they count.
    pub sockets: Vec<Arc<OwnedFd>>,
    /// What sockets that are gone had counted.
    pub past: Lost,
}

/// What the kernel counts of sockets.
#[derive(Default, Clone, Copy)]
pub(super) struct Lost {
    missed: u64,
    no_buffer: u64,
    tx_errors: u64,
}

impl Lost {
    /// What these have counted.
    pub(super) fn of(sockets: &[Arc<OwnedFd>]) -> Lost {
        let all = sockets.iter().filter_map(|socket| sys::statistics(socket).ok());
        all.fold(Lost::default(), |sum, one| {
            sum.and(Lost {
                missed: one.rx_dropped + one.rx_ring_full,
                no_buffer: one.rx_fill_ring_empty_descs,
                tx_errors: one.tx_invalid_descs,
            })
        })
    }

    pub(super) fn and(self, other: Lost) -> Lost {
        Lost {
            missed: self.missed + other.missed,
            no_buffer: self.no_buffer + other.no_buffer,
            tx_errors: self.tx_errors + other.tx_errors,
        }
    }
}

impl Shared {
    fn new(
        asked: &Xdp,
        config: &PortConfig,
        filter: Filter,
        device: &KernelDevice,
        attached: Attached,
        sockets: &[Socket],
    ) -> Shared {
        Shared {
            asked: asked.clone(),
            config: config.clone(),
            filter,
            mac: device.mac,
            word: AtomicU32::new(if device.running { UP } else { 0 }),
            lanes: sockets.iter().map(|_| Mutex::new(None)).collect(),
            device: Mutex::new(Device {
                on: Some((device.index, attached.link)),
                sockets: sockets.iter().map(|socket| Arc::clone(socket.fd())).collect(),
                past: Lost::default(),
            }),
            way: AtomicU8::new(attached.way as u8),
            ups: AtomicU64::new(u64::from(device.running)),
            downs: AtomicU64::new(0),
            removals: AtomicU64::new(0),
            returns: AtomicU64::new(0),
            strange: AtomicU64::new(0),
        }
    }

    pub(super) fn device(&self) -> MutexGuard<'_, Device> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn way(&self) -> Way {
        let known = [Way::ZeroCopy, Way::CopyNative];
        let way = self.way.load(Ordering::Relaxed);
        known.into_iter().find(|&known| known as u8 == way).unwrap_or(Way::CopyGeneric)
    }

    pub(super) fn set_way(&self, way: Way) {
        self.way.store(way as u8, Ordering::Relaxed);
    }

    /// Puts something into the lane of each queue, and tells them.
    pub(super) fn hand(&self, all: impl Iterator<Item = Handed>, up: bool) {
        for (lane, one) in self.lanes.iter().zip(all) {
            *lane.lock().unwrap_or_else(PoisonError::into_inner) = Some(one);
        }
        let word = self.word.load(Ordering::Relaxed) & !UP;
        self.word.store(word.wrapping_add(HANDED) | if up { UP } else { 0 }, Ordering::Release);
    }

    /// Takes what was put into a lane.
    pub(super) fn take(&self, queue: u16) -> Option<Handed> {
        self.lanes[usize::from(queue)].lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Port for XdpPort {
    fn driver(&self) -> &str {
        self.shared.way().name()
    }

    fn counters(&self) -> PortCounters {
        let shared = &self.shared;
        let lost = {
            let device = shared.device();
            device.past.and(Lost::of(&device.sockets))
        };
        let count = |counter: &AtomicU64| Some(counter.load(Ordering::Relaxed));
        PortCounters {
            rx_missed: Some(lost.missed),
            rx_no_buffer: Some(lost.no_buffer),
            tx_errors: Some(lost.tx_errors),
            rx_errors: count(&shared.strange),
            link_ups: count(&shared.ups),
            link_downs: count(&shared.downs),
            removals: count(&shared.removals),
            returns: count(&shared.returns),
            ..PortCounters::default()
        }
    }

    fn state(&self) -> PortState {
        match self.shared.device().on {
            None => PortState::Gone,
            Some(_) if self.shared.word.load(Ordering::Relaxed) & UP != 0 => PortState::Up,
            Some(_) => PortState::LinkDown,
        }
    }
}

impl Drop for XdpPort {
    fn drop(&mut self) {
        // The program leaves the device before the process says that it has ended.
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Bit of the word: frames can pass.
pub(super) const UP: u32 = 1;
/// Step of the word: something was handed to the queues.
const HANDED: u32 = 2;
