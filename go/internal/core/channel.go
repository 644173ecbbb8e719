// Package core is the only package of the client that calls C. It gives the C library's channel to many goroutines at
// once: one lock per direction, and one goroutine at a time that watches the rings for all (hub).
package core

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"sync"
	"time"
)

// Handler is called with what happens on a channel. Event runs with the receive direction locked, or for EvWritable with the send
// direction locked; it must call nothing that receives, and for EvWritable nothing that sends.
type Handler interface {
	Event(*Event)
	// Down is called once, when the sidecar has gone.
	Down(Code)
}

// Channel is one attachment to a sidecar. The order of its locks is rx, tx, then those of the Handler.
type Channel struct {
	*hub
	api     capi
	tx      sync.Mutex
	handler Handler
	event   func(*Event) // handler.Event, made once
	info    Info
	closed  bool            // no call of the C library any more; under rx and tx both
	down    sync.Once       // of Handler.Down
	ended   context.Context // ends with the sidecar, or with Close
	end     context.CancelFunc

	requests []*request // those that found no room, oldest first; under rx

	bell   *pollable // the doorbell, which the watcher waits for
	pipe   *drain
	socket *pollable // hangs up when the sidecar ends
}

// Attach attaches to a sidecar. The text of an error is the C library's sentence about it.
func Attach(ctx context.Context, o Options, yield time.Duration, h Handler) (*Channel, string, error) {
	c := &Channel{handler: h, event: h.Event}
	c.ended, c.end = context.WithCancel(context.Background())
	if code := c.api.attachBegin(o); code != OK {
		return nil, c.api.errorText(), code
	}
	fail := func(err error) (*Channel, string, error) {
		text := c.api.errorText()
		c.socket.close()
		c.api.detach()
		return nil, text, err
	}
	code := c.api.attachStep()
	for code == Again {
		if err := ctx.Err(); err != nil {
			return fail(err)
		}
		if c.socket == nil && c.api.socket() >= 0 {
			var err error
			if c.socket, err = newPollable(c.api.socket(), "machnet-socket"); err != nil {
				return fail(err)
			}
		}
		if c.socket == nil {
			time.Sleep(time.Millisecond)
			code = c.api.attachStep()
			continue
		}
		stop := context.AfterFunc(ctx, c.socket.interrupt)
		err := c.socket.wait(func(uintptr) bool {
			code = c.api.attachStep()
			return code != Again
		})
		stop()
		if err != nil && ctx.Err() == nil {
			return fail(err)
		}
	}
	if code != OK {
		return fail(code)
	}
	err := c.api.prepare()
	if err != nil {
		return fail(err)
	}
	if c.socket == nil {
		if c.socket, err = newPollable(c.api.socket(), "machnet-socket"); err != nil {
			return fail(err)
		}
	}
	if c.bell, err = newPollable(c.api.doorbell(), "machnet-doorbell"); err != nil {
		return fail(err)
	}
	c.pipe = newDrain()
	c.socket.reset()
	c.info = c.api.info()
	c.hub = newHub(c, yield)
	c.enter()
	go c.watch()
	go c.waitForEnd()
	return c, "", nil
}

// Info is what the sidecar told at attach.
func (c *Channel) Info() Info { return c.info }

// NewWaiter makes a place to wait.
func (c *Channel) NewWaiter(k Kind) *Waiter { return c.newWaiter(k) }

// Begin makes a zero Waiter such a place.
func (c *Channel) Begin(w *Waiter, k Kind) { c.begin(w, k) }

func (c *Channel) await() (rung bool, err error) {
	err = c.bell.wait(c.pipe.look)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.bell.reset()
		return false, nil
	case c.pipe.ended.Load():
		c.goDown(NetDown)
		return false, net.ErrClosed
	}
	return err == nil, err
}

func (c *Channel) interrupt() { c.bell.interrupt() }

// waitForEnd returns when the sidecar has gone, or this end was closed.
func (c *Channel) waitForEnd() {
	for {
		err := c.socket.wait(hungUp)
		if errors.Is(err, os.ErrDeadlineExceeded) { // a late interrupt of the attaching
			c.socket.reset()
			continue
		}
		if err == nil {
			c.goDown(NetDown)
		}
		return
	}
}

// goDown makes all calls fail from now on, and tells the handler, once.
func (c *Channel) goDown(code Code) {
	c.down.Do(func() {
		c.dead.Store(true)
		c.handler.Down(code)
		c.end()
	})
}

// Close detaches from the sidecar. Before that, the caller must have woken every goroutine that waits.
func (c *Channel) Close() {
	c.dead.Store(true)
	c.exit()
	c.down.Do(func() {})
	c.end()
	c.bell.close()
	c.callWatcher() // so that it ends
	c.socket.close()
	// A goroutine that looks at the rings reads the channel's memory without a lock, but only while it has the reader role. So take the
	// role, and never give it back, before the memory is unmapped.
	for !c.role.CompareAndSwap(false, true) {
		time.Sleep(YieldFor)
	}
	c.rx.Lock()
	defer c.rx.Unlock()
	c.tx.Lock()
	defer c.tx.Unlock()
	if c.closed {
		return
	}
	c.closed = true
	c.api.detach()
}

