//go:build linux && cgo && (amd64 || arm64)

package machnettest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/machnet/machnet/go/machnet"
	"github.com/machnet/machnet/go/machnettest"
)

// count is how many of something a test makes: what the environment variable says, or the number that fits CI.
func count(t *testing.T, variable string, usual int) int {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return usual
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("$%s = %q: a number above 0 is wanted", variable, text)
	}
	return n
}

// group is goroutines that are waited for.
type group struct{ sync.WaitGroup }

func (g *group) Go(what func()) {
	g.Add(1)
	go func() {
		defer g.Done()
		what()
	}()
}

// dialAll makes so many connections, 64 at a time.
func dialAll(t *testing.T, stack *machnet.Stack, address string, many int) []*machnet.Conn {
	t.Helper()
	conns := make([]*machnet.Conn, many)
	var next atomic.Int64
	var all group
	for range 64 {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(many) && !t.Failed(); i = next.Add(1) - 1 {
				c, err := (&machnet.Dialer{Stack: stack, Timeout: time.Minute}).Dial("machnet", address)
				if err != nil {
					t.Errorf("dial %d of %d: %v", i, many, err)
					return
				}
				conns[i] = c.(*machnet.Conn)
			}
		})
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
	t.Cleanup(func() { closeAll(conns) })
	return conns
}

func closeAll(conns []*machnet.Conn) {
	for _, c := range conns {
		_ = c.Close()
	}
}

// echoesAll has every connection echo some rounds, each in a goroutine of its own, all at once.
func echoesAll(t *testing.T, conns []*machnet.Conn, rounds int) {
	t.Helper()
	var all group
	for i, c := range conns {
		all.Go(func() {
			_ = c.SetDeadline(time.Now().Add(2 * time.Minute))
			sent, got := fmt.Appendf(nil, "%064d", i), make([]byte, 64)
			for round := range rounds {
				if _, err := c.Write(sent); err != nil {
					t.Errorf("connection %d, round %d: write: %v", i, round, err)
					return
				}
				if _, err := io.ReadFull(c, got); err != nil || string(got) != string(sent) {
					t.Errorf("connection %d, round %d: got %q, %v", i, round, got, err)
					return
				}
			}
			_ = c.SetDeadline(time.Time{})
		})
	}
	all.Wait()
}

func TestConnectionsAreBoundedByMemoryAlone(t *testing.T) {
	network := machnettest.NewNetwork(t, machnettest.Options{Seed: 1})
	near, far := network.Host(0).Stack(), network.Host(1).Stack()
	conns := dialAll(t, near, serve(t, far), count(t, "MACHNET_CONNECTIONS", 2000))
	echoesAll(t, conns, 3)
	within(t, "all are counted at both ends", func() bool {
		return near.Stats().Connections == len(conns) && far.Stats().Connections == len(conns)
	})
	for end, stats := range map[string]machnet.StackStats{"dialling": near.Stats(), "listening": far.Stats()} {
		if least := (len(conns) + 255) / 256; stats.Channels < least || stats.Channels > least+2 || stats.ChannelLimit {
			t.Errorf("the %s stack has %d channels for %d connections, want %d, or two more: %+v", end, stats.Channels, len(conns), least, stats)
		}
	}
}

func TestAThousandDialsAtOnceAllConnect(t *testing.T) {
	_, _, near, far := hosts(t, machnettest.Options{})
	address := serve(t, far)
	conns := make([]*machnet.Conn, many)
	for i, err := range atOnce(t, many, func(i int) error {
		c, err := (&machnet.Dialer{Stack: near, Timeout: 50 * time.Second}).Dial("machnet", address)
		if err == nil {
			conns[i] = c.(*machnet.Conn)
		}
		return err
	}) {
		if err != nil {
			t.Fatalf("dial %d of %d: %v", i, many, err)
		}
	}
	defer closeAll(conns)
	echoesAll(t, conns, 1)
}

