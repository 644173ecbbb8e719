package machnet

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// MaxMessage is the largest message, in bytes. Larger Writes are split, larger Sends fail with ErrTooLarge.
const MaxMessage = 8 << 20

// DefaultSocket is where a sidecar listens unless told otherwise.
const DefaultSocket = "/var/run/machnet/machnet.sock"

// Engine says which of the sidecar's engines serves an attachment. The zero Engine leaves the choice to the sidecar.
type Engine struct{ plusOne int }

// OnEngine is the engine of this number, as the sidecar counts them: from 0.
func OnEngine(number int) Engine { return Engine{number + 1} }

// Config says which sidecar to attach to, and how. The zero Config is ready for use.
type Config struct {
	// Socket is the sidecar's control socket: by default $MACHNET_SOCKET, or DefaultSocket.
	Socket string
	// Connect, if not nil, gives a connected SOCK_SEQPACKET socket to the sidecar instead, and Socket is not used. It is for hosts that
	// run in this process, or where another process hands out sockets. It is called for every channel, also after the
	// sidecar has ended, by one goroutine at a time; the stack closes the file. An error means that there is no sidecar now, and the
	// stack asks again later, after 250 ms at most; one that wraps net.ErrClosed means that there will be none any more, and ends the stack.
	Connect func(ctx context.Context) (*os.File, error)
	// Engine is the engine to attach to; by default the sidecar chooses.
	Engine Engine
	// Yield is how long a goroutine that waits usually looks at the shared memory before it sleeps, giving the core away
	// between looks: 0 means 50 us, negative means to sleep at once. Where waits are longer it is up to six times as long,
	// where they are longer than that it shrinks to 2 us.
	Yield time.Duration
	// Logger hears of what happens between the stack and its sidecar: attached, the sidecar has ended, attached again, a limit was met. nil
	// logs nothing.
	Logger *slog.Logger
}

// Stack is a program's place at a sidecar: what it dials from and listens on. It may be used by many goroutines at once.
//
// When the sidecar ends, everything that belonged to it fails with ENETDOWN, and the stack attaches again as soon as a sidecar listens at
// the same socket: by itself, so that its listeners go on (see ListenConfig.FailFast), and at once when the program dials or listens.
type Stack struct {
	source source
	log    *slog.Logger // nil logs nothing

	turn    chan struct{} // holds one: the goroutine that attaches
	closing context.Context
	stop    context.CancelFunc

	mu        sync.Mutex
	at        *attachment            // the last one; it may have ended
	listeners map[*Listener]struct{} // those that follow the stack from sidecar to sidecar
	err       error                  // why the stack has ended: net.ErrClosed after Close
}

// Attach connects to a sidecar. The context bounds the attaching only. The error says what to do, and wraps ErrNoSidecar where nobody
// answers at the socket, ErrVersion where the sidecar is of another version, fs.ErrPermission where the program may not connect, ENOBUFS where
// the sidecar has as many programs as it may have, EINVAL where it has no such Engine, and ErrUnsupported where this build cannot.
func Attach(ctx context.Context, c Config) (*Stack, error) {
	s := &Stack{
		source: newSource(c), log: c.Logger,
		turn: make(chan struct{}, 1), listeners: make(map[*Listener]struct{}),
	}
	at, err := s.source.attach(ctx)
	if err != nil {
		return nil, err
	}
	s.at = at
	s.closing, s.stop = context.WithCancel(context.Background())
	s.logAttached("attached", at)
	go s.keep(at)
	return s, nil
}

// The pauses between attempts to attach again.
const (
	firstPause   = 10 * time.Millisecond
	longestPause = 250 * time.Millisecond
)

// keep attaches again whenever the sidecar has ended, until the stack closes.
func (s *Stack) keep(at *attachment) {
	pause := time.Duration(0)
	for {
		select {
		case <-at.down:
		case <-s.closing.Done():
			return
		}
		at.detach()
		s.logLost(at)
		if time.Since(at.since) > longestPause {
			pause = 0 // not after a shorter time: a sidecar that ends each attachment at once would be asked without a pause
		}
		for {
			select {
			// At random, so that the programs of one machine, which all saw the sidecar end, do not all attach in the same moment.
			case <-time.After(pause/2 + rand.N(pause/2+1)):
			case <-s.closing.Done():
				return
			}
			pause = min(max(2*pause, firstPause), longestPause)
			next, err := s.current(s.closing)
			if err == nil {
				at = next
				break
			}
			if errors.Is(err, net.ErrClosed) {
				s.end(err) // unless the stack is closed already, the source is
				return
			}
			if errors.Is(err, ErrVersion) || errors.Is(err, syscall.EINVAL) {
				s.endListeners(err) // a sidecar of that version, or without that engine, will never take this program
			}
		}
	}
}