func (c *Channel) ready(tokens bool) bool {
	return c.api.ready() || tokens && c.api.readyTx()
}

func (c *Channel) arm(tokens bool) bool {
	if c.closed || !c.api.arm() {
		return false
	}
	if tokens && c.api.readyTx() {
		c.api.disarm()
		return false
	}
	return true
}

func (c *Channel) disarm() {
	if !c.closed {
		c.api.disarm()
	}
}

// poll empties the rings and calls the handler with what was in them. rx is held.
func (c *Channel) poll() {
	if c.closed {
		return
	}
	code := c.api.poll(c.event)
	c.sendRequests()
	if c.api.readyTx() {
		c.tx.Lock()
		c.pollTx()
		c.tx.Unlock()
	}
	if code != OK {
		c.goDown(code)
	}
}

func (c *Channel) pollTx() {
	if !c.closed {
		_ = c.api.pollTx(c.event)
	}
}

// Recv receives from a connection, and gives back the role that w may hold.
func (c *Channel) Recv(w *Waiter, conn uint64, p []byte, mode RecvMode, info *RecvInfo) (int, Code) {
	c.rx.Lock()
	if c.closed {
		c.rx.Unlock()
		return 0, Closed
	}
	n, code := c.api.recv(conn, p, mode, info)
	if c.api.hasEvents() {
		c.pollRings()
	} else if w.holds && c.crowd > 0 {
		c.polled(0) // it looked, and found but its own
	}
	w.leaveLocked()
	c.rx.Unlock()
	return n, code
}

// TrySend sends one message, or nothing of it.
func (c *Channel) TrySend(conn uint64, p []byte) Code {
	if !c.lockTx() {
		return Closed
	}
	code := c.api.trySend(conn, p)
	c.unlockTx()
	return code
}

// SendSome sends one message or the rest of one, or a part of that: how many bytes, or Again.
func (c *Channel) SendSome(conn uint64, p []byte, mode SendMode) (int, Code) {
	if !c.lockTx() {
		return 0, Closed
	}
	n, code := c.api.sendSome(conn, p, mode)
	c.unlockTx()
	return n, code
}

// SendParts sends a message in parts, of which the first skip bytes are sent already.
func (c *Channel) SendParts(conn uint64, parts [][]byte, skip int) (int, Code) {
	if !c.lockTx() {
		return 0, Closed
	}
	n, code := c.api.sendParts(conn, parts, skip)
	c.unlockTx()
	return n, code
}

// Abort takes back the message under way.
func (c *Channel) Abort(conn uint64) Code {
	return c.onConn(conn, (*capi).abort)
}

// Finish half-closes.
func (c *Channel) Finish(conn uint64) Code {
	return c.onConn(conn, (*capi).finish)
}

// CloseConn forgets a connection; the sidecar sends what was written.
func (c *Channel) CloseConn(conn uint64) {
	_ = c.onConn(conn, (*capi).close)
}

// ResetConn forgets a connection and what was written to it.
func (c *Channel) ResetConn(conn uint64) {
	_ = c.onConn(conn, (*capi).reset)
}

// GiveBack returns what connections hold that were forgotten. Else that is done when something is received the next time, and until then the
// sidecar counts them.
func (c *Channel) GiveBack() {
	c.rx.Lock()
	defer c.rx.Unlock()
	c.poll()
}

func (c *Channel) onConn(conn uint64, call func(*capi, uint64) Code) Code {
	if !c.lockTx() {
		return Closed
	}
	code := call(&c.api, conn)
	c.unlockTx()
	return code
}

// request is a request to the sidecar that may have to wait for room in the control ring.
type request struct {
	send   func() (id uint32, code Code)
	sent   func(id uint32)
	code   Code    // Again until it was sent or refused; under rx
	waiter *Waiter // where its goroutine waits; nil if it does not have to
}

// ask sends a request. While the sidecar has too many to take, it waits for its turn, until the context ends: Canceled then.
func (c *Channel) ask(ctx context.Context, r *request) Code {
	c.rx.Lock()
	c.requests = append(c.requests, r)
	c.sendRequests()
	code := r.code
	if code == Again {
		r.waiter = c.NewWaiter(ForEvent)
	}
	c.rx.Unlock()
	if code != Again {
		return code
	}
	defer context.AfterFunc(ctx, r.waiter.Wake)()
	defer context.AfterFunc(c.ended, r.waiter.Wake)()
	for code == Again {
		r.waiter.Wait()
		c.rx.Lock()
		if code = r.code; code == Again {
			switch {
			case ctx.Err() != nil:
				code = Canceled
			case c.ended.Err() != nil:
				code = NetDown
			}
			if code != Again {
				c.requests = slices.DeleteFunc(c.requests, func(other *request) bool { return other == r })
			}
		}
		c.rx.Unlock()
	}
	return code
}

