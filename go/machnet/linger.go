package machnet

import "net"

// lingerReset is what SetLinger(0) leaves in Conn.lingers.
const lingerReset = 1

// SetLinger says what Close does with what was written and the peer has not acknowledged. With sec < 0, which is the default, the sidecar
// delivers it in the background. With 0 it is discarded, and the peer's calls fail with ECONNRESET. It fails with net.ErrClosed after Close.
func (c *Conn) SetLinger(sec int) error {
	if c.closed.Load() {
		return opError("set", &c.local, &c.remote, net.ErrClosed)
	}
	c.lingers.Store(max(int64(sec), -1) + 1)
	return nil
}
