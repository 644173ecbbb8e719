// The C API of the Machnet client. Written by cbindgen from rust/machnet; `make header` writes it anew.
//
// A channel is one attachment to a sidecar. It serves one thread per direction at a time: the functions marked
// [tx] share one direction, those marked [rx] the other, those marked [any] neither. A second caller in a
// direction gets MACHNET_EBUSY, never undefined behaviour. machnet_detach must be alone.
// Functions return 0 (or a count) or a negative MACHNET_E* code. Only those marked [blocks] ever wait.
//
// Signals: a handler that runs in the thread while it waits in a function marked [blocks] ends that with MACHNET_EINTR, and nothing was
// done: no message taken or sent, no connection made. A signal that comes while the call looks is kept until it sleeps, so none is
// missed once it waits. Not interrupted are a message that has begun, which goes on or comes in whole; machnet_listen once it has
// asked; and a call in a program all of whose handlers have SA_RESTART (where some have and some have not, either kind may end the call).
// Threads: cancellation (pthread_cancel, deferred) is held off inside every function, and acts at the thread's next cancellation point
// after it; a signal or machnet_recv_timeout gets the thread out of a wait. fork(2): the channel stays the parent's, and every
// function but machnet_detach returns MACHNET_EFORK in the child, or where it returns no code what it returns without a channel
// (Linux 4.14; before, do not call any). All descriptors are closed by exec.
//
// IPv4 addresses are uint32_t with the first byte on top: 10.0.0.1 is 0x0a000001. Ports are in host order.

#ifndef MACHNET_H
#define MACHNET_H

#include <stddef.h>
#include <stdint.h>

// Nothing to do now: no data, no token, no reply yet. Wait and call again.
#define MACHNET_EAGAIN -1

// The connection, listener or dial is not (or no longer) known: closed here, or a stale handle.
#define MACHNET_ECLOSED -2

// Nobody listens at the remote port.
#define MACHNET_EREFUSED -3

// No answer from the remote host in time, or a deadline passed in a call that blocks.
#define MACHNET_ETIMEDOUT -4

// The peer reset the connection, or its process or sidecar is gone.
#define MACHNET_ERESET -5

// The local port is in use.
#define MACHNET_EINUSE -6

// The sidecar is gone, or it dropped this channel. Nothing works on this channel any more.
#define MACHNET_ENETDOWN -7

// The message is longer than MACHNET_MAX_MESSAGE.
#define MACHNET_ETOOBIG -8

// Application and sidecar speak different versions of the channel.
#define MACHNET_EVERSION -9

// No sidecar listens at the socket path.
#define MACHNET_ENOSIDECAR -10

// Not permitted, by the socket's owner and mode or by the sidecar.
#define MACHNET_EACCES -11

// An argument is out of range; nothing was done.
#define MACHNET_EINVAL -12

// Another thread is inside this channel in the same direction.
#define MACHNET_EBUSY -13

// Out of memory or channels, here or in the sidecar, or more was asked of one connection than there is room for. What has a limit of its
// own has a code of its own, MACHNET_EFULL_* or MACHNET_EPEER_*.
#define MACHNET_ENOBUFS -14

// The sender gave up the message in its middle; the part already read is all there will be. The connection lives.
#define MACHNET_EABORTED -15

// The peer has finished sending and everything was read.
#define MACHNET_EEOF -16

// The next message does not fit the buffer, or the rest of one that was begun otherwise; it is kept, and
// machnet_recv_info.message_len says its length, or the rest's.
#define MACHNET_EMSGSIZE -17

// No route to the remote host.
#define MACHNET_EUNREACHABLE -18

// The dial was cancelled.
#define MACHNET_ECANCELED -19

// The local address is not one of the sidecar's.
#define MACHNET_EADDR -20

// The peer or the sidecar broke the protocol.
#define MACHNET_EPROTO -21

// This direction of the connection was already finished.
#define MACHNET_EPIPE -22

// The channel is not attached yet: machnet_attach_step has not returned 0.
#define MACHNET_ENOTATTACHED -23

// A call on the operating system was refused; machnet_error_text says which.
#define MACHNET_ESYSTEM -24

// A signal's handler ran while the call waited. Nothing was done; call again.
#define MACHNET_EINTR -25

// The channel belongs to the process that attached, and this is a child that fork(2) made of it. Attach anew here; machnet_detach gives
// back what the child has of the parent's channel, which the parent goes on using.
#define MACHNET_EFORK -26

