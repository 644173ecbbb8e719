package machnet

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/machnet/machnet/go/internal/core"
)

// Send sends p as one message, whole or not at all, and returns when all of it was copied. An empty message is a message
// too. A message that a deadline or a Close cuts short is taken back: the peer never sees a part of it as a message. Send fails with
// ErrTooLarge beyond MaxMessage, and otherwise as Write does.
func (c *Conn) Send(p []byte) error {
	c.wr.mu.Lock()
	defer c.wr.mu.Unlock()
	if len(p) <= c.whole {
		return c.writeError(c.sendWhole(p))
	}
	if len(p) > MaxMessage {
		return c.writeError(tooLarge(len(p)))
	}
	return c.writeError(c.sendRest(p, 0))
}

// sendRest sends a message of which done bytes are sent already. wr.mu is held.
func (c *Conn) sendRest(p []byte, done int) error {
	return c.sendLong(len(p), done, func(done int) (int, core.Code) {
		if done == 0 {
			return c.ch.SendSome(c.id, p, core.Start)
		}
		return c.ch.SendSome(c.id, p[done:], core.Continue)
	})
}

// SendBuffers sends the buffers, one after the other, as one message. It changes neither them nor the slice, and fails as Send does.
func (c *Conn) SendBuffers(b net.Buffers) error {
	size := 0
	for _, p := range b {
		size += len(p)
	}
	c.wr.mu.Lock()
	defer c.wr.mu.Unlock()
	if size > MaxMessage {
		return c.writeError(tooLarge(size))
	}
	return c.writeError(c.sendLong(size, 0, func(done int) (int, core.Code) {
		return c.ch.SendParts(c.id, b, done)
	}))
}

// sendLong sends a message that may have to wait for tokens in its middle; done bytes are sent already. wr.mu is held.
func (c *Conn) sendLong(size, done int, send func(done int) (int, core.Code)) error {
	for {
		err := c.mayWrite()
		if err == nil && c.owesAbort {
			if code := c.abortMessage(); code == core.Again {
				c.wr.waiter.Wait()
				continue
			}
		}
		if err == nil {
			n, code := send(done)
			if code == core.OK {
				if done += n; done == size {
					return nil
				}
				if n > 0 {
					continue
				}
				code = core.Again
			}
			if code == core.Again {
				c.wr.waiter.Wait()
				continue
			}
			err = c.codeError(code)
		}
		if done > 0 {
			c.abortMessage()
		}
		return err
	}
}

// TrySend is Send that never waits. It fails with ErrWouldBlock when the stack's send memory has no room for all of the message now, and
// with ErrTooLarge when the message is larger than one connection's part of that memory: by default, more than 256 packets of some 1400
// bytes. The stack's connections share the memory, so the room that one finds depends on what the others have sent and their peers
// have not acknowledged yet; but two packets, by default, are set aside for each connection and always there for it.
func (c *Conn) TrySend(p []byte) error {
	if !c.wr.mu.TryLock() {
		err := c.alive()
		if err == nil {
			err = ErrWouldBlock
		}
		return c.writeError(err)
	}
	defer c.wr.mu.Unlock()
	if err := c.mayWrite(); err != nil {
		return c.writeError(err)
	}
	code := core.OK
	if c.owesAbort {
		code = c.abortMessage()
	}
	if code == core.OK {
		code = c.ch.TrySend(c.id, p)
	}
	if code == core.TooBig {
		info := c.ch.Info()
		return c.writeError(fmt.Errorf("%w: %d bytes, and at most %d packets of %d bytes go at once; use Send", ErrTooLarge, len(p),
			info.UnitsPerConn, info.UnitSize))
	}
	return c.writeError(c.codeError(code))
}

// ReadMessage reads the next message into p and returns its length. If p is too small it returns the length that is needed and
// io.ErrShortBuffer, and the message stays. After a Read that took a part of a message, it reads the rest of that. An error
// in the middle of a message comes with the bytes read so far; after a deadline, the next call reads the rest. Its other errors are those
// of Read.
func (c *Conn) ReadMessage(p []byte) (int, error) {
	c.rd.mu.Lock()
	defer c.rd.mu.Unlock()
	n, err := c.receiveMessage(context.Background(), p)
	return n, c.readError(err)
}

// receiveMessage is ReadMessage under rd.mu. Whoever passes a context has it wake the waiter.
func (c *Conn) receiveMessage(ctx context.Context, p []byte) (int, error) {
	var info core.RecvInfo
	n, err := c.receive(ctx, p, core.Message, &info)
	if err == io.ErrShortBuffer {
		return int(info.Length - info.Offset), err
	}
	for err == nil && info.Flags&core.End == 0 {
		var more int
		more, err = c.receive(ctx, p[n:], core.One, &info)
		n += more
	}
	return n, err
}

// Message is a received message. Its bytes are valid until Release.
type Message struct {
	buf *[]byte
}

// Bytes is the message. The slice must not be used after Release.
func (m *Message) Bytes() []byte {
	if m.buf == nil {
		return nil
	}
	return *m.buf
}

// Release gives the message's memory back. It may be called once or never, which only makes garbage.
func (m *Message) Release() {
	if m.buf != nil && cap(*m.buf) <= pooledMessage {
		messages.Put(m.buf)
	}
	m.buf = nil
}

// messages keeps the memory of released messages, up to pooledMessage bytes each.
var messages = sync.Pool{New: func() any {
	b := make([]byte, 0, smallMessage)
	return &b
}}

const (
	smallMessage  = 2 << 10
	pooledMessage = 64 << 10
)

// Recv returns the next message, of any length up to MaxMessage, and io.EOF after the last. It also returns when the context
// ends, with the context's error. An error in the middle of a message comes with the part that was read; after a deadline, the next Recv
// returns the rest. Its other errors are those of Read.
//
// The bytes are a copy in pooled memory: giving a shared buffer back would take a call into C of its own, where copying the
// 1424 bytes of a unit takes some 25 ns, and a forgotten Release would hold up the sender.
func (c *Conn) Recv(ctx context.Context) (Message, error) {
	if ctx.Done() != nil {
		defer context.AfterFunc(ctx, c.rd.waiter.Wake)()
	}
	c.rd.mu.Lock()
	defer c.rd.mu.Unlock()
	buf := messages.Get().(*[]byte)
	n, err := c.receiveMessage(ctx, (*buf)[:cap(*buf)])
	if err == io.ErrShortBuffer {
		*buf = make([]byte, n)
		n, err = c.receiveMessage(ctx, *buf)
	}
	*buf = (*buf)[:n]
	return Message{buf: buf}, c.readError(err)
}
