//! The paper's socket-like calls (Table 4), for C. They wait unless MACHNET_DONTWAIT is given; Go calls none of them.
//!
//! They wait as applications do (ARCHITECTURE.md): look, sched_yield for up to 50 us, then ppoll on a doorbell and the socket.
use super::attach::machnet_attach_begin;
use super::boundary::{bytes, call, code, put};
use super::rx::received;
use super::tx::shares;
use crate::cancel::Uncancelled;
use crate::client::machnet_channel;
use crate::code::{MACHNET_DONTWAIT, MACHNET_EEOF, MACHNET_EINVAL};
use crate::inbox::{Got, Mode};
use crate::patience::now;
use crate::rx::Refused;
use crate::types::{
    machnet_conn, machnet_options, machnet_peer, machnet_recv_info, machnet_stats_t, machnet_waits_t,
};
use core::ffi::{c_char, c_int, c_void};

/// Initializes the library: 0, or MACHNET_ESYSTEM where the machine lacks what the channel needs. Cheap, may be called again.
#[unsafe(no_mangle)]
pub extern "C" fn machnet_init() -> c_int {
    let _uncancelled = Uncancelled::begin();
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
    code(unsafe { call(*out, "attach", attach) })
}

/// [tx] Sets the local address of the next machnet_listen or machnet_connect: `ip` 0 or the sidecar's own (else
/// MACHNET_EADDR), `port` 0: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_bind(ch: *mut machnet_channel, ip: u32, port: u16) -> c_int {
    // SAFETY: the contract of this module.
    code(unsafe { call(ch, "bind", |ch| ch.bind(ip, port)) })
}

/// [tx and rx] [blocks] Listens where machnet_bind said; `*listener` gets the id, `*port` (may be null) the port. Waits while too many requests
/// of this channel wait for the sidecar.
///
/// At most `backlog` connections (0 counts as 1) are begun, or established and not yet taken by machnet_accept, at a time. A caller
/// beyond that gets no answer: it asks again, every 200 ms at least, until there is a place or its time is up (MACHNET_ETIMEDOUT). Who
/// was told "connected" has a place, and is there to be accepted, with what it has sent, also if it has gone meanwhile.
///
/// `flags`: 0, MACHNET_REUSEPORT, MACHNET_GROUP or both. Listeners that share a port may be any process's of the same user (MACHNET_REUSEPORT), or
/// those of one application (MACHNET_GROUP), and of any engine: each caller
/// meets one of them, one whose backlog has a place if there is any. So a server with a thread for each engine attaches once for each
/// (machnet_options.engine) and listens on all.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_listen(
    ch: *mut machnet_channel,
    backlog: u32,
    flags: u32,
    listener: *mut u32,
    port: *mut u16,
) -> c_int {
    // SAFETY: the contract of this module.
    match unsafe { call(ch, "listen", |ch| ch.listen(backlog, shares(flags)?)) } {
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
    let accept = |ch: &machnet_channel| ch.accept(listener, waits(flags)?);
    // SAFETY: the contract of this module.
    match unsafe { call(ch, "accept", accept) } {
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
/// than `timeout_ms`. A call that a signal ends (MACHNET_EINTR) calls its dial off first, for which it waits while another thread is in
/// machnet_send.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_connect(
    ch: *mut machnet_channel,
    ip: u32,
    port: u16,
    timeout_ms: u32,
    conn: *mut machnet_conn,
) -> c_int {
    // SAFETY: the contract of this module.
    match unsafe { call(ch, "connect", |ch| ch.connect(ip, port, timeout_ms)) } {
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
    code(unsafe { call(ch, "send", |ch| ch.send_all(conn, bytes(buf.cast(), len)?, waits(flags)?)) })
}

/// [rx] [blocks] Receives; `flags` as in machnet_recv_some, plus MACHNET_DONTWAIT. With MACHNET_RECV_MESSAGE it returns a whole message,
/// and one that has begun is awaited. Returns the count, 0 also at the end of the peer's data in stream mode, as recv(2) does.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_recv(
    ch: *mut machnet_channel,
    conn: machnet_conn,
    buf: *mut c_void,
    cap: usize,
    flags: u32,
    info: *mut machnet_recv_info,
) -> i64 {
    // SAFETY: the same contract.
    unsafe { recv(ch, conn, (buf, cap), flags, info, None) }
}

/// [rx] [blocks] The same, for at most `timeout_ms` milliseconds (negative: for ever) until something comes: MACHNET_EAGAIN then, as
/// recv(2) with SO_RCVTIMEO. MACHNET_ETIMEDOUT says that the connection is over, because its peer went silent.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_recv_timeout(
    ch: *mut machnet_channel,
    conn: machnet_conn,
    buf: *mut c_void,
    cap: usize,
    flags: u32,
    info: *mut machnet_recv_info,
    timeout_ms: c_int,
) -> i64 {
    // SAFETY: the same contract.
    unsafe { recv(ch, conn, (buf, cap), flags, info, end_of(timeout_ms)) }
}

/// # Safety
/// The contract of this module; the buffer is writable, `info` null or writable.
unsafe fn recv(
    ch: *mut machnet_channel,
    conn: machnet_conn,
    buffer: (*mut c_void, usize),
    flags: u32,
    info: *mut machnet_recv_info,
    until: Option<u64>,
) -> i64 {
    let wait = flags & MACHNET_DONTWAIT == 0;
    let until = until.filter(|_| wait);
    // SAFETY: the same contract.
    unsafe {
        received(ch, flags & !MACHNET_DONTWAIT, buffer, info, |ch, mode, out| {
            match ch.recv_wait(conn, mode, out, wait, until) {
                // As recv(2). In message mode 0 is an empty message, and the end has its code.
                Err(Refused { code: MACHNET_EEOF, .. }) if mode == Mode::Stream => Ok(Got::default()),
                got => got,
            }
        })
    }
}

/// [rx] [blocks] Waits until machnet_poll or a receive has something new, or a request that got MACHNET_EAGAIN finds room, at most
/// `timeout_ms` milliseconds (negative: for ever). 1: something may be there, 0: the time is over, MACHNET_EINTR, MACHNET_ENETDOWN.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_wait(ch: *mut machnet_channel, timeout_ms: c_int) -> c_int {
    // SAFETY: the contract of this module.
    unsafe { call(ch, "wait", |ch| ch.wait(end_of(timeout_ms))) }.map_or_else(|code| code, c_int::from)
}

