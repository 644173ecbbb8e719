//! DPDK's side of a [keeper](super::keeper): a port that is started again as it was, and a device that is let go and opened anew.

use super::buffers;
use super::device::{self, Found};
use super::eal::Environment;
use super::error::DpdkError;
use super::ethdev::{self, done};
use super::find;
use super::keeper::{Device, Event, Events, Outcome};
use super::seat::Seat;
use crate::PortConfig;
use crate::kernel;
use machnet_wire::Mac;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;

/// How a port was brought into operation, to be done again. One queue of the driver's for each of ours: no memif.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    pub queues: u16,
    /// As the driver was told.
    pub mtu: u16,
    /// Of what is sent, and of what is received.
    pub checksums: (bool, bool),
    pub interrupts: bool,
    /// Of each receive and each transmit ring.
    pub descriptors: (u16, u16),
    /// Buffers that lie in a receive ring.
    pub filled: u32,
    /// Of a buffer, bytes.
    pub room: u16,
    /// To be set, unless the device's own is used.
    pub set_mac: Option<Mac>,
    /// That the port had.
    pub mac: Mac,
    /// Of an af_packet port the kernel's device: its name and number. The driver calls its link up whatever it is.
    pub kernels: Option<(String, u32)>,
}

/// A NIC that has a keeper.
pub(super) struct Kept {
    seat: Arc<Seat>,
    device: crate::Device,
    config: PortConfig,
    setup: Setup,
    environment: Arc<Environment>,
    events: &'static Events,
    /// Its address on the PCI bus, if it is there.
    pci: Option<String>,
    /// Free buffers of each queue when the port was first started.
    levels: Vec<u32>,
    /// Pools that were replaced, and the queues that may still hold buffers of them.
    retired: Vec<(u16, Buffers)>,
    /// This thread has asked EAL for a place.
    registered: bool,
}

/// A pool of buffers, which may be used by any thread.
struct Buffers(*mut c_void);

// SAFETY: DPDK's pools are not bound to a thread.
unsafe impl Send for Buffers {}

impl Setup {
    /// Configures a port that is stopped, gives it its queues, and starts it.
    fn apply(&self, id: u16, pools: impl Fn(u16) -> *mut c_void) -> Result<(), DpdkError> {
        let interrupts = ethdev::configure(id, self.queues, self.mtu, self.checksums, self.interrupts)?;
        if self.interrupts && !interrupts {
            log::warn!("the NIC has no receive interrupts any more; idle engines look ten times a second");
        }
        let (rx, tx) = self.descriptors;
        for queue in 0..self.queues {
            // SAFETY: the port is configured and stopped, the queue in range; the pool lives until the queue has another.
            done(unsafe { dpdk_sys::mdpdk_rx_queue(id, queue, rx, pools(queue)) }, "set up a receive queue")?;
            // SAFETY: as above.
            done(unsafe { dpdk_sys::mdpdk_tx_queue(id, queue, tx) }, "set up a transmit queue")?;
        }
        if let Some(mac) = self.set_mac {
            // SAFETY: six readable bytes; the port is configured.
            done(unsafe { dpdk_sys::mdpdk_port_set_mac(id, mac.0.as_ptr()) }, "set the MAC address")?;
        }
        // SAFETY: the port is configured.
        done(unsafe { dpdk_sys::mdpdk_port_start(id) }, "start the port")?;
        let mac = Mac(ethdev::port_info(id)?.mac);
        if mac != self.mac {
            let (now, before) = (find::text(mac), find::text(self.mac));
            return Err(unfit(format!(
                "its address is {now}, and was {before}: restart the sidecar to use it"
            )));
        }
        Ok(())
    }

    /// Buffers of a queue's pool.
    fn buffers(&self) -> u32 {
        buffers::count(self.filled, self.descriptors.1.into())
    }
}

