//! Opening a port: find or create the device, give it queues and buffers, start it.

use super::config::{Device, Memif, MemifRole, PortConfig};
use super::eal::{Eal, Shared};
use super::error::DpdkError;
use super::find;
use super::gate::{Gate, Line};
use super::log::Mark;
use super::memif::{self, InterfaceId, Matrix};
use super::packet::{self, Packet, Sockets};
use super::queue::DpdkQueue;
use super::relay::Relay;
use super::words;
use crate::Info;
use machnet_wire::Mac;
use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// An open port. Its queues share it; it closes with the last of them.
pub struct Port {
    pub(super) id: u16,
    pub(super) line: Arc<Line>,
    pub(super) gate: Option<Arc<Gate>>,
    /// Of an af_packet port; else none.
    pub(super) sockets: Sockets,
    /// After `gate` in order of dropping.
    _eal: Arc<Shared>,
}

/// Basic counters of a port, as its driver counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Frames received.
    pub rx_frames: u64,
    /// Frames sent.
    pub tx_frames: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Frames the NIC dropped because no descriptor was free.
    pub rx_missed: u64,
    /// Frames that arrived broken.
    pub rx_errors: u64,
    /// Frames that could not be sent.
    pub tx_errors: u64,
    /// Times no packet buffer was free.
    pub rx_no_buffer: u64,
    /// Times the link came up; 0 where nobody watches it.
    pub link_ups: u64,
    /// Times the link was lost.
    pub link_downs: u64,
    /// Peers turned away: for another interface, or because another had the link.
    pub link_refused: u64,
}

impl Eal {
    /// Opens one port and returns its queues, number 0 first. It closes when the last of them is dropped.
    ///
    /// A memif port opens whether or not its peer is there; frames sent meanwhile are dropped and counted.
    ///
    /// # Errors
    /// Every refusal as one [`DpdkError`].
    pub fn open(&self, config: &PortConfig) -> Result<Vec<DpdkQueue>, DpdkError> {
        let _one_at_a_time = self.shared.opening.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mark = Mark::now();
        self.open_port(config).map_err(|error| match (error, not_permitted(&mark)) {
            (DpdkError::Refused { step, .. }, Some(said)) => {
                DpdkError::NoPermission(format!("{step}: {said}"))
            }
            (DpdkError::Refused { step, errno: libc::ENOMEM, .. }, None) => {
                let (rings, room) = (config.descriptors, memif::buffer_size(config.mtu));
                DpdkError::TooLittleMemory { step, mib: enough(config.queues, rings, rings, room) }
            }
            (DpdkError::Refused { step, errno, detail }, None) if detail.is_empty() => {
                DpdkError::Refused { step, errno, detail: none_if_silent(&mark) }
            }
            (error, _) => error,
        })
    }

