package machnet

import (
	"context"
	"fmt"
	"time"

	"github.com/machnet/machnet/go/internal/core"
)

// ConnStats is what is known of a connection. A packet carries one unit of a message, of some 1400 bytes by default; units are counted where
// the field says so.
type ConnStats struct {
	// At is when the sidecar said all this; the zero time if it never was asked in time.
	At time.Time
	// State is how far the connection was then.
	State ConnState
	// Err is why the connection has ended: ECONNRESET when the peer reset it, ETIMEDOUT when it went silent, ENETDOWN when the sidecar has gone,
	// net.ErrClosed when this program closed it and nothing else was wrong. nil while it lives, and after both ends have finished.
	Err error

	// RoundTrip is the smoothed round-trip time between the two sidecars, 0 before the first sample; RoundTripDeviation its mean deviation.
	RoundTrip, RoundTripDeviation time.Duration
	// BytesSent and BytesReceived count the payload, once; what was written and still waits here is not in it.
	BytesSent, BytesReceived uint64
	// UnitsSent and UnitsReceived count units, once.
	UnitsSent, UnitsReceived uint64
	// Retransmitted is how many units were sent again, for whatever reason; Timeouts how often an acknowledgement did not come at all.
	Retransmitted, Timeouts uint64

	// Waits is why what is queued does not go at this moment.
	Waits WaitReason
	// Window is how many units congestion control lets be under way; InFlight how many are; Queued how many have not been acknowledged,
	// those included.
	Window, InFlight, Queued int
	// Credit is how many units the peer has room for beyond those sent; Granted how many the peer was promised room for here.
	Credit, Granted int

	// Engine is the number of the sidecar's engine that serves the connection, from 0.
	Engine int
	// UDP are the ports that this end's packets carry, PeerUDP those of the peer's, as last seen: source and destination. They choose the
	// queues of the NICs, and have nothing to do with the ports of an Addr. All are 0 for a peer at the same sidecar.
	UDP, PeerUDP struct{ Source, Destination uint16 }
	// Pairing is whether this end's UDP ports lead to the queue that the peer wants.
	Pairing Pairing
}

// ConnState is how far a connection is.
type ConnState uint8

// The states of a connection.
const (
	StateOpening  ConnState = ConnState(core.StageOpening) // the handshake is under way
	StateOpen     ConnState = ConnState(core.StageOpen)
	StateFinished ConnState = ConnState(core.StageClosing) // this end has finished sending
	StateOver     ConnState = ConnState(core.StageOver)
)

// String is the state in a word.
func (s ConnState) String() string { return word(int(s), "opening", "open", "finished", "over") }

// WaitReason is why a connection does not send.
type WaitReason uint8

// The reasons to wait.
const (
	WaitsNot       WaitReason = WaitReason(core.WaitsNot)     // all that was written is sent
	WaitsForAcks   WaitReason = WaitReason(core.WaitsWindow)  // as much is under way as the network seems to take
	WaitsForCredit WaitReason = WaitReason(core.WaitsCredit)  // the peer promises no room: its program does not read, or its others have it
	WaitsForPace   WaitReason = WaitReason(core.WaitsPacing)  // for its time: packets go one after the other
	WaitsForRoute  WaitReason = WaitReason(core.WaitsNextHop) // for the next hop's address
	WaitsForTurn   WaitReason = WaitReason(core.WaitsTurn)    // for the NIC, or for other connections, which go first
)

// String is the reason in words.
func (w WaitReason) String() string {
	return word(int(w), "not", "for acknowledgements", "for the peer", "for its pace", "for a route", "for its turn")
}

// Pairing is what RSS-- knows of the UDP ports of a connection: docs/rss.md.
type Pairing uint8

// What is known of the ports.
const (
	PairingNone       Pairing = Pairing(core.PairingNone)       // the peer is at the same sidecar, and there are none
	PairingVerified   Pairing = Pairing(core.PairingVerified)   // they lead where the peer wants packets
	PairingSearching  Pairing = Pairing(core.PairingSearching)  // they do not, or nobody knows yet; others are tried
	PairingUnverified Pairing = Pairing(core.PairingUnverified) // likewise, and nothing is done about it just now
	PairingGivenUp    Pairing = Pairing(core.PairingGivenUp)    // none were found that do; the peer hands packets over between its engines
)

// String is the pairing in a word.
func (p Pairing) String() string {
	return word(int(p), "none", "verified", "searching", "unverified", "given up")
}

func word(i int, words ...string) string {
	if i < len(words) {
		return words[i]
	}
	return fmt.Sprintf("unknown (%d)", i)
}

