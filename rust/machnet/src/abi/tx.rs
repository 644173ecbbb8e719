//! Sending, closing, dialling and listening. None of these blocks.
use super::boundary::{bytes, call, code, put, room};
use crate::client::machnet_channel;
use crate::code::{
    MACHNET_EINVAL, MACHNET_GROUP, MACHNET_REUSEPORT, MACHNET_SEND_CONTINUE, MACHNET_SEND_WHOLE,
};
use crate::outbox::Flat;
use crate::types::{machnet_conn, machnet_dial_t, machnet_event, machnet_iovec};
use core::ffi::{c_int, c_void};
use core::net::Ipv4Addr;
use machnet_shm::Request;

/// [tx] Sends `len` bytes as one message. Returns how many bytes were accepted (all of them, or as many whole units as there
/// are tokens), or MACHNET_EAGAIN when there is no token at all. After a short count the message is under way: the
/// rest goes by calls with MACHNET_SEND_CONTINUE and exactly the bytes that are left, or machnet_abort ends it.
/// A call without that flag while a message is under way, or with it while none is, is MACHNET_EINVAL. A connection that is over is
/// reported as by machnet_send.
///
/// With MACHNET_SEND_WHOLE a message is not begun while the connection's own units, as they come back, make room for all of it:
/// MACHNET_EAGAIN then. Only where other connections hold so many that its share may never be that large is a part accepted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_send_some(
    ch: *mut machnet_channel,
    conn: machnet_conn,
    buf: *const c_void,
    len: usize,
    flags: u32,
) -> i64 {
    // SAFETY: the contract of this module; `buf` is readable for `len` bytes.
    sent(unsafe {
        call(ch, "send", |ch| {
            let bytes = bytes(buf.cast(), len)?;
            match flags {
                0 | MACHNET_SEND_CONTINUE => ch.send(conn, &mut Flat(bytes), flags != 0),
                MACHNET_SEND_WHOLE => ch.send_together(conn, &mut Flat(bytes)),
                _ => Err(MACHNET_EINVAL),
            }
        })
    })
}

/// [tx] The same for one message in `count` parts. After a short count call again with all the parts, MACHNET_SEND_CONTINUE, and in
/// `skip` the bytes accepted so far.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_sendv(
    ch: *mut machnet_channel,
    conn: machnet_conn,
    parts: *const machnet_iovec,
    count: usize,
    skip: usize,
    flags: u32,
) -> i64 {
    // SAFETY: the contract of this module; `parts` is readable for `count` entries, and each part for its length.
    sent(unsafe {
        call(ch, "send", |ch| {
            let parts = entries(parts, count).ok_or(MACHNET_EINVAL)?;
            let parts = parts.iter().map(|part| bytes(part.base, part.len));
            if flags & !MACHNET_SEND_CONTINUE != 0 || parts.clone().any(|part| part.is_err()) {
                return Err(MACHNET_EINVAL);
            }
            ch.sendv(conn, parts.map(Result::unwrap_or_default), skip, flags != 0)
        })
    })
}

/// [tx] Takes completions and writes up to `cap` MACHNET_EVENT_WRITABLE events. Returns how many.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_poll_tx(
    ch: *mut machnet_channel,
    out: *mut machnet_event,
    cap: c_int,
) -> c_int {
    // SAFETY: the contract of this module; `out` is writable for `cap` events.
    let polled = unsafe {
        call(ch, "poll", |ch| {
            let out = room(out, usize::try_from(cap).unwrap_or(0))?;
            ch.with_tx(|side, _| Ok(side.open()?.poll(out)))
        })
    };
    polled.map_or_else(|code| code, |have| have as c_int)
}

/// [tx] Gives up the message that a short count left under way; the peer drops its part. 0, also when none is;
/// MACHNET_EAGAIN when there is no token for it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_abort(ch: *mut machnet_channel, conn: machnet_conn) -> c_int {
    // SAFETY: the contract of this module.
    code(unsafe { call(ch, "abort", |ch| ch.with_tx(|side, conns| side.open()?.abort(conns, conn))) })
}

