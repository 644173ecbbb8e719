//! The structs of the C ABI. Plain values, no pointers but those into memory that the channel owns.
#![allow(non_camel_case_types, reason = "these are the names that C and Go see")]

/// A connection: generation << 32 | index. Never 0. A handle of a closed connection is refused, not reused.
pub type machnet_conn = u64;

/// How to attach. A null pointer means: any engine, no group.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct machnet_options {
    /// Engine to serve this channel, or MACHNET_ANY_ENGINE.
    pub engine: i32,
    /// A random number that all channels of one application say, which then count as one application; 0: this channel is one of its own.
    pub group: u32,
}

/// What the sidecar said at attach, and this library's limits.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct machnet_info_t {
    /// Address of the sidecar's host.
    pub ip: u32,
    /// Engine that serves this channel.
    pub engine: u32,
    /// Bytes of an IP packet on the wire.
    pub mtu: u32,
    /// Payload bytes of one packet: a message up to this length is one unit.
    pub unit_size: u32,
    /// Units of each direction that may be under way at once.
    pub units: u32,
    /// Most units that one connection may have under way per direction. Its share is less while others have many: some are
    /// its own always (half of `units`, divided by `conns`, at least 1), and of the rest it may have as many as it leaves free.
    pub units_per_conn: u32,
    /// Most connections of this channel.
    pub conns: u32,
    /// Longest message, bytes.
    pub max_message: u32,
    /// Version of the channel spoken.
    pub channel_version: u32,
    /// MACHNET_ABI of this library.
    pub abi: u32,
    /// Hash of the channel's layout.
    pub layout_hash: u64,
}

/// Where a waiter may look, without a call, whether a ring has something: it has when the 32-bit word at
/// `slots + (*head & mask) * stride` equals `*head + 1`. Load `*head` and the word atomically; write nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct machnet_ring_view {
    /// First slot; its sequence word is the first word.
    pub slots: *const u8,
    /// Number of the next slot that this library will take.
    pub head: *const u32,
    /// Slots - 1.
    pub mask: u32,
    /// Bytes from slot to slot.
    pub stride: u32,
}

/// Addresses for waiters; they stay valid until machnet_detach.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct machnet_wait_view_t {
    /// Data and events for machnet_recv_some and machnet_poll.
    pub deliver: machnet_ring_view,
    /// Tokens that come back to senders.
    pub complete: machnet_ring_view,
    /// Replies of the sidecar for machnet_poll (listen, connect).
    pub replies: machnet_ring_view,
    /// Not zero while machnet_poll has events that already left the rings.
    pub events: *const u32,
    /// Not zero while machnet_poll_tx has events that already left the ring.
    pub events_tx: *const u32,
    /// Not zero once the sidecar is gone.
    pub down: *const u32,
}

/// A dial.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct machnet_dial_t {
    /// Remote host.
    pub ip: u32,
    /// Remote port, 1..=65535.
    pub port: u16,
    /// Local port, or 0: any.
    pub local_port: u16,
    /// Milliseconds until MACHNET_ETIMEDOUT; 0: the sidecar's default.
    pub timeout_ms: u32,
}

/// One event of machnet_poll or machnet_poll_tx. Fields that its kind does not name are 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct machnet_event {
    /// MACHNET_EVENT_*.
    pub kind: u32,
    /// A negative code, or 0.
    pub code: i32,
    /// The connection, or 0.
    pub conn: machnet_conn,
    /// The listener, dial or question, or 0.
    pub id: u32,
    /// Of CONNECTED and ACCEPTED.
    pub local_ip: u32,
    /// Of CONNECTED and ACCEPTED.
    pub remote_ip: u32,
    /// Of CONNECTED, ACCEPTED and LISTENING.
    pub local_port: u16,
    /// Of CONNECTED and ACCEPTED.
    pub remote_port: u16,
    /// Of CONNECT_FAILED and LISTEN_FAILED whose code says that something is full: how many there may be.
    pub limit: u32,
    /// Zero.
    pub reserved: u32,
}

/// What the calls of one channel that wait know of their core: whether a thread that keeps it busy runs there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct machnet_waits_t {
    /// Times such a thread was found, or found to be still there: calls sleep at once then, instead of looking first.
    pub hog_alarms: u64,
    /// For how long they do, nanoseconds, counted when it begins.
    pub hogged_ns: u64,
    /// Time that calls are known to have waited for their core, nanoseconds: in looks of over 2 ms.
    pub core_wait_ns: u64,
}

/// What the sidecar knows of one connection, or knew when that ended.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct machnet_stats_t {
    /// Smoothed round-trip time, nanoseconds; 0: no sample yet.
    pub srtt_ns: u64,
    /// Its mean deviation, nanoseconds.
    pub rtt_var_ns: u64,
    /// Payload bytes sent, those sent again not counted.
    pub bytes_sent: u64,
    /// Payload bytes delivered to this end.
    pub bytes_received: u64,
    /// Units sent, those sent again not counted.
    pub units_sent: u64,
    /// Units delivered to this end.
    pub units_received: u64,
    /// Units sent again, for whatever reason.
    pub retransmitted: u64,
    /// Retransmission timeouts.
    pub timeouts: u32,
    /// Congestion window, units.
    pub window: u32,
    /// Units sent and not yet acknowledged.
    pub in_flight: u32,
    /// Units taken by the sidecar and not yet acknowledged, those in flight included.
    pub queued: u32,
    /// Units that the peer has room for beyond those sent.
    pub credit: u32,
    /// Units that the peer was promised room for.
    pub granted: u32,
    /// The engine that serves it.
    pub engine: u16,
    /// Source port of our UDP packets; 0 for a peer on this host.
    pub udp_source: u16,
    /// Their destination port; 0 for a peer on this host.
    pub udp_destination: u16,
    /// Source port of the peer's UDP packets, as last seen; 0: not known.
    pub peer_udp_source: u16,
    /// Their destination port, as last seen; 0: not known.
    pub peer_udp_destination: u16,
    /// MACHNET_STAGE_*.
    pub stage: u8,
    /// MACHNET_WAITS_*: why what is queued does not go now.
    pub waits: u8,
    /// MACHNET_PAIRING_*.
    pub pairing: u8,
    /// Zero.
    pub reserved: [u8; 5],
    /// The code by which the connection has ended; 0 while it has not, and after a clean end.
    pub reason: i32,
}

/// What machnet_recv_some says beside its count.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct machnet_recv_info {
    /// Length of the whole message that the last byte returned (or the refused message) belongs to.
    pub message_len: u32,
    /// Bytes of that message that were read before this call.
    pub offset: u32,
    /// MACHNET_INFO_*.
    pub flags: u32,
}

/// One part of a message for machnet_sendv.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct machnet_iovec {
    /// First byte; may be null where `len` is 0.
    pub base: *const u8,
    /// Bytes.
    pub len: usize,
}

/// The two ends of a connection, as the blocking calls give them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct machnet_peer {
    /// Own address.
    pub local_ip: u32,
    /// The other end's address.
    pub remote_ip: u32,
    /// Own port.
    pub local_port: u16,
    /// The other end's port.
    pub remote_port: u16,
}