// This process has as many connections as its channel may have (machnetd's `flows`).
#define MACHNET_EFULL_CONNS -30

// The engine that serves this process has as many connections as it can have.
#define MACHNET_EFULL_ENGINE -31

// This process has as many listeners as its channel may have.
#define MACHNET_EFULL_LISTENERS -32

// All ports that the sidecar gives where none is named are in use.
#define MACHNET_EFULL_PORTS -33

// The process that listens at the other end has as many connections as it may have.
#define MACHNET_EPEER_FULL_CONNS -34

// The engine at the other end has as many connections as it can have.
#define MACHNET_EPEER_FULL_ENGINE -35

// The sidecar is ending and takes no more.
#define MACHNET_EENDING -36

// The other end's sidecar is ending and takes no more.
#define MACHNET_EPEER_ENDING -37

// Version of this C API; `machnet_abi_3` is its link-time witness.
#define MACHNET_ABI 3

// Longest message in bytes: 8 MiB.
#define MACHNET_MAX_MESSAGE (8 << 20)

// Bytes that always hold a whole error sentence with its final zero.
#define MACHNET_ERROR_TEXT_MAX 256

// `machnet_options.engine`: let the sidecar choose.
#define MACHNET_ANY_ENGINE -1

// Send: these bytes continue the message that an earlier call of the same connection accepted in part.
#define MACHNET_SEND_CONTINUE 1

// Send: begin the message only when all of it can go, unless other connections hold so many units that it might never.
#define MACHNET_SEND_WHOLE 2

// Receive, stream mode: bytes as they come, across the ends of messages.
#define MACHNET_RECV_STREAM 0

// Receive: only a message that fits the buffer is begun, else MACHNET_EMSGSIZE and the message is kept.
#define MACHNET_RECV_MESSAGE 1

// Receive: bytes of the current message only; the call stops at its end.
#define MACHNET_RECV_ONE 2

// Listen: other listeners of this user may have the port, too, if all of them say so (as SO_REUSEPORT).
#define MACHNET_REUSEPORT 512

// Listen: other listeners of this application may have the port, on whichever of its channels, if all of them say so. An application is all
// channels of one user whose `machnet_options.group` is the same; a channel without a group is one of its own.
#define MACHNET_GROUP 1024

// Calls of the blocking API: return MACHNET_EAGAIN where they would wait.
#define MACHNET_DONTWAIT 256

// `machnet_recv_info.flags`: the bytes returned begin a message.
#define MACHNET_INFO_BEGIN 1

// `machnet_recv_info.flags`: the bytes returned reach the end of a message.
#define MACHNET_INFO_END 2

// `machnet_recv_info.flags`: more of this connection's data is already here.
#define MACHNET_INFO_MORE 4

// Event: `id` listens; `local_port` is the port.
#define MACHNET_EVENT_LISTENING 1

// Event: `id` cannot listen; `code` says why.
#define MACHNET_EVENT_LISTEN_FAILED 2

// Event: `id` does not listen any more; the last event of a listener.
#define MACHNET_EVENT_UNLISTENED 3

// Event: the dial `id` became `conn`.
#define MACHNET_EVENT_CONNECTED 4

// Event: the dial `id` ended without a connection; `code` says why.
#define MACHNET_EVENT_CONNECT_FAILED 5

// Event: `conn` has come to the listener `id`; machnet_accepted frees its place in the backlog.
#define MACHNET_EVENT_ACCEPTED 6

// Event: `conn` has something to receive: data, the end, or an error. Reported again only after a receive has taken
// everything (no MACHNET_INFO_MORE, or MACHNET_EAGAIN).
#define MACHNET_EVENT_READABLE 7

// Event of machnet_poll_tx: a send on `conn` that returned MACHNET_EAGAIN (or a short count) may be tried again.
#define MACHNET_EVENT_WRITABLE 8

// Event: `conn` was ended by the peer or the sidecar; `code` says why. Data received before can still be read.
// The handle stays until machnet_close.
#define MACHNET_EVENT_CLOSED 9

// Event: the answer of the sidecar to machnet_stats_begin is there, `id` the question: machnet_stats_take gives it. `code` is 0, or
// MACHNET_ECLOSED where the connection is forgotten.
#define MACHNET_EVENT_STATS 10

