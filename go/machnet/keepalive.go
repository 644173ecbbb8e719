package machnet

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/machnet/machnet/go/internal/core"
)

// The bounds of SetKeepAlivePeriod.
const (
	shortestKeepAlive = 10 * time.Millisecond
	longestKeepAlive  = 600 * time.Second
)

// keepAlive is what SetKeepAlive and SetKeepAlivePeriod have said.
type keepAlive struct {
	mu     sync.Mutex
	off    bool
	period time.Duration // 0: the sidecar's own
}

// SetKeepAlive says whether the sidecar asks a peer that is silent whether it lives. It does, unless told otherwise, after a second of
// silence or what SetKeepAlivePeriod said; where no answer comes, the connection ends with ETIMEDOUT. Without, a peer that has vanished is only
// noticed by what is sent to it. SetKeepAlive fails with net.ErrClosed after Close, and otherwise with the error that has ended the
// connection.
func (c *Conn) SetKeepAlive(keepalive bool) error {
	c.keep.mu.Lock()
	defer c.keep.mu.Unlock()
	c.keep.off = !keepalive
	return c.tellKeepAlive()
}

// SetKeepAlivePeriod sets the silence after which the peer is asked whether it lives: 10 ms to 600 s, rounded up to milliseconds, or 0 for
// the sidecar's own. Another is refused with EINVAL; else it fails as SetKeepAlive does. It does not turn keep-alives on.
func (c *Conn) SetKeepAlivePeriod(d time.Duration) error {
	if d != 0 && (d < shortestKeepAlive || d > longestKeepAlive) {
		return c.setError(fmt.Errorf("a keep-alive period is %v to %v, or 0 for the sidecar's own, and not %v: %w",
			shortestKeepAlive, longestKeepAlive, d, syscall.EINVAL))
	}
	c.keep.mu.Lock()
	defer c.keep.mu.Unlock()
	c.keep.period = d
	return c.tellKeepAlive()
}

// tellKeepAlive tells the sidecar. keep.mu is held, so that two callers' words do not overtake each other.
func (c *Conn) tellKeepAlive() error {
	if err := c.alive(); err != nil {
		return c.setError(err)
	}
	after := core.KeepAliveDefault
	switch {
	case c.keep.off:
		after = core.KeepAliveNever
	case c.keep.period > 0:
		after = uint32((c.keep.period + time.Millisecond - 1) / time.Millisecond)
	}
	return c.setError(c.codeError(c.ch.KeepAlive(context.Background(), c.id, after)))
}

func (c *Conn) setError(err error) error { return opError("set", &c.local, &c.remote, err) }