    fn open_port(&self, config: &PortConfig) -> Result<Vec<DpdkQueue>, DpdkError> {
        check(config)?;
        let mut opened = self.device(config)?;
        let info = port_info(opened.id)?;
        let matrix = opened.matrix;
        let offered = info.max_rx_queues.min(info.max_tx_queues);
        let rings = matrix.map_or(config.queues, |m| m.rings());
        if rings > offered {
            return Err(DpdkError::TooManyQueues {
                asked: config.queues,
                offered: offered / matrix.map_or(1, |m| m.theirs),
            });
        }
        let checksums = (
            config.checksum_offload && info.tx_udp_checksum != 0,
            config.checksum_offload && info.rx_udp_checksum != 0,
        );
        // memif and af_packet announce 1500 and carry whatever fits their buffers: they are asked for no more than they
        // announce.
        let most = info.max_mtu.min((info.max_frame as u16).saturating_sub(18));
        let modest = opened.gated || opened.packet.is_some();
        let mtu = if modest { config.mtu.min(most) } else { config.mtu };
        let interrupts = configure(opened.id, &PortConfig { mtu, ..config.clone() }, rings, checksums)?;

        let (mut rx, mut tx) = (config.descriptors, config.descriptors);
        let mut room = memif::buffer_size(config.mtu);
        if let Some(packet) = &opened.packet {
            (rx, tx) = (packet.slots, packet.slots); // the driver takes any number for its own
            room = room.max(packet.room);
        } else if matrix.is_none() {
            // SAFETY: both pointers are to live variables; the port is configured.
            unsafe { dpdk_sys::mdpdk_port_descriptors(opened.id, &mut rx, &mut tx) };
        }
        if rx.min(tx) < config.descriptors {
            log::warn!(
                "{} descriptors asked of {}: it has {rx} to receive and {tx} to send",
                config.descriptors,
                name(&info.driver)
            );
        }
        let mut pools = Vec::new();
        for queue in 0..config.queues {
            let pool = self.pool(room, &info, (rx, tx), config.queues)?;
            pools.push(pool);
            let (receive, transmit): (Vec<u16>, Vec<u16>) = match matrix {
                Some(m) => (m.receive(queue).collect(), m.transmit(queue).collect()),
                None => (vec![queue], vec![queue]),
            };
            for ring in receive {
                // SAFETY: the port is configured and stopped, the ring in range, the pool lives as long as the port.
                let ret = unsafe { dpdk_sys::mdpdk_rx_queue(opened.id, ring, rx, pool) };
                done(ret, "set up a receive queue")?;
            }
            for ring in transmit {
                // SAFETY: as above.
                done(unsafe { dpdk_sys::mdpdk_tx_queue(opened.id, ring, tx) }, "set up a transmit queue")?;
            }
        }
        if let (Some(mac), None) = (config.mac, &opened.memif) {
            // SAFETY: six readable bytes; the port is configured.
            done(unsafe { dpdk_sys::mdpdk_port_set_mac(opened.id, mac.0.as_ptr()) }, "set the MAC address")?;
        }
        let port = self.start_port(&mut opened)?;
        let info = port_info(port.id)?;
        // The driver has no interrupts, but its sockets can be waited for.
        let interrupts = interrupts || config.interrupts && port.sockets.of_queue(0).is_some();
        let info = Info {
            mac: Mac(info.mac),
            mtu: config.mtu,
            queues: config.queues,
            index: 0,
            descriptors: matrix.map_or(rx.min(tx), |m| m.theirs << m.log2_ring(config.descriptors)),
            driver: name(&info.driver),
            tx_checksum: checksums.0,
            rx_checksum: checksums.1,
            interrupts,
        };
        // One key for all our queues: to the peer they are the wire in front of one NIC.
        let key = opened.memif.as_ref().and_then(|m| m.rss_key).unwrap_or_else(random_key);
        Ok((0..config.queues)
            .map(|index| {
                DpdkQueue::new(
                    port.clone(),
                    Info { index, ..info.clone() },
                    pools[index as usize],
                    config.burst,
                    matrix,
                    &key,
                )
            })
            .collect())
    }

    /// Finds or creates the device.
    fn device(&self, config: &PortConfig) -> Result<Opened, DpdkError> {
        let serial = self.shared.serial.fetch_add(1, Ordering::Relaxed);
        match &config.device {
            Device::Memif(link) => {
                let matrix = Matrix::new(config.queues, link.peer_queues)?;
                memif::prepare_socket(link)?;
                let mac = find::text(config.mac.unwrap_or_else(random_mac));
                let device = format!("net_memif{serial}");
                let buffer = memif::buffer_size(config.mtu);
                let args = memif::devargs(&device, link, matrix, config.descriptors, buffer, &mac)?;
                let id = create_vdev(&args)?;
                let interface = InterfaceId::of(link, matrix, buffer);
                log::info!("memif {}: interface {interface}", link.socket.display());
                let matrix = Some(matrix);
                Ok(Opened {
                    matrix,
                    memif: Some(link.clone()),
                    interface,
                    gated: true,
                    reconnect: link.role == MemifRole::Client,
                    ..Opened::plain(id)
                })
            }
            Device::Vdev(args) if packet::is_one(args) => {
                words::check(args)?;
                let packet = Packet::new(args, config)?;
                packet.may_open()?;
                let (id, sockets) = Sockets::of(config.queues, || create_vdev(&packet.args))?;
                Ok(Opened { packet: Some(packet), sockets, ..Opened::plain(id) })
            }
            Device::Vdev(args) => {
                words::check(args)?;
                let gated = args.starts_with("net_memif");
                let reconnect = gated && !args.contains("role=server") && !args.contains("role=master");
                Ok(Opened { gated, reconnect, ..Opened::plain(create_vdev(args)?) })
            }
            Device::Pci(address) => {
                let address = find::pci_address(address)?;
                find::check_pci(&address)?;
                let mark = Mark::now();
                let id = port_by_name(&address).or_else(|_| {
                    probe(&address).ok();
                    port_by_name(&address)
                });
                let id = id.map_err(|_| DpdkError::NoDriver {
                    device: address.clone(),
                    detail: none_if_silent(&mark),
                })?;
                Ok(Opened::plain(id))
            }
            Device::Mac(mac) => {
                let found = ports().find(|&port| port_info(port).is_ok_and(|info| info.mac == mac.0));
                if let Some(id) = found {
                    return Ok(Opened::plain(id));
                }
                match find::pci_by_mac(*mac) {
                    Some(address) => {
                        self.device(&PortConfig { device: Device::Pci(address), ..config.clone() })
                    }
                    None => Err(DpdkError::NoSuchDevice(format!("with MAC address {}", find::text(*mac)))),
                }
            }
        }
    }

