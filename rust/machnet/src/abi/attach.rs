//! Attach, detach, and what a channel says about itself.
use super::boundary::{call, channel, code, put};
use crate::attach::Attach;
use crate::cancel::Uncancelled;
use crate::client::machnet_channel;
use crate::code::{MACHNET_ANY_ENGINE, MACHNET_EINVAL, MACHNET_ENOBUFS, MACHNET_ENOTATTACHED};
use crate::last_error::Text;
use crate::mark::Mark;
use crate::types::{machnet_event, machnet_info_t, machnet_options, machnet_wait_view_t};
use crate::words::{self, Failure};
use core::ffi::{CStr, c_char, c_int};
use core::ptr::null_mut;
use machnet_shm::ClientHello;

/// Link-time witness of the ABI: a program that refers to it cannot link another version's archive.
#[unsafe(no_mangle)]
pub extern "C" fn machnet_abi_3() {}

/// Begins to attach to the sidecar at `socket_path` (null: $MACHNET_SOCKET, else /var/run/machnet/machnet.sock).
/// MACHNET_EINVAL or MACHNET_ENOBUFS come from here, and then `*out` is null; every other error comes from
/// machnet_attach_step, where machnet_error_text has its sentence. Give the channel back with machnet_detach.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_attach_begin(
    socket_path: *const c_char,
    options: *const machnet_options,
    out: *mut *mut machnet_channel,
) -> c_int {
    // SAFETY: the caller's contract: null, or a C string for the length of this call.
    let path = (!socket_path.is_null()).then(|| unsafe { CStr::from_ptr(socket_path) });
    // SAFETY: the caller's contract for `options` and `out`.
    unsafe { begin(options, out, |asked| Attach::to_path(path, asked)) }
}

/// Begins to attach over a connected SOCK_SEQPACKET socket, which the channel owns from here on, also on error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_attach_fd(
    socket: c_int,
    options: *const machnet_options,
    out: *mut *mut machnet_channel,
) -> c_int {
    // SAFETY: the caller's contract for `options` and `out`.
    unsafe { begin(options, out, |asked| Attach::over(socket, asked)) }
}

/// [tx and rx] Goes on attaching: 0 when done, MACHNET_EAGAIN: call again when machnet_socket is readable (or, if it
/// is -1, after a millisecond), anything else: the attachment is over, see machnet_error_text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_attach_step(ch: *mut machnet_channel) -> c_int {
    // SAFETY: the contract of this module.
    code(unsafe { call(ch, "attach", step) })
}

/// [any] The control socket, for the caller's poller while attaching; readable after that only when the sidecar is gone.
/// Owned by the channel; -1 before there is one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_socket(ch: *const machnet_channel) -> c_int {
    // SAFETY: the contract of this module.
    unsafe { channel(ch) }.map_or(-1, machnet_channel::socket)
}

/// [any] The pipe that becomes readable when an armed channel has work, or hung up when the sidecar is gone.
/// O_NONBLOCK. Owned by the channel; -1 until attached.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_doorbell(ch: *const machnet_channel) -> c_int {
    // SAFETY: the contract of this module.
    unsafe { channel(ch) }.map_or(-1, machnet_channel::doorbell)
}

/// [any] Looks whether the sidecar lives: 0, or MACHNET_ENETDOWN. One system call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_check(ch: *const machnet_channel) -> c_int {
    // SAFETY: the contract of this module.
    code(unsafe { call(ch, "check", machnet_channel::alive) })
}

/// [any] Fills `out`; all zero until attached.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_info(ch: *const machnet_channel, out: *mut machnet_info_t) {
    // SAFETY: the contract of this module.
    let fixed = unsafe { channel(ch) }.ok().and_then(|ch| ch.fixed.get());
    // SAFETY: `out` is null or writable.
    unsafe { put(out, fixed.map(|fixed| fixed.info).unwrap_or_default()) };
}

/// [any] Fills `out` with the addresses that a waiter may load; MACHNET_ENOTATTACHED until attached.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_wait_view(
    ch: *const machnet_channel,
    out: *mut machnet_wait_view_t,
) -> c_int {
    // SAFETY: the contract of this module.
    match unsafe { channel(ch) }.and_then(|ch| ch.fixed.get().ok_or(MACHNET_ENOTATTACHED)) {
        Ok(fixed) => {
            // SAFETY: `out` is null or writable.
            unsafe { put(out, fixed.view) };
            0
        }
        Err(code) => code,
    }
}