/// [tx] Half close: the peer reads what was sent, then the end. Receiving goes on. 0, MACHNET_EAGAIN when there is no token for it;
/// MACHNET_EINVAL while a message is under way.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_finish(ch: *mut machnet_channel, conn: machnet_conn) -> c_int {
    // SAFETY: the contract of this module.
    code(unsafe { call(ch, "finish", |ch| ch.with_tx(|side, conns| side.open()?.finish(conns, conn))) })
}

/// [tx] Forgets `conn`: what was sent is flushed by the sidecar in the background, then the peer sees the end. A message under
/// way is aborted. Everything not yet received is dropped. Always succeeds on an open handle, also after MACHNET_EVENT_CLOSED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_close(ch: *mut machnet_channel, conn: machnet_conn) -> c_int {
    // SAFETY: the contract of this module.
    code(unsafe { call(ch, "close", |ch| ch.with_tx(|side, conns| side.open()?.close(conns, conn, false))) })
}

/// [tx] Forgets `conn` at once: what is not yet acknowledged is dropped, and the peer sees MACHNET_ERESET.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_reset(ch: *mut machnet_channel, conn: machnet_conn) -> c_int {
    // SAFETY: the contract of this module.
    code(unsafe { call(ch, "reset", |ch| ch.with_tx(|side, conns| side.open()?.close(conns, conn, true))) })
}

/// [tx] Asks to listen on `ip` (0: the sidecar's) and `port` (0: any). `*listener` gets the id that the events name:
/// MACHNET_EVENT_LISTENING or _LISTEN_FAILED comes, then _ACCEPTED. `backlog` as in machnet_listen; a program that gets its connections by
/// events says with machnet_accepted that it has accepted one. `flags`: 0, MACHNET_REUSEPORT, MACHNET_GROUP or both.
/// MACHNET_EAGAIN, and nothing was asked: too many requests of this channel wait for the sidecar. machnet_arm and machnet_wait
/// report once that there is room; then call again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_listen_begin(
    ch: *mut machnet_channel,
    ip: u32,
    port: u16,
    backlog: u32,
    flags: u32,
    listener: *mut u32,
) -> c_int {
    // SAFETY: the contract of this module; `listener` is null or writable. Written first: the event may be there before this returns.
    code(unsafe {
        call(ch, "listen", |ch| {
            let (reuse_port, group) = shares(flags)?;
            let (id, ip) = (ch.id(), Ipv4Addr::from_bits(ip));
            put(listener, id);
            ch.request(Request::Listen { id, ip, port, backlog: backlog.max(1), reuse_port, group })
        })
    })
}

/// Whether the flags of a call to listen ask to share the port with listeners of the user, and with those of the application.
pub(super) fn shares(flags: u32) -> Result<(bool, bool), i32> {
    if flags & !(MACHNET_REUSEPORT | MACHNET_GROUP) != 0 {
        return Err(MACHNET_EINVAL);
    }
    Ok((flags & MACHNET_REUSEPORT != 0, flags & MACHNET_GROUP != 0))
}

/// [tx] Ends a listener; MACHNET_EVENT_UNLISTENED is its last event. Connections announced before it must be closed one by one. It never
/// waits and is never refused for want of room: what finds none is kept, and goes out with a later call of this channel, before
/// anything that is asked for later; a sleeper that armed since is rung for it. Take the event with machnet_poll: where 32 events wait that
/// nobody takes, machnet_listen and machnet_connect ask for nothing (MACHNET_ENOBUFS).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_unlisten(ch: *mut machnet_channel, listener: u32) -> c_int {
    // SAFETY: the contract of this module.
    code(unsafe { call(ch, "unlisten", |ch| ch.request_or_keep(Request::Unlisten { id: listener })) })
}

