package proxy

import (
	"io"
	"net"
	"sync"
	"sync/atomic"

	"github.com/machnet/machnet/go/machnet"
)

// stream is what all connections here are: *net.TCPConn, *net.UnixConn and *machnet.Conn.
type stream interface {
	net.Conn
	CloseWrite() error
}

// relay joins two connections.
type relay struct {
	near, far stream        // accepted, dialled
	there     atomic.Bool   // all of near's bytes, and their end, were given to far
	back      atomic.Bool   // all of far's to near
	over      sync.Once     // until the first end
	cause     error         // why it was cut off
	sent      *atomic.Int64 // bytes from near to far
	received  *atomic.Int64 // bytes from far to near
}

// run moves bytes both ways until both have ended, or one cannot go on, which is its error. A half that ends is a half close on the other side.
func (r *relay) run() error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.direction(r.far, r.near, r.sent, &r.there)
	}()
	r.direction(r.near, r.far, r.received, &r.back)
	<-done
	r.over.Do(func() { r.close() })
	return r.cause
}

func (r *relay) direction(to, from stream, count *atomic.Int64, ended *atomic.Bool) {
	if err := move(to, from, count); err != nil {
		r.cut(err)
		return
	}
	// It fails where the other end has gone. If that was a reset, the other direction meets it; if not, nothing is lost.
	_ = to.CloseWrite()
	ended.Store(true)
}

// cut ends the connections, of which at least one is broken.
func (r *relay) cut(cause error) {
	r.over.Do(func() {
		r.cause = cause
		r.close()
	})
}

// close closes an end in good order if it was given all that the other end has sent, and resets it if not: its peer must not take a part for all.
func (r *relay) close() {
	for _, end := range []struct {
		conn  stream
		whole bool
	}{{r.near, r.back.Load()}, {r.far, r.there.Load()}} {
		if !end.whole {
			reset(end.conn)
		}
		_ = end.conn.Close()
	}
}

// reset has the Close of a connection tell its peer that it was broken. Unix sockets know no such thing.
func reset(c net.Conn) {
	if c, ok := c.(interface{ SetLinger(sec int) error }); ok {
		_ = c.SetLinger(0)
	}
}

// move copies until the end of a stream. The reader waits for the writer, so what is under way between them is one buffer; Machnet's
// connections hold none while they wait (machnet.Conn.ReadFrom, WriteTo).
func move(to io.Writer, from io.Reader, count *atomic.Int64) error {
	counted := &counter{to: to, from: from, count: count}
	if c, ok := from.(*machnet.Conn); ok {
		_, err := c.WriteTo(counted)
		return err
	}
	if c, ok := to.(*machnet.Conn); ok {
		_, err := c.ReadFrom(counted)
		return err
	}
	_, err := io.Copy(counted, from)
	return err
}

// counter counts the bytes of the reader or of the writer that it stands before, whichever is used.
type counter struct {
	to    io.Writer
	from  io.Reader
	count *atomic.Int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	c.count.Add(int64(n))
	return n, err
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.to.Write(p)
	c.count.Add(int64(n))
	return n, err
}
