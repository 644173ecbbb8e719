package core

import "context"

// AskStats asks what the sidecar knows of a connection, or knew when that ended. An EvStats with the id answers; registered and Canceled are as
// with Listen.
func (c *Channel) AskStats(ctx context.Context, conn uint64, registered func(id uint32)) Code {
	send := func() (uint32, Code) { return c.api.askStats(conn) }
	return c.ask(ctx, &request{send: send, sent: registered, code: Again})
}

// GiveUpAnswer is for whoever waits no longer for an EvStats. It calls giveUp, which returns whether that is still to come, between events. If so
// it is taken from the ring though nobody waits, and the handler must call Answered for it.
func (c *Channel) GiveUpAnswer(giveUp func() bool) {
	c.rx.Lock()
	defer c.rx.Unlock()
	if giveUp() && !c.closed {
		c.expectAnswer()
	}
}

// KeepAlive has the peer of a connection asked after so many milliseconds of silence whether it lives: 10 to 600 000, KeepAliveNever or
// KeepAliveDefault; others are Invalid. Canceled is as with Listen.
func (c *Channel) KeepAlive(ctx context.Context, conn uint64, afterMS uint32) Code {
	send := func() (uint32, Code) { return 0, c.api.keepAlive(conn, afterMS) }
	return c.ask(ctx, &request{send: send, sent: func(uint32) {}, code: Again})
}

// Unacked is how many units of a connection, a finish included, the peer has not acknowledged yet.
func (c *Channel) Unacked(conn uint64) (int, Code) {
	if !c.lockTx() {
		return 0, Closed
	}
	n, code := c.api.unacked(conn)
	c.unlockTx()
	return n, code
}