    /// Buffers for one of the queues: what its rings and bursts can hold at once, and the thread's cache.
    fn pool(
        &self,
        room: u16,
        info: &dpdk_sys::mdpdk_port_info,
        (rx, tx): (u16, u16),
        queues: u16,
    ) -> Result<*mut c_void, DpdkError> {
        let serial = self.shared.serial.fetch_add(1, Ordering::Relaxed);
        let pool_name = CString::new(format!("machnet{serial}")).expect("no zero byte");
        // SAFETY: the name is a C string, copied by the callee.
        let pool =
            unsafe { dpdk_sys::mdpdk_pool_new(pool_name.as_ptr(), buffers(rx, tx), room, info.numa_node) };
        if pool.is_null() {
            // SAFETY: reads this thread's error number.
            let errno = unsafe { dpdk_sys::mdpdk_errno() };
            return Err(match errno {
                libc::ENOMEM => too_little(queues, rx, tx, room),
                _ => DpdkError::Refused {
                    step: "allocate packet buffers".to_owned(),
                    errno,
                    detail: String::new(),
                },
            });
        }
        Ok(pool)
    }

    fn start_port(&self, opened: &mut Opened) -> Result<Arc<Port>, DpdkError> {
        let _eal = self.shared.clone();
        let sockets = std::mem::take(&mut opened.sockets);
        if !opened.gated {
            // SAFETY: the port is configured.
            done(unsafe { dpdk_sys::mdpdk_port_start(opened.id) }, "start the port")?;
            return Ok(Arc::new(Port { id: opened.id, line: Line::open(), gate: None, sockets, _eal }));
        }
        let gate = self.shared.gate()?;
        if !opened.reconnect {
            // A server listens only. A client's start connects: the gate's business.
            // SAFETY: the port is configured.
            done(unsafe { dpdk_sys::mdpdk_port_start(opened.id) }, "start the memif server")?;
        }
        let label = match &opened.memif {
            Some(link) => format!("memif {}", link.socket.display()),
            None => format!("memif port {}", opened.id),
        };
        let line = Line::down();
        gate.watch_port(opened.id, line.clone(), opened.reconnect, label);
        if let Some(link) = opened.memif.as_ref().filter(|link| link.role == MemifRole::Server) {
            let relay =
                Relay::open(opened.id, &link.socket, opened.interface, line.clone()).map_err(|error| {
                    DpdkError::Refused {
                        step: format!("listen on the memif socket {}", link.socket.display()),
                        errno: error.raw_os_error().unwrap_or(libc::EINVAL),
                        detail: String::new(),
                    }
                })?;
            gate.serve(relay);
        }
        Ok(Arc::new(Port { id: opened.id, line, gate: Some(gate), sockets, _eal }))
    }
}

/// A device with a port number, not yet configured.
struct Opened {
    id: u16,
    matrix: Option<Matrix>,
    memif: Option<Memif>,
    /// What both ends of a memif must name.
    interface: InterfaceId,
    packet: Option<Packet>,
    sockets: Sockets,
    /// Its driver works in EAL's interrupt thread.
    gated: bool,
    reconnect: bool,
}

impl Opened {
    fn plain(id: u16) -> Opened {
        Opened {
            id,
            matrix: None,
            memif: None,
            interface: InterfaceId(0),
            packet: None,
            sockets: Sockets::default(),
            gated: false,
            reconnect: false,
        }
    }
}

