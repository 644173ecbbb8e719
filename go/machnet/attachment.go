package machnet

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/machnet/machnet/go/internal/core"
)

// attachment is a stack's time at one sidecar. Connections and dials belong to it and end with it; listeners go on to the next. Of the
// locks, a channel's come before the attachment's, and a Listener's after that; the stack's is never held
// together with the attachment's.
type attachment struct {
	ch    *core.Channel
	whole int // bytes of a message that a connection sends at once, if others leave room
	since time.Time
	down  chan struct{} // closed when err is set
	once  sync.Once     // of detach

	mu        sync.Mutex
	conns     map[uint64]*Conn
	listeners map[uint32]*Listener
	dials     map[uint32]*dialing
	questions map[uint32]*question // about connections, by their numbers in the sidecar; nil before the first
	err       error                // why it is of no use any more
}

func attach(ctx context.Context, socket string, o core.Options, yield time.Duration) (*attachment, error) {
	at := &attachment{
		since:     time.Now(),
		down:      make(chan struct{}),
		conns:     make(map[uint64]*Conn),
		listeners: make(map[uint32]*Listener),
		dials:     make(map[uint32]*dialing),
	}
	at.mu.Lock() // until there is a channel, since that calls back from its first moment on
	defer at.mu.Unlock()
	ch, text, err := core.Attach(ctx, o, yield, (*events)(at))
	if err != nil {
		return nil, attachError(ctx, socket, text, err)
	}
	at.ch = ch
	info := ch.Info()
	at.whole = min(writeChunk, max(1, int(info.UnitsPerConn))*int(info.UnitSize))
	return at, nil
}

// addr is the sidecar's address.
func (at *attachment) addr() netip.Addr { return addrFrom(at.ch.Info().IP, 0).IP }

// usable is nil, or why the attachment is not.
func (at *attachment) usable() error {
	at.mu.Lock()
	defer at.mu.Unlock()
	return at.err
}

// fail marks the attachment as of no use and wakes everybody who waits for it.
func (at *attachment) fail(err error) {
	at.mu.Lock()
	defer at.mu.Unlock()
	if at.err != nil {
		return
	}
	at.err = err
	close(at.down)
	for _, c := range at.conns {
		c.fail(err)
	}
	for _, l := range at.listeners {
		l.lose(at, err)
	}
	for _, d := range at.dials {
		d.fail(err)
	}
	for _, q := range at.questions {
		q.waiter.Wake()
	}
	clear(at.listeners)
}

// close closes the connections in good order, and then the channel.
func (at *attachment) close() {
	at.fail(net.ErrClosed)
	at.mu.Lock()
	conns := at.conns
	at.conns = map[uint64]*Conn{}
	at.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
	}
	at.detach()
}

// detach gives the channel back, of an attachment that has failed.
func (at *attachment) detach() { at.once.Do(at.ch.Close) }

// codeError is codeError, where "closed" and "down" may have a better reason.
func (at *attachment) codeError(code core.Code) error {
	if code == core.Closed || code == core.NetDown {
		if err := at.usable(); err != nil {
			return err
		}
	}
	return codeError(code)
}

// forget takes a closed connection out of the table.
func (at *attachment) forget(c *Conn) {
	at.mu.Lock()
	defer at.mu.Unlock()
	if at.conns[c.id] == c {
		delete(at.conns, c.id)
	}
}

// events is the attachment as the channel's handler. Its methods run with the channel's receive direction locked, so they
// may not receive; they may send.
type events attachment

func (e *events) Event(ev *core.Event) {
	at := (*attachment)(e)
	if unwanted := at.onEvent(ev); unwanted {
		at.ch.ResetConn(ev.Conn) // not under mu, which comes after the channel's locks
	}
}

// onEvent reports whether the event brought a connection that nobody waits for.
func (at *attachment) onEvent(ev *core.Event) (unwanted bool) {
	at.mu.Lock()
	defer at.mu.Unlock()
	switch ev.Kind {
	case core.EvReadable:
		if c := at.conns[ev.Conn]; c != nil {
			c.rd.waiter.Wake()
		}
	case core.EvWritable:
		if c := at.conns[ev.Conn]; c != nil {
			c.wr.waiter.Wake()
		}
	case core.EvClosed:
		if c := at.conns[ev.Conn]; c != nil {
			c.ended(codeError(ev.Code))
		}
	case core.EvStats:
		at.onStats(ev)
	case core.EvConnected:
		d := at.dials[ev.ID]
		if d == nil { // cancelled, but the sidecar had made the connection before it knew
			at.ch.Answered()
			return true
		}
		delete(at.dials, ev.ID)
		d.conn = at.newConn(ev)
		d.waiter.Wake()
	case core.EvConnectFailed:
		if d := at.dials[ev.ID]; d != nil {
			delete(at.dials, ev.ID)
			d.fail(eventError(ev))
		} else {
			at.ch.Answered()
		}
	case core.EvAccepted:
		l := at.listeners[ev.ID]
		if l == nil {
			return true
		}
		if c := at.newConn(ev); !l.offer(c) {
			delete(at.conns, c.id)
			return true
		}
	case core.EvListening:
		if l := at.listeners[ev.ID]; l != nil {
			l.listening(addrFrom(at.ch.Info().IP, ev.LocalPort))
		}
	case core.EvListenFailed:
		if l := at.listeners[ev.ID]; l != nil {
			delete(at.listeners, ev.ID)
			l.refused(at, listenError(ev))
		}
	case core.EvUnlistened:
		at.ch.Answered()
	}
	return false
}

// Down is called once when the sidecar has gone.
func (e *events) Down(code core.Code) {
	(*attachment)(e).fail(codeError(code))
}

// newConn enters a connection into the table. mu is held.
func (at *attachment) newConn(ev *core.Event) *Conn {
	c := &Conn{
		at: at, ch: at.ch, id: ev.Conn,
		local:  *addrFrom(ev.LocalIP, ev.LocalPort),
		remote: *addrFrom(ev.RemoteIP, ev.RemotePort),
		whole:  at.whole,
	}
	at.ch.Begin(&c.rd.waiter, core.ForData)
	at.ch.Begin(&c.wr.waiter, core.ForTokens)
	at.conns[c.id] = c
	return c
}
