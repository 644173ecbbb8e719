// Package conformance says what connections between two stacks have to do, over whatever link: everything that net.Conn
// and net.Listener promise (golang.org/x/net/nettest), and what nettest leaves out, since it writes at most 1024 bytes at a time and never
// looks at boundaries, half close, listeners or leaks.
package conformance

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/machnet/machnet/go/machnet"
	"go.uber.org/goleak"
	"golang.org/x/net/nettest"
)

// Pair is where connections are made: dialled by one stack, accepted by the other, which may be the same one.
type Pair struct {
	From, To *machnet.Stack
	// seed is for what is drawn by chance; it is printed.
	seed uint64
	// room is how many connections a channel has.
	room int
}

// checks are all there are.
var checks = []struct {
	name string
	run  func(t *testing.T, p Pair)
}{
	{"short reads of every size", shortReadsOfEverySize},
	{"an empty write sends nothing", anEmptyWriteSendsNothing},
	{"streams both ways arrive whole through any buffers", streamsBothWaysArriveWhole},
	{"Close delivers what was written", closeDeliversWhatWasWritten},
	{"half close leaves the other direction", halfCloseLeavesTheOtherDirection},
	{"half close in the middle of traffic", halfCloseInTheMiddleOfTraffic},
	{"CloseRead drops what the peer sends", closeReadDropsWhatThePeerSends},
	{"a writer waits for its reader", aWriterWaitsForItsReader},
	{"a connection that is not read blocks no other", oneConnectionThatIsNotReadBlocksNoOther},
	{"many connections of one stack echo at once", manyConnectionsOfOneStackEchoAtOnce},

	{"messages keep their boundaries", messagesKeepTheirBoundaries},
	{"messages without a byte", messagesWithoutAByte},
	{"SendBuffers makes one message", sendBuffersMakesOneMessage},
	{"a short buffer keeps the message", aShortBufferKeepsTheMessage},
	{"after a partial read comes the rest of the message", afterAPartialReadComesTheRestOfTheMessage},
	{"messages beyond the limit are refused whole", messagesBeyondTheLimitAreRefusedWhole},
	{"a Write of one byte beyond the limit is two messages", aWriteBeyondTheLimitIsTwoMessages},
	{"TrySend says when there is no room", trySendSaysWhenThereIsNoRoom},
	{"a message cut by a deadline is taken back", aMessageCutByADeadlineIsTakenBack},
	{"Recv obeys its context", recvObeysItsContext},
	{"messages and stream mix", messagesAndStreamMix},
	{"everything at once", everythingAtOnce},

	{"deadlines do not disturb each other", deadlinesDoNotDisturbEachOther},
	{"read deadlines that others move lose nothing", readDeadlinesThatOthersMove},
	{"write deadlines that others move lose nothing", writeDeadlinesThatOthersMove},
	{"a message is sent whole or not at all while others move its deadline", sendDeadlinesThatOthersMove},

	{"Close unblocks every call", closeUnblocksEveryCall},
	{"closing the stack unblocks every call", closingTheStackUnblocksEveryCall},
	{"a reset reaches the reader", aResetReachesTheReader},
	{"Close while reading and writing", closeWhileReadingAndWriting},
	{"Close while accepting and dialling", closeWhileAcceptingAndDialling},
	{"dials given up at any moment", dialsGivenUpAtAnyMoment},
}

// Run runs every check over pairs that attach makes, one for each check; when that is over, no goroutine and no descriptor may be left of it, but what
// was there before. nettest's own run three times, or as often as $MACHNET_CONN_ROUNDS says, and with -short nothing else does. $MACHNET_SEED draws the
// same random numbers again.
func Run(t *testing.T, attach func(t *testing.T) Pair) {
	rounds, err := positive("MACHNET_CONN_ROUNDS", 3)
	if err != nil {
		t.Fatal(err)
	}
	seed, err := positive("MACHNET_SEED", rand.Uint64()>>1)
	if err != nil {
		t.Fatal(err)
	}
	for round := range rounds {
		leaves(t, fmt.Sprintf("nettest, round %d", round+1), func(t *testing.T) {
			passesNettest(t, attached(t, attach))
		})
		if t.Failed() {
			return
		}
	}
	if testing.Short() {
		return
	}
	for _, check := range checks {
		leaves(t, check.name, func(t *testing.T) {
			t.Logf("MACHNET_SEED=%d", seed)
			p := attached(t, attach)
			p.seed = seed
			check.run(t, p)
		})
	}
}

