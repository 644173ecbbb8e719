package machnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/machnet/machnet/go/internal/core"
)

// ListenConfig says how to listen. The zero ListenConfig is ready for use.
type ListenConfig struct {
	// Stack to listen on; nil is Default.
	Stack *Stack
	// Backlog is how many connections may be begun, or wait for Accept, at a time; 0 means 128. A Dial beyond that waits for a
	// place, for as long as it may, and then fails with ETIMEDOUT. One that has returned a connection is served: Accept
	// returns the other end, with what was sent, also when the caller has gone meanwhile.
	Backlog int
	// ReusePort lets other listeners have the port, too, if all of them say so and belong to one user, as SO_REUSEPORT does: of this
	// program, one for each engine (see OnEngine), or of others. Each connection comes to one of them, one whose backlog has a place if
	// there is any. A port that is taken otherwise is refused with EADDRINUSE.
	ReusePort bool
	// FailFast has Accept fail with ENETDOWN when the sidecar has ended. Without it the listener follows its stack: Accept waits until it
	// is attached to a sidecar again, and the listener keeps its port. It ends if that is impossible, because another program was
	// faster to take the port, or because the sidecar's address or version is another, or it lacks the engine that was asked for.
	//
	// A listener that has ended without Close returns its error at once, and after that with a pause of 5 ms between two, growing to 1 s, so
	// that a server which calls Accept after every error keeps no core busy.
	FailFast bool
}

const defaultBacklog = 128

// Listen listens on an address of the network "machnet", on the Default stack. The IP must be the sidecar's, 0.0.0.0 or
// none; port 0 takes a free one. Its errors are those of ListenConfig.Listen, and of Attach.
func Listen(network, address string) (net.Listener, error) {
	var lc ListenConfig
	return lc.Listen(context.Background(), network, address)
}

