package machnet

import (
	"fmt"
	"syscall"
	"time"

	"github.com/machnet/machnet/go/internal/core"
)

// SetLinger says what Close does with what was written and the peer's host has not acknowledged, as that of *net.TCPConn:
//
//   - sec < 0, the default: the sidecar delivers it in the background, and Close returns at once.
//   - sec == 0: it is discarded, the peer's calls fail with ECONNRESET, and Close returns at once.
//   - sec > 0: Close waits until all of it is acknowledged. Where that takes longer than so many seconds it is discarded as with 0, and Close
//     fails with ETIMEDOUT; where the connection ends before, with the error of that, such as ECONNRESET. Acknowledged is what the
//     peer's sidecar has for its program, which need not have read it.
//
// SetLinger fails with net.ErrClosed after Close.
func (c *Conn) SetLinger(sec int) error {
	if err := c.alive(); err != nil {
		return c.setError(err)
	}
	c.lingers.Store(max(int64(sec), -1) + 1)
	return nil
}

// The pauses between looks of a Close that waits for acknowledgements, which mostly come after a round trip.
const (
	firstLingerPause   = 50 * time.Microsecond
	longestLingerPause = 5 * time.Millisecond
)

// awaitAcks half-closes and waits until the peer's host has everything, of a connection that is marked as closed, so that nobody else sends.
func (c *Conn) awaitAcks(limit time.Duration) error {
	c.wr.mu.Lock() // whoever holds it has been woken, and leaves
	defer c.wr.mu.Unlock()
	end := time.Now().Add(limit)
	for pause := firstLingerPause; ; pause = min(2*pause, longestLingerPause) {
		if err := c.broken.Load(); err != nil {
			return *err
		}
		left, code := c.unacked()
		switch {
		case code != core.OK && code != core.Again:
			return codeError(code)
		case code == core.OK && left == 0:
			return nil
		case time.Now().After(end):
			return fmt.Errorf("%d packets were not acknowledged in %v, and discarded: %w", left, limit, syscall.ETIMEDOUT)
		}
		time.Sleep(pause)
	}
}

// unacked finishes sending, if that is yet to be done, and gives how much was not acknowledged. wr.mu is held.
func (c *Conn) unacked() (int, core.Code) {
	if c.owesAbort {
		if code := c.abortMessage(); code != core.OK {
			return 0, code
		}
	}
	if !c.finished {
		if code := c.ch.Finish(c.id); code != core.OK {
			return 0, code
		}
		c.finished = true
	}
	left, code := c.ch.Unacked(c.id)
	if code == core.OK && left == 0 {
		code = c.ch.Abort(c.id) // there is no message to abort, but it returns whether the connection is over
	}
	return left, code
}
