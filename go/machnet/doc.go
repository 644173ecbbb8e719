// Package machnet dials and serves Machnet connections: reliable, ordered and message-preserving, carried by the machnetd
// sidecar from user space to user space. A *Conn is a net.Conn and a *Listener a net.Listener, so net/http, crypto/tls,
// net/rpc and everything else that takes those work over it.
//
// # Streams and messages
//
// The wire always keeps message boundaries. Read and Write do not show them: what does not fit a Read's buffer stays for
// the next, and a Write beyond 64 KiB travels as several messages. Send, SendBuffers, TrySend, ReadMessage and Recv do show
// them, up to MaxMessage bytes. Both kinds may be mixed on one connection.
//
// # The sidecar
//
// Every connection belongs to a Stack, which is an attachment to one sidecar over its Unix socket. The package-level Dial
// and Listen use Default, which attaches at first use to the socket named by $MACHNET_SOCKET, or to
// /var/run/machnet/machnet.sock. When the sidecar ends, every blocked call of its stacks fails at once with ENETDOWN.
//
// # Errors
//
// Errors are *net.OpError with Net "machnet" around the errors that TCP gives in the same case: net.ErrClosed,
// os.ErrDeadlineExceeded, syscall.ECONNREFUSED, ECONNRESET, ETIMEDOUT, EADDRINUSE, and ENETDOWN when the sidecar has gone;
// io.EOF after the peer's Close or CloseWrite stands alone. Attach returns errors that wrap ErrNoSidecar, ErrVersion or
// fs.ErrPermission and say what to do.
//
// # Waiting
//
// A goroutine that waits looks at the shared memory for 50 us, giving the core to other threads between looks, and then
// sleeps in Go's poller. It looks for up to 300 us where waits are that long, and for as little as 2 us where they are longer.
// Where another thread hogs the core, it keeps the core while it looks, 50 us at most. No C code waits, so no thread is held. The 50 us are
// Config.Yield; the 300 us are six times as much.
package machnet
