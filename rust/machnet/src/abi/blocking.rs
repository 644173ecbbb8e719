//! The paper's socket-like calls (Table 4), for C. They block unless told otherwise; Go calls none of them.
//!
//! They wait as applications do (ARCHITECTURE.md): look, sched_yield for up to 50 us, then poll on doorbell and socket.
use super::rx::{count, info_of, mode};
use super::{attach::machnet_attach_begin, bytes, channel, code, put, room};
use crate::client::machnet_channel;
use crate::code::{MACHNET_DONTWAIT, MACHNET_EEOF, MACHNET_EINVAL};
use crate::inbox::Mode;
use crate::patience::now;
use crate::types::{machnet_conn, machnet_options, machnet_peer, machnet_recv_info};
use core::ffi::{c_char, c_int, c_void};

/// Initializes the library: 0, or MACHNET_ESYSTEM where the machine lacks what the channel needs. Cheap, may be called again.
#[unsafe(no_mangle)]
pub extern "C" fn machnet_init() -> c_int {
    crate::attach::supported()
}

/// [blocks] Attaches; see machnet_attach_begin. On an error `*out` is a channel that only machnet_error_text and machnet_detach
/// accept, or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_attach(
    socket_path: *const c_char,
    options: *const machnet_options,
    out: *mut *mut machnet_channel,
) -> c_int {
    // SAFETY: the same contract.
    let begun = unsafe { machnet_attach_begin(socket_path, options, out) };
    if begun != 0 {
        return begun;
    }
    // SAFETY: `out` was written just now, with a channel.
    code(unsafe { channel(*out) }.and_then(machnet_channel::attach))
}

/// [tx] Sets the local address of the next machnet_listen or machnet_connect: `ip` 0 or the sidecar's own (else
/// MACHNET_EADDR), `port` 0: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_bind(ch: *mut machnet_channel, ip: u32, port: u16) -> c_int {
    // SAFETY: the contract of this module.
    code(unsafe { channel(ch) }.and_then(|ch| ch.bind(ip, port)))
}

/// [tx and rx] [blocks] Listens where machnet_bind said; `*listener` gets the id, `*port` (may be null) the port. Waits while too many requests
/// of this channel wait for the sidecar.
///
/// At most `backlog` connections (0 counts as 1) are begun, or established and not yet taken by machnet_accept, at a time. A caller
/// beyond that gets no answer: it asks again, every 200 ms at least, until there is a place or its time is up (MACHNET_ETIMEDOUT). Who
/// was told "connected" has a place, and is there to be accepted, with what it has sent, also if it has gone meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_listen(
    ch: *mut machnet_channel,
    backlog: u32,
    listener: *mut u32,
    port: *mut u16,
) -> c_int {
    // SAFETY: the contract of this module.
    match unsafe { channel(ch) }.and_then(|ch| ch.listen(backlog)) {
        Ok((id, at)) => {
            // SAFETY: `listener` and `port` are null or writable.
            unsafe {
                put(listener, id);
                put(port, at);
            }
            0
        }
        Err(code) => code,
    }
}

/// [rx] [blocks] Takes the next connection of `listener`, and frees its place in the backlog. `peer` may be null. `flags`: 0 or
/// MACHNET_DONTWAIT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_accept(
    ch: *mut machnet_channel,
    listener: u32,
    conn: *mut machnet_conn,
    peer: *mut machnet_peer,
    flags: u32,
) -> c_int {
    if flags & !MACHNET_DONTWAIT != 0 {
        return MACHNET_EINVAL;
    }
    // SAFETY: the contract of this module.
    match unsafe { channel(ch) }.and_then(|ch| ch.accept(listener, flags == 0)) {
        Ok((accepted, ends)) => {
            // SAFETY: `conn` and `peer` are null or writable.
            unsafe {
                put(conn, accepted);
                put(peer, ends);
            }
            0
        }
        Err(code) => code,
    }
}

/// [tx and rx] [blocks] Connects to `ip`:`port`. `timeout_ms` 0: the sidecar's default. Waits for room as machnet_listen does, for no longer
/// than `timeout_ms`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_connect(
    ch: *mut machnet_channel,
    ip: u32,
    port: u16,
    timeout_ms: u32,
    conn: *mut machnet_conn,
) -> c_int {
    // SAFETY: the contract of this module.
    match unsafe { channel(ch) }.and_then(|ch| ch.connect(ip, port, timeout_ms)) {
        Ok(made) => {
            // SAFETY: `conn` is null or writable.
            unsafe { put(conn, made) };
            0
        }
        Err(code) => code,
    }
}

/// [tx] [blocks] Sends one message: 0 when all of it is accepted, which is not yet delivered. Once the connection is over it is the code of that,
/// whether or not anybody receives: MACHNET_ERESET after a reset, or where the peer has closed and more was sent to it than it had read;
/// MACHNET_ETIMEDOUT where the peer went silent. A peer that has only finished its own sending is still sent to. After
/// this end's machnet_finish it is MACHNET_EPIPE. `flags`: 0, or MACHNET_DONTWAIT: all of it at once or MACHNET_EAGAIN
/// and none. A message of more units than `units_per_conn` is MACHNET_ETOOBIG then; one of more than the connection's share (see
/// machnet_info_t) is MACHNET_EAGAIN for as long as other connections hold what it lacks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_send(
    ch: *mut machnet_channel,
    conn: machnet_conn,
    buf: *const c_void,
    len: usize,
    flags: u32,
) -> c_int {
    // SAFETY: the contract of this module; `buf` is readable for `len` bytes.
    let (Ok(ch), Ok(message)) = (unsafe { (channel(ch), bytes(buf.cast(), len)) }) else {
        return MACHNET_EINVAL;
    };
    if flags & !MACHNET_DONTWAIT != 0 {
        return MACHNET_EINVAL;
    }
    code(ch.send_all(conn, message, flags == 0))
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
    // SAFETY: the contract of this module; `buf` is writable for `cap` bytes.
    let (Ok(ch), Ok(out)) = (unsafe { (channel(ch), room(buf.cast::<u8>(), cap)) }) else {
        return MACHNET_EINVAL.into();
    };
    let Some(mode) = mode(flags & !MACHNET_DONTWAIT) else { return MACHNET_EINVAL.into() };
    let got = ch.recv_wait(conn, mode, out, flags & MACHNET_DONTWAIT == 0);
    // SAFETY: `info` is null or writable.
    unsafe { put(info, info_of(&got)) };
    match count(got) {
        // As recv(2). In message mode 0 is an empty message, and the end has its code.
        end if end == i64::from(MACHNET_EEOF) && mode == Mode::Stream => 0,
        count => count,
    }
}

/// [rx] [blocks] Waits until machnet_poll or a receive has something new, or a request that was told MACHNET_EAGAIN finds room, at most `timeout_ms` milliseconds (negative: for ever).
/// 1: something may be there, 0: the time is over, MACHNET_ENETDOWN.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_wait(ch: *mut machnet_channel, timeout_ms: c_int) -> c_int {
    let until = u64::try_from(timeout_ms).ok().map(|ms| now().saturating_add(ms.saturating_mul(1_000_000)));
    // SAFETY: the contract of this module.
    unsafe { channel(ch) }.and_then(|ch| ch.wait(until)).map_or_else(|code| code, c_int::from)
}