// `machnet_stats_t.stage`: the handshake is under way.
#define MACHNET_STAGE_OPENING 0

// `machnet_stats_t.stage`: both ends may send.
#define MACHNET_STAGE_OPEN 1

// `machnet_stats_t.stage`: this end has finished sending.
#define MACHNET_STAGE_CLOSING 2

// `machnet_stats_t.stage`: the connection is over; `reason` says why.
#define MACHNET_STAGE_OVER 3

// `machnet_stats_t.waits`: nothing that is queued waits.
#define MACHNET_WAITS_NOT 0

// `machnet_stats_t.waits`: for acknowledgements; as many units are in flight as the congestion window allows.
#define MACHNET_WAITS_WINDOW 1

// `machnet_stats_t.waits`: for the peer to promise room; its application does not read, or its other connections have what there is.
#define MACHNET_WAITS_CREDIT 2

// `machnet_stats_t.waits`: for its time; units go one after the other, at a pace.
#define MACHNET_WAITS_PACING 3

// `machnet_stats_t.waits`: for the next hop's address.
#define MACHNET_WAITS_NEXT_HOP 4

// `machnet_stats_t.waits`: for its turn; the NIC has no room, or other connections go first.
#define MACHNET_WAITS_TURN 5

// `machnet_stats_t.pairing`: the peer is on this host, and there are no UDP ports.
#define MACHNET_PAIRING_NONE 0

// `machnet_stats_t.pairing`: our UDP ports lead to the queue that the peer wants.
#define MACHNET_PAIRING_VERIFIED 1

// `machnet_stats_t.pairing`: they do not, or nobody knows; others are searched for.
#define MACHNET_PAIRING_SEARCHING 2

// `machnet_stats_t.pairing`: the same, and nothing is done about it just now.
#define MACHNET_PAIRING_UNVERIFIED 3

// `machnet_stats_t.pairing`: none were found that do; the peer hands packets over between its engines.
#define MACHNET_PAIRING_GIVEN_UP 4

// machnet_keepalive: as the sidecar does with all connections, after 1 s unless configured.
#define MACHNET_KEEPALIVE_DEFAULT UINT32_MAX

// machnet_keepalive: never.
#define MACHNET_KEEPALIVE_NEVER 0



// One attachment to a sidecar.
typedef struct machnet_channel machnet_channel;

// How to attach. A null pointer means: any engine, no group.
typedef struct machnet_options {
  // Engine to serve this channel, or MACHNET_ANY_ENGINE.
  int32_t engine;
  // A random number that all channels of one application say, which then count as one application; 0: this channel is one of its own.
  uint32_t group;
} machnet_options;

// What the sidecar said at attach, and this library's limits.
typedef struct machnet_info_t {
  // Address of the sidecar's host.
  uint32_t ip;
  // Engine that serves this channel.
  uint32_t engine;
  // Bytes of an IP packet on the wire.
  uint32_t mtu;
  // Payload bytes of one packet: a message up to this length is one unit.
  uint32_t unit_size;
  // Units of each direction that may be under way at once.
  uint32_t units;
  // Most units that one connection may have under way per direction. Its share is less while others have many: some are
  // its own always (half of `units`, divided by `conns`, at least 1), and of the rest it may have as many as it leaves free.
  uint32_t units_per_conn;
  // Most connections of this channel.
  uint32_t conns;
  // Longest message, bytes.
  uint32_t max_message;
  // Version of the channel spoken.
  uint32_t channel_version;
  // MACHNET_ABI of this library.
  uint32_t abi;
  // Hash of the channel's layout.
  uint64_t layout_hash;
} machnet_info_t;

// Where a waiter may look, without a call, whether a ring has something: it has when the 32-bit word at
// `slots + (*head & mask) * stride` equals `*head + 1`. Load `*head` and the word atomically; write nothing.
typedef struct machnet_ring_view {
  // First slot; its sequence word is the first word.
  const uint8_t *slots;
  // Number of the next slot that this library will take.
  const uint32_t *head;
  // Slots - 1.
  uint32_t mask;
  // Bytes from slot to slot.
  uint32_t stride;
} machnet_ring_view;

