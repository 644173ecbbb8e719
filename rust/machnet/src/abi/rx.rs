//! Receiving: data, events, and the sleep protocol. None of these blocks.
use super::{channel, code, put, room};
use crate::client::machnet_channel;
use crate::code::{
    MACHNET_EINVAL, MACHNET_EMSGSIZE, MACHNET_INFO_BEGIN, MACHNET_INFO_END, MACHNET_INFO_MORE,
    MACHNET_RECV_MESSAGE, MACHNET_RECV_ONE, MACHNET_RECV_STREAM,
};
use crate::inbox::{Got, Mode};
use crate::rx::Refused;
use crate::types::{machnet_conn, machnet_event, machnet_recv_info};
use core::ffi::{c_int, c_void};

/// [rx] Takes what the rings hold and writes up to `cap` events to `out`. Returns how many; call again while it returns `cap`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_poll(
    ch: *mut machnet_channel,
    out: *mut machnet_event,
    cap: c_int,
) -> c_int {
    // SAFETY: the contract of this module; `out` is writable for `cap` events.
    let polled = unsafe { (channel(ch), room(out, usize::try_from(cap).unwrap_or(0))) };
    match polled {
        (Ok(ch), Ok(out)) => ch.poll(out).map_or_else(|code| code, |have| have as c_int),
        _ => MACHNET_EINVAL,
    }
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
    // SAFETY: the contract of this module; `buf` is writable for `cap` bytes.
    let (Ok(ch), Ok(out)) = (unsafe { (channel(ch), room(buf.cast::<u8>(), cap)) }) else {
        return MACHNET_EINVAL.into();
    };
    let Some(mode) = mode(flags) else { return MACHNET_EINVAL.into() };
    let got = ch.recv(conn, mode, out);
    // SAFETY: `info` is null or writable.
    unsafe { put(info, info_of(&got)) };
    count(got)
}

/// [rx] Says that the program has taken `conn`, of which MACHNET_EVENT_ACCEPTED told it: until then, or until it closes `conn`, the
/// connection counts against its listener's backlog. machnet_accept does so itself. Of no effect a second time, and on a
/// connection that was dialled.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_accepted(ch: *mut machnet_channel, conn: machnet_conn) -> c_int {
    // SAFETY: the contract of this module.
    code(unsafe { channel(ch) }.and_then(|ch| ch.accepted(conn)))
}

/// [rx] Before sleeping on machnet_doorbell: 1 = armed and nothing is pending, the next thing to come rings; 0 = there is work
/// (or the sidecar is gone), and nothing is armed. Work is also room for a request that was told MACHNET_EAGAIN; that is said once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_arm(ch: *mut machnet_channel) -> c_int {
    // SAFETY: the contract of this module.
    unsafe { channel(ch) }.and_then(machnet_channel::arm).map_or(0, c_int::from)
}

/// [rx] After sleeping, or instead of it: takes the armed state back.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_disarm(ch: *mut machnet_channel) {
    // SAFETY: the contract of this module.
    let _ = unsafe { channel(ch) }.and_then(machnet_channel::disarm);
}

/// [any] Empties the doorbell pipe. 0, or MACHNET_ENETDOWN when the pipe was hung up.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_drain(ch: *const machnet_channel) -> c_int {
    // SAFETY: the contract of this module.
    code(unsafe { channel(ch) }.and_then(machnet_channel::drain_bell))
}

/// The mode of receive flags.
pub(super) fn mode(flags: u32) -> Option<Mode> {
    match flags {
        MACHNET_RECV_STREAM => Some(Mode::Stream),
        MACHNET_RECV_MESSAGE => Some(Mode::Message),
        MACHNET_RECV_ONE => Some(Mode::One),
        _ => None,
    }
}

/// What a receive has to say.
pub(super) fn info_of(got: &Result<Got, Refused>) -> machnet_recv_info {
    let flag = |set: bool, flag| if set { flag } else { 0 };
    match got {
        Ok(got) => machnet_recv_info {
            message_len: got.message_len,
            offset: got.offset,
            flags: flag(got.begin, MACHNET_INFO_BEGIN)
                | flag(got.end, MACHNET_INFO_END)
                | flag(got.more, MACHNET_INFO_MORE),
        },
        Err(Refused { code: MACHNET_EMSGSIZE, message_len }) => {
            machnet_recv_info { message_len: *message_len, ..machnet_recv_info::default() }
        }
        Err(_) => machnet_recv_info::default(),
    }
}

/// What a receive returns.
pub(super) fn count(got: Result<Got, Refused>) -> i64 {
    got.map_or_else(|refused| refused.code.into(), |got| got.bytes as i64)
}