// sendRequests sends the requests for which there is room now, oldest first. rx is held.
func (c *Channel) sendRequests() {
	for len(c.requests) > 0 {
		r := c.requests[0]
		if !c.lockTx() {
			return // whoever waits is woken by the end of the channel
		}
		var id uint32
		if id, r.code = r.send(); r.code == OK {
			r.sent(id)
		}
		c.unlockTx()
		if r.code == Again {
			return
		}
		c.requests[0] = nil
		c.requests = c.requests[1:]
		if r.waiter != nil {
			r.waiter.Wake()
		}
	}
}

// Listen asks to listen, on a port that is shared as sharing says. registered gets the id before any event can name it. Canceled: the context
// has ended before there was room for the request.
func (c *Channel) Listen(ctx context.Context, ip uint32, port uint16, backlog int, sharing Sharing, registered func(id uint32)) Code {
	send := func() (uint32, Code) { return c.api.listen(ip, port, backlog, sharing) }
	return c.ask(ctx, &request{send: send, sent: registered, code: Again})
}

// Unlisten ends a listener. Until EvUnlistened, connections that nobody will accept may come, also when nobody waits.
func (c *Channel) Unlisten(id uint32) {
	c.askUnawaited(func() Code { return c.api.unlisten(id) })
}

// Accepted says that the program has taken a connection of a listener's: its place in the backlog is another's.
func (c *Channel) Accepted(conn uint64) {
	c.rx.Lock()
	defer c.rx.Unlock()
	if !c.closed {
		_ = c.api.accepted(conn) // one that has been closed meanwhile has no place any more
	}
}

// askUnawaited sends a request for whose answer no goroutine waits: Unlisten and CancelDial. The answer is an event for the handler, and
// until it comes the hub counts it like a goroutine that sleeps, so that somebody takes it from the ring. Where the control ring has no
// room, the C library keeps the request and sends it in a later poll. It refuses only when the sidecar has gone, and then there is nothing
// left to withdraw.
func (c *Channel) askUnawaited(request func() Code) {
	c.rx.Lock()
	defer c.rx.Unlock()
	if !c.lockTx() {
		return
	}
	code := request()
	c.unlockTx()
	if code == OK {
		c.expectAnswer()
	}
}

// Answered must be called by the handler for the event that answers Unlisten or CancelDial.
func (c *Channel) Answered() { c.answerCame() }

// Mind has the events of the channel handed out though no goroutine may wait for any, until MindNoMore.
func (c *Channel) Mind() {
	c.rx.Lock()
	defer c.rx.Unlock()
	if !c.closed {
		c.expectAnswer()
	}
}

// MindNoMore ends a Mind.
func (c *Channel) MindNoMore() { c.answerCame() }

// Settled hands out the events that there are, and reports whether the sidecar has nothing left to send: all that was sent is acknowledged, or
// was given up with its connection.
func (c *Channel) Settled() bool {
	c.rx.Lock()
	defer c.rx.Unlock()
	c.poll()
	if !c.lockTx() {
		return true
	}
	defer c.unlockTx()
	n, code := c.api.unacked(0)
	return n == 0 || code != OK
}

// Dial asks for a connection; timeout 0 is the sidecar's own. registered and Canceled are as with Listen.
func (c *Channel) Dial(ctx context.Context, ip uint32, port, localPort uint16, timeout time.Duration, registered func(id uint32)) Code {
	send := func() (uint32, Code) { return c.api.dial(ip, port, localPort, milliseconds(timeout)) }
	return c.ask(ctx, &request{send: send, sent: registered, code: Again})
}

// CancelDial gives up a dial. One more event names it: the answer, or that the connection was made before the sidecar knew.
func (c *Channel) CancelDial(id uint32) {
	c.askUnawaited(func() Code { return c.api.cancelDial(id) })
}

// milliseconds rounds up, and bounds to what the C API takes.
func milliseconds(d time.Duration) uint32 {
	const most = 1<<31 - 1
	if d <= 0 {
		return 0
	}
	return uint32(min((d+time.Millisecond-1)/time.Millisecond, most))
}

// lockTx locks the send direction, unless the channel is closed.
func (c *Channel) lockTx() bool {
	c.tx.Lock()
	if c.closed {
		c.tx.Unlock()
		return false
	}
	return true
}

func (c *Channel) unlockTx() {
	if c.api.hasEventsTx() {
		c.pollTx()
	}
	c.tx.Unlock()
}

// Failure is the C library's sentence about an EvConnectFailed or EvListenFailed: what is full, whose, how many there may be, and what to do.
func (e *Event) Failure() string { return failureText(e) }

// Error makes a Code an error where a caller of this package needs one.
func (c Code) Error() string { return codeText(c) }
