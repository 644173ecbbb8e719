package machnet

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/machnet/machnet/go/internal/core"
)

// MaxMessage is the largest message, in bytes. Larger Writes are split, larger Sends fail with ErrTooLarge.
const MaxMessage = 8 << 20

// DefaultSocket is where a sidecar listens unless told otherwise.
const DefaultSocket = "/var/run/machnet/machnet.sock"

// Engine says which of the sidecar's engines serves an attachment. The zero Engine leaves the choice to the sidecar.
type Engine struct {
	number int
	chosen bool
}

// OnEngine is the engine of this number, as the sidecar counts them: from 0. Attach refuses one that the sidecar has not, a negative one too.
func OnEngine(number int) Engine { return Engine{number, true} }

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
// It has as many connections as memory and the sidecar's settings allow: a channel has room for 256 (--flows), and when it is full the stack attaches
// another, up to 256 of them (--channels-per-application). While it listens it does so before the last is full, so that no caller waits for
// it. A channel that has been empty for some seconds goes back to the sidecar; one may stay as a spare.
//
// When the sidecar ends, everything that belonged to it fails with ENETDOWN, and the stack attaches again as soon as a sidecar listens at
// the same socket: by itself, so that its listeners go on (see ListenConfig.FailFast), and at once when the program dials or listens. When
// the sidecar ends one channel of several, the connections of that one fail, and nothing else does.
type Stack struct {
	source source
	log    *slog.Logger // nil logs nothing

	turn    chan struct{} // holds one: the goroutine that attaches
	changed chan struct{} // holds one: wakes the goroutine that keeps the stack
	spare   atomic.Int64  // places that may be taken until the keeper should look again
	closing context.Context
	stop    context.CancelFunc

	mu        sync.Mutex
	channels  []*attachment          // in the order in which they came, the ended ones until the keeper has seen them; never changed, but replaced
	address   netip.Addr             // of the last sidecar
	listeners map[*Listener]struct{} // those that listen, or wait for a sidecar to do so
	ports     map[uint16][]*Listener // those that have a port, or ask for it
	refusal   refusedChannel
	counts    counts
	err       error // why the stack has ended: net.ErrClosed after Close
}

// Attach connects to a sidecar. The context bounds the attaching only. The error says what to do, and wraps ErrNoSidecar where nobody
// answers at the socket, ErrVersion where the sidecar is of another version, fs.ErrPermission where the program may not connect, ENOBUFS where
// the sidecar has as many programs as it may have, EINVAL where it has no such Engine, and ErrUnsupported where this build cannot.
func Attach(ctx context.Context, c Config) (*Stack, error) {
	if c.Engine.number < 0 {
		return nil, fmt.Errorf("attach: there is no engine %d; engines count from 0: %w", c.Engine.number, syscall.EINVAL)
	}
	s := &Stack{
		source: newSource(c), log: c.Logger, turn: make(chan struct{}, 1), changed: make(chan struct{}, 1),
		listeners: make(map[*Listener]struct{}), ports: make(map[uint16][]*Listener),
	}
	s.closing, s.stop = context.WithCancel(context.Background())
	at, err := s.source.attach(ctx, s)
	if err != nil {
		s.stop()
		return nil, err
	}
	s.channels, s.address, s.counts.attached = []*attachment{at}, at.addr(), 1
	s.logAttached("attached", at)
	go s.keep()
	return s, nil
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
	return []netip.Addr{s.address}
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
	channels, listeners := s.channels, s.listeners
	s.channels, s.listeners = nil, nil
	s.mu.Unlock()
	s.stop()
	for l := range listeners {
		l.end(err)
	}
	for _, at := range channels {
		at.close()
	}
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

// CoreWaits tells what other programs' hold on the cores has cost this one, as far as it knows.
//
// A goroutine that waits looks for messages and gives its core away between looks. Beside a thread that computes and gives nothing away, a hog, it
// would come back a time slice later; so when giving the core away has taken more than 2 ms twice in a row, goroutines sleep at once instead, for 8 ms, and
// for twice as long, up to a second, each time that the hog is still there. The counters are of the whole process: its stacks share its threads.
type CoreWaits struct {
	// HogAlarms is how often a hog was met.
	HogAlarms uint64
	// Hogged is for how long hogs were believed in, of all channels together. A channel counts the time when it meets the hog.
	Hogged time.Duration
	// CoreWait is what giving the core away took beyond 2 ms each time.
	CoreWait time.Duration
}

// Waits are the CoreWaits of this process so far. docs/metrics.md has the same of the sidecar's engines: hog_alarms, hogged and core_wait.
func (s *Stack) Waits() CoreWaits {
	w := core.ReadCoreWaits()
	return CoreWaits{HogAlarms: w.Alarms, Hogged: w.Hogged, CoreWait: w.Core}
}
