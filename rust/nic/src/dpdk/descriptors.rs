//! Descriptors: how many each ring really has, which drivers tell in different ways or not at all, and how many buffers lie in them.

use super::device::Found;
use super::ethdev;
use crate::PortConfig;
use std::ffi::c_void;

/// Descriptors of each receive and each transmit ring, as near to what was asked for as the driver has them.
pub(super) fn agree(found: &Found, config: &PortConfig, info: &dpdk_sys::mdpdk_port_info) -> (u16, u16) {
    let (mut rx, mut tx) = (config.descriptors, config.descriptors);
    if let Some(packet) = &found.packet {
        (rx, tx) = (packet.slots, packet.slots); // the driver takes any number for its own
    } else if found.matrix.is_none() {
        // SAFETY: both pointers are to live variables; the port is configured.
        unsafe { dpdk_sys::mdpdk_port_descriptors(found.id, &mut rx, &mut tx) };
    }
    let asked = config.descriptors;
    let said = format!(
        "{asked} descriptors asked of {}: it has {rx} to receive and {tx} to send",
        ethdev::name(&info.driver)
    );
    if rx.min(tx) < asked {
        log::warn!("{said}");
    } else if rx.max(tx) > asked {
        // vmxnet3 sends with 512 at least; gve of DPDK before 24.07 has one size.
        log::info!("{said}");
    }
    (rx, tx)
}

/// Buffers that lie in a receive ring of so many descriptors. vmxnet3 keeps a second ring beside it, for the rest of long packets.
pub(super) fn buffers_of(driver: &str, rx: u16) -> u32 {
    u32::from(rx) * if driver == "net_vmxnet3" { 2 } else { 1 }
}

/// The receive ring of a started port whose driver filled it with `taken` buffers. A virtual machine's host decides how large virtio's
/// rings are; the driver takes less than it was asked for without a word, and does not answer when it is asked how much. Nor is every
/// descriptor filled: while a port starts the driver throws frames away that have come already, with their buffers, and fills their
/// places when it first receives. But a ring has a power of two of them.
pub(super) fn real(driver: &str, asked: u16, taken: u32) -> u16 {
    let virtio = matches!(driver, "net_virtio" | "net_virtio_user");
    match u16::try_from(taken.next_power_of_two()) {
        Ok(ring) if virtio && taken > 0 && ring < asked => ring,
        _ => asked,
    }
}

/// The same, asked of the pool of one queue, which had `before` buffers when the port was not started; said once where it is less.
pub(super) fn ask_pool(driver: &str, asked: u16, before: u32, pool: *const c_void) -> u16 {
    let real = real(driver, asked, before.saturating_sub(available(pool)));
    if real < asked {
        log::warn!(
            "{asked} descriptors asked of {driver}: it has {real}; more are for the machine's host to give (QEMU: rx_queue_size)"
        );
    }
    real
}

/// Buffers that lie in a pool.
pub(super) fn available(pool: *const c_void) -> u32 {
    // SAFETY: a pool of ours, which lives as long as the process.
    unsafe { dpdk_sys::mdpdk_pool_available(pool) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtios_ring_is_what_its_driver_filled_and_others_have_what_they_say() {
        assert_eq!(real("net_virtio", 1024, 256), 256);
        assert_eq!(real("net_virtio", 256, 256), 256);
        assert_eq!(real("net_virtio", 256, 252), 256, "four frames came while it started");
        assert_eq!(real("net_virtio", 1024, 252), 256);
        assert_eq!(real("net_virtio", 256, 0), 256, "a driver that fills its ring later");
        assert_eq!(real("net_virtio", 256, 1024), 256, "nor more than what was asked for");
        assert_eq!(real("net_ena", 256, 255), 256);
    }

    #[test]
    fn vmxnet3_takes_two_buffers_for_each_descriptor() {
        assert_eq!((buffers_of("net_vmxnet3", 4096), buffers_of("net_virtio", 4096)), (8192, 4096));
    }
}