impl Kept {
    /// A port that was just started; `device` is what was asked for, and `name` what EAL calls it.
    pub(super) fn new(
        seat: Arc<Seat>,
        (device, name): (crate::Device, &str),
        config: PortConfig,
        setup: Setup,
        environment: Arc<Environment>,
        events: &'static Events,
    ) -> Kept {
        let levels = (0..setup.queues).map(|queue| free(&seat, queue)).collect();
        let pci = find::pci_address(name).ok();
        let (retired, registered) = (Vec::new(), false);
        let kept =
            Kept { seat, device, config, setup, environment, events, pci, levels, retired, registered };
        kept.listen();
        kept
    }

    /// Has the device, and the machine, tell of events. A refusal is said in the log: the rest works without.
    fn listen(&self) {
        if let Err(error) = watch(self.seat.id(), self.events) {
            log::warn!("hear what the device asks for: {error}; it is not started again when it does");
        }
        if let Some(address) = &self.pci {
            hear_of_devices(address, self.events);
        }
    }

    fn restart_port(&mut self) -> Result<(), DpdkError> {
        let id = self.seat.id();
        self.seat.read(id);
        // SAFETY: the port is open, no burst touches it, and only this thread works on it.
        match unsafe { dpdk_sys::mdpdk_port_reset(id) } {
            0 => {}
            // SAFETY: as above.
            _ => done(unsafe { dpdk_sys::mdpdk_port_stop(id) }, "stop the port")?,
        }
        self.setup.apply(id, |queue| self.seat.pool(queue))?;
        self.seat.read(id);
        let starved = (0..).zip(&self.levels).find(|&(queue, level)| free(&self.seat, queue) < level / 2);
        starved.map_or(Ok(()), |(queue, _)| {
            Err(unfit(format!("half of the buffers of queue {queue} have not come back from the driver")))
        })
    }

    fn open_device(&mut self) -> Result<(), DpdkError> {
        let environment = self.environment.clone();
        let _one_at_a_time = environment.opening.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let id = self.find()?.id;
        match self.open_port(id) {
            Ok(()) => {
                self.seat.set_id(id);
                self.seat.read(id);
                // One that is known by its MAC address may be back at another place.
                let name = ethdev::port_info(id).map(|info| ethdev::name(&info.device)).unwrap_or_default();
                self.pci = find::pci_address(&name).ok();
                hear_no_more(self.events);
                self.listen();
                Ok(())
            }
            Err(error) => {
                remove(id);
                Err(error)
            }
        }
    }

    fn open_port(&mut self, id: u16) -> Result<(), DpdkError> {
        let info = ethdev::port_info(id)?;
        let (queues, offered) = (self.setup.queues, info.max_rx_queues.min(info.max_tx_queues));
        if queues > offered {
            return Err(DpdkError::TooManyQueues { asked: queues, offered });
        }
        let (tx, rx) = self.setup.checksums;
        if tx && info.tx_udp_checksum == 0 || rx && info.rx_udp_checksum == 0 {
            return Err(unfit(
                "it offers no checksums any more: restart the sidecar to use it without".to_owned(),
            ));
        }
        (0..queues).for_each(|queue| self.mend_pool(queue, info.numa_node));
        self.setup.apply(id, |queue| self.seat.pool(queue))
    }

    /// The device, as it was first found; one that has no name in the kernel is looked for where it was.
    fn find(&self) -> Result<Found, DpdkError> {
        let serial = || self.environment.serial.fetch_add(1, Ordering::Relaxed);
        match (device::open(&self.device, &self.config, serial()), &self.pci) {
            (Err(DpdkError::NoSuchDevice(_)), Some(address))
                if matches!(self.device, crate::Device::Mac(_)) =>
            {
                device::open(&crate::Device::Pci(address.clone()), &self.config, serial())
            }
            (found, _) => found,
        }
    }

