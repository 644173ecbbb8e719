package machnet

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/machnet/machnet/go/internal/core"
)

// writeChunk is the largest message that Write makes: few enough units that a connection can have all of them under way,
// unless the stack's other connections hold most, so that a Write which runs into its deadline leaves no message half sent.
const writeChunk = 64 << 10

// Conn is one connection. It implements net.Conn, and may be used by many goroutines at once.
//
// It has no SyscallConn: there is no descriptor whose readiness means that this connection is readable.
type Conn struct {
	at     *attachment
	ch     *core.Channel
	id     uint64
	local  Addr
	remote Addr
	whole  int // bytes that are sent as one message at once, if other connections leave room

	rd, wr  half
	closed  atomic.Bool
	lingers atomic.Int64          // what SetLinger said, plus one; 0: nothing, or below 0
	broken  atomic.Pointer[error] // why nothing works any more although nobody closed the connection: the sidecar is gone
	over    atomic.Pointer[error] // why it has ended, where it did so by the peer or the sidecar
	skipped atomic.Bool           // CloseRead was called
	known   atomic.Pointer[ConnStats]
	keep    keepAlive

	quiet bool // the last receive left nothing; under rd.mu

	// Of the writer; under wr.mu.
	finished  bool // the half close was sent
	owesAbort bool // a message was given up, and there is no token yet to tell the peer so
}

// half is one direction of a Conn.
type half struct {
	// mu is held by the one goroutine that receives or sends, also while it waits, so that messages do not mix.
	mu       sync.Mutex
	waiter   core.Waiter
	deadline deadline
}

// LocalAddr is this end's *Addr.
func (c *Conn) LocalAddr() net.Addr { return &c.local }

// RemoteAddr is the other end's *Addr.
func (c *Conn) RemoteAddr() net.Addr { return &c.remote }

// Read reads up to len(p) bytes, waiting for at least one. Message boundaries do not show: the rest of a message stays for
// the next Read, and one Read may return bytes of several messages. After everything the peer has sent before its Close
// or CloseWrite, Read returns io.EOF.
//
// If the peer took back a message that was read in part, Read returns io.ErrUnexpectedEOF, once, in its place. It fails with
// os.ErrDeadlineExceeded when the read deadline passes, net.ErrClosed after Close, ECONNRESET when the peer has reset the connection or
// died, ETIMEDOUT when the peer went silent, and ENETDOWN when the sidecar has ended; what had come before a reset can still be read.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, c.readError(c.alive())
	}
	c.rd.mu.Lock()
	defer c.rd.mu.Unlock()
	var info core.RecvInfo
	n, err := c.receive(context.Background(), p, core.Stream, &info)
	return n, c.readError(err)
}

// receive is one receive that waits. Whoever passes a context has it wake the waiter. rd.mu is held.
func (c *Conn) receive(ctx context.Context, p []byte, mode core.RecvMode, info *core.RecvInfo) (int, error) {
	waited := false
	if c.quiet && c.state(&c.rd) == nil && !c.skipped.Load() {
		c.rd.waiter.Look()
		waited = true
	}
	c.quiet = false
	for ; ; waited = true {
		err := c.state(&c.rd)
		if err == nil {
			err = contextError(ctx)
		}
		if err == nil && c.skipped.Load() {
			err = io.EOF
		}
		if err != nil {
			if waited {
				c.rd.waiter.Leave()
			}
			return 0, err
		}
		n, code := c.ch.Recv(&c.rd.waiter, c.id, p, mode, info)
		if code == core.OK {
			c.quiet = info.Flags&core.More == 0
			return n, nil
		}
		if code != core.Again {
			return n, c.codeError(code)
		}
		c.rd.waiter.Wait()
	}
}

// state is nil, or why this direction must not go on.
func (c *Conn) state(h *half) error {
	if err := c.alive(); err != nil {
		return err
	}
	if h.deadline.expired.Load() {
		return os.ErrDeadlineExceeded
	}
	return nil
}

// alive is nil, or why the connection is not there any more.
func (c *Conn) alive() error {
	if c.closed.Load() {
		return net.ErrClosed
	}
	if err := c.broken.Load(); err != nil {
		return *err
	}
	return nil
}

