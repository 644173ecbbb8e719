//! Sending, closing, dialling and listening. None of these blocks.
use crate::client::machnet_channel;
use crate::types::{machnet_conn, machnet_dial_t, machnet_event, machnet_iovec};
use core::ffi::{c_int, c_void};

/// [tx] Sends `len` bytes as one message. Returns how many bytes were accepted (all of them, or as many whole units as there
/// are tokens), or MACHNET_EAGAIN when there is no token at all. After a short count the message is under way: the
/// rest goes by calls with MACHNET_SEND_CONTINUE and exactly the bytes that are left, or machnet_abort ends it.
/// A call without that flag while a message is under way, or with it while none is, is MACHNET_EINVAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_send_some(
    ch: *mut machnet_channel,
    conn: machnet_conn,
    buf: *const c_void,
    len: usize,
    flags: u32,
) -> i64 {
    todo!()
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
    todo!()
}

/// [tx] Takes completions and writes up to `cap` MACHNET_EVENT_WRITABLE events. Returns how many.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_poll_tx(
    ch: *mut machnet_channel,
    out: *mut machnet_event,
    cap: c_int,
) -> c_int {
    todo!()
}

/// [tx] Gives up the message that a short count left under way; the peer drops its part. 0, also when none is;
/// MACHNET_EAGAIN when there is no token for it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_abort(ch: *mut machnet_channel, conn: machnet_conn) -> c_int {
    todo!()
}

/// [tx] Half close: the peer reads what was sent, then the end. Receiving goes on. 0, MACHNET_EAGAIN when there is no token for it;
/// MACHNET_EINVAL while a message is under way.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_finish(ch: *mut machnet_channel, conn: machnet_conn) -> c_int {
    todo!()
}

/// [tx] Forgets `conn`: what was sent is flushed by the sidecar in the background, then the peer sees the end. A message under
/// way is aborted. Everything not yet received is dropped. Always succeeds on an open handle, also after MACHNET_EVENT_CLOSED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_close(ch: *mut machnet_channel, conn: machnet_conn) -> c_int {
    todo!()
}

/// [tx] Forgets `conn` at once: what is not yet acknowledged is dropped, and the peer sees MACHNET_ERESET.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_reset(ch: *mut machnet_channel, conn: machnet_conn) -> c_int {
    todo!()
}

/// [tx] Asks to listen on `ip` (0: the sidecar's) and `port` (0: any). `*listener` gets the id that the events name:
/// MACHNET_EVENT_LISTENING or _LISTEN_FAILED comes, then _ACCEPTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_listen_begin(
    ch: *mut machnet_channel,
    ip: u32,
    port: u16,
    backlog: u32,
    listener: *mut u32,
) -> c_int {
    todo!()
}

/// [tx] Ends a listener; MACHNET_EVENT_UNLISTENED is its last event. Connections announced before it must be closed one by one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_unlisten(ch: *mut machnet_channel, listener: u32) -> c_int {
    todo!()
}

/// [tx] Asks for a connection. `*id` gets the id that MACHNET_EVENT_CONNECTED or _CONNECT_FAILED names.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_dial_begin(
    ch: *mut machnet_channel,
    request: *const machnet_dial_t,
    id: *mut u32,
) -> c_int {
    todo!()
}

/// [tx] Gives up a dial. One event still comes: _CONNECT_FAILED with MACHNET_ECANCELED, or _CONNECTED where it was too late
/// (then close that connection).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_dial_cancel(ch: *mut machnet_channel, id: u32) -> c_int {
    todo!()
}
