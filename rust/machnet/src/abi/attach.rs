//! Attach, detach, and what a channel says about itself.
use crate::client::machnet_channel;
use crate::types::{machnet_info_t, machnet_options, machnet_wait_view_t};
use core::ffi::{c_char, c_int};

/// Link-time witness of the ABI: a program that refers to it cannot link another version's archive.
#[unsafe(no_mangle)]
pub extern "C" fn machnet_abi_1() {}

/// Begins to attach to the sidecar at `socket_path` (null: $MACHNET_SOCKET, else /var/run/machnet/machnet.sock).
/// MACHNET_EINVAL or MACHNET_ENOBUFS come from here, and then `*out` is null; every other error comes from
/// machnet_attach_step, where machnet_error_text has its sentence. Give the channel back with machnet_detach.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_attach_begin(
    socket_path: *const c_char,
    options: *const machnet_options,
    out: *mut *mut machnet_channel,
) -> c_int {
    todo!()
}

/// Begins to attach over a connected SOCK_SEQPACKET socket, which the channel owns from here on, also on error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_attach_fd(
    socket: c_int,
    options: *const machnet_options,
    out: *mut *mut machnet_channel,
) -> c_int {
    todo!()
}

/// [tx and rx] Goes on attaching: 0 when done, MACHNET_EAGAIN: call again when machnet_socket is readable (or, if it
/// is -1, after a millisecond), anything else: the attachment is over, see machnet_error_text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_attach_step(ch: *mut machnet_channel) -> c_int {
    todo!()
}

/// [any] The control socket, for the caller's poller while attaching; readable after that only when the sidecar is gone.
/// Owned by the channel; -1 before there is one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_socket(ch: *const machnet_channel) -> c_int {
    todo!()
}

/// [any] The pipe that becomes readable when an armed channel has work, or hung up when the sidecar is gone.
/// O_NONBLOCK. Owned by the channel; -1 until attached.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_doorbell(ch: *const machnet_channel) -> c_int {
    todo!()
}

/// [any] Looks whether the sidecar lives: 0, or MACHNET_ENETDOWN. One system call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_check(ch: *const machnet_channel) -> c_int {
    todo!()
}

/// [any] Fills `out`; all zero until attached.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_info(ch: *const machnet_channel, out: *mut machnet_info_t) {
    todo!()
}

/// [any] Fills `out` with the addresses that a waiter may load; MACHNET_ENOTATTACHED until attached.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_wait_view(
    ch: *const machnet_channel,
    out: *mut machnet_wait_view_t,
) -> c_int {
    todo!()
}

/// [any] Copies the sentence of the last error of this channel, with a final zero, and returns its length without it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_error_text(
    ch: *const machnet_channel,
    buf: *mut c_char,
    cap: usize,
) -> usize {
    todo!()
}

/// [any] A few words for a code; static, never null.
#[unsafe(no_mangle)]
pub extern "C" fn machnet_strerror(code: c_int) -> *const c_char {
    todo!()
}

/// Gives everything back: the sidecar closes the channel's connections after what was sent. No other call may be under
/// way on this channel. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_detach(ch: *mut machnet_channel) {
    todo!()
}
