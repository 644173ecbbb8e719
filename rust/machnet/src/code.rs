//! The closed list of codes that cross the C ABI. Numbers never change their meaning; new ones are added below.

/// Nothing to do now: no data, no token, no reply yet. Wait and call again.
pub const MACHNET_EAGAIN: i32 = -1;
/// The connection, listener or dial is not (or no longer) known: closed here, or a stale handle.
pub const MACHNET_ECLOSED: i32 = -2;
/// Nobody listens at the remote port.
pub const MACHNET_EREFUSED: i32 = -3;
/// No answer from the remote host in time, or a deadline passed in a call that blocks.
pub const MACHNET_ETIMEDOUT: i32 = -4;
/// The peer reset the connection, or its process or sidecar is gone.
pub const MACHNET_ERESET: i32 = -5;
/// The local port is in use.
pub const MACHNET_EINUSE: i32 = -6;
/// The sidecar is gone, or it dropped this channel. Nothing works on this channel any more.
pub const MACHNET_ENETDOWN: i32 = -7;
/// The message is longer than MACHNET_MAX_MESSAGE.
pub const MACHNET_ETOOBIG: i32 = -8;
/// Application and sidecar speak different versions of the channel.
pub const MACHNET_EVERSION: i32 = -9;
/// No sidecar listens at the socket path.
pub const MACHNET_ENOSIDECAR: i32 = -10;
/// Not permitted, by the socket's owner and mode or by the sidecar.
pub const MACHNET_EACCES: i32 = -11;
/// An argument is out of range; nothing was done.
pub const MACHNET_EINVAL: i32 = -12;
/// Another thread is inside this channel in the same direction.
pub const MACHNET_EBUSY: i32 = -13;
/// Out of memory or channels, here or in the sidecar, or more was asked of one connection than there is room for. What has a limit of its
/// own has a code of its own, MACHNET_EFULL_* or MACHNET_EPEER_*.
pub const MACHNET_ENOBUFS: i32 = -14;
/// The sender gave up the message in its middle; the part already read is all there will be. The connection lives.
pub const MACHNET_EABORTED: i32 = -15;
/// The peer has finished sending and everything was read.
pub const MACHNET_EEOF: i32 = -16;
/// The next message does not fit the buffer, or the rest of one that was begun otherwise; it is kept, and
/// machnet_recv_info.message_len says its length, or the rest's.
pub const MACHNET_EMSGSIZE: i32 = -17;
/// No route to the remote host.
pub const MACHNET_EUNREACHABLE: i32 = -18;
/// The dial was cancelled.
pub const MACHNET_ECANCELED: i32 = -19;
/// The local address is not one of the sidecar's.
pub const MACHNET_EADDR: i32 = -20;
/// The peer or the sidecar broke the protocol.
pub const MACHNET_EPROTO: i32 = -21;
/// This direction of the connection was already finished.
pub const MACHNET_EPIPE: i32 = -22;
/// The channel is not attached yet: machnet_attach_step has not returned 0.
pub const MACHNET_ENOTATTACHED: i32 = -23;
/// A call on the operating system was refused; machnet_error_text says which.
pub const MACHNET_ESYSTEM: i32 = -24;
/// A signal's handler ran while the call waited. Nothing was done; call again.
pub const MACHNET_EINTR: i32 = -25;
/// The channel belongs to the process that attached, and this is a child that fork(2) made of it. Attach anew here; machnet_detach gives
/// back what the child has of the parent's channel, which the parent goes on using.
pub const MACHNET_EFORK: i32 = -26;
/// This process has as many connections as its channel may have (machnetd's `flows`).
pub const MACHNET_EFULL_CONNS: i32 = -30;
/// The engine that serves this process has as many connections as it can have.
pub const MACHNET_EFULL_ENGINE: i32 = -31;
/// This process has as many listeners as its channel may have.
pub const MACHNET_EFULL_LISTENERS: i32 = -32;
/// All ports that the sidecar gives where none is named are in use.
pub const MACHNET_EFULL_PORTS: i32 = -33;
/// The process that listens at the other end has as many connections as it may have.
pub const MACHNET_EPEER_FULL_CONNS: i32 = -34;
/// The engine at the other end has as many connections as it can have.
pub const MACHNET_EPEER_FULL_ENGINE: i32 = -35;
/// The sidecar is ending and takes no more.
pub const MACHNET_EENDING: i32 = -36;
/// The other end's sidecar is ending and takes no more.
pub const MACHNET_EPEER_ENDING: i32 = -37;

/// Version of this C API; `machnet_abi_3` is its link-time witness.
pub const MACHNET_ABI: u32 = 3;
/// Longest message in bytes: 8 MiB.
pub const MACHNET_MAX_MESSAGE: u32 = 8 << 20;
/// Bytes that always hold a whole error sentence with its final zero.
pub const MACHNET_ERROR_TEXT_MAX: u32 = 256;
/// `machnet_options.engine`: let the sidecar choose.
pub const MACHNET_ANY_ENGINE: i32 = -1;