    /// Replaces a queue's pool if buffers are missing though the port was closed.
    fn mend_pool(&mut self, queue: u16, numa_node: i32) {
        let Setup { room, filled, descriptors: (_, tx), queues, .. } = self.setup;
        let old = self.seat.pool(queue);
        let free = free(&self.seat, queue);
        if free + IN_HANDS >= self.setup.buffers() {
            return;
        }
        let missing = self.setup.buffers() - free;
        let serial = self.environment.serial.fetch_add(1, Ordering::Relaxed);
        match buffers::pool(serial, room, numa_node, (filled, tx.into()), queues) {
            Ok(pool) => {
                log::info!("{missing} buffers of queue {queue} went with the device; it has new ones");
                self.seat.set_pool(queue, pool);
                self.retired.push((queue, Buffers(old)));
            }
            Err(error) => {
                log::warn!("{missing} buffers of queue {queue} went with the device, and stay away: {error}");
            }
        }
    }

    /// Frees pools that are whole again. One of which buffers are lost stays: whoever has them, be it a device that hangs, may write to them.
    fn free_retired(&mut self) {
        let all = self.setup.buffers();
        self.retired.retain(|(queue, Buffers(pool))| {
            // SAFETY: a retired pool is there until it is freed below, and then it is no longer retired.
            let whole =
                self.seat.has_adopted(*queue) && unsafe { dpdk_sys::mdpdk_pool_available(*pool) } == all;
            if whole {
                // SAFETY: nobody holds a buffer of it, and no queue will take one.
                unsafe { dpdk_sys::mdpdk_pool_free(*pool) };
            }
            !whole
        });
    }
}

impl Device for Kept {
    fn park(&mut self) -> bool {
        self.seat.line.set_parked(true);
        self.seat.line.wait_until_quiet(PARK)
    }

    fn resume(&mut self) {
        self.seat.line.set_parked(false);
    }

    fn restart(&mut self) -> Outcome {
        let seat = self.seat.clone();
        let _mine = seat.device();
        // SAFETY: the port is open.
        if unsafe { dpdk_sys::mdpdk_port_is_removed(seat.id()) } == 1 || !self.is_there() {
            return Outcome::Absent;
        }
        outcome(self.restart_port())
    }

    fn release(&mut self) {
        let seat = self.seat.clone();
        let _mine = seat.device();
        // SAFETY: the port is open; no burst touches it.
        unsafe { dpdk_sys::mdpdk_events_forget(seat.id()) };
        remove(seat.id());
    }

    fn open(&mut self) -> Outcome {
        let seat = self.seat.clone();
        let _mine = seat.device();
        outcome(self.open_device())
    }

    fn link_is_up(&mut self) -> bool {
        if let Some((name, index)) = &self.setup.kernels {
            return kernel::look(name).is_ok_and(|device| device.index == *index && device.running);
        }
        // Whoever reads counters at the moment is waited for.
        let _mine = self.seat.device();
        // SAFETY: the port is open. A driver that cannot tell has its link.
        unsafe { dpdk_sys::mdpdk_port_link_up(self.seat.id()) != 0 }
    }

    fn is_there(&mut self) -> bool {
        self.pci.as_ref().is_none_or(|address| Path::new("/sys/bus/pci/devices").join(address).exists())
    }

    fn tick(&mut self) {
        if !std::mem::replace(&mut self.registered, true) {
            // A driver's timer runs on a thread that EAL knows. Without a place in its table there are no timers.
            // SAFETY: EAL runs as long as a port is open.
            let _ = unsafe { dpdk_sys::mdpdk_thread_register() };
        }
        // SAFETY: drivers expect their timers beside bursts, and only this thread does anything else to the port.
        unsafe { dpdk_sys::mdpdk_timers_run() };
        self.free_retired();
    }

    fn end(&mut self, released: bool) {
        hear_no_more(self.events);
        if released {
            return;
        }
        let id = self.seat.id();
        // SAFETY: no queue of the port is left.
        unsafe {
            dpdk_sys::mdpdk_events_forget(id);
            dpdk_sys::mdpdk_port_stop(id);
            dpdk_sys::mdpdk_port_close(id);
        }
    }
}

/// Buffers of a queue's pool that nobody holds.
fn free(seat: &Seat, queue: u16) -> u32 {
    // SAFETY: the pool lives as long as it is in its seat.
    unsafe { dpdk_sys::mdpdk_pool_available(seat.pool(queue)) }
}

