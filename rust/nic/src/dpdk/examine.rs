//! What can be known of a NIC before DPDK is started: most of what it would refuse, in plain words, and what would
//! start and hardly do what was meant.

use super::buffers;
use super::devargs;
use super::eal;
use super::error::DpdkError;
use super::memif::{self, Matrix};
use super::packet::{self, Packet};
use crate::{Device, EalConfig, Memory, PortConfig};
use std::net::Ipv4Addr;

/// Looks at the machine and starts nothing. Returns what is doubtful for a host with this address, a sentence each.
///
/// # Errors
/// What EAL or the port would be refused for.
pub fn examine(
    device: &Device,
    port: &PortConfig,
    eal: &EalConfig,
    ip: Ipv4Addr,
) -> Result<Vec<String>, DpdkError> {
    eal::arguments(eal, std::slice::from_ref(device))?;
    port.check().map_err(DpdkError::Config)?;
    let mut doubts = Vec::new();
    let mut room = memif::buffer_size(port.mtu);
    match device {
        Device::Memif(link) => {
            let matrix = Matrix::new(port.queues, link.peer_queues)?;
            memif::devargs(
                "net_memif",
                (link, &memif::driver_socket(link)),
                matrix,
                port.descriptors,
                room,
                "",
            )?;
            memif::check_folder(link)?;
        }
        Device::Vdev(args) => {
            devargs::check(args)?;
            if packet::is_one(args) {
                let packet = Packet::new(args, port)?;
                packet.may_open()?;
                room = room.max(packet.room);
                doubts.extend(packet.doubts(ip));
            }
        }
        Device::Pci(_) | Device::Mac(_) => {}
    }
    let (Memory::NoHuge { mib } | Memory::Huge { mib }) = eal.memory;
    let need = buffers::pool_kib(port.descriptors.into(), port.descriptors.into(), room)
        * u64::from(port.queues)
        / 1024;
    if need > mib.into() {
        return Err(buffers::too_little(port.queues, port.descriptors.into(), port.descriptors.into(), room));
    }
    Ok(doubts)
}
