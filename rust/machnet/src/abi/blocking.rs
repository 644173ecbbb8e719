//! The paper's socket-like calls (Table 4), for C. They block unless told otherwise; Go calls none of them.
//!
//! They wait as applications do (ARCHITECTURE.md): look, sched_yield for up to 50 us, then poll on doorbell and socket.
use crate::client::machnet_channel;
use crate::types::{machnet_conn, machnet_options, machnet_peer, machnet_recv_info};
use core::ffi::{c_char, c_int, c_void};

/// Initializes the library: 0, or MACHNET_ESYSTEM where the machine lacks what the channel needs. Cheap, may be called again.
#[unsafe(no_mangle)]
pub extern "C" fn machnet_init() -> c_int {
    todo!()
}

/// [blocks] Attaches; see machnet_attach_begin. On an error `*out` is a channel that only machnet_error_text and machnet_detach
/// accept, or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_attach(
    socket_path: *const c_char,
    options: *const machnet_options,
    out: *mut *mut machnet_channel,
) -> c_int {
    todo!()
}

/// [tx] Sets the local address of the next machnet_listen or machnet_connect: `ip` 0 or the sidecar's own (else
/// MACHNET_EADDR), `port` 0: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_bind(ch: *mut machnet_channel, ip: u32, port: u16) -> c_int {
    todo!()
}

/// [tx and rx] [blocks] Listens where machnet_bind said; `*listener` gets the id, `*port` (may be null) the port.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_listen(
    ch: *mut machnet_channel,
    backlog: u32,
    listener: *mut u32,
    port: *mut u16,
) -> c_int {
    todo!()
}

/// [rx] [blocks] Takes the next connection of `listener`. `peer` may be null. `flags`: 0 or MACHNET_DONTWAIT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_accept(
    ch: *mut machnet_channel,
    listener: u32,
    conn: *mut machnet_conn,
    peer: *mut machnet_peer,
    flags: u32,
) -> c_int {
    todo!()
}

/// [tx and rx] [blocks] Connects to `ip`:`port`. `timeout_ms` 0: the sidecar's default.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_connect(
    ch: *mut machnet_channel,
    ip: u32,
    port: u16,
    timeout_ms: u32,
    conn: *mut machnet_conn,
) -> c_int {
    todo!()
}

/// [tx] [blocks] Sends one message: 0 when all of it is accepted. `flags`: 0, or MACHNET_DONTWAIT: all of it at once or MACHNET_EAGAIN
/// and none (a message of more units than one connection may have under way is MACHNET_ETOOBIG then).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_send(
    ch: *mut machnet_channel,
    conn: machnet_conn,
    buf: *const c_void,
    len: usize,
    flags: u32,
) -> c_int {
    todo!()
}

/// [rx] [blocks] Receives; `flags` as in machnet_recv_some, plus MACHNET_DONTWAIT. With MACHNET_RECV_MESSAGE it returns a whole message.
/// Returns the count, 0 also at the end of the peer's data in stream mode, as recv(2) does.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_recv(
    ch: *mut machnet_channel,
    conn: machnet_conn,
    buf: *mut c_void,
    cap: usize,
    flags: u32,
    info: *mut machnet_recv_info,
) -> i64 {
    todo!()
}

/// [rx] [blocks] Waits until machnet_poll or a receive has something new, at most `timeout_ms` milliseconds (negative: for ever).
/// 1: something may be there, 0: the time is over, MACHNET_ENETDOWN.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_wait(ch: *mut machnet_channel, timeout_ms: c_int) -> c_int {
    todo!()
}