// Addresses for waiters; they stay valid until machnet_detach.
typedef struct machnet_wait_view_t {
  // Data and events for machnet_recv_some and machnet_poll.
  struct machnet_ring_view deliver;
  // Tokens that come back to senders.
  struct machnet_ring_view complete;
  // Replies of the sidecar for machnet_poll (listen, connect).
  struct machnet_ring_view replies;
  // Not zero while machnet_poll has events that already left the rings.
  const uint32_t *events;
  // Not zero while machnet_poll_tx has events that already left the ring.
  const uint32_t *events_tx;
  // Not zero once the sidecar is gone.
  const uint32_t *down;
} machnet_wait_view_t;

// A connection: generation << 32 | index. Never 0. A handle of a closed connection is refused, not reused.
typedef uint64_t machnet_conn;

// One event of machnet_poll or machnet_poll_tx. Fields that its kind does not name are 0.
typedef struct machnet_event {
  // MACHNET_EVENT_*.
  uint32_t kind;
  // A negative code, or 0.
  int32_t code;
  // The connection, or 0.
  machnet_conn conn;
  // The listener, dial or question, or 0.
  uint32_t id;
  // Of CONNECTED and ACCEPTED.
  uint32_t local_ip;
  // Of CONNECTED and ACCEPTED.
  uint32_t remote_ip;
  // Of CONNECTED, ACCEPTED and LISTENING.
  uint16_t local_port;
  // Of CONNECTED and ACCEPTED.
  uint16_t remote_port;
  // Of CONNECT_FAILED and LISTEN_FAILED whose code says that something is full: how many there may be.
  uint32_t limit;
  // Zero.
  uint32_t reserved;
} machnet_event;

// The two ends of a connection, as the blocking calls give them.
typedef struct machnet_peer {
  // Own address.
  uint32_t local_ip;
  // The other end's address.
  uint32_t remote_ip;
  // Own port.
  uint16_t local_port;
  // The other end's port.
  uint16_t remote_port;
} machnet_peer;

// What machnet_recv_some says beside its count.
typedef struct machnet_recv_info {
  // Length of the whole message that the last byte returned (or the refused message) belongs to.
  uint32_t message_len;
  // Bytes of that message that were read before this call.
  uint32_t offset;
  // MACHNET_INFO_*.
  uint32_t flags;
} machnet_recv_info;

// What the sidecar knows of one connection, or knew when that ended.
typedef struct machnet_stats_t {
  // Smoothed round-trip time, nanoseconds; 0: no sample yet.
  uint64_t srtt_ns;
  // Its mean deviation, nanoseconds.
  uint64_t rtt_var_ns;
  // Payload bytes sent, those sent again not counted.
  uint64_t bytes_sent;
  // Payload bytes delivered to this end.
  uint64_t bytes_received;
  // Units sent, those sent again not counted.
  uint64_t units_sent;
  // Units delivered to this end.
  uint64_t units_received;
  // Units sent again, for whatever reason.
  uint64_t retransmitted;
  // Retransmission timeouts.
  uint32_t timeouts;
  // Congestion window, units.
  uint32_t window;
  // Units sent and not yet acknowledged.
  uint32_t in_flight;
  // Units taken by the sidecar and not yet acknowledged, those in flight included.
  uint32_t queued;
  // Units that the peer has room for beyond those sent.
  uint32_t credit;
  // Units that the peer was promised room for.
  uint32_t granted;
  // The engine that serves it.
  uint16_t engine;
  // Source port of our UDP packets; 0 for a peer on this host.
  uint16_t udp_source;
  // Their destination port; 0 for a peer on this host.
  uint16_t udp_destination;
  // Source port of the peer's UDP packets, as last seen; 0: not known.
  uint16_t peer_udp_source;
  // Their destination port, as last seen; 0: not known.
  uint16_t peer_udp_destination;
  // MACHNET_STAGE_*.
  uint8_t stage;
  // MACHNET_WAITS_*: why what is queued does not go now.
  uint8_t waits;
  // MACHNET_PAIRING_*.
  uint8_t pairing;
  // Zero.
  uint8_t reserved[5];
  // The code by which the connection has ended; 0 while it has not, and after a clean end.
  int32_t reason;
} machnet_stats_t;

// What the calls of one channel that wait know of their core: whether a thread that keeps it busy runs there.
typedef struct machnet_waits_t {
  // Times such a thread was found, or found to be still there: calls sleep at once then, instead of looking first.
  uint64_t hog_alarms;
  // For how long they do, nanoseconds, counted when it begins.
  uint64_t hogged_ns;
  // Time that calls are known to have waited for their core, nanoseconds: in looks of over 2 ms.
  uint64_t core_wait_ns;
} machnet_waits_t;