// codeError is codeError, where "closed" may have a better reason.
func (c *Conn) codeError(code core.Code) error {
	if code == core.Closed || code == core.NetDown {
		if err := c.alive(); err != nil {
			return err
		}
	}
	return codeError(code)
}

// Write sends p and returns when all of it was copied; it waits while the peer or the network cannot take more. Up to 64 KiB travel
// as one message. With an error it returns how many bytes were accepted, all of them in whole messages. An empty Write sends
// nothing. What was accepted is delivered though the process ends, for as long as the sidecar's linger allows (a second, unless
// configured); the peer then reads io.EOF if this end was closed or half-closed before, else it meets a reset.
//
// Write fails with os.ErrDeadlineExceeded when the write deadline passes, net.ErrClosed after Close, EPIPE after CloseWrite, ECONNRESET when
// the peer has closed or died, ETIMEDOUT when it went silent, and ENETDOWN when the sidecar has ended.
func (c *Conn) Write(p []byte) (int, error) {
	c.wr.mu.Lock()
	defer c.wr.mu.Unlock()
	done := 0
	for done < len(p) {
		piece := p[done:min(len(p), done+c.whole)]
		if err := c.sendWhole(piece); err != nil {
			return done, c.writeError(err)
		}
		done += len(piece)
	}
	if len(p) == 0 {
		err := c.mayWrite()
		if err == nil {
			if code := c.abortMessage(); code != core.Again { // there is no message to abort, but it returns whether the connection is over
				err = c.codeError(code)
			}
		}
		return 0, c.writeError(err)
	}
	return done, nil
}

// mayWrite is nil, or why nothing can be sent. wr.mu is held.
func (c *Conn) mayWrite() error {
	if err := c.state(&c.wr); err != nil {
		return err
	}
	if c.finished {
		return syscall.EPIPE
	}
	return nil
}

// sendWhole sends one message of at most c.whole bytes. It waits until there are tokens for all of it, so that a deadline leaves no part of
// a message sent. Only where the stack's other connections hold so many tokens that this may never be, the message goes in
// parts. wr.mu is held.
func (c *Conn) sendWhole(p []byte) error {
	for {
		if err := c.mayWrite(); err != nil {
			return err
		}
		n, code := 0, core.OK
		if c.owesAbort {
			code = c.abortMessage()
		}
		if code == core.OK {
			n, code = c.ch.SendSome(c.id, p, core.Whole)
		}
		if code == core.OK {
			if n < len(p) {
				return c.sendRest(p, n)
			}
			return nil
		}
		if code != core.Again {
			return c.codeError(code)
		}
		c.wr.waiter.Wait()
	}
}

// abortMessage tells the peer that the rest of the message under way will not come: now, or when there is a token. wr.mu is held.
func (c *Conn) abortMessage() core.Code {
	code := c.ch.Abort(c.id)
	c.owesAbort = code == core.Again
	return code
}

// Close ends the connection in both directions. What was written is delivered by the sidecar in the background, unless SetLinger said
// otherwise; what was not read is dropped. Blocked calls return net.ErrClosed, and so does a second Close; the first fails only where
// SetLinger has it wait.
func (c *Conn) Close() error {
	if !c.closed.CompareAndSwap(false, true) {
		return opError("close", &c.local, &c.remote, net.ErrClosed)
	}
	var err error
	switch sec := c.lingers.Load() - 1; {
	case sec == 0:
		c.ch.ResetConn(c.id)
	case sec > 0:
		c.wake()
		if err = c.awaitAcks(time.Duration(sec) * time.Second); errors.Is(err, syscall.ETIMEDOUT) {
			c.ch.ResetConn(c.id)
		} else {
			c.ch.CloseConn(c.id)
		}
	default:
		c.ch.CloseConn(c.id)
	}
	c.at.forget(c)
	c.wake()
	c.ch.GiveBack()
	return opError("close", &c.local, &c.remote, err)
}

// abandon closes a connection that nobody has seen: what the peer sent to it is lost, and the peer hears of it.
func (c *Conn) abandon() {
	if c.closed.CompareAndSwap(false, true) {
		c.ch.ResetConn(c.id)
		c.at.forget(c)
		c.wake()
		c.ch.GiveBack()
	}
}