/// Send: these bytes continue the message that an earlier call of the same connection accepted in part.
pub const MACHNET_SEND_CONTINUE: u32 = 1;
/// Send: begin the message only when all of it can go, unless other connections hold so many units that it might never.
pub const MACHNET_SEND_WHOLE: u32 = 2;
/// Receive, stream mode: bytes as they come, across the ends of messages.
pub const MACHNET_RECV_STREAM: u32 = 0;
/// Receive: only a message that fits the buffer is begun, else MACHNET_EMSGSIZE and the message is kept.
pub const MACHNET_RECV_MESSAGE: u32 = 1;
/// Receive: bytes of the current message only; the call stops at its end.
pub const MACHNET_RECV_ONE: u32 = 2;
/// Listen: other listeners of this user may have the port, too, if all of them say so (as SO_REUSEPORT).
pub const MACHNET_REUSEPORT: u32 = 512;
/// Listen: other listeners of this application may have the port, on whichever of its channels, if all of them say so. An application is all
/// channels of one user whose `machnet_options.group` is the same; a channel without a group is one of its own.
pub const MACHNET_GROUP: u32 = 1024;
/// Calls of the blocking API: return MACHNET_EAGAIN where they would wait.
pub const MACHNET_DONTWAIT: u32 = 256;

/// `machnet_recv_info.flags`: the bytes returned begin a message.
pub const MACHNET_INFO_BEGIN: u32 = 1;
/// `machnet_recv_info.flags`: the bytes returned reach the end of a message.
pub const MACHNET_INFO_END: u32 = 2;
/// `machnet_recv_info.flags`: more of this connection's data is already here.
pub const MACHNET_INFO_MORE: u32 = 4;

/// Event: `id` listens; `local_port` is the port.
pub const MACHNET_EVENT_LISTENING: u32 = 1;
/// Event: `id` cannot listen; `code` says why.
pub const MACHNET_EVENT_LISTEN_FAILED: u32 = 2;
/// Event: `id` does not listen any more; the last event of a listener.
pub const MACHNET_EVENT_UNLISTENED: u32 = 3;
/// Event: the dial `id` became `conn`.
pub const MACHNET_EVENT_CONNECTED: u32 = 4;
/// Event: the dial `id` ended without a connection; `code` says why.
pub const MACHNET_EVENT_CONNECT_FAILED: u32 = 5;
/// Event: `conn` has come to the listener `id`; machnet_accepted frees its place in the backlog.
pub const MACHNET_EVENT_ACCEPTED: u32 = 6;
/// Event: `conn` has something to receive: data, the end, or an error. Reported again only after a receive has taken
/// everything (no MACHNET_INFO_MORE, or MACHNET_EAGAIN).
pub const MACHNET_EVENT_READABLE: u32 = 7;
/// Event of machnet_poll_tx: a send on `conn` that returned MACHNET_EAGAIN (or a short count) may be tried again.
pub const MACHNET_EVENT_WRITABLE: u32 = 8;
/// Event: `conn` was ended by the peer or the sidecar; `code` says why. Data received before can still be read.
/// The handle stays until machnet_close.
pub const MACHNET_EVENT_CLOSED: u32 = 9;
/// Event: the answer of the sidecar to machnet_stats_begin is there, `id` the question: machnet_stats_take gives it. `code` is 0, or
/// MACHNET_ECLOSED where the connection is forgotten.
pub const MACHNET_EVENT_STATS: u32 = 10;

/// `machnet_stats_t.stage`: the handshake is under way.
pub const MACHNET_STAGE_OPENING: u8 = 0;
/// `machnet_stats_t.stage`: both ends may send.
pub const MACHNET_STAGE_OPEN: u8 = 1;
/// `machnet_stats_t.stage`: this end has finished sending.
pub const MACHNET_STAGE_CLOSING: u8 = 2;
/// `machnet_stats_t.stage`: the connection is over; `reason` says why.
pub const MACHNET_STAGE_OVER: u8 = 3;

/// `machnet_stats_t.waits`: nothing that is queued waits.
pub const MACHNET_WAITS_NOT: u8 = 0;
/// `machnet_stats_t.waits`: for acknowledgements; as many units are in flight as the congestion window allows.
pub const MACHNET_WAITS_WINDOW: u8 = 1;
/// `machnet_stats_t.waits`: for the peer to promise room; its application does not read, or its other connections have what there is.
pub const MACHNET_WAITS_CREDIT: u8 = 2;
/// `machnet_stats_t.waits`: for its time; units go one after the other, at a pace.
pub const MACHNET_WAITS_PACING: u8 = 3;
/// `machnet_stats_t.waits`: for the next hop's address.
pub const MACHNET_WAITS_NEXT_HOP: u8 = 4;
/// `machnet_stats_t.waits`: for its turn; the NIC has no room, or other connections go first.
pub const MACHNET_WAITS_TURN: u8 = 5;

/// `machnet_stats_t.pairing`: the peer is on this host, and there are no UDP ports.
pub const MACHNET_PAIRING_NONE: u8 = 0;
/// `machnet_stats_t.pairing`: our UDP ports lead to the queue that the peer wants.
pub const MACHNET_PAIRING_VERIFIED: u8 = 1;
/// `machnet_stats_t.pairing`: they do not, or nobody knows; others are searched for.
pub const MACHNET_PAIRING_SEARCHING: u8 = 2;
/// `machnet_stats_t.pairing`: the same, and nothing is done about it just now.
pub const MACHNET_PAIRING_UNVERIFIED: u8 = 3;
/// `machnet_stats_t.pairing`: none were found that do; the peer hands packets over between its engines.
pub const MACHNET_PAIRING_GIVEN_UP: u8 = 4;

/// machnet_keepalive: as the sidecar does with all connections, after 1 s unless configured.
pub const MACHNET_KEEPALIVE_DEFAULT: u32 = u32::MAX;
/// machnet_keepalive: never.
pub const MACHNET_KEEPALIVE_NEVER: u32 = 0;
