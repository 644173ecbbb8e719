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
// Every connection belongs to a Stack, which is attached to one sidecar over its Unix socket. The package-level Dial
// and Listen use Default, which attaches at first use to the socket named by $MACHNET_SOCKET, or to
// /var/run/machnet/machnet.sock.
//
// When the sidecar ends, calls on its connections fail with ENETDOWN: those that wait at once, and all later ones, and so do Dial and
// Listen while there is no sidecar. They fail with net.ErrClosed only where the program itself has closed something. The stack
// attaches by itself as soon as a sidecar listens at the same socket again: it tries every 250 ms at the latest, and Dial tries at once.
//
// Listeners go on: Accept waits, and the listener has its port again at the next sidecar, so that a server needs to do nothing when its
// sidecar is restarted. Only where that cannot be does the listener end, with the reason: EADDRINUSE when another program was faster to
// take the port, EADDRNOTAVAIL when the sidecar has another address, ErrVersion, or EINVAL when it lacks the engine that was asked
// for. ListenConfig.FailFast has Accept fail with ENETDOWN instead of waiting.
//
// # Errors
//
// Errors are *net.OpError with Net "machnet" around the errors that TCP gives in the same case: net.ErrClosed,
// os.ErrDeadlineExceeded, syscall.ECONNREFUSED, ECONNRESET, ETIMEDOUT, EADDRINUSE, and ENETDOWN when the sidecar has gone;
// io.EOF after the peer's Close or CloseWrite stands alone. Attach returns errors that wrap ErrNoSidecar, ErrVersion or
// fs.ErrPermission and say what to do.
//
// A context that ends a call is its error, as in package net: context.DeadlineExceeded, which is a timeout, or context.Canceled, with
// the cause if there is one. A deadline that was set on a connection or listener is os.ErrDeadlineExceeded.
//
// A peer that has closed ends the sending, too: soon after, as over TCP, Write, Send and all others fail with ECONNRESET, also in a program that
// never reads. A peer that has only called CloseWrite or CloseRead can still be written to.
//
// # Waiting
//
// A goroutine that waits looks at the shared memory for 50 us, giving the core to other threads between looks, and then
// sleeps in Go's poller. It looks for up to 300 us where waits are that long, and for as little as 2 us where they are longer.
// Where another thread computes without ever giving the core away, a goroutine that gave it away would not have it back for
// milliseconds; beside such a thread it keeps the core while it looks, and looks for 50 us at most. No C code waits, so waiting occupies
// no thread of the operating system. The 50 us are Config.Yield; the 300 us are six times as much.
package machnet