// wake has every goroutine leave that is still in a call of a connection that was closed.
func (c *Conn) wake() {
	c.rd.deadline.stop()
	c.wr.deadline.stop()
	c.rd.waiter.Wake()
	c.wr.waiter.Wake()
}

// CloseWrite ends this end's sending: the peer reads what was written, then io.EOF. Reading goes on. It waits while the peer and the network
// can take no more, until the write deadline at most, and fails as Write does.
func (c *Conn) CloseWrite() error {
	c.wr.mu.Lock()
	defer c.wr.mu.Unlock()
	for {
		err := c.alive()
		if err == nil && !c.finished {
			code := core.OK
			if c.owesAbort {
				code = c.abortMessage()
			}
			if code == core.OK {
				code = c.ch.Finish(c.id)
			}
			if code == core.Again {
				// Only now the deadline counts: many programs close after theirs has passed, and most closes need not wait.
				if err = c.state(&c.wr); err == nil {
					c.wr.waiter.Wait()
					continue
				}
			} else {
				c.finished = code == core.OK
				err = c.codeError(code)
			}
		}
		return opError("close", &c.local, &c.remote, err)
	}
}

// CloseRead ends this end's reading: Read returns io.EOF from now on, and what the peer sends is dropped. It fails with net.ErrClosed
// after Close, and with ENETDOWN when the sidecar has ended.
func (c *Conn) CloseRead() error {
	if err := c.alive(); err != nil {
		return opError("close", &c.local, &c.remote, err)
	}
	if c.skipped.CompareAndSwap(false, true) {
		c.rd.waiter.Wake()
		go c.discard()
	}
	return nil
}

// discard reads until the end, so that the sender is not held up by data that nobody wants.
func (c *Conn) discard() {
	c.rd.mu.Lock() // Readers hold it while they wait. None will wait from now on, so the waiter is this goroutine's.
	p := make([]byte, 16<<10)
	c.rd.mu.Unlock()
	var info core.RecvInfo
	for waited := false; ; {
		if c.alive() != nil {
			if waited {
				c.rd.waiter.Leave()
			}
			return
		}
		_, code := c.ch.Recv(&c.rd.waiter, c.id, p, core.Stream, &info)
		waited = code == core.Again
		switch code {
		case core.OK, core.Aborted:
		case core.Again:
			c.rd.waiter.Wait()
		default:
			return
		}
	}
}

// SetDeadline sets the read and the write deadline. Blocked calls obey at once; the zero time takes the deadlines away, and
// everything works as before. It fails with net.ErrClosed after Close.
func (c *Conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// SetReadDeadline sets the time after which Read, WriteTo, ReadMessage and Recv fail with os.ErrDeadlineExceeded.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setDeadline(&c.rd, t) }

// SetWriteDeadline sets the time after which Write, ReadFrom, Send and SendBuffers fail with os.ErrDeadlineExceeded. A message of which a part was
// sent when the deadline passes is aborted: the peer never sees it as a message. That happens only to messages that go in parts, which are
// those of more than 64 KiB, and smaller ones while the stack's other connections use so much of its send memory that there is no
// room for a whole one.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadline(&c.wr, t) }

func (c *Conn) setDeadline(h *half, t time.Time) error {
	if c.closed.Load() {
		return opError("set", nil, &c.local, net.ErrClosed)
	}
	h.deadline.setTo(t, h.waiter.Wake)
	return nil
}

// fail makes every call return err. It may be called with locks of the stack held.
func (c *Conn) fail(err error) {
	c.broken.CompareAndSwap(nil, &err)
	c.rd.waiter.Wake()
	c.wr.waiter.Wake()
}

// ended is called when the peer or the sidecar has ended the connection; err is nil after a clean end.
func (c *Conn) ended(err error) {
	if err != nil {
		c.over.CompareAndSwap(nil, &err)
	}
	c.rd.waiter.Wake()
	c.wr.waiter.Wake()
}

func (c *Conn) readError(err error) error {
	return opError("read", &c.local, &c.remote, err)
}

func (c *Conn) writeError(err error) error {
	return opError("write", &c.local, &c.remote, err)
}