// positive is what a variable of the environment says.
func positive(variable string, usual uint64) (uint64, error) {
	text := os.Getenv(variable)
	if text == "" {
		return usual, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("$%s is %q; it is a number from 1 on", variable, text)
	}
	return n, nil
}

// leaves runs a test and looks, once its cleanups have run, what goroutines and descriptors it has left.
func leaves(t *testing.T, name string, test func(t *testing.T)) {
	t.Helper()
	// Go's poller has two descriptors from its first use on, and keeps them.
	if r, w, err := os.Pipe(); err == nil {
		_, _ = r.Close(), w.Close()
	}
	known := goleak.IgnoreCurrent()
	before := descriptors(t)
	if !t.Run(name, test) {
		return // it may have been stopped anywhere
	}
	if err := goleak.Find(known); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	// The sidecar's half of a channel goes when its thread comes to it.
	deadline := time.Now().Add(10 * time.Second)
	for descriptors(t) > before {
		if time.Now().After(deadline) {
			t.Errorf("%s: %d descriptors are open, %d were before", name, descriptors(t), before)
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(open)
}

func passesNettest(t *testing.T, p Pair) {
	l := p.listen(t)
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		if c1, err = p.dialer().Dial("machnet", l.Addr().String()); err != nil {
			return nil, nil, nil, err
		}
		if c2, err = l.Accept(); err != nil {
			return nil, nil, nil, err
		}
		return c1, c2, func() { _ = c1.Close(); _ = c2.Close() }, nil
	})
}

// patience is how long a call may take that has to return.
const patience = 30 * time.Second

func (p *Pair) dialer() *machnet.Dialer { return &machnet.Dialer{Stack: p.From, Timeout: patience} }

func (p *Pair) listen(t *testing.T) *machnet.Listener {
	t.Helper()
	l, err := (&machnet.ListenConfig{Stack: p.To}).Listen(t.Context(), "machnet", ":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.(*machnet.Listener)
}

func (p *Pair) dial(t *testing.T, l *machnet.Listener) *machnet.Conn {
	t.Helper()
	c, err := p.dialer().Dial("machnet", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.(*machnet.Conn)
}

// connect gives both ends of a new connection.
func (p *Pair) connect(t *testing.T) (dialled, accepted *machnet.Conn) {
	t.Helper()
	l := p.listen(t)
	defer l.Close()
	dialled = p.dial(t, l)
	_ = l.SetDeadline(time.Now().Add(patience))
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return dialled, c.(*machnet.Conn)
}

// attached makes a pair, and has it looked at when everything is closed that the check has opened, and before the stacks are.
func attached(t *testing.T, attach func(t *testing.T) Pair) Pair {
	t.Helper()
	p := attach(t)
	if s := p.From.Stats(); s.Channels == 1 {
		p.room = s.Free
	} else {
		t.Fatalf("a stack that was just attached has %+v, want one channel", s)
	}
	t.Cleanup(func() { p.isEmpty(t) })
	return p
}

// isEmpty sees that the stacks hold nothing any more, and have all the room of their channels.
func (p *Pair) isEmpty(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for _, stack := range []*machnet.Stack{p.From, p.To} {
		for {
			s := stack.Stats()
			if s.Connections == 0 && s.Dials == 0 && s.Listeners == 0 && s.Free == s.Channels*p.room {
				break
			}
			if time.Now().After(deadline) {
				t.Errorf("when everything was closed a stack has %+v", s)
				return
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// random is the n-th stream of random numbers of this run.
func (p *Pair) random(n int) *rand.Rand { return rand.New(rand.NewPCG(p.seed, uint64(n))) }

// Size is a length from least to most whose logarithm is spread evenly.
func Size(r *rand.Rand, least, most int) int {
	n := most
	for n > least && r.IntN(3) > 0 {
		n /= 2
	}
	return max(least, n-r.IntN(n-n/2+1))
}

// Pattern is n bytes that differ from place to place.
func Pattern(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i) ^ byte(i>>8)*31 ^ byte(i>>16)*57
	}
	return p
}

// finish waits for something that has to come to an end.
func finish[T any](t *testing.T, what string, c <-chan T) (result T) {
	t.Helper()
	select {
	case result = <-c:
	case <-time.After(2 * patience):
		t.Fatalf("%s does not end", what)
	}
	return result
}