// One part of a message for machnet_sendv.
typedef struct machnet_iovec {
  // First byte; may be null where `len` is 0.
  const uint8_t *base;
  // Bytes.
  size_t len;
} machnet_iovec;

// A dial.
typedef struct machnet_dial_t {
  // Remote host.
  uint32_t ip;
  // Remote port, 1..=65535.
  uint16_t port;
  // Local port, or 0: any.
  uint16_t local_port;
  // Milliseconds until MACHNET_ETIMEDOUT; 0: the sidecar's default.
  uint32_t timeout_ms;
} machnet_dial_t;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Link-time witness of the ABI: a program that refers to it cannot link another version's archive.
void machnet_abi_3(void);

// Begins to attach to the sidecar at `socket_path` (null: $MACHNET_SOCKET, else /var/run/machnet/machnet.sock).
// MACHNET_EINVAL or MACHNET_ENOBUFS come from here, and then `*out` is null; every other error comes from
// machnet_attach_step, where machnet_error_text has its sentence. Give the channel back with machnet_detach.
int machnet_attach_begin(const char *socket_path,
                         const struct machnet_options *options,
                         struct machnet_channel **out);

// Begins to attach over a connected SOCK_SEQPACKET socket, which the channel owns from here on, also on error.
int machnet_attach_fd(int socket,
                      const struct machnet_options *options,
                      struct machnet_channel **out);

// [tx and rx] Goes on attaching: 0 when done, MACHNET_EAGAIN: call again when machnet_socket is readable (or, if it
// is -1, after a millisecond), anything else: the attachment is over, see machnet_error_text.
int machnet_attach_step(struct machnet_channel *ch);

// [any] The control socket, for the caller's poller while attaching; readable after that only when the sidecar is gone.
// Owned by the channel; -1 before there is one.
int machnet_socket(const struct machnet_channel *ch);

// [any] The pipe that becomes readable when an armed channel has work, or hung up when the sidecar is gone.
// O_NONBLOCK. Owned by the channel; -1 until attached.
int machnet_doorbell(const struct machnet_channel *ch);

// [any] Looks whether the sidecar lives: 0, or MACHNET_ENETDOWN. One system call.
int machnet_check(const struct machnet_channel *ch);

// [any] Fills `out`; all zero until attached.
void machnet_info(const struct machnet_channel *ch, struct machnet_info_t *out);

// [any] Fills `out` with the addresses that a waiter may load; MACHNET_ENOTATTACHED until attached.
int machnet_wait_view(const struct machnet_channel *ch, struct machnet_wait_view_t *out);

// [any] Copies the sentence about the last call of this channel that failed, with a final zero, and returns its length without it. There is
// none, and 0 is returned, after a call that succeeded or returned MACHNET_EAGAIN; of two threads either's success takes it away.
size_t machnet_error_text(const struct machnet_channel *ch,
                          char *buf,
                          size_t cap);

// [any] Copies a sentence about the failure that a MACHNET_EVENT_CONNECT_FAILED or _LISTEN_FAILED reports, with a final zero, and returns its
// length without it: what is full, whose, how many there may be, and what to do. MACHNET_ERROR_TEXT_MAX bytes hold it.
size_t machnet_event_text(const struct machnet_event *event,
                          char *buf,
                          size_t cap);

// [any] A few words for a code; static, never null.
const char *machnet_strerror(int code);

// Gives everything back. What was sent is still delivered, within the sidecar's linger (1 s unless configured); a message of which
// only a part was accepted is aborted. Behind that the peer of each connection reads the end if machnet_close or machnet_finish was
// called for it, else it is reset. The same happens when the process ends, however it does. No other call may be under way on this
// channel. Null is allowed. In a child of fork(2) it gives back the child's copies alone: the parent's channel stays.
void machnet_detach(struct machnet_channel *ch);

// Initializes the library: 0, or MACHNET_ESYSTEM where the machine lacks what the channel needs. Cheap, may be called again.
int machnet_init(void);

// [blocks] Attaches; see machnet_attach_begin. On an error `*out` is a channel that only machnet_error_text and machnet_detach
// accept, or null.
int machnet_attach(const char *socket_path,
                   const struct machnet_options *options,
                   struct machnet_channel **out);