// String is the most important of it in one line, for logs.
func (s ConnStats) String() string {
	text := fmt.Sprintf("%v, round trip %v (deviation %v), sent %d bytes in %d units, %d of them again, received %d bytes, waits %v",
		s.State, s.RoundTrip, s.RoundTripDeviation, s.BytesSent, s.UnitsSent, s.Retransmitted, s.BytesReceived, s.Waits)
	if s.Err != nil {
		text += ", ended: " + s.Err.Error()
	}
	return text
}

// Stats asks the sidecar what it knows of the connection, which takes it some microseconds. It is for looking now and then, not for every
// message. Of a connection that is over it gives what was known last and, in Err, the cause: also after Close, and without a sidecar; what
// was known last is then what the last call of Stats saw. The error is that of the context alone.
func (c *Conn) Stats(ctx context.Context) (ConnStats, error) {
	answer, err := c.ask(ctx)
	if err != nil {
		return ConnStats{}, opError("stats", &c.local, &c.remote, err)
	}
	if answer != nil {
		c.known.Store(answer)
	} else if answer = c.known.Load(); answer == nil {
		answer = new(ConnStats)
	}
	s := *answer
	switch over := c.over.Load(); {
	case over != nil:
		s.Err = *over
	case s.Err != nil:
	default:
		s.Err = c.alive()
	}
	if s.Err != nil {
		s.State, s.Waits = StateOver, WaitsNot
	}
	return s, nil
}

// question is a question about a connection that was asked of the sidecar.
type question struct {
	waiter core.Waiter
	id     uint32
	answer *ConnStats // under the attachment's mu, like done
	done   bool
}

// ask is the sidecar's answer; nil where there will be none.
func (c *Conn) ask(ctx context.Context) (*ConnStats, error) {
	if err := contextError(ctx); err != nil {
		return nil, err
	}
	at, q := c.at, new(question)
	c.ch.Begin(&q.waiter, core.ForEvent)
	switch code := c.ch.AskStats(ctx, c.id, func(id uint32) {
		at.mu.Lock()
		defer at.mu.Unlock()
		q.id = id
		if at.questions == nil {
			at.questions = make(map[uint32]*question)
		}
		at.questions[id] = q
	}); code {
	case core.OK:
	case core.Canceled:
		return nil, contextError(ctx)
	default:
		return nil, nil
	}
	if ctx.Done() != nil {
		defer context.AfterFunc(ctx, q.waiter.Wake)()
	}
	for {
		at.mu.Lock()
		answer, done := q.answer, q.done || at.err != nil
		at.mu.Unlock()
		if done {
			return answer, nil
		}
		if err := contextError(ctx); err != nil {
			c.ch.GiveUpAnswer(func() bool { return at.giveUp(q) })
			return nil, err
		}
		q.waiter.Wait()
	}
}

// giveUp forgets a question, and reports whether its answer is still to come.
func (at *attachment) giveUp(q *question) bool {
	at.mu.Lock()
	defer at.mu.Unlock()
	delete(at.questions, q.id)
	return !q.done
}

// onStats takes an answer. mu is held.
func (at *attachment) onStats(ev *core.Event) {
	q := at.questions[ev.ID]
	if q == nil { // given up
		at.ch.Answered()
		return
	}
	delete(at.questions, ev.ID)
	if ev.Code == core.OK {
		q.answer = connStats(ev.Stats)
	}
	q.done = true
	q.waiter.Wake()
}

func connStats(s *core.Stats) *ConnStats {
	out := &ConnStats{
		At: time.Now(), State: ConnState(s.Stage),
		RoundTrip: s.SRTT, RoundTripDeviation: s.RTTVar,
		BytesSent: s.BytesSent, BytesReceived: s.BytesReceived, UnitsSent: s.UnitsSent, UnitsReceived: s.UnitsReceived,
		Retransmitted: s.Retransmitted, Timeouts: uint64(s.Timeouts),
		Waits: WaitReason(s.Waits), Window: int(s.Window), InFlight: int(s.InFlight), Queued: int(s.Queued),
		Credit: int(s.Credit), Granted: int(s.Granted), Engine: int(s.Engine), Pairing: Pairing(s.Pairing),
	}
	out.UDP.Source, out.UDP.Destination = s.UDPSource, s.UDPDestination
	out.PeerUDP.Source, out.PeerUDP.Destination = s.PeerUDPSource, s.PeerUDPDestination
	if s.Reason != core.OK {
		out.Err = codeError(s.Reason)
	}
	return out
}
