package machnet

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/machnet/machnet/go/internal/core"
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
	// Engine is the engine to attach to; by default the sidecar chooses.
	Engine Engine
	// Yield is how long a goroutine that waits usually looks at the shared memory before it sleeps, giving the core away
	// between looks: 0 means 50 us, negative means to sleep at once. Where waits are longer it is up to six times as long,
	// where they are longer than that it shrinks to 2 us.
	Yield time.Duration
}

// Stack is one attachment to a sidecar. It may be used by many goroutines at once.
type Stack struct {
	ch     *core.Channel
	socket string
	whole  int // bytes of a message that a connection sends at once, if others leave room

	mu        sync.Mutex
	conns     map[uint64]*Conn
	listeners map[uint32]*Listener
	dials     map[uint32]*dialing
	err       error // why the stack is of no use any more
}

// Attach connects to a sidecar. The context bounds the attaching only.
func Attach(ctx context.Context, c Config) (*Stack, error) {
	socket := c.Socket
	if socket == "" {
		socket = os.Getenv("MACHNET_SOCKET")
	}
	if socket == "" {
		socket = DefaultSocket
	}
	yield := c.Yield
	switch {
	case yield == 0:
		yield = core.YieldFor
	case yield < 0:
		yield = 0
	}
	return attach(ctx, socket, core.Options{Socket: socket, Engine: c.Engine.plusOne}, yield)
}

// AttachFD attaches over a connected SOCK_SEQPACKET socket, of which it takes a copy. It is for hosts that run
// in this process or that hand out their own sockets.
func AttachFD(ctx context.Context, fd uintptr) (*Stack, error) {
	return attach(ctx, fmt.Sprintf("socket %d", fd), core.Options{FD: int(fd), UseFD: true}, core.YieldFor)
}

func attach(ctx context.Context, socket string, o core.Options, yield time.Duration) (*Stack, error) {
	s := &Stack{
		socket:    socket,
		conns:     make(map[uint64]*Conn),
		listeners: make(map[uint32]*Listener),
		dials:     make(map[uint32]*dialing),
	}
	ch, text, err := core.Attach(ctx, o, yield, (*events)(s))
	if err != nil {
		return nil, attachError(ctx, socket, text, err)
	}
	s.ch = ch
	info := ch.Info()
	s.whole = min(writeChunk, max(1, int(info.UnitsPerConn))*int(info.UnitSize))
	return s, nil
}

var defaultStack struct {
	sync.Mutex
	*Stack
}

// Default is the stack of the package-level functions, attached at first use, and anew after its sidecar has ended.
func Default() (*Stack, error) {
	return defaultFor(context.Background())
}

func defaultFor(ctx context.Context) (*Stack, error) {
	defaultStack.Lock()
	defer defaultStack.Unlock()
	if s := defaultStack.Stack; s != nil {
		if s.usable() == nil {
			return s, nil
		}
		_ = s.Close()
		defaultStack.Stack = nil
	}
	s, err := Attach(ctx, Config{})
	if err == nil {
		defaultStack.Stack = s
	}
	return s, err
}

// LocalAddrs are the sidecar's addresses.
func (s *Stack) LocalAddrs() []netip.Addr {
	return []netip.Addr{addrFrom(s.ch.Info().IP, 0).IP}
}

// Close ends the attachment: its connections are closed, after the sidecar has sent what was written to them, and its
// listeners. Every blocked call fails with net.ErrClosed.
func (s *Stack) Close() error {
	if !s.fail(net.ErrClosed) {
		return nil
	}
	s.mu.Lock()
	conns, listeners := s.conns, s.listeners
	s.conns, s.listeners = map[uint64]*Conn{}, map[uint32]*Listener{}
	s.mu.Unlock()
	for _, l := range listeners {
		_ = l.Close()
	}
	for _, c := range conns {
		_ = c.Close()
	}
	s.ch.Close()
	return nil
}

// usable is nil, or why the stack is not.
func (s *Stack) usable() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// fail marks the stack as of no use and wakes everybody who waits for it. It reports whether this call did.
func (s *Stack) fail(err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		closing := err == net.ErrClosed && s.err != net.ErrClosed
		if closing {
			s.err = err
		}
		return closing
	}
	s.err = err
	for _, c := range s.conns {
		c.fail(err)
	}
	for _, l := range s.listeners {
		l.fail(err)
	}
	for _, d := range s.dials {
		d.fail(err)
	}
	return true
}

// forget takes a closed connection out of the table.
func (s *Stack) forget(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns[c.id] == c {
		delete(s.conns, c.id)
	}
}

// events is the Stack as the channel's handler. Its methods run with the channel's receive direction locked, so they
// may not receive; they may send.
type events Stack

func (e *events) Event(ev *core.Event) {
	s := (*Stack)(e)
	if unwanted := s.onEvent(ev); unwanted {
		s.ch.ResetConn(ev.Conn) // not under mu, which comes after the channel's locks
	}
}

// onEvent reports whether the event brought a connection that nobody waits for.
func (s *Stack) onEvent(ev *core.Event) (unwanted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch ev.Kind {
	case core.EvReadable:
		if c := s.conns[ev.Conn]; c != nil {
			c.rd.waiter.Wake()
		}
	case core.EvWritable:
		if c := s.conns[ev.Conn]; c != nil {
			c.wr.waiter.Wake()
		}
	case core.EvClosed:
		if c := s.conns[ev.Conn]; c != nil {
			c.rd.waiter.Wake()
			c.wr.waiter.Wake()
		}
	case core.EvConnected:
		d := s.dials[ev.ID]
		if d == nil { // given up, and the sidecar heard of that too late
			s.ch.LastWord()
			return true
		}
		delete(s.dials, ev.ID)
		d.conn = s.newConn(ev)
		d.waiter.Wake()
	case core.EvConnectFailed:
		if d := s.dials[ev.ID]; d != nil {
			delete(s.dials, ev.ID)
			d.fail(eventError(ev))
		} else {
			s.ch.LastWord()
		}
	case core.EvAccepted:
		l := s.listeners[ev.ID]
		if l == nil {
			return true
		}
		if c := s.newConn(ev); !l.offer(c) {
			delete(s.conns, c.id)
			return true
		}
	case core.EvListening:
		if l := s.listeners[ev.ID]; l != nil {
			l.listening(addrFrom(s.ch.Info().IP, ev.LocalPort), nil)
		}
	case core.EvListenFailed:
		if l := s.listeners[ev.ID]; l != nil {
			delete(s.listeners, ev.ID)
			l.listening(nil, eventError(ev))
		}
	case core.EvUnlistened:
		s.ch.LastWord()
	}
	return false
}

// Down is called once when the sidecar has gone.
func (e *events) Down(code core.Code) {
	(*Stack)(e).fail(codeError(code))
}

// newConn enters a connection into the table. mu is held.
func (s *Stack) newConn(ev *core.Event) *Conn {
	c := &Conn{
		stack: s, ch: s.ch, id: ev.Conn,
		local:  addrFrom(ev.LocalIP, ev.LocalPort),
		remote: addrFrom(ev.RemoteIP, ev.RemotePort),
		whole:  s.whole,
	}
	c.rd.waiter = s.ch.NewWaiter(core.ForData)
	c.wr.waiter = s.ch.NewWaiter(core.ForTokens)
	s.conns[c.id] = c
	return c
}