impl Port {
    /// What the driver counted, all queues together.
    pub fn stats(&self) -> PortStats {
        let mut raw = dpdk_sys::mdpdk_stats::default();
        // SAFETY: `raw` is writable; the port is open. A refusal leaves zeros.
        unsafe { dpdk_sys::mdpdk_port_stats(self.id, &mut raw) };
        PortStats {
            rx_frames: raw.rx_frames,
            tx_frames: raw.tx_frames,
            rx_bytes: raw.rx_bytes,
            tx_bytes: raw.tx_bytes,
            rx_missed: raw.rx_missed + self.sockets.missed(),
            rx_errors: raw.rx_errors,
            tx_errors: raw.tx_errors,
            rx_no_buffer: raw.rx_no_buffer,
            link_ups: self.line.ups.load(Ordering::Relaxed),
            link_downs: self.line.downs.load(Ordering::Relaxed),
            link_refused: self.line.refused.load(Ordering::Relaxed),
        }
    }

    /// Everything the driver counts, under the driver's own names.
    pub fn xstats(&self) -> Vec<(String, u64)> {
        // SAFETY: a null pointer with no room: only counts.
        let count = unsafe { dpdk_sys::mdpdk_port_xstats(self.id, std::ptr::null_mut(), 0) };
        let mut raw = vec![dpdk_sys::mdpdk_xstat::default(); count.max(0) as usize];
        // SAFETY: `raw` has room for as many entries as told.
        let count = unsafe { dpdk_sys::mdpdk_port_xstats(self.id, raw.as_mut_ptr(), raw.len() as u32) };
        raw.truncate(count.max(0) as usize);
        raw.iter().map(|x| (name(&x.name), x.value)).collect()
    }

    /// Whether frames can pass, as far as anybody knows.
    pub fn is_up(&self) -> bool {
        self.line.is_up()
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        let id = self.id;
        match &self.gate {
            // SAFETY: no queue of the port is left.
            None => unsafe {
                dpdk_sys::mdpdk_port_stop(id);
                dpdk_sys::mdpdk_port_close(id);
            },
            // memif leaves its listener registered with EAL when it is closed, so it is only stopped: the peer sees
            // the link end, and the memory goes with the process.
            Some(gate) => {
                gate.forget_port(id);
                // SAFETY: no queue of the port is left, and no callback of the driver runs meanwhile.
                gate.run(move || unsafe {
                    dpdk_sys::mdpdk_port_stop(id);
                });
            }
        }
    }
}

/// Buffers of one queue. memif's rings hold no buffers of ours, but it takes 32 at a time.
fn buffers(rx: u16, tx: u16) -> u32 {
    u32::from(rx) + u32::from(tx) + 512
}

/// Memory of one queue's buffers, KiB: each has DPDK's header and headroom before it.
pub(super) fn pool_kib(rx: u16, tx: u16, room: u16) -> u64 {
    u64::from(buffers(rx, tx)) * (u64::from(room) + 256) / 1024
}

/// What is enough for so many queues, and EAL beside them, MiB.
fn enough(queues: u16, rx: u16, tx: u16, room: u16) -> u64 {
    (pool_kib(rx, tx, room) * u64::from(queues)).div_ceil(1024) + 16
}

/// Why there are no buffers.
pub(super) fn too_little(queues: u16, rx: u16, tx: u16, room: u16) -> DpdkError {
    let each = pool_kib(rx, tx, room).div_ceil(1024);
    DpdkError::TooLittleMemory {
        step: format!(
            "allocate packet buffers, about {each} MiB for each engine, of which there are {queues}"
        ),
        mib: enough(queues, rx, tx, room),
    }
}

pub(super) fn check(config: &PortConfig) -> Result<(), DpdkError> {
    let bad = |text: String| Err(DpdkError::Config(text));
    match config {
        c if !(1..=64).contains(&c.queues) => bad(format!("queues {}: must be 1 to 64", c.queues)),
        c if !(64..=4096).contains(&c.descriptors) || !c.descriptors.is_power_of_two() => {
            bad(format!("descriptors {}: must be a power of two, 64 to 4096", c.descriptors))
        }
        c if !(576..=9001).contains(&c.mtu) => bad(format!("mtu {}: must be 576 to 9001", c.mtu)),
        c if !(1..=32).contains(&c.burst) => bad(format!("burst {}: must be 1 to 32", c.burst)),
        c if c.mac.is_some_and(|mac| mac.0[0] & 1 == 1) => bad("mac: must not be a group address".to_owned()),
        _ => Ok(()),
    }
}

