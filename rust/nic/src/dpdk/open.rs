//! Opening a port: get the device, give it queues and buffers, start it.

use super::bell::Bells;
use super::buffers;
use super::descriptors;
use super::device::{self, Found};
use super::drivers::Installed;
use super::eal::Eal;
use super::error::DpdkError;
use super::ethdev::{self, done};
use super::keeper::{Events, Keeper};
use super::kept::{Kept, Setup};
use super::line::Line;
use super::log::{self, Mark};
use super::memif;
use super::port::{DpdkPort, Watch};
use super::queue::{DpdkQueue, Rings};
use super::random;
use super::relay::Relay;
use super::seat::Seat;
use crate::{Device, EalConfig, Info, MemifRole, Opened, Port, PortConfig};
use machnet_wire::Mac;
use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Starts DPDK and opens one NIC: all that a sidecar needs. Once per process.
///
/// # Errors
/// Every refusal as one [`DpdkError`].
pub fn open(device: &Device, config: &PortConfig, eal: &EalConfig) -> Result<Opened<DpdkQueue>, DpdkError> {
    Eal::start(eal, std::slice::from_ref(device))?.open(device, config)
}

impl Eal {
    /// Opens one port and its queues. It closes when the last of them, and the port, are dropped.
    ///
    /// A memif port opens whether or not its peer is there; frames sent meanwhile are dropped and counted.
    ///
    /// # Errors
    /// Every refusal as one [`DpdkError`].
    pub fn open(&self, device: &Device, config: &PortConfig) -> Result<Opened<DpdkQueue>, DpdkError> {
        let _one_at_a_time = self.environment.opening.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mark = Mark::now();
        self.open_port(device, config).map_err(|error| match (error, ethdev::not_permitted(&mark)) {
            (DpdkError::Refused { step, .. }, Some(said)) => {
                DpdkError::NoPermission(format!("{step}: {said}"))
            }
            (DpdkError::Refused { step, errno: libc::ENOMEM, .. }, None) => {
                let (rings, room) = (config.descriptors, memif::buffer_size(config.mtu));
                DpdkError::TooLittleMemory {
                    step,
                    mib: buffers::enough(config.queues, rings.into(), rings.into(), room),
                }
            }
            (DpdkError::Refused { step, errno, detail }, None) if detail.is_empty() => {
                DpdkError::Refused { step, errno, detail: ethdev::none_if_silent(&mark) }
            }
            (error, _) => error,
        })
    }

    fn open_port(&self, device: &Device, config: &PortConfig) -> Result<Opened<DpdkQueue>, DpdkError> {
        config.check().map_err(DpdkError::Config)?;
        let mut found = device::open(device, config, self.serial())?;
        let info = ethdev::port_info(found.id)?;
        let matrix = found.matrix;
        let driver = ethdev::name(&info.driver);
        let installed = Installed::look();
        installed.check_gve(&ethdev::name(&info.device), &driver, log::was_said)?;
        let offered = info.max_rx_queues.min(info.max_tx_queues);
        let rings = matrix.map_or(config.queues, |m| m.rings());
        if rings > offered {
            return Err(DpdkError::TooManyQueues {
                asked: config.queues,
                offered: offered / matrix.map_or(1, |m| m.theirs),
            });
        }
        if matches!(device, Device::Pci(_) | Device::Mac(_)) {
            ethdev::check_spreading(&info, config.queues)?;
        }
        // memif's hash is our own, and the kernel's for af_packet covers ports.
        if matrix.is_none() && found.packet.is_none() {
            ethdev::doubt_of_spreading(&info, config.queues)
                .into_iter()
                .for_each(|doubt| ::log::warn!("{doubt}"));
        }
        let checksums = (
            config.checksum_offload && info.tx_udp_checksum != 0,
            config.checksum_offload && info.rx_udp_checksum != 0,
        );
        // memif and af_packet announce 1500 and carry whatever fits their buffers: they are asked for no more than they
        // announce.
        let most = info.max_mtu.min((info.max_frame as u16).saturating_sub(18));
        let announces_less = found.gated || found.packet.is_some();
        let mtu = if announces_less { config.mtu.min(most) } else { config.mtu };
        installed.check_mtu(&info, mtu)?;
        // memif has no interrupts, and complains when it is asked.
        let interrupts = config.interrupts && found.memif.is_none();
        let interrupts = ethdev::configure(found.id, rings, mtu, checksums, interrupts)?;

        let (rx, tx) = descriptors::agree(&found, config, &info);
        let pools = self.set_up_queues(&found, config, &info, (rx, tx))?;
        if let (Some(mac), None) = (config.mac, &found.memif) {
            // SAFETY: six readable bytes; the port is configured.
            done(unsafe { dpdk_sys::mdpdk_port_set_mac(found.id, mac.0.as_ptr()) }, "set the MAC address")?;
        }
        // One key for all our queues: to the peer they are the wire in front of one NIC.
        let key = found.memif.as_ref().and_then(|m| m.rss_key).unwrap_or_else(random::key);
        let packet = found.packet.take();
        let usual = memif::buffer_size(config.mtu);
        let setup = Setup {
            queues: config.queues,
            mtu,
            checksums,
            interrupts,
            descriptors: (rx, tx),
            filled: descriptors::buffers_of(&driver, rx),
            room: packet.as_ref().map_or(usual, |packet| packet.room.max(usual)),
            set_mac: config.mac,
            mac: Mac(info.mac),
            kernels: packet.as_ref().map(|packet| (packet.device.clone(), packet.index)),
        };
        let before = descriptors::available(pools[0]);
        let port = self.start_port(found, driver.clone(), &pools, (device, config, setup))?;
        let rx = descriptors::ask_pool(&driver, rx, before, pools[0]);
        // The address is known for certain once the port has started.
        let info = Info {
            mac: Mac(ethdev::port_info(port.seat.id())?.mac),
            mtu: config.mtu,
            queues: config.queues,
            index: 0,
            descriptors: matrix.map_or(rx.min(tx), |m| m.theirs << m.log2_ring(config.descriptors)),
            tx_checksum: checksums.0,
            rx_checksum: checksums.1,
            // af_packet's driver has no interrupts, but its sockets can be waited for.
            interrupts: interrupts || config.interrupts && port.sockets.of_queue(0).is_some(),
        };
        let queues = (0..config.queues).zip(pools).map(|(index, pool)| {
            let rings = Rings::of(index, matrix);
            let slots = packet.as_ref().and_then(|packet| port.sockets.slots(index, packet));
            DpdkQueue::new(
                port.clone(),
                Info { index, ..info.clone() },
                pool,
                config.burst,
                rings,
                slots,
                &key,
            )
        });
        Ok(Opened { queues: queues.collect(), port: port.clone() as Arc<dyn Port> })
    }