/// [tx and rx] [blocks] Fills `out` with what the sidecar knows of `conn`, or knew when that ended; waits for its answer at most `timeout_ms`
/// milliseconds (negative: for ever), MACHNET_ETIMEDOUT then: a MACHNET_EVENT_STATS that nobody waits for may still come. MACHNET_ECLOSED after
/// machnet_close.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_stats(
    ch: *mut machnet_channel,
    conn: machnet_conn,
    out: *mut machnet_stats_t,
    timeout_ms: c_int,
) -> c_int {
    // SAFETY: the contract of this module.
    match unsafe { call(ch, "ask about a connection", |ch| ch.stats(conn, end_of(timeout_ms))) } {
        Ok(stats) => {
            // SAFETY: `out` is null or writable.
            unsafe { put(out, stats) };
            0
        }
        Err(code) => code,
    }
}

/// [any] Fills `out` with what calls that wait on this channel have met on their cores since it was made. 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_waits(ch: *const machnet_channel, out: *mut machnet_waits_t) -> c_int {
    // SAFETY: the contract of this module.
    match unsafe { call(ch, "ask about waits", |ch| Ok(ch.hogs.counted())) } {
        Ok(waits) => {
            // SAFETY: `out` is null or writable.
            unsafe { put(out, waits) };
            0
        }
        Err(code) => code,
    }
}

/// Whether a call may wait, by its flags.
fn waits(flags: u32) -> Result<bool, i32> {
    if flags & !MACHNET_DONTWAIT != 0 { Err(MACHNET_EINVAL) } else { Ok(flags == 0) }
}

/// When a time limit of so many milliseconds ends; never, if negative.
fn end_of(timeout_ms: c_int) -> Option<u64> {
    u64::try_from(timeout_ms).ok().map(|ms| now().saturating_add(ms.saturating_mul(1_000_000)))
}

fn attach(ch: &machnet_channel) -> Result<(), i32> {
    let _uncancelled = Uncancelled::begin();
    ch.attach()
}