/// Configures the port; returns whether it has receive interrupts. Drivers that have none refuse to be asked.
fn configure(id: u16, config: &PortConfig, rings: u16, checksums: (bool, bool)) -> Result<bool, DpdkError> {
    let mut asked = dpdk_sys::mdpdk_port_config {
        rx_queues: rings,
        tx_queues: rings,
        mtu: config.mtu,
        tx_checksum: checksums.0.into(),
        rx_checksum: checksums.1.into(),
        interrupts: 0,
    };
    if config.interrupts && !matches!(config.device, Device::Memif(_)) {
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

fn create_vdev(args: &str) -> Result<u16, DpdkError> {
    let mark = Mark::now();
    let device = args.split(',').next().unwrap_or_default();
    let unknown = || DpdkError::UnknownVdev { vdev: args.to_owned(), detail: none_if_silent(&mark) };
    match probe(args) {
        Ok(()) => port_by_name(device).map_err(|_| unknown()),
        Err(libc::EEXIST) => Err(DpdkError::Config(format!("virtual device {device}: the name is taken"))),
        Err(_) => Err(match not_permitted(&mark) {
            Some(said) => DpdkError::NoPermission(format!("create {device}: {said}")),
            None => unknown(),
        }),
    }
}

fn probe(devargs: &str) -> Result<(), i32> {
    let devargs = CString::new(devargs).map_err(|_| libc::EINVAL)?;
    // SAFETY: a C string, copied by the callee; EAL runs.
    match unsafe { dpdk_sys::mdpdk_probe(devargs.as_ptr()) } {
        0 => Ok(()),
        errno => Err(-errno),
    }
}

fn port_by_name(device: &str) -> Result<u16, i32> {
    let device = CString::new(device).map_err(|_| libc::EINVAL)?;
    // SAFETY: a C string that lives through the call.
    let port = unsafe { dpdk_sys::mdpdk_port_by_name(device.as_ptr()) };
    u16::try_from(port).map_err(|_| -port)
}

fn ports() -> impl Iterator<Item = u16> {
    let mut last = -1;
    std::iter::from_fn(move || {
        // SAFETY: no pointers.
        last = unsafe { dpdk_sys::mdpdk_port_next(last) };
        u16::try_from(last).ok()
    })
}

fn port_info(id: u16) -> Result<dpdk_sys::mdpdk_port_info, DpdkError> {
    let mut info = dpdk_sys::mdpdk_port_info::default();
    // SAFETY: `info` is writable.
    done(unsafe { dpdk_sys::mdpdk_port_info_get(id, &mut info) }, "ask the port what it is")?;
    Ok(info)
}

fn done(ret: i32, step: &str) -> Result<(), DpdkError> {
    if ret >= 0 {
        return Ok(());
    }
    Err(DpdkError::Refused { step: step.to_owned(), errno: -ret, detail: String::new() })
}

/// The complaint that something is not permitted. Not by the number: drivers return -1 for anything, which is EPERM's.
fn not_permitted(mark: &Mark) -> Option<String> {
    let said = mark.complaints();
    let denied = |line: &&str| {
        ["Operation not permitted", "Permission denied"].iter().any(|words| line.contains(words))
    };
    said.split("; ").find(denied).map(str::to_owned)
}

fn none_if_silent(mark: &Mark) -> String {
    let said = mark.complaints();
    if said.is_empty() { "DPDK gave no reason".to_owned() } else { said }
}

/// A C string out of a fixed array.
fn name(raw: &[c_char]) -> String {
    // SAFETY: the shim always writes a closing zero within the array.
    unsafe { CStr::from_ptr(raw.as_ptr()) }.to_string_lossy().into_owned()
}

fn random_key() -> [u8; 40] {
    let mut key = [0u8; 40];
    random(&mut key);
    key
}

/// A locally administered address nobody else has.
fn random_mac() -> Mac {
    let mut mac = [0u8; 6];
    random(&mut mac);
    mac[0] = mac[0] & 0xfc | 2;
    Mac(mac)
}

/// Fills `out` from the kernel's generator.
fn random(out: &mut [u8]) {
    // SAFETY: `out` is writable for its length; short requests are never interrupted once the generator is seeded.
    let got = unsafe { libc::getrandom(out.as_mut_ptr().cast(), out.len(), 0) };
    assert_eq!(got, out.len() as isize, "the kernel's random generator does not answer");
}