    /// Gives the port its receive and transmit queues, and each of ours its pool. Returns the pools.
    fn set_up_queues(
        &self,
        found: &Found,
        config: &PortConfig,
        info: &dpdk_sys::mdpdk_port_info,
        (rx, tx): (u16, u16),
    ) -> Result<Vec<*mut c_void>, DpdkError> {
        let usual = memif::buffer_size(config.mtu);
        let room = found.packet.as_ref().map_or(usual, |packet| packet.room.max(usual));
        let filled = descriptors::buffers_of(&ethdev::name(&info.driver), rx);
        let mut pools = Vec::new();
        for queue in 0..config.queues {
            let pool =
                buffers::pool(self.serial(), room, info.numa_node, (filled, tx.into()), config.queues)?;
            pools.push(pool);
            let Rings { receive, transmit } = Rings::of(queue, found.matrix);
            for ring in receive {
                // SAFETY: the port is configured and stopped, the ring in range, the pool lives as long as the port.
                let ret = unsafe { dpdk_sys::mdpdk_rx_queue(found.id, ring, rx, pool) };
                done(ret, "set up a receive queue")?;
            }
            for ring in transmit {
                // SAFETY: as above.
                done(unsafe { dpdk_sys::mdpdk_tx_queue(found.id, ring, tx) }, "set up a transmit queue")?;
            }
        }
        Ok(pools)
    }

    fn start_port(
        &self,
        found: Found,
        driver: String,
        pools: &[*mut c_void],
        (device, config, mut setup): (&Device, &PortConfig, Setup),
    ) -> Result<Arc<DpdkPort>, DpdkError> {
        let Found { id, memif, driver_socket, interface, sockets, gated, reconnect, .. } = found;
        let environment = self.environment.clone();
        if !gated {
            // SAFETY: the port is configured.
            done(unsafe { dpdk_sys::mdpdk_port_start(id) }, "start the port")?;
            let info = ethdev::port_info(id)?;
            setup.mac = Mac(info.mac);
            let seat = Seat::new(id, Line::open(), pools);
            let events: &'static Events = Box::leak(Box::default());
            let kept = Kept::new(
                seat.clone(),
                (device.clone(), &ethdev::name(&info.device)),
                config.clone(),
                setup,
                environment.clone(),
                events,
            );
            let keeper = Keeper::start(device.label(), kept, events).map_err(|error| DpdkError::Refused {
                step: "start the thread that keeps the NIC".to_owned(),
                errno: error.raw_os_error().unwrap_or(libc::EAGAIN),
                detail: String::new(),
            })?;
            return Ok(DpdkPort::new(driver, seat, Watch::Keeper(keeper), sockets, None, environment));
        }
        let gate = self.environment.gate()?;
        if !reconnect {
            // A server only listens. A client connects when it is started, which the gate does.
            // SAFETY: the port is configured.
            done(unsafe { dpdk_sys::mdpdk_port_start(id) }, "start the memif server")?;
        }
        let label = match &memif {
            Some(link) => format!("memif {}", link.socket.display()),
            None => format!("memif port {id}"),
        };
        let line = Line::down();
        let bells = memif.is_some().then(Arc::<Bells>::default);
        if let (Some(link), Some(bells)) = (&memif, &bells) {
            let (ours, theirs) = match link.role {
                MemifRole::Server => (&link.socket, &driver_socket),
                MemifRole::Client => (&driver_socket, &link.socket),
            };
            let shared = (interface, line.clone(), bells.clone());
            let relay =
                Relay::open(id, link.role, (ours, theirs), shared).map_err(|error| DpdkError::Refused {
                    step: format!("listen on the memif socket {}", ours.display()),
                    errno: error.raw_os_error().unwrap_or(libc::EINVAL),
                    detail: String::new(),
                })?;
            gate.serve(relay);
        }
        gate.watch_link(id, line.clone(), reconnect, label);
        let seat = Seat::new(id, line, pools);
        let bells = bells.filter(|_| config.interrupts);
        Ok(DpdkPort::new(driver, seat, Watch::Gate(gate), sockets, bells, environment))
    }

    /// A number that no virtual device or pool of this process has had.
    fn serial(&self) -> u32 {
        self.environment.serial.fetch_add(1, Ordering::Relaxed)
    }
}