/// [tx] Asks for a connection. `*id` gets the id that MACHNET_EVENT_CONNECTED or _CONNECT_FAILED names. MACHNET_EAGAIN as of
/// machnet_listen_begin.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_dial_begin(
    ch: *mut machnet_channel,
    request: *const machnet_dial_t,
    id: *mut u32,
) -> c_int {
    // SAFETY: the contract of this module; `request` is null or readable, `id` null or writable. Written first: the event may be there
    // before this returns.
    code(unsafe {
        call(ch, "dial", |ch| {
            let dial =
                request.as_ref().filter(|dial| dial.port != 0 && dial.ip != 0).ok_or(MACHNET_EINVAL)?;
            let number = ch.id();
            put(id, number);
            ch.request(Request::Connect {
                id: number,
                ip: Ipv4Addr::from_bits(dial.ip),
                port: dial.port,
                local_port: dial.local_port,
                timeout_ms: dial.timeout_ms,
            })
        })
    })
}

/// [tx] Gives up a dial. One event still comes: _CONNECT_FAILED with MACHNET_ECANCELED, or _CONNECTED where it was too late
/// (then close that connection). Never refused, as machnet_unlisten.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_dial_cancel(ch: *mut machnet_channel, id: u32) -> c_int {
    // SAFETY: the contract of this module.
    code(unsafe { call(ch, "cancel a dial", |ch| ch.request_or_keep(Request::Cancel { id })) })
}

/// [tx] How many units of `conn` the peer has not acknowledged yet, one that machnet_finish took included; 0: the peer's host has all that was
/// sent. MACHNET_ECLOSED after machnet_close. What a connection that is over had under way counts as acknowledged. `conn` 0: of all
/// connections, also of those that were closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_unacked(ch: *mut machnet_channel, conn: machnet_conn) -> i64 {
    // SAFETY: the contract of this module.
    let counted =
        unsafe { call(ch, "count", |ch| ch.with_tx(|side, conns| side.open()?.unacked(conns, conn))) };
    counted.map_or_else(i64::from, i64::from)
}

/// [tx] From now on asks the peer of `conn` after `after_ms` milliseconds of silence whether it lives: 10 to 600000, MACHNET_KEEPALIVE_NEVER
/// or MACHNET_KEEPALIVE_DEFAULT. A peer that does not answer is given up as ever (MACHNET_ETIMEDOUT), and so is one, without any such
/// question, that does not acknowledge what was sent to it. MACHNET_EAGAIN as of machnet_listen_begin.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_keepalive(
    ch: *mut machnet_channel,
    conn: machnet_conn,
    after_ms: u32,
) -> c_int {
    // SAFETY: the contract of this module.
    code(unsafe { call(ch, "set the keep-alive", |ch| ch.keep_alive(conn, after_ms)) })
}

/// [tx] Asks the sidecar what it knows of `conn`. `*id` gets the id that MACHNET_EVENT_STATS names, after which machnet_stats_take
/// gives the answer. MACHNET_EAGAIN as of machnet_listen_begin.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_stats_begin(
    ch: *mut machnet_channel,
    conn: machnet_conn,
    id: *mut u32,
) -> c_int {
    // SAFETY: the contract of this module; `id` is null or writable. Written first: the event may be there before this returns.
    code(unsafe {
        call(ch, "ask about a connection", |ch| {
            let number = ch.id();
            put(id, number);
            ch.ask_stats(conn, number)
        })
    })
}

/// The parts of a message.
///
/// # Safety
/// `parts` is readable for `count` entries until `'a` ends.
unsafe fn entries<'a>(parts: *const machnet_iovec, count: usize) -> Option<&'a [machnet_iovec]> {
    if count == 0 {
        return Some(&[]);
    }
    if parts.is_null() || count > isize::MAX as usize / size_of::<machnet_iovec>() {
        return None;
    }
    // SAFETY: readable as promised, and shorter than `isize::MAX`.
    Some(unsafe { core::slice::from_raw_parts(parts, count) })
}

/// What a send returns.
pub(super) fn sent(sent: Result<usize, i32>) -> i64 {
    sent.map_or_else(i64::from, |bytes| bytes as i64)
}