// [tx] Sets the local address of the next machnet_listen or machnet_connect: `ip` 0 or the sidecar's own (else
// MACHNET_EADDR), `port` 0: any.
int machnet_bind(struct machnet_channel *ch,
                 uint32_t ip,
                 uint16_t port);

// [tx and rx] [blocks] Listens where machnet_bind said; `*listener` gets the id, `*port` (may be null) the port. Waits while too many requests
// of this channel wait for the sidecar.
//
// At most `backlog` connections (0 counts as 1) are begun, or established and not yet taken by machnet_accept, at a time. A caller
// beyond that gets no answer: it asks again, every 200 ms at least, until there is a place or its time is up (MACHNET_ETIMEDOUT). Who
// was told "connected" has a place, and is there to be accepted, with what it has sent, also if it has gone meanwhile.
//
// `flags`: 0, MACHNET_REUSEPORT, MACHNET_GROUP or both. Listeners that share a port may be any process's of the same user (MACHNET_REUSEPORT), or
// those of one application (MACHNET_GROUP), and of any engine: each caller
// meets one of them, one whose backlog has a place if there is any. So a server with a thread for each engine attaches once for each
// (machnet_options.engine) and listens on all.
int machnet_listen(struct machnet_channel *ch,
                   uint32_t backlog,
                   uint32_t flags,
                   uint32_t *listener,
                   uint16_t *port);

// [rx] [blocks] Takes the next connection of `listener`, and frees its place in the backlog. `peer` may be null. `flags`: 0 or
// MACHNET_DONTWAIT.
int machnet_accept(struct machnet_channel *ch,
                   uint32_t listener,
                   machnet_conn *conn,
                   struct machnet_peer *peer,
                   uint32_t flags);

// [tx and rx] [blocks] Connects to `ip`:`port`. `timeout_ms` 0: the sidecar's default. Waits for room as machnet_listen does, for no longer
// than `timeout_ms`. A call that a signal ends (MACHNET_EINTR) calls its dial off first, for which it waits while another thread is in
// machnet_send.
int machnet_connect(struct machnet_channel *ch,
                    uint32_t ip,
                    uint16_t port,
                    uint32_t timeout_ms,
                    machnet_conn *conn);

// [tx] [blocks] Sends one message: 0 when all of it is accepted, which is not yet delivered. Once the connection is over it is the code of that,
// whether or not anybody receives: MACHNET_ERESET after a reset, or where the peer has closed and more was sent to it than it had read;
// MACHNET_ETIMEDOUT where the peer went silent. A peer that has only finished its own sending is still sent to. After
// this end's machnet_finish it is MACHNET_EPIPE. `flags`: 0, or MACHNET_DONTWAIT: all of it at once or MACHNET_EAGAIN
// and none. A message of more units than `units_per_conn` is MACHNET_ETOOBIG then; one of more than the connection's share (see
// machnet_info_t) is MACHNET_EAGAIN for as long as other connections hold what it lacks.
int machnet_send(struct machnet_channel *ch,
                 machnet_conn conn,
                 const void *buf,
                 size_t len,
                 uint32_t flags);

// [rx] [blocks] Receives; `flags` as in machnet_recv_some, plus MACHNET_DONTWAIT. With MACHNET_RECV_MESSAGE it returns a whole message,
// and one that has begun is awaited. Returns the count, 0 also at the end of the peer's data in stream mode, as recv(2) does.
int64_t machnet_recv(struct machnet_channel *ch,
                     machnet_conn conn,
                     void *buf,
                     size_t cap,
                     uint32_t flags,
                     struct machnet_recv_info *info);

// [rx] [blocks] The same, for at most `timeout_ms` milliseconds (negative: for ever) until something comes: MACHNET_EAGAIN then, as
// recv(2) with SO_RCVTIMEO. MACHNET_ETIMEDOUT says that the connection is over, because its peer went silent.
int64_t machnet_recv_timeout(struct machnet_channel *ch,
                             machnet_conn conn,
                             void *buf,
                             size_t cap,
                             uint32_t flags,
                             struct machnet_recv_info *info,
                             int timeout_ms);

// [rx] [blocks] Waits until machnet_poll or a receive has something new, or a request that got MACHNET_EAGAIN finds room, at most
// `timeout_ms` milliseconds (negative: for ever). 1: something may be there, 0: the time is over, MACHNET_EINTR, MACHNET_ENETDOWN.
int machnet_wait(struct machnet_channel *ch,
                 int timeout_ms);

