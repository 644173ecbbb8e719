//! Receiving: data, events, and the sleep protocol. None of these blocks.
use crate::client::machnet_channel;
use crate::types::{machnet_conn, machnet_event, machnet_recv_info};
use core::ffi::{c_int, c_void};

/// [rx] Takes what the rings hold and writes up to `cap` events to `out`. Returns how many; call again while it returns `cap`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_poll(
    ch: *mut machnet_channel,
    out: *mut machnet_event,
    cap: c_int,
) -> c_int {
    todo!()
}

/// [rx] Receives up to `cap` bytes of `conn`; looks at the ring when the connection's own queue is empty. `flags` is one of
/// MACHNET_RECV_STREAM, _MESSAGE, _ONE; `info` may be null. Returns the count; 0 is an empty message (never in stream mode, but
/// for `cap` 0). MACHNET_EAGAIN: nothing here; MACHNET_EEOF; MACHNET_EABORTED; MACHNET_EMSGSIZE; or the reason the connection ended.
/// A message longer than what is under way at once comes in several calls, the last with MACHNET_INFO_END.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_recv_some(
    ch: *mut machnet_channel,
    conn: machnet_conn,
    buf: *mut c_void,
    cap: usize,
    flags: u32,
    info: *mut machnet_recv_info,
) -> i64 {
    todo!()
}

/// [rx] Before sleeping on machnet_doorbell: 1 = armed and nothing is pending, the next thing to come rings; 0 = there is work
/// (or the sidecar is gone), and nothing is armed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_arm(ch: *mut machnet_channel) -> c_int {
    todo!()
}

/// [rx] After sleeping, or instead of it: takes the armed state back.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_disarm(ch: *mut machnet_channel) {
    todo!()
}

/// [any] Empties the doorbell pipe. 0, or MACHNET_ENETDOWN when the pipe was hung up.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_drain(ch: *const machnet_channel) -> c_int {
    todo!()
}
