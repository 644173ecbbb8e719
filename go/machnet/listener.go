package machnet

import (
	"context"
	"net"
	"os"
	"sync"
	"time"

	"github.com/machnet/machnet/go/internal/core"
)

// ListenConfig says how to listen. The zero ListenConfig is ready for use.
type ListenConfig struct {
	// Stack to listen on; nil is Default.
	Stack *Stack
	// Backlog is how many connections may wait for Accept; 0 means 128. More are refused.
	Backlog int
}

const defaultBacklog = 128

// Listen listens on an address of the network "machnet", on the Default stack. The IP must be the sidecar's, 0.0.0.0 or
// none; port 0 takes a free one.
func Listen(network, address string) (net.Listener, error) {
	var lc ListenConfig
	return lc.Listen(context.Background(), network, address)
}

// Listen is the package's Listen with a context, which bounds the setting up only. The net.Listener is a *Listener.
func (lc *ListenConfig) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	a, err := resolve(ctx, "listen", network, address)
	if err != nil {
		return nil, err
	}
	l, err := lc.ListenMachnet(ctx, a)
	if err != nil {
		return nil, err
	}
	return l, nil
}

// ListenMachnet is Listen for an address that is resolved already.
func (lc *ListenConfig) ListenMachnet(ctx context.Context, a *Addr) (*Listener, error) {
	fail := func(err error) (*Listener, error) {
		return nil, opError("listen", nil, a, err)
	}
	if err := contextError(ctx); err != nil {
		return fail(err)
	}
	s := lc.Stack
	if s == nil {
		var err error
		if s, err = defaultFor(ctx); err != nil {
			return nil, err
		}
	}
	if a.IP.IsValid() && !a.IP.IsUnspecified() {
		if err := s.checkLocal(a); err != nil {
			return fail(err)
		}
	}
	backlog := lc.Backlog
	if backlog <= 0 {
		backlog = defaultBacklog
	}
	l := &Listener{stack: s, backlog: backlog, turn: make(chan struct{}, 1), waiter: s.ch.NewWaiter(core.ForEvent)}
	code := s.ch.Listen(ctx, s.ch.Info().IP, a.Port, backlog, func(id uint32) {
		s.mu.Lock()
		defer s.mu.Unlock()
		l.id = id
		s.listeners[id] = l
	})
	if code != core.OK {
		return fail(s.askError(ctx, code))
	}
	defer context.AfterFunc(ctx, l.waiter.Wake)()
	for {
		err := s.usable()
		l.mu.Lock()
		if err == nil {
			err = l.err
		}
		ready := l.addr != nil
		l.mu.Unlock()
		if err == nil && !ready {
			err = contextError(ctx)
		}
		switch {
		case err != nil:
			_ = l.Close()
			return fail(err)
		case ready:
			return l, nil
		}
		l.waiter.Wait()
	}
}

// Listener accepts connections. It implements net.Listener, and may be used by many goroutines at once.
type Listener struct {
	stack   *Stack
	id      uint32
	backlog int
	// turn holds one: the goroutine that accepts, also while it waits. A channel, so that the others see their contexts end.
	turn     chan struct{}
	waiter   *core.Waiter
	deadline deadline

	mu    sync.Mutex
	addr  *Addr   // nil until the sidecar has said yes
	queue []*Conn // not yet accepted
	err   error   // why there will be no more
}

// Accept waits for the next connection, a *Conn.
func (l *Listener) Accept() (net.Conn, error) {
	c, err := l.AcceptMachnet(context.Background())
	if err != nil {
		return nil, err
	}
	return c, nil
}

// AcceptMachnet waits for the next connection, or for the context to end.
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
		defer context.AfterFunc(ctx, l.waiter.Wake)()
	}
	for {
		l.mu.Lock()
		err := l.err
		var c *Conn
		switch {
		case err != nil:
		case l.deadline.expired.Load():
			err = os.ErrDeadlineExceeded
		case len(l.queue) > 0:
			c = l.queue[0]
			l.queue[0] = nil
			l.queue = l.queue[1:]
		default:
			err = contextError(ctx)
		}
		l.mu.Unlock()
		if err != nil {
			return fail(err)
		}
		if c != nil {
			return c, nil
		}
		l.waiter.Wait()
	}
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
	l.deadline.setTo(t, l.waiter.Wake)
	return nil
}

// Close stops listening. Blocked Accepts return net.ErrClosed; connections that nobody has accepted are reset.
func (l *Listener) Close() error {
	l.mu.Lock()
	if l.err == net.ErrClosed {
		l.mu.Unlock()
		return opError("close", nil, l.addr, net.ErrClosed)
	}
	l.err = net.ErrClosed
	queue := l.queue
	l.queue = nil
	l.mu.Unlock()
	l.deadline.stop()
	l.waiter.Wake()
	s := l.stack
	s.mu.Lock()
	known := s.listeners[l.id] == l // else the sidecar never knew it, or the stack has closed
	if known {
		delete(s.listeners, l.id)
	}
	s.mu.Unlock()
	if known {
		s.ch.Unlisten(l.id)
	}
	for _, c := range queue {
		c.abandon()
	}
	return nil
}

// listening takes the sidecar's answer.
func (l *Listener) listening(a *Addr, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.addr = a
	if l.err == nil {
		l.err = err
	}
	l.waiter.Wake()
}

// offer queues a connection; false when the listener has closed or its backlog is full.
func (l *Listener) offer(c *Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil || len(l.queue) >= l.backlog {
		return false
	}
	l.queue = append(l.queue, c)
	l.waiter.Wake()
	return true
}

// fail makes every Accept return err. The stack's mu may be held.
func (l *Listener) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
	}
	l.waiter.Wake()
}