// current is the stack's attachment, made anew if its sidecar has ended.
func (s *Stack) current(ctx context.Context) (*attachment, error) {
	at, err := s.attached()
	if err == nil || errors.Is(err, net.ErrClosed) {
		return at, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.closing, cancel)()
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return nil, s.waitError(contextError(ctx))
	}
	if at, err := s.attached(); err == nil || errors.Is(err, net.ErrClosed) {
		return at, err // somebody else was faster
	}
	next, err := s.source.attach(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil, s.waitError(err)
		}
		return nil, &downError{err}
	}
	s.mu.Lock()
	if s.err != nil {
		err := s.err
		s.mu.Unlock()
		next.close()
		return nil, err
	}
	last := s.at
	s.at = next
	listeners := make([]*Listener, 0, len(s.listeners))
	for l := range s.listeners {
		listeners = append(listeners, l)
	}
	s.mu.Unlock()
	s.logAttached("attached again", next)
	last.detach()
	// Listening again may wait for room, and for longer than this caller wants to.
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		for _, l := range listeners {
			l.follow(next)
		}
	}()
	select {
	case <-followed:
		return next, nil
	case <-ctx.Done():
		return nil, s.waitError(contextError(ctx))
	}
}

// waitError is the error of a wait that a context has ended: the stack's, where it ended because the stack has.
func (s *Stack) waitError(err error) error {
	if s.closing.Err() != nil {
		return s.Err()
	}
	return err
}

// attached is the stack's attachment, or why it cannot be used.
func (s *Stack) attached() (*attachment, error) {
	s.mu.Lock()
	at, err := s.at, s.err
	s.mu.Unlock()
	if err == nil {
		err = at.usable()
	}
	if err != nil {
		return nil, err
	}
	return at, nil
}

// enlist has a listener, which listens by an attachment, follow the stack from now on.
func (s *Stack) enlist(l *Listener, by *attachment) {
	s.mu.Lock()
	if s.err == nil {
		s.listeners[l] = struct{}{}
	}
	at := s.at
	s.mu.Unlock()
	if at != by {
		l.follow(at)
	}
}

func (s *Stack) delist(l *Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
}

func (s *Stack) endListeners(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range s.listeners {
		l.end(err)
	}
}

// defaultStack holds one: the Default stack, nil before its first use.
var defaultStack = func() chan *Stack {
	c := make(chan *Stack, 1)
	c <- nil
	return c
}()

// Default is the stack of the package-level functions, attached at first use. It lasts until it is closed, from one sidecar to the next. Its
// errors are those of Attach; the next call tries again.
func Default() (*Stack, error) {
	return defaultFor(context.Background())
}

func defaultFor(ctx context.Context) (*Stack, error) {
	var s *Stack
	select {
	case s = <-defaultStack:
	case <-ctx.Done():
		return nil, contextError(ctx)
	}
	defer func() { defaultStack <- s }()
	if s != nil && s.closing.Err() == nil {
		return s, nil
	}
	var err error
	s, err = Attach(ctx, Config{})
	return s, err
}

// LocalAddrs are the sidecar's addresses; while there is none, those of the last.
func (s *Stack) LocalAddrs() []netip.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	return []netip.Addr{s.at.addr()}
}

// Close ends the stack: its connections are closed, after the sidecar has sent what was written to them, and its
// listeners. Every blocked call fails with net.ErrClosed.
func (s *Stack) Close() error {
	s.end(net.ErrClosed)
	return nil
}

// end ends the stack, unless it has ended.
func (s *Stack) end(err error) {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return
	}
	s.err = err
	at, listeners := s.at, s.listeners
	s.listeners = nil
	s.mu.Unlock()
	s.stop()
	for l := range listeners {
		l.end(err)
	}
	at.close()
}

// Done is closed when the stack has ended for good: by Close, or because Config.Connect said that there will be no sidecar any more. The end
// of a sidecar does not close it.
func (s *Stack) Done() <-chan struct{} { return s.closing.Done() }

// Err is why the stack has ended, nil before Done is closed: net.ErrClosed after Close, or else an error that wraps it.
func (s *Stack) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *Stack) logAttached(what string, at *attachment) {
	if s.log != nil {
		info := at.ch.Info()
		s.log.Info("machnet: "+what, "sidecar", s.source.name, "address", at.addr(), "engine", info.Engine)
	}
}

func (s *Stack) logLost(at *attachment) {
	if s.log != nil && s.closing.Err() == nil {
		s.log.Warn("machnet: the sidecar has ended; attaching again", "sidecar", s.source.name, "reason", at.usable())
	}
}