// [tx and rx] [blocks] Fills `out` with what the sidecar knows of `conn`, or knew when that ended; waits for its answer at most `timeout_ms`
// milliseconds (negative: for ever), MACHNET_ETIMEDOUT then: a MACHNET_EVENT_STATS that nobody waits for may still come. MACHNET_ECLOSED after
// machnet_close.
int machnet_stats(struct machnet_channel *ch,
                  machnet_conn conn,
                  struct machnet_stats_t *out,
                  int timeout_ms);

// [any] Fills `out` with what calls that wait on this channel have met on their cores since it was made. 0.
int machnet_waits(const struct machnet_channel *ch, struct machnet_waits_t *out);

// [rx] Takes what the rings hold and writes up to `cap` events to `out`. Returns how many; call again while it returns `cap`.
int machnet_poll(struct machnet_channel *ch,
                 struct machnet_event *out,
                 int cap);

// [rx] Receives up to `cap` bytes of `conn`; looks at the ring when the connection's own queue is empty. `flags` is one of
// MACHNET_RECV_STREAM, _MESSAGE, _ONE; `info` may be null. Returns the count; 0 is an empty message (never in stream mode, but
// for `cap` 0). MACHNET_EAGAIN: nothing here; MACHNET_EEOF; MACHNET_EABORTED; MACHNET_EMSGSIZE; or the reason the connection ended.
// A message longer than what is under way at once comes in several calls, the last with MACHNET_INFO_END.
int64_t machnet_recv_some(struct machnet_channel *ch,
                          machnet_conn conn,
                          void *buf,
                          size_t cap,
                          uint32_t flags,
                          struct machnet_recv_info *info);

// [rx] Says that the program has accepted `conn`, which MACHNET_EVENT_ACCEPTED named: until then, or until it closes `conn`, the
// connection counts against its listener's backlog. machnet_accept does so itself. Of no effect a second time, and on a
// connection that was dialled.
int machnet_accepted(struct machnet_channel *ch,
                     machnet_conn conn);

// [rx] Before sleeping on machnet_doorbell: 1 = armed and nothing is pending, the next thing to come rings; 0 = there is work
// (or the sidecar is gone), and nothing is armed. Work is also room for a request that got MACHNET_EAGAIN; that counts once.
int machnet_arm(struct machnet_channel *ch);

// [rx] After sleeping, or instead of it: takes the armed state back.
void machnet_disarm(struct machnet_channel *ch);

// [any] Empties the doorbell pipe. 0, or MACHNET_ENETDOWN when the pipe was hung up.
int machnet_drain(const struct machnet_channel *ch);

// [rx] Fills `out` with the answer that MACHNET_EVENT_STATS named `id` for; once. MACHNET_ECLOSED: the connection is forgotten, the answer was
// taken, or 64 others came after it (a machnet_poll of at most 32 events hands out none that is lost, if each is taken before the next).
int machnet_stats_take(struct machnet_channel *ch,
                       uint32_t id,
                       struct machnet_stats_t *out);

// [tx] Sends `len` bytes as one message. Returns how many bytes were accepted (all of them, or as many whole units as there
// are tokens), or MACHNET_EAGAIN when there is no token at all. After a short count the message is under way: the
// rest goes by calls with MACHNET_SEND_CONTINUE and exactly the bytes that are left, or machnet_abort ends it.
// A call without that flag while a message is under way, or with it while none is, is MACHNET_EINVAL. A connection that is over is
// reported as by machnet_send.
//
// With MACHNET_SEND_WHOLE a message is not begun while the connection's own units, as they come back, make room for all of it:
// MACHNET_EAGAIN then. Only where other connections hold so many that its share may never be that large is a part accepted.
int64_t machnet_send_some(struct machnet_channel *ch,
                          machnet_conn conn,
                          const void *buf,
                          size_t len,
                          uint32_t flags);

// [tx] The same for one message in `count` parts. After a short count call again with all the parts, MACHNET_SEND_CONTINUE, and in
// `skip` the bytes accepted so far.
int64_t machnet_sendv(struct machnet_channel *ch,
                      machnet_conn conn,
                      const struct machnet_iovec *parts,
                      size_t count,
                      size_t skip,
                      uint32_t flags);

// [tx] Takes completions and writes up to `cap` MACHNET_EVENT_WRITABLE events. Returns how many.
int machnet_poll_tx(struct machnet_channel *ch, struct machnet_event *out, int cap);