// Listen is the package's Listen with a context, which bounds the setting up only. The net.Listener is a *Listener. Of a name with several
// IPv4 addresses, the one that is the sidecar's is listened on. It fails with EADDRINUSE where the port is taken, a *net.AddrError where the
// address is not the sidecar's, ENOBUFS where a limit is met (EADDRNOTAVAIL, too, where no port is left), ENETDOWN while there is no
// sidecar, and otherwise as ResolveAddr does.
func (lc *ListenConfig) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	addrs, err := resolve(ctx, nil, "listen", network, address)
	if err != nil {
		return nil, err
	}
	var first error
	for i := range addrs {
		l, err := lc.ListenMachnet(ctx, &addrs[i])
		if err == nil {
			return l, nil
		}
		var elsewhere *net.AddrError
		if !errors.As(err, &elsewhere) {
			return nil, err
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

// ListenMachnet is Listen for an address that is resolved already. Its errors are those of Listen.
func (lc *ListenConfig) ListenMachnet(ctx context.Context, a *Addr) (*Listener, error) {
	fail := func(err error) (*Listener, error) {
		return nil, opError("listen", nil, a, err)
	}
	if err := a.check(); err != nil {
		return fail(err)
	}
	if err := contextError(ctx); err != nil {
		return fail(err)
	}
	s := lc.Stack
	if s == nil {
		var err error
		if s, err = defaultFor(ctx); err != nil {
			return fail(err)
		}
	}
	at, err := s.current(ctx)
	if err != nil {
		return fail(err)
	}
	if a.IP.IsValid() && !a.IP.IsUnspecified() {
		if err := at.checkLocal(a); err != nil {
			return fail(err)
		}
	}
	backlog := lc.Backlog
	if backlog <= 0 {
		backlog = defaultBacklog
	}
	l := &Listener{
		stack: s, backlog: backlog, reusePort: lc.ReusePort, follows: !lc.FailFast,
		turn: make(chan struct{}, 1), note: make(chan struct{}, 1),
	}
	if code := l.ask(ctx, at, a.Port); code != core.OK {
		return fail(at.askError(ctx, code))
	}
	defer context.AfterFunc(ctx, l.wake)()
	for {
		l.mu.Lock()
		ready, err, waiter := l.addr != nil, l.err, l.waiter
		l.mu.Unlock()
		if err == nil && !ready {
			if err = at.usable(); err == nil {
				err = contextError(ctx)
			}
		}
		switch {
		case err != nil:
			_ = l.Close()
			return fail(err)
		case ready:
			if l.follows {
				s.enlist(l, at)
			}
			return l, nil
		}
		waiter.Wait()
	}
}

// Listener accepts connections. It implements net.Listener, and may be used by many goroutines at once.
type Listener struct {
	stack     *Stack
	backlog   int
	reusePort bool
	follows   bool // its stack, from sidecar to sidecar
	// turn holds one: the goroutine that accepts, also while it waits. A channel, so that the others see their contexts end.
	turn     chan struct{}
	deadline deadline
	note     chan struct{} // holds one; wakes the goroutine that accepts while there is no waiter

	mu     sync.Mutex
	at     *attachment // where the sidecar listens, or was asked to; nil while there is none
	id     uint32      // the listener's number in it
	waiter *core.Waiter
	addr   *Addr   // nil until a sidecar has agreed to listen; never changes after that
	queue  []*Conn // not yet accepted
	err    error   // why there will be no more

	errDue   time.Time     // from when on err may be returned again
	errPause time.Duration // the last pause between two returns of err
}

// The pauses between two errors of a listener that has ended.
const (
	shortestErrPause = 5 * time.Millisecond
	longestErrPause  = time.Second
)

// ask asks the sidecar of an attachment to listen.
func (l *Listener) ask(ctx context.Context, at *attachment, port uint16) core.Code {
	var id uint32
	var down, over bool
	var sharing core.Sharing
	if l.reusePort {
		sharing = core.ReusePort
	}
	code := at.ch.Listen(ctx, at.ch.Info().IP, port, l.backlog, sharing, func(given uint32) {
		at.mu.Lock()
		defer at.mu.Unlock()
		l.mu.Lock()
		defer l.mu.Unlock()
		id = given
		if down = at.err != nil; down { // it has told its listeners already, and would not tell this one
			return
		}
		at.listeners[id] = l
		if over = l.err != nil; over {
			return
		}
		l.at, l.id, l.waiter = at, id, at.ch.NewWaiter(core.ForEvent)
		l.wakeLocked()
	})
	switch {
	case code != core.OK:
		return code
	case down:
		return core.NetDown
	case over: // closed meanwhile
		at.unlisten(l, id)
	}
	return core.OK
}

// unlisten asks the sidecar to end a listener, if it has it.
func (at *attachment) unlisten(l *Listener, id uint32) {
	at.mu.Lock()
	known := at.listeners[id] == l
	if known {
		delete(at.listeners, id)
	}
	at.mu.Unlock()
	if known {
		at.ch.Unlisten(id)
	}
}

// follow listens again, where the stack is attached now.
func (l *Listener) follow(at *attachment) {
	l.mu.Lock()
	over := l.err != nil
	l.mu.Unlock()
	if over {
		return
	}
	if now := at.addr(); now != l.addr.IP {
		l.end(fmt.Errorf("the sidecar's address is %v now: %w", now, syscall.EADDRNOTAVAIL))
		return
	}
	switch code := l.ask(l.stack.closing, at, l.addr.Port); code {
	case core.OK, core.Closed, core.NetDown, core.Canceled: // this sidecar has gone, too, and the next is waited for; or the stack closes
	default:
		l.refused(at, codeError(code))
	}
}

// Accept waits for the next connection, a *Conn. It fails with net.ErrClosed after Close, os.ErrDeadlineExceeded when the deadline passes, and,
// once the listener has ended for another reason (see ListenConfig.FailFast), with that.
func (l *Listener) Accept() (net.Conn, error) {
	c, err := l.AcceptMachnet(context.Background())
	if err != nil {
		return nil, err
	}
	return c, nil
}

// AcceptMachnet waits for the next connection, or for the context to end. Its errors are those of Accept, and the context's.
func (l *Listener) AcceptMachnet(ctx context.Context) (*Conn, error) {
	fail := func(err error) (*Conn, error) {
		return nil, opError("accept", nil, l.addr, err)
	}
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return fail(contextError(ctx))
	}
	defer func() { <-l.turn }()
	if ctx.Done() != nil {
		defer context.AfterFunc(ctx, l.wake)()
	}
	var alarm *time.Timer
	for {
		c, waiter, wait, err := l.next(ctx)
		if err != nil {
			return fail(err)
		}
		if c != nil {
			c.ch.Accepted(c.id)
			return c, nil
		}
		if wait > 0 && alarm == nil {
			alarm = time.AfterFunc(wait, l.wake)
			defer alarm.Stop()
		}
		if waiter != nil {
			waiter.Wait()
		} else {
			<-l.note
		}
	}
}

// next is a connection, or an error, or where to wait; a wait above 0 is the time after which the error may be returned again.
func (l *Listener) next(ctx context.Context) (c *Conn, waiter *core.Waiter, wait time.Duration, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.err == net.ErrClosed:
		return nil, nil, 0, l.err
	case l.deadline.expired.Load():
		return nil, nil, 0, os.ErrDeadlineExceeded
	case len(l.queue) > 0:
		c = l.queue[0]
		l.queue[0] = nil
		l.queue = l.queue[1:]
		return c, nil, 0, nil
	}
	if err := contextError(ctx); err != nil {
		return nil, nil, 0, err
	}
	if l.err == nil {
		return nil, l.waiter, 0, nil
	}
	if wait := time.Until(l.errDue); wait > 0 {
		return nil, nil, wait, nil
	}
	l.errPause = min(max(2*l.errPause, shortestErrPause), longestErrPause)
	l.errDue = time.Now().Add(l.errPause)
	return nil, nil, 0, l.err
}

