package machnet

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/machnet/machnet/go/internal/core"
)

// attachment is one channel of a stack. Connections and dials belong to it and end with it; a listener of the stack has a place at each. Of
// the locks, a channel's come before the attachment's, and a Listener's after that; the stack's is never held together with
// the attachment's.
type attachment struct {
	ch       *core.Channel
	whole    int // bytes of a message that a connection sends at once, if others leave room
	capacity int // connections that it can have
	since    time.Time
	accepted func()        // called for every connection that a listener gets, with mu held
	changed  func()        // called when there is something to do for whoever keeps the stack, with mu held
	down     chan struct{} // closed when err is set
	once     sync.Once     // of detach

	mu        sync.Mutex
	conns     map[uint64]*Conn
	places    map[uint32]*place // of listeners, by their numbers in the sidecar
	dials     map[uint32]*dialing
	questions map[uint32]*question // about connections, by their numbers in the sidecar; nil before the first
	begun     int                  // dials that have taken a place and no number yet
	fullUntil time.Time            // the sidecar said that it has no room: connections that were closed here are not over there yet
	leaving   bool                 // it is to be given back, and nothing new begins on it
	ending    map[uint32]struct{}  // the numbers of its listeners then, of which the sidecar has not said that they have ended
	empty     int                  // looks in a row that found it without connections; of whoever keeps the stack
	err       error                // why it is of no use any more
}

// attach makes an attachment of a stack, which tells it what to call.
func attach(ctx context.Context, name string, o core.Options, yield time.Duration, accepted, changed func()) (*attachment, error) {
	at := &attachment{
		since:    time.Now(),
		accepted: accepted,
		changed:  changed,
		down:     make(chan struct{}),
		conns:    make(map[uint64]*Conn),
		places:   make(map[uint32]*place),
		dials:    make(map[uint32]*dialing),
	}
	at.mu.Lock() // until there is a channel, since that calls back from its first moment on
	defer at.mu.Unlock()
	ch, text, err := core.Attach(ctx, o, yield, (*events)(at))
	if err != nil {
		return nil, attachError(ctx, name, text, err)
	}
	at.ch = ch
	info := ch.Info()
	at.whole = min(writeChunk, max(1, int(info.UnitsPerConn))*int(info.UnitSize))
	at.capacity = int(info.Conns)
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

// used is how many of its connections are taken. mu is held.
func (at *attachment) used() int { return len(at.conns) + len(at.dials) + at.begun }

// room is how many more connections it can have.
func (at *attachment) room() int {
	at.mu.Lock()
	defer at.mu.Unlock()
	if at.err != nil || at.leaving {
		return 0
	}
	return max(0, at.capacity-at.used())
}

// take takes a place for a dial, if there is one.
func (at *attachment) take(now time.Time) bool {
	at.mu.Lock()
	defer at.mu.Unlock()
	if at.err != nil || at.leaving || at.used() >= at.capacity || now.Before(at.fullUntil) {
		return false
	}
	at.begun++
	return true
}

// fullFor is how long dials pass by a channel whose sidecar had no room.
const fullFor = 20 * time.Millisecond

// isFull notes that the sidecar had no room, though by what is known here there was some.
func (at *attachment) isFull(now time.Time) {
	at.mu.Lock()
	defer at.mu.Unlock()
	at.fullUntil = now.Add(fullFor)
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
	for _, p := range at.places {
		p.l.lose(p, err)
	}
	for _, d := range at.dials {
		d.fail(err)
	}
	for _, q := range at.questions {
		q.waiter.Wake()
	}
	clear(at.places)
	at.changed()
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

// unlisten asks the sidecar to end a listener's place, if it has it.
func (at *attachment) unlisten(p *place) {
	at.mu.Lock()
	known := at.places[p.id] == p
	if known {
		delete(at.places, p.id)
	}
	_, asked := at.ending[p.id] // and it answers once
	at.mu.Unlock()
	if known && !asked {
		at.ch.Unlisten(p.id)
	}
}

// leave begins to give back an attachment without connections: nothing new begins on it, and its listeners end there. What comes until
// the sidecar has said that they have ended, and was promised to its callers, they still get. False: it has a connection.
func (at *attachment) leave() bool {
	at.mu.Lock()
	if at.err != nil || at.leaving || at.used() > 0 {
		at.mu.Unlock()
		return false
	}
	at.leaving = true
	at.ending = make(map[uint32]struct{}, len(at.places))
	for id := range at.places {
		at.ending[id] = struct{}{}
	}
	ids := make([]uint32, 0, len(at.ending))
	for id := range at.ending {
		ids = append(ids, id)
	}
	at.mu.Unlock()
	for _, id := range ids {
		at.ch.Unlisten(id)
	}
	return true
}

// left reports whether nothing will come on an attachment that leaves, and nothing is there that was not delivered.
func (at *attachment) left() bool {
	at.mu.Lock()
	waits := !at.leaving || len(at.ending) > 0
	at.mu.Unlock()
	if waits {
		return false
	}
	// The last connections may lie in the ring behind the sidecar's word that there will be no more.
	settled := at.ch.Settled()
	at.mu.Lock()
	places := make([]*place, 0, len(at.places))
	for _, p := range at.places {
		places = append(places, p)
	}
	clear(at.places)
	used := at.used()
	at.mu.Unlock()
	for _, p := range places {
		p.l.drop(p)
	}
	return settled && used == 0
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
			d.full = ev.Code == core.FullConns
			d.fail(eventError(ev))
		} else {
			at.ch.Answered()
		}
	case core.EvAccepted:
		p := at.places[ev.ID]
		if p == nil {
			return true
		}
		if c := at.newConn(ev); !p.l.offer(c) {
			delete(at.conns, c.id)
			return true
		}
		at.accepted()
	case core.EvListening:
		if p := at.places[ev.ID]; p != nil {
			p.l.listening(addrFrom(at.ch.Info().IP, ev.LocalPort))
		}
	case core.EvListenFailed:
		if p := at.places[ev.ID]; p != nil {
			delete(at.places, ev.ID)
			p.l.refused(p, listenError(ev))
		}
	case core.EvUnlistened:
		at.ch.Answered()
		if _, ok := at.ending[ev.ID]; ok {
			delete(at.ending, ev.ID)
			at.changed()
		}
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