/// [any] Copies the sentence about the last call of this channel that failed, with a final zero, and returns its length without it. There is
/// none, and 0 is returned, after a call that succeeded or returned MACHNET_EAGAIN; of two threads either's success takes it away.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_error_text(
    ch: *const machnet_channel,
    buf: *mut c_char,
    cap: usize,
) -> usize {
    // SAFETY: the contract of this module.
    let Ok(ch) = (unsafe { channel(ch) }) else { return 0 };
    // SAFETY: `buf` is writable for `cap` bytes.
    unsafe { put_text(&ch.last_error.text(), buf, cap) }
}

/// Copies a sentence, as much of it as there is room for, with a final zero; its length there without that.
///
/// # Safety
/// `buf` is null or writable for `cap` bytes.
unsafe fn put_text(text: &Text, buf: *mut c_char, cap: usize) -> usize {
    let sentence = text.as_bytes();
    let Some(room) = cap.checked_sub(1).filter(|_| !buf.is_null()) else { return 0 };
    let len = sentence.len().min(room);
    // SAFETY: `buf` is writable for `cap` bytes and `len < cap`; a sentence of ours does not overlap the caller's buffer.
    unsafe {
        buf.copy_from_nonoverlapping(sentence.as_ptr().cast(), len);
        buf.add(len).write(0);
    }
    len
}

/// [any] Copies a sentence about the failure that a MACHNET_EVENT_CONNECT_FAILED or _LISTEN_FAILED reports, with a final zero, and returns its
/// length without it: what is full, whose, how many there may be, and what to do. MACHNET_ERROR_TEXT_MAX bytes hold it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_event_text(
    event: *const machnet_event,
    buf: *mut c_char,
    cap: usize,
) -> usize {
    // SAFETY: `event` is null or readable.
    let Some(event) = (unsafe { event.as_ref() }) else { return 0 };
    // SAFETY: `buf` is writable for `cap` bytes.
    unsafe { put_text(&Text::new(Failure::of(event)), buf, cap) }
}

/// [any] A few words for a code; static, never null.
#[unsafe(no_mangle)]
pub extern "C" fn machnet_strerror(code: c_int) -> *const c_char {
    words::of(code).as_ptr()
}

/// Gives everything back. What was sent is still delivered, within the sidecar's linger (1 s unless configured); a message of which
/// only a part was accepted is aborted. Behind that the peer of each connection reads the end if machnet_close or machnet_finish was
/// called for it, else it is reset. The same happens when the process ends, however it does. No other call may be under way on this
/// channel. Null is allowed. In a child of fork(2) it gives back the child's copies alone: the parent's channel stays.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_detach(ch: *mut machnet_channel) {
    if ch.is_null() {
        return;
    }
    let _uncancelled = Uncancelled::begin();
    // SAFETY: `begin` made it with `posix_memalign` and `write`; the caller gives it back and is alone.
    unsafe {
        ch.drop_in_place();
        libc::free(ch.cast());
    }
}

fn step(ch: &machnet_channel) -> Result<(), i32> {
    let _uncancelled = Uncancelled::begin();
    ch.step()
}

/// Makes a channel around what `attach` gives.
///
/// # Safety
/// `options` is null or readable, `out` is null or writable.
unsafe fn begin(
    options: *const machnet_options,
    out: *mut *mut machnet_channel,
    attach: impl FnOnce(ClientHello) -> Attach,
) -> c_int {
    if out.is_null() {
        return MACHNET_EINVAL;
    }
    // SAFETY: not null, and writable as promised.
    unsafe { out.write(null_mut()) };
    // SAFETY: null or readable, as promised.
    let (engine, group) = unsafe { options.as_ref() }
        .map_or((MACHNET_ANY_ENGINE, 0), |options| (options.engine, options.group));
    let _uncancelled = Uncancelled::begin();
    let attach = attach(ClientHello { engine: (engine >= 0).then_some(engine as u32), group });
    let Some(mark) = Mark::new() else { return MACHNET_ENOBUFS };
    let mut place = null_mut();
    // SAFETY: `place` is writable; the alignment is a power of two and a multiple of a pointer's.
    let refused = unsafe {
        libc::posix_memalign(&mut place, align_of::<machnet_channel>().max(64), size_of::<machnet_channel>())
    };
    if refused != 0 {
        return MACHNET_ENOBUFS;
    }
    let ch: *mut machnet_channel = place.cast();
    // SAFETY: fresh memory of this size and alignment; `out` as above.
    unsafe {
        ch.write(machnet_channel::new(attach, mark));
        out.write(ch);
    }
    0
}