/// A device that cannot go on as it was.
fn unfit(detail: String) -> DpdkError {
    DpdkError::Refused { step: "go on as before".to_owned(), errno: libc::EPERM, detail }
}

fn outcome(result: Result<(), DpdkError>) -> Outcome {
    match result {
        Ok(()) => Outcome::Done,
        Err(DpdkError::NoSuchDevice(_)) => Outcome::Absent,
        Err(error) => Outcome::Failed(error.to_string()),
    }
}

/// Stops and closes a port and gives its device back. No burst touches it.
fn remove(id: u16) {
    // SAFETY: the port is open; a device that has gone may refuse, and is let go all the same.
    let ret = unsafe {
        dpdk_sys::mdpdk_port_stop(id);
        dpdk_sys::mdpdk_port_remove(id)
    };
    if ret < 0 {
        log::warn!("let the device of port {id} go: {}", std::io::Error::from_raw_os_error(-ret));
    }
}

/// Has the driver of a port speak to `events`.
fn watch(id: u16, events: &'static Events) -> Result<(), DpdkError> {
    let arg = std::ptr::from_ref(events).cast_mut().cast::<c_void>();
    // SAFETY: the port is open; `arg` lives for ever.
    done(unsafe { dpdk_sys::mdpdk_events_watch(id, Some(on_event), arg) }, "watch the port")
}

extern "C" fn on_event(event: c_int, arg: *mut c_void) {
    // SAFETY: the `Events` that `watch` gave away for ever.
    let events = unsafe { &*arg.cast::<Events>() };
    events.say(match event as u32 {
        dpdk_sys::MDPDK_EVENT_RESET => Event::Reset,
        dpdk_sys::MDPDK_EVENT_REMOVED => Event::Removed,
        dpdk_sys::MDPDK_EVENT_RECOVERING => Event::Recovering,
        dpdk_sys::MDPDK_EVENT_RECOVERED => Event::Recovered,
        _ => Event::RecoveryFailed,
    });
}

/// Who wants to hear of which device of the machine.
static LISTENERS: Mutex<Vec<(String, &'static Events)>> = Mutex::new(Vec::new());

/// Has the machine tell `events` of devices, of this one that it is taken away. Where it tells nothing, as in a network namespace of its own,
/// the device's folder in /sys does, a little later.
fn hear_of_devices(address: &str, events: &'static Events) {
    static ONCE: Once = Once::new();
    LISTENERS.lock().unwrap_or_else(PoisonError::into_inner).push((address.to_owned(), events));
    ONCE.call_once(|| {
        // SAFETY: EAL runs; the function lives for ever and needs no argument.
        let ret = unsafe { dpdk_sys::mdpdk_hotplug_watch(Some(on_device), std::ptr::null_mut()) };
        if ret < 0 {
            log::warn!(
                "hear of devices that come and go: {}; they are looked for in /sys",
                std::io::Error::from_raw_os_error(-ret)
            );
        }
    });
}

fn hear_no_more(events: &'static Events) {
    let mut listeners = LISTENERS.lock().unwrap_or_else(PoisonError::into_inner);
    listeners.retain(|(_, other)| !std::ptr::eq(*other, events));
}

extern "C" fn on_device(device: *const c_char, came: c_int, _: *mut c_void) {
    if device.is_null() {
        return;
    }
    // SAFETY: a C string that lives through the call.
    let device = unsafe { CStr::from_ptr(device) }.to_bytes();
    for (address, events) in LISTENERS.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        if came != 0 {
            events.say(Event::Appeared);
        } else if address.as_bytes() == device {
            events.say(Event::Removed);
        }
    }
}

/// How long one attempt waits for queues to come out of their bursts.
const PARK: Duration = Duration::from_millis(1);
/// Buffers that a queue may hold between two bursts: a burst to be sent, and one to be filled.
const IN_HANDS: u32 = 64;