// Addr is the *Addr listened on, with the port that was chosen if 0 was asked for.
func (l *Listener) Addr() net.Addr { return l.addr }

// SetDeadline sets the time after which Accept fails with os.ErrDeadlineExceeded; the zero time takes it away.
func (l *Listener) SetDeadline(t time.Time) error {
	l.mu.Lock()
	err := l.err
	l.mu.Unlock()
	if err != nil {
		return opError("set", nil, l.addr, err)
	}
	l.deadline.setTo(t, l.wake)
	return nil
}

// Close stops listening. Blocked Accepts return net.ErrClosed; connections that nobody has accepted are reset.
func (l *Listener) Close() error {
	l.mu.Lock()
	if l.err == net.ErrClosed {
		l.mu.Unlock()
		return opError("close", nil, l.addr, net.ErrClosed)
	}
	at, id, queue := l.at, l.id, l.queue
	l.over(net.ErrClosed)
	l.mu.Unlock()
	l.deadline.stop()
	l.stack.delist(l)
	if at != nil {
		at.unlisten(l, id)
	}
	for _, c := range queue {
		c.abandon()
	}
	return nil
}

// over makes every Accept return err from now on. mu is held.
func (l *Listener) over(err error) {
	l.err = err
	l.leave()
}

// leave forgets the attachment, and connections that nobody has accepted. mu is held.
func (l *Listener) leave() {
	waiter := l.waiter
	l.at, l.waiter, l.queue = nil, nil, nil
	l.wakeLocked()
	if waiter != nil {
		waiter.Wake()
	}
}

// wakeLocked makes the goroutine that accepts check the state again. mu is held.
func (l *Listener) wakeLocked() {
	if l.waiter != nil {
		l.waiter.Wake()
	}
	select {
	case l.note <- struct{}{}:
	default:
	}
}

// wake is wakeLocked for callers that do not hold mu.
func (l *Listener) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wakeLocked()
}

// end makes every Accept return err, of a listener that has not ended yet.
func (l *Listener) end(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.over(err)
	}
}

// listening is called when the sidecar listens.
func (l *Listener) listening(a *Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.addr == nil {
		l.addr = a
	}
	l.wakeLocked()
}

// refused is called when the sidecar refuses to listen.
func (l *Listener) refused(at *attachment, err error) {
	if l.addr != nil {
		if errors.Is(err, syscall.ENETDOWN) { // it is ending, and another will come
			l.lose(at, err)
			return
		}
		err = fmt.Errorf("listen again at the restarted sidecar: %w", err)
	}
	l.end(err)
}

// offer queues a connection; false when the listener has closed. The sidecar admits no more than the backlog.
func (l *Listener) offer(c *Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return false
	}
	l.queue = append(l.queue, c)
	l.wakeLocked()
	return true
}

// lose is called when an attachment has failed: the listener waits for the next, or ends.
func (l *Listener) lose(at *attachment, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.at != at:
	case l.follows && err != net.ErrClosed:
		l.leave()
	default:
		l.over(err)
	}
}