// [tx] Gives up the message that a short count left under way; the peer drops its part. 0, also when none is;
// MACHNET_EAGAIN when there is no token for it.
int machnet_abort(struct machnet_channel *ch, machnet_conn conn);

// [tx] Half close: the peer reads what was sent, then the end. Receiving goes on. 0, MACHNET_EAGAIN when there is no token for it;
// MACHNET_EINVAL while a message is under way.
int machnet_finish(struct machnet_channel *ch,
                   machnet_conn conn);

// [tx] Forgets `conn`: what was sent is flushed by the sidecar in the background, then the peer sees the end. A message under
// way is aborted. Everything not yet received is dropped. Always succeeds on an open handle, also after MACHNET_EVENT_CLOSED.
int machnet_close(struct machnet_channel *ch,
                  machnet_conn conn);

// [tx] Forgets `conn` at once: what is not yet acknowledged is dropped, and the peer sees MACHNET_ERESET.
int machnet_reset(struct machnet_channel *ch, machnet_conn conn);

// [tx] Asks to listen on `ip` (0: the sidecar's) and `port` (0: any). `*listener` gets the id that the events name:
// MACHNET_EVENT_LISTENING or _LISTEN_FAILED comes, then _ACCEPTED. `backlog` as in machnet_listen; a program that gets its connections by
// events says with machnet_accepted that it has accepted one. `flags`: 0, MACHNET_REUSEPORT, MACHNET_GROUP or both.
// MACHNET_EAGAIN, and nothing was asked: too many requests of this channel wait for the sidecar. machnet_arm and machnet_wait
// report once that there is room; then call again.
int machnet_listen_begin(struct machnet_channel *ch,
                         uint32_t ip,
                         uint16_t port,
                         uint32_t backlog,
                         uint32_t flags,
                         uint32_t *listener);

// [tx] Ends a listener; MACHNET_EVENT_UNLISTENED is its last event. Connections announced before it must be closed one by one. It never
// waits and is never refused for want of room: what finds none is kept, and goes out with a later call of this channel, before
// anything that is asked for later; a sleeper that armed since is rung for it. Take the event with machnet_poll: where 32 events wait that
// nobody takes, machnet_listen and machnet_connect ask for nothing (MACHNET_ENOBUFS).
int machnet_unlisten(struct machnet_channel *ch,
                     uint32_t listener);

// [tx] Asks for a connection. `*id` gets the id that MACHNET_EVENT_CONNECTED or _CONNECT_FAILED names. MACHNET_EAGAIN as of
// machnet_listen_begin.
int machnet_dial_begin(struct machnet_channel *ch,
                       const struct machnet_dial_t *request,
                       uint32_t *id);

// [tx] Gives up a dial. One event still comes: _CONNECT_FAILED with MACHNET_ECANCELED, or _CONNECTED where it was too late
// (then close that connection). Never refused, as machnet_unlisten.
int machnet_dial_cancel(struct machnet_channel *ch,
                        uint32_t id);

// [tx] How many units of `conn` the peer has not acknowledged yet, one that machnet_finish took included; 0: the peer's host has all that was
// sent. MACHNET_ECLOSED after machnet_close. What a connection that is over had under way counts as acknowledged. `conn` 0: of all
// connections, also of those that were closed.
int64_t machnet_unacked(struct machnet_channel *ch,
                        machnet_conn conn);

// [tx] From now on asks the peer of `conn` after `after_ms` milliseconds of silence whether it lives: 10 to 600000, MACHNET_KEEPALIVE_NEVER
// or MACHNET_KEEPALIVE_DEFAULT. A peer that does not answer is given up as ever (MACHNET_ETIMEDOUT), and so is one, without any such
// question, that does not acknowledge what was sent to it. MACHNET_EAGAIN as of machnet_listen_begin.
int machnet_keepalive(struct machnet_channel *ch,
                      machnet_conn conn,
                      uint32_t after_ms);

// [tx] Asks the sidecar what it knows of `conn`. `*id` gets the id that MACHNET_EVENT_STATS names, after which machnet_stats_take
// gives the answer. MACHNET_EAGAIN as of machnet_listen_begin.
int machnet_stats_begin(struct machnet_channel *ch,
                        machnet_conn conn,
                        uint32_t *id);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* MACHNET_H */
