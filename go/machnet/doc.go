// Package machnet dials and serves Machnet connections: reliable, ordered and message-preserving, carried by the machnetd
// sidecar from user space to user space. A *Conn is a net.Conn and a *Listener a net.Listener, so net/http, crypto/tls,
// net/rpc and everything else that takes those work over it.
//
//	listener, err := machnet.Listen("machnet", ":7000")           // at the sidecar's address
//	conn, err := listener.Accept()                                // a net.Conn
//
//	conn, err := machnet.Dial("machnet", "10.0.0.2:7000")         // on another host, which has a sidecar, too
//
// It needs Linux on amd64 or arm64, and cgo; built otherwise everything fails with ErrUnsupported. Package fallback, beside this one, uses TCP
// where Machnet is not there; package machnettest runs whole hosts within a test.
//
// # Streams and messages
//
// The wire always keeps message boundaries. Read, Write, ReadFrom and WriteTo do not show them: what does not fit a Read's buffer stays for
// the next, and a Write beyond 64 KiB travels as several messages. Send, SendBuffers, TrySend, ReadMessage and Recv do show
// them, up to MaxMessage bytes. Both kinds may be mixed on one connection.
//
// # Lifetimes
//
// A Stack is a program's place at a sidecar, and everything belongs to one. The package-level Dial and Listen, and a Dialer or ListenConfig
// without a Stack, use Default, which attaches at first use to the socket named by $MACHNET_SOCKET, or to DefaultSocket. Before
// that, nothing runs. A Stack lasts until its Close, which closes its connections and listeners.
//
// A Conn lasts until its Close, which wakes whoever is in one of its methods; what was written is still delivered, unless SetLinger said
// otherwise. A Conn that is not closed is not collected. A Listener lasts until its Close, which resets the connections that nobody
// has accepted and leaves the others alone. A Message lasts until its Release.
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
// A stack has as many connections as memory allows: it attaches another channel to the sidecar when one is full, and gives empty ones back
// (see Stack). What bounds it are settings of the sidecar, which errors name.
//
// When the program ends, or is killed, the sidecar delivers what it has accepted, for a second unless configured otherwise.
//
// # Errors
//
// Errors are *net.OpError with Net "machnet" around the errors that TCP gives in the same case, so that errors.Is finds them:
//
//   - io.EOF, alone: the peer has called Close or CloseWrite, and everything was read.
//   - net.ErrClosed: this program has closed the connection, the listener or the stack.
//   - os.ErrDeadlineExceeded, a timeout: a deadline that was set on the connection or listener has passed. It can be set anew, and everything
//     goes on.
//   - context.DeadlineExceeded, a timeout, or context.Canceled, with the cause if there is one: the context of the call has ended.
//   - syscall.ECONNREFUSED: nobody listens there, or the other end has no room (then ENOBUFS, too), or its sidecar is ending.
//   - syscall.ETIMEDOUT, a timeout: nobody answered a dial, or the peer of a connection went silent for two seconds.
//   - syscall.EHOSTUNREACH: no host has the address, or the address leads to this machine's kernel.
//   - syscall.ECONNRESET: the peer has reset the connection, or died, or has closed it and is sent more.
//   - syscall.EPIPE: sending after CloseWrite.
//   - syscall.ENETDOWN: the sidecar has ended.
//   - syscall.ENOBUFS, with Temporary: a limit of this end was met; the text says which, how much it is and what to change.
//   - syscall.EADDRINUSE, syscall.EADDRNOTAVAIL: the port is taken, or none is left.
//   - *net.AddrError, *net.DNSError, net.UnknownNetworkError: the address cannot be used, or its name is not known.
//   - ErrTooLarge, ErrWouldBlock, io.ErrShortBuffer, io.ErrUnexpectedEOF: of the methods for messages.
//   - ErrUnsupported: this build cannot speak Machnet.
//
// Attach, and what attaches, returns errors that wrap ErrNoSidecar, ErrVersion, fs.ErrPermission or ENOBUFS and say what to do.
//
// A peer that has closed ends the sending, too: soon after, as over TCP, Write, Send and all others fail with ECONNRESET, also in a program that
// never reads. A peer that has only called CloseWrite or CloseRead can still be written to.
//
// # Where it differs from TCP
//
// An Addr is the address of a sidecar, not of the kernel: 127.0.0.1 and the machine's other addresses lead nowhere; to reach the own sidecar
// dial ":7000", or its address. Ports have nothing to do with those of TCP. IPv4 alone is spoken.
//
// There is no descriptor, and so no SyscallConn and no File. Keep-alives are on, after a second. There is no SetNoDelay, since
// nothing is held back, and no SetReadBuffer or SetWriteBuffer, since the connections of a stack share its memory; what one cannot lose
// to the others is in docs/channel.md, and Conn.Stats says for what a connection waits.
//
// # Waiting
//
// A goroutine that waits looks at the shared memory for 50 us, giving the core to other threads between looks, and then
// sleeps in Go's poller. It looks for up to 300 us where waits are that long, and for as little as 2 us where they are longer.
// Where another thread computes without ever giving the core away, a goroutine that gave it away would not have it back for
// milliseconds; beside such a thread it keeps the core while it looks, and looks for 50 us at most. No C code waits, so waiting occupies
// no thread of the operating system. The 50 us are Config.Yield; the 300 us are six times as much.
package machnet
