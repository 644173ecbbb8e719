//! Which NIC the settings choose.

use machnet_nic::xdp::Xdp;
use machnet_nic::{Device, Memif};

use super::settings::{self, Given};
use super::{Mistake, Reader, values};

/// A NIC, by the back end of `machnet_nic` that drives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChosenNic {
    /// One of DPDK's.
    Dpdk(Device),
    /// One that the kernel keeps, by AF_XDP sockets.
    Xdp(Xdp),
}

impl ChosenNic {
    /// Whether the device reads and writes this machine's memory by itself: then it needs huge pages.
    pub fn is_physical(&self) -> bool {
        matches!(self, ChosenNic::Dpdk(Device::Pci(_) | Device::Mac(_)))
    }
}

/// The settings that choose a NIC and are given, with their keys; one of them, if nothing is wrong.
pub fn chosen(nic: &settings::Nic) -> impl Iterator<Item = (&'static str, &Option<Given>)> {
    let all = [
        ("nic.memif", &nic.memif),
        ("nic.pci", &nic.pci),
        ("nic.mac", &nic.mac),
        ("nic.vdev", &nic.vdev),
        ("nic.xdp", &nic.xdp),
    ];
    all.into_iter().filter(|(_, given)| given.is_some())
}

impl Reader<'_> {
    /// The NIC that is chosen. What is wrong is noted.
    pub(super) fn nic(&self, nic: &settings::Nic, engines: i64, unreadable: bool) -> ChosenNic {
        let nothing = || ChosenNic::Dpdk(Device::Vdev(String::new()));
        let mut chosen = chosen(nic);
        let Some((first, _)) = chosen.next() else {
            if !unreadable {
                self.note(Mistake::somewhere(
                    "no NIC is chosen; give one of --memif ROLE:SOCKET, --pci ADDRESS, --mac MAC, --vdev DEVICE or --xdp DEVICE, or its key in the section [nic]",
                ));
            }
            return nothing();
        };
        if let Some((second, given)) = chosen.next() {
            let reason = format!("{first} chooses a NIC already; use one of memif, pci, mac, vdev and xdp");
            self.refuse(second, given, &reason);
            return nothing();
        }
        if nic.memif.is_some() {
            let link = self.take("nic.memif", &nic.memif, values::memif);
            let peer_queues = self.number("nic.memif_peer_queues", &nic.memif_peer_queues, 1..=16, 1);
            if peer_queues * engines > 128 {
                let reason =
                    format!("with {engines} engines that makes more than 128 rings; use fewer of either");
                self.refuse("nic.memif_peer_queues", &nic.memif_peer_queues, &reason);
            }
            let id = self.number("nic.memif_id", &nic.memif_id, 0..=i64::from(Memif::LARGEST_ID), 0);
            let Some((role, socket)) = link else { return nothing() };
            // The driver wants it whole; an abstract name begins with @ and is whole. There is no error but an empty path,
            // which `values::memif` refuses.
            let abstract_name = socket.as_os_str().as_encoded_bytes().starts_with(b"@");
            let socket = if abstract_name { socket } else { std::path::absolute(&socket).unwrap_or(socket) };
            return ChosenNic::Dpdk(Device::Memif(Memif {
                id: id as u32,
                peer_queues: peer_queues as u16,
                ..Memif::new(socket, role)
            }));
        }
        for (key, given) in
            [("nic.memif_id", &nic.memif_id), ("nic.memif_peer_queues", &nic.memif_peer_queues)]
        {
            if given.is_some() {
                let reason = format!("of use to a memif only, and the NIC is chosen by {first}");
                self.refuse(key, given, &reason);
            }
        }
        if nic.xdp.is_some() {
            let interface = self.take("nic.xdp", &nic.xdp, values::interface);
            let mode = self.take("nic.xdp_mode", &nic.xdp_mode, values::xdp_mode).unwrap_or_default();
            return interface.map_or_else(nothing, |interface| ChosenNic::Xdp(Xdp { interface, mode }));
        }
        if nic.xdp_mode.is_some() {
            let reason = format!("of use to AF_XDP only, and the NIC is chosen by {first}");
            self.refuse("nic.xdp_mode", &nic.xdp_mode, &reason);
        }
        None.or_else(|| self.take("nic.pci", &nic.pci, values::pci).map(Device::Pci))
            .or_else(|| self.take("nic.mac", &nic.mac, values::mac).map(Device::Mac))
            .or_else(|| self.take("nic.vdev", &nic.vdev, values::text).map(Device::Vdev))
            .map_or_else(nothing, ChosenNic::Dpdk)
    }
}
