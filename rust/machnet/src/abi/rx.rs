//! Receiving: data, events, and the sleep protocol. None of these blocks.
use super::boundary::{call, channel, code, put, room};
use crate::client::machnet_channel;
use crate::code::{
    MACHNET_EINVAL, MACHNET_EMSGSIZE, MACHNET_INFO_BEGIN, MACHNET_INFO_END, MACHNET_INFO_MORE,
    MACHNET_RECV_MESSAGE, MACHNET_RECV_ONE, MACHNET_RECV_STREAM,
};
use crate::inbox::{Got, Mode};
use crate::rx::Refused;
use crate::types::{machnet_conn, machnet_event, machnet_recv_info, machnet_stats_t};
use core::ffi::{c_int, c_void};
use core::mem::MaybeUninit;

/// [rx] Takes what the rings hold and writes up to `cap` events to `out`. Returns how many; call again while it returns `cap`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_poll(
    ch: *mut machnet_channel,
    out: *mut machnet_event,
    cap: c_int,
) -> c_int {
    // SAFETY: the contract of this module; `out` is writable for `cap` events.
    let polled = unsafe { call(ch, "poll", |ch| ch.poll(room(out, usize::try_from(cap).unwrap_or(0))?)) };
    polled.map_or_else(|code| code, |have| have as c_int)
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
    // SAFETY: the contract of this module; `buf` is writable for `cap` bytes, `info` null or writable.
    unsafe { received(ch, flags, (buf, cap), info, |ch, mode, out| ch.recv(conn, mode, out)) }
}

/// A receive, by `body`.
///
/// # Safety
/// The contract of this module; the buffer is writable, `info` null or writable.
#[inline]
pub(super) unsafe fn received(
    ch: *const machnet_channel,
    flags: u32,
    (buf, cap): (*mut c_void, usize),
    info: *mut machnet_recv_info,
    body: impl FnOnce(&machnet_channel, Mode, &mut [MaybeUninit<u8>]) -> Result<Got, Refused>,
) -> i64 {
    // SAFETY: the same contract.
    let ch = match unsafe { channel(ch) } {
        Ok(ch) => ch,
        Err(code) => return code.into(),
    };
    // SAFETY: the same contract.
    let got = match (unsafe { room(buf.cast::<u8>(), cap) }, mode(flags)) {
        (Ok(out), Some(mode)) => body(ch, mode, out),
        _ => Err(Refused { code: MACHNET_EINVAL, message_len: 0 }),
    };
    // SAFETY: `info` is null or writable.
    unsafe { put(info, info_of(&got)) };
    ch.last_error.call_ended("receive", got.as_ref().err().map_or(0, |refused| refused.code));
    count(got)
}

/// [rx] Says that the program has accepted `conn`, which MACHNET_EVENT_ACCEPTED named: until then, or until it closes `conn`, the
/// connection counts against its listener's backlog. machnet_accept does so itself. Of no effect a second time, and on a
/// connection that was dialled.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_accepted(ch: *mut machnet_channel, conn: machnet_conn) -> c_int {
    // SAFETY: the contract of this module.
    code(unsafe { call(ch, "accepted", |ch| ch.accepted(conn)) })
}

/// [rx] Before sleeping on machnet_doorbell: 1 = armed and nothing is pending, the next thing to come rings; 0 = there is work
/// (or the sidecar is gone), and nothing is armed. Work is also room for a request that got MACHNET_EAGAIN; that counts once.
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
    code(unsafe { call(ch, "empty the doorbell", |ch| ch.drain(ch.doorbell())) })
}

/// [rx] Fills `out` with the answer that MACHNET_EVENT_STATS named `id` for; once. MACHNET_ECLOSED: the connection is forgotten, the answer was
/// taken, or 64 others came after it (a machnet_poll of at most 32 events hands out none that is lost, if each is taken before the next).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_stats_take(
    ch: *mut machnet_channel,
    id: u32,
    out: *mut machnet_stats_t,
) -> c_int {
    // SAFETY: the contract of this module.
    match unsafe { call(ch, "take an answer", |ch| ch.take_stats(id)) } {
        Ok(stats) => {
            // SAFETY: `out` is null or writable.
            unsafe { put(out, stats) };
            0
        }
        Err(code) => code,
    }
}

/// The mode of receive flags.
fn mode(flags: u32) -> Option<Mode> {
    match flags {
        MACHNET_RECV_STREAM => Some(Mode::Stream),
        MACHNET_RECV_MESSAGE => Some(Mode::Message),
        MACHNET_RECV_ONE => Some(Mode::One),
        _ => None,
    }
}

/// What a receive has to say.
fn info_of(got: &Result<Got, Refused>) -> machnet_recv_info {
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
fn count(got: Result<Got, Refused>) -> i64 {
    got.map_or_else(|refused| refused.code.into(), |got| got.bytes as i64)
}