// A channel of four connections makes many channels, and every one more than four is the first of the next.
func TestAListenerAcceptsOnEveryChannelInTheOrderInWhichConnectionsCame(t *testing.T) {
	_, _, near, far := hosts(t, machnettest.Options{Conns: 4})
	l, err := (&machnet.ListenConfig{Stack: far, Backlog: 2}).Listen(t.Context(), "machnet", ":"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for i := range 40 {
		dialled, err := (&machnet.Dialer{Stack: near, Timeout: 20 * time.Second}).Dial("machnet", l.Addr().String())
		if err != nil {
			t.Fatalf("dial %d: %v", i, err)
		}
		defer dialled.Close()
		accepted, err := l.Accept()
		if err != nil {
			t.Fatalf("accept %d: %v", i, err)
		}
		defer accepted.Close()
		if accepted.RemoteAddr().String() != dialled.LocalAddr().String() {
			t.Fatalf("accept %d gave %v, want %v", i, accepted.RemoteAddr(), dialled.LocalAddr())
		}
	}
	if stats := far.Stats(); stats.Channels < 10 || stats.Channels > 12 {
		t.Errorf("the listening stack has %d channels for 40 connections of 4 each, want 10, or two more", stats.Channels)
	}
}

// At channels where nothing else happens; else callers are refused though the listening stack believes that it has room.
func TestThePlaceOfAClosedConnectionIsAnothers(t *testing.T) {
	network := machnettest.NewNetwork(t, machnettest.Options{Conns: 8, Seed: 1})
	near, far := network.Host(0).Stack(), network.Host(1).Stack()
	address := serve(t, far)
	conns := dialAll(t, near, address, 40)
	for i := 0; i < len(conns); i += 8 {
		_ = conns[i].Close()
	}
	within(t, "both ends have closed them", func() bool { return near.Stats().Connections == 35 && far.Stats().Connections == 35 })
	dialAll(t, near, address, far.Stats().Free)
}

func TestDialsLeaveRoomForCallers(t *testing.T) {
	network := machnettest.NewNetwork(t, machnettest.Options{Conns: 8, Seed: 1})
	proxy, other := network.Host(0).Stack(), network.Host(1).Stack()
	serve(t, proxy)
	for i, c := range dialAll(t, proxy, serve(t, other), 40) {
		if i%8 == 0 {
			_ = c.Close()
		}
	}
	within(t, "there is room for callers", func() bool { return proxy.Stats().Free >= 4 })
	dialAll(t, proxy, "10.0.0.2:"+port, proxy.Stats().Free) // all that there was
	within(t, "there is room for callers again", func() bool { return proxy.Stats().Free >= 4 })
}

func TestEmptyChannelsGoBackAndNothingIsLost(t *testing.T) {
	_, server, near, far := hosts(t, machnettest.Options{Conns: 4})
	address := serve(t, far)
	steady := dialAll(t, near, address, 2)
	conns := dialAll(t, near, address, 60)
	echoesAll(t, conns, 1)
	over := make(chan struct{})
	var rounds, dials atomic.Int64
	var busy group
	defer busy.Wait()
	stop := sync.OnceFunc(func() { close(over) })
	defer stop()
	busy.Go(func() {
		for !closed(over) && !t.Failed() {
			echoesAll(t, steady, 1)
			rounds.Add(1)
		}
	})
	busy.Go(func() { // dials that come and go while channels do
		for !closed(over) {
			c, err := (&machnet.Dialer{Stack: near, Timeout: 30 * time.Second}).Dial("machnet", address)
			if err != nil {
				t.Errorf("dial %d while channels go back: %v", dials.Load(), err)
				return
			}
			echoesAll(t, []*machnet.Conn{c.(*machnet.Conn)}, 1)
			_ = c.Close()
			dials.Add(1)
		}
	})
	closeAll(conns)
	for end, stack := range map[string]*machnet.Stack{"dialling": near, "listening": far} {
		within(t, "the "+end+" stack has given its channels back", func() bool { return stack.Stats().Channels <= 3 })
		if stats := stack.Stats(); stats.Returned < 10 {
			t.Errorf("the %s stack: %+v, want that most channels went back", end, stats)
		}
	}
	before := rounds.Load()
	within(t, "those that stayed echo on", func() bool { return rounds.Load() > before+10 && dials.Load() > 10 })
	stop()
	busy.Wait()
	if n := server.Counter("channels_faulty"); n != 0 {
		t.Errorf("channels_faulty = %d", n)
	}
	echoesAll(t, dialAll(t, near, address, 30), 1) // and there are more again when they are wanted
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// What was written before Close is delivered though its channel is empty for long, and goes back only after that.
func TestAChannelStaysUntilWhatItsConnectionsWroteIsDelivered(t *testing.T) {
	_, _, near, far := hosts(t, machnettest.Options{Conns: 1})
	l, err := (&machnet.ListenConfig{Stack: far, Backlog: 1}).Listen(t.Context(), "machnet", ":"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dial := func() (net.Conn, net.Conn) {
		a, err := (&machnet.Dialer{Stack: near, Timeout: 20 * time.Second}).Dial("machnet", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		b, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = b.Close() })
		return a, b
	}
	first, _ := dial()
	defer first.Close()
	second, peer := dial()
	sent := make([]byte, 4<<20)
	for i := range sent {
		sent[i] = byte(i * 7)
	}
	written := 0
	_ = second.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
	for {
		n, err := second.Write(sent[written : written+1000])
		written += n
		if err != nil {
			break // the peer does not read, and no more fits
		}
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(6 * time.Second) // far longer than an empty channel stays, or a linger is
	if stats := near.Stats(); stats.Channels != 2 || stats.Connections != 1 {
		t.Errorf("%+v, want the channel on which something was not delivered yet", stats)
	}
	_ = peer.SetReadDeadline(time.Now().Add(20 * time.Second))
	got, err := io.ReadAll(peer)
	if err != nil || len(got) != written || string(got) != string(sent[:written]) {
		t.Errorf("%d bytes came, %v; want the %d that were written", len(got), err, written)
	}
	within(t, "the empty channel goes back", func() bool { return near.Stats().Channels == 1 })
}

func TestAHostThatDiesUnderBusyConnectionsAndListenersIsFollowed(t *testing.T) {
	network := machnettest.NewNetwork(t, machnettest.Options{Hosts: 2, Conns: 16, Seed: 1})
	near, far := network.Host(0).Stack(), network.Host(1).Stack()
	var addresses []string
	for range 10 {
		l, err := (&machnet.ListenConfig{Stack: far}).Listen(t.Context(), "machnet", ":0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go echo(l)
		addresses = append(addresses, l.Addr().String())
	}
	var echoed [100]atomic.Int64
	over := make(chan struct{})
	var busy group
	defer busy.Wait()
	defer close(over)
	for i := range echoed {
		busy.Go(func() { // a client as programs have them: it dials again when its connection ends
			for !closed(over) {
				c, err := (&machnet.Dialer{Stack: near, Timeout: time.Second}).Dial("machnet", addresses[i%len(addresses)])
				if err != nil {
					time.Sleep(time.Millisecond)
					continue
				}
				p := make([]byte, 64)
				for !closed(over) {
					_ = c.SetDeadline(time.Now().Add(5 * time.Second))
					if _, err := c.Write(p); err != nil {
						break
					}
					if _, err := io.ReadFull(c, p); err != nil {
						break
					}
					echoed[i].Add(1)
				}
				_ = c.Close()
			}
		})
	}
	all := func(what string) {
		var before [len(echoed)]int64
		for i := range echoed {
			before[i] = echoed[i].Load()
		}
		within(t, "all echo "+what, func() bool {
			for i := range echoed {
				if echoed[i].Load() < before[i]+5 {
					return false
				}
			}
			return true
		})
	}
	all("at first")
	for round := range 3 {
		network.Host(1).Restart()
		all(fmt.Sprintf("after restart %d of the listening host", round))
		network.Host(0).Restart()
		all(fmt.Sprintf("after restart %d of the dialling host", round))
	}
	for end, stack := range map[string]*machnet.Stack{"dialling": near, "listening": far} {
		if stats := stack.Stats(); stats.Restarts < 3 || stats.Channels < 7 {
			t.Errorf("the %s stack: %+v, want that it was attached again three times, and has seven channels for 100 connections of 16 each", end, stats)
		}
	}
}

func TestHalfOfTheConnectionsCloseWithUnreadDataAndTheRestGoOn(t *testing.T) {
	_, _, near, far := hosts(t, machnettest.Options{})
	conns := dialAll(t, near, serve(t, far), 200)
	closing, rest := conns[:100], conns[100:]
	var echoed [100]atomic.Int64
	over := make(chan struct{})
	var busy group
	for i, c := range rest {
		busy.Go(func() {
			p := make([]byte, 64)
			for !closed(over) {
				_ = c.SetDeadline(time.Now().Add(20 * time.Second))
				if _, err := c.Write(p); err != nil {
					t.Errorf("connection %d of the rest: write: %v", i, err)
					return
				}
				if _, err := io.ReadFull(c, p); err != nil {
					t.Errorf("connection %d of the rest: read: %v", i, err)
					return
				}
				echoed[i].Add(1)
			}
		})
	}
	for _, c := range closing {
		if _, err := c.Write(make([]byte, 20_000)); err != nil {
			t.Fatal(err)
		}
	}
	closeAll(closing) // their echoes have come, come now, or will; nobody reads them
	var before [len(echoed)]int64
	for i := range echoed {
		before[i] = echoed[i].Load()
	}
	within(t, "each of the rest echoes on", func() bool {
		for i := range echoed {
			if echoed[i].Load() < before[i]+100 {
				return t.Failed()
			}
		}
		return true
	})
	close(over)
	busy.Wait()
	within(t, "those that closed are gone at both ends", func() bool {
		return near.Stats().Connections == len(rest) && far.Stats().Connections == len(rest)
	})
}

// Who gives up a dial before the first answer, at it, or just after it, leaves nothing behind at either end.
func TestDialsCancelledAtAnyMomentLeaveNothingBehind(t *testing.T) {
	const delay = time.Millisecond // one way
	network := machnettest.NewNetwork(t, machnettest.Options{Delay: delay, Seed: 1})
	near, far := network.Host(0).Stack(), network.Host(1).Stack()
	l, err := (&machnet.ListenConfig{Stack: far, Backlog: 64}).Listen(t.Context(), "machnet", ":"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()                                                                 // nobody accepts
	first, err := (&machnet.Dialer{Stack: near}).Dial("machnet", l.Addr().String()) // the hosts know each other from now on
	if err != nil {
		t.Fatal(err)
	}
	_ = first.Close()
	dials := count(t, "MACHNET_DIALS", 2000)
	var made, given atomic.Int64
	var next atomic.Int64
	var all group
	for range 50 {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(dials); i = next.Add(1) - 1 {
				after := time.Duration(i%100) * 4 * delay / 100 // from 0 to 2 round trips
				ctx, cancel := context.WithTimeout(t.Context(), after)
				c, err := (&machnet.Dialer{Stack: near}).DialContext(ctx, "machnet", l.Addr().String())
				cancel()
				switch {
				case err == nil:
					made.Add(1)
					_ = c.Close()
				case errors.Is(err, context.DeadlineExceeded):
					given.Add(1)
				default:
					t.Errorf("dial %d, given up after %v: %v", i, after, err)
				}
			}
		})
	}
	all.Wait()
	t.Logf("%d dials connected, %d were given up", made.Load(), given.Load())
	if given.Load() == 0 {
		t.Error("no dial was given up")
	}
	within(t, "the dialling stack has nothing open", func() bool {
		stats := near.Stats()
		return stats.Connections == 0 && stats.Dials == 0
	})
	// What connected before its caller gave it up waits for Accept, and is found there. There is nothing else.
	within(t, "both hosts have no connection", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if c, err := l.(*machnet.Listener).AcceptMachnet(ctx); err == nil {
			_ = c.SetDeadline(time.Now().Add(20 * time.Second))
			if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
				t.Errorf("a connection that its caller left: %d bytes, %v", n, err)
			}
			_ = c.Close()
		}
		return network.Host(0).Counter("flows") == 0 && network.Host(1).Counter("flows") == 0
	})
	if stats := far.Stats(); stats.Connections != 0 {
		t.Errorf("the listening stack: %+v, want no connection", stats)
	}
}

// goroutines are those of the client, with their stacks.
func goroutines() (n int, stacks string) {
	text := make([]byte, 1<<24)
	for _, g := range strings.Split(string(text[:runtime.Stack(text, true)]), "\n\n") {
		if strings.Contains(g, "machnet/go/machnet.") || strings.Contains(g, "machnet/go/internal/core.") {
			n++
			stacks += "\n\n" + g
		}
	}
	return n, stacks
}

func TestAStackThatIsClosedLeavesNoGoroutine(t *testing.T) {
	before, _ := goroutines()
	network := machnettest.NewNetwork(t, machnettest.Options{Conns: 4, Seed: 1})
	near, err := network.Host(0).Attach(t.Context(), machnet.Config{})
	if err != nil {
		t.Fatal(err)
	}
	far, err := network.Host(1).Attach(t.Context(), machnet.Config{})
	if err != nil {
		t.Fatal(err)
	}
	conns := dialAll(t, near, serve(t, far), 40)
	echoesAll(t, conns, 1)
	if now, _ := goroutines(); now < before+40 {
		t.Fatalf("%d goroutines, %d before: the test counts the wrong ones", now, before)
	}
	_, _ = near.Close(), far.Close()
	if err := near.Err(); !closed(near.Done()) || err != net.ErrClosed {
		t.Errorf("a closed stack: Err() = %v", err)
	}
	within(t, "they have ended", func() bool { now, _ := goroutines(); return now <= before })
	if stats := near.Stats(); stats.Channels != 0 || stats.Connections != 0 {
		t.Errorf("a closed stack: %+v", stats)
	}
	if _, err := (&machnet.Dialer{Stack: near}).Dial("machnet", "10.0.0.2:1"); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Dial on a closed stack: %v", err)
	}
}

func TestAPortOfAStackIsTakenThoughItsListenersMayShareItWithinOneStack(t *testing.T) {
	_, _, _, far := hosts(t, machnettest.Options{})
	listen := func(reuse bool) (net.Listener, error) {
		return (&machnet.ListenConfig{Stack: far, ReusePort: reuse}).Listen(t.Context(), "machnet", ":"+port)
	}
	l, err := listen(false)
	if err != nil {
		t.Fatal(err)
	}
	for _, reuse := range []bool{false, true} {
		if _, err := listen(reuse); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("a second listener, ReusePort %v: %v, want EADDRINUSE", reuse, err)
		}
	}
	_ = l.Close()
	for range 2 {
		l, err := listen(true)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	if _, err := listen(false); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("one that does not share: %v, want EADDRINUSE", err)
	}
}
