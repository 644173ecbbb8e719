//! Packet buffers: how many a queue needs, how much memory that takes, and the pools that hold them.

use super::error::DpdkError;
use std::ffi::{CString, c_void};

/// Makes the pool of one queue, of `queues` that the port has: as many buffers of `room` bytes as its rings, which take `rx` and
/// `tx`, and its bursts can hold at once, and the thread's cache.
pub(super) fn pool(
    serial: u32,
    room: u16,
    numa_node: i32,
    (rx, tx): (u32, u32),
    queues: u16,
) -> Result<*mut c_void, DpdkError> {
    let name = CString::new(format!("machnet{serial}")).expect("no zero byte");
    // SAFETY: the name is a C string, copied by the callee.
    let pool = unsafe { dpdk_sys::mdpdk_pool_new(name.as_ptr(), count(rx, tx), room, numa_node) };
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

/// Buffers of one queue. memif's rings hold no buffers of ours, but it takes 32 at a time.
pub(super) fn count(rx: u32, tx: u32) -> u32 {
    rx + tx + 512
}

/// Memory of one queue's buffers, KiB: each has DPDK's header and headroom before it.
pub(super) fn pool_kib(rx: u32, tx: u32, room: u16) -> u64 {
    u64::from(count(rx, tx)) * (u64::from(room) + 256) / 1024
}

/// What is enough for so many queues, and EAL beside them, MiB.
pub(super) fn enough(queues: u16, rx: u32, tx: u32, room: u16) -> u64 {
    (pool_kib(rx, tx, room) * u64::from(queues)).div_ceil(1024) + 16
}

/// Why there are no buffers.
pub(super) fn too_little(queues: u16, rx: u32, tx: u32, room: u16) -> DpdkError {
    let each = pool_kib(rx, tx, room).div_ceil(1024);
    DpdkError::TooLittleMemory {
        step: format!(
            "allocate packet buffers, about {each} MiB for each engine, of which there are {queues}"
        ),
        mib: enough(queues, rx, tx, room),
    }
}
