//! Finds the device that the configuration names, or creates it, and notes what is special about its driver.

use super::devargs;
use super::error::DpdkError;
use super::ethdev;
use super::find;
use super::log::Mark;
use super::memif::{self, InterfaceId, Matrix};
use super::packet::{self, Packet, Sockets};
use super::random;
use crate::{Device, Memif, MemifRole, PortConfig};
use std::path::PathBuf;

/// A device with a port number, not yet configured.
pub(super) struct Found {
    pub id: u16,
    /// How the queues of both ends share a memif's rings.
    pub matrix: Option<Matrix>,
    pub memif: Option<Memif>,
    /// Where the driver of a memif listens, or connects.
    pub driver_socket: PathBuf,
    /// What both ends of a memif must name.
    pub interface: InterfaceId,
    pub packet: Option<Packet>,
    pub sockets: Sockets,
    /// Its driver works in EAL's interrupt thread.
    pub gated: bool,
    /// It connects, and its driver leaves connecting again to us.
    pub reconnect: bool,
}

impl Found {
    fn plain(id: u16) -> Found {
        Found {
            id,
            matrix: None,
            memif: None,
            driver_socket: PathBuf::new(),
            interface: InterfaceId(0),
            packet: None,
            sockets: Sockets::default(),
            gated: false,
            reconnect: false,
        }
    }
}

/// Finds or creates the device. `serial` makes its name one of a kind.
pub(super) fn open(device: &Device, config: &PortConfig, serial: u32) -> Result<Found, DpdkError> {
    match device {
        Device::Memif(link) => {
            let matrix = Matrix::new(config.queues, link.peer_queues)?;
            memif::prepare_socket(link)?;
            let mac = find::text(config.mac.unwrap_or_else(random::mac));
            let name = format!("net_memif{serial}");
            let buffer = memif::buffer_size(config.mtu);
            let socket = memif::driver_socket(link);
            let args = memif::devargs(&name, (link, &socket), matrix, config.descriptors, buffer, &mac)?;
            let id = ethdev::create_vdev(&args)?;
            let interface = InterfaceId::of(link, matrix, buffer);
            log::info!("memif {}: interface {interface}", link.socket.display());
            Ok(Found {
                matrix: Some(matrix),
                memif: Some(link.clone()),
                driver_socket: socket,
                interface,
                gated: true,
                reconnect: link.role == MemifRole::Client,
                ..Found::plain(id)
            })
        }
        Device::Vdev(args) if packet::is_one(args) => {
            devargs::check(args)?;
            let packet = Packet::new(args, config)?;
            packet.may_open()?;
            let (id, sockets) = Sockets::of(config.queues, || ethdev::create_vdev(&packet.args))?;
            Ok(Found { packet: Some(packet), sockets, ..Found::plain(id) })
        }
        Device::Vdev(args) => {
            devargs::check(args)?;
            let gated = args.starts_with("net_memif");
            let reconnect = gated && !args.contains("role=server") && !args.contains("role=master");
            Ok(Found { gated, reconnect, ..Found::plain(ethdev::create_vdev(args)?) })
        }
        Device::Pci(address) => at_pci(address),
        Device::Mac(mac) => {
            let has = |port: &u16| ethdev::port_info(*port).is_ok_and(|info| info.mac == mac.0);
            if let Some(id) = ethdev::ports().find(has) {
                return Ok(Found::plain(id));
            }
            match find::pci_by_mac(*mac) {
                Some(address) => at_pci(&address),
                None => Err(DpdkError::NoSuchDevice(format!("with MAC address {}", find::text(*mac)))),
            }
        }
    }
}

fn at_pci(address: &str) -> Result<Found, DpdkError> {
    let address = find::pci_address(address)?;
    find::check_pci(&address)?;
    let mark = Mark::now();
    let id = ethdev::port_by_name(&address).or_else(|_| {
        ethdev::probe(&address).ok();
        ethdev::port_by_name(&address)
    });
    match id {
        Ok(id) => Ok(Found::plain(id)),
        Err(_) => Err(DpdkError::NoDriver { device: address, detail: ethdev::none_if_silent(&mark) }),
    }
}
