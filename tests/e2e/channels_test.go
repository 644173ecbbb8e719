package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/machnet/machnet/go/control"
	"github.com/machnet/machnet/go/machnet"
)

// connections is how many a test of many opens: what $MACHNET_CONNECTIONS says, or as many as fit CI.
func connections(t *testing.T) int {
	t.Helper()
	text := os.Getenv("MACHNET_CONNECTIONS")
	if text == "" {
		return 2000
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("$MACHNET_CONNECTIONS = %q: a number above 0 is wanted", text)
	}
	return n
}

// dialEach makes so many connections, 64 at a time.
func dialEach(t *testing.T, s *machnet.Stack, to net.Addr, count int) []net.Conn {
	t.Helper()
	conns := make([]net.Conn, count)
	d := machnet.Dialer{Stack: s, Timeout: time.Minute}
	var next atomic.Int64
	var all sync.WaitGroup
	for range 64 {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(count) && !t.Failed(); i = next.Add(1) - 1 {
				c, err := d.Dial("machnet", to.String())
				if err != nil {
					t.Errorf("dial %d of %d: %v", i, count, err)
					return
				}
				conns[i] = c
			}
		})
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
	t.Cleanup(func() {
		for _, c := range conns {
			_ = c.Close()
		}
	})
	return conns
}

// echoOne sends a message of 64 bytes and wants it back.
func echoOne(c net.Conn, number int) error {
	_ = c.SetDeadline(time.Now().Add(2 * time.Minute))
	sent, got := fmt.Appendf(nil, "%064d", number), make([]byte, 64)
	if _, err := c.Write(sent); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if _, err := io.ReadFull(c, got); err != nil {
		return fmt.Errorf("read: %w", err)
	}
	if string(got) != string(sent) {
		return fmt.Errorf("%q came back for %q", got, sent)
	}
	return nil
}

// exchangeEach has all connections echo at once, a goroutine each.
func exchangeEach(t *testing.T, conns []net.Conn, rounds int) {
	t.Helper()
	var all sync.WaitGroup
	for i, c := range conns {
		all.Go(func() {
			for round := range rounds {
				if err := echoOne(c, i); err != nil {
					t.Errorf("connection %d, round %d: %v", i, round, err)
					return
				}
			}
		})
	}
	all.Wait()
}

func TestAProcessHasAsManyConnectionsAsItWants(t *testing.T) {
	leavesNoGoroutine(t)
	p := newPair(t)
	near, far := p.a.attach(t), p.b.attach(t)
	l := listen(t, far)
	go echoEach(l)
	conns := dialEach(t, near, l.Addr(), connections(t))
	exchangeEach(t, conns, 3)
	for end, stats := range map[string]machnet.StackStats{"dialling": near.Stats(), "listening": far.Stats()} {
		if least := (len(conns) + 255) / 256; stats.Connections != len(conns) || stats.Channels < least || stats.Channels > least+2 {
			t.Errorf("the %s stack has %d connections in %d channels, want %d in %d, or two more", end, stats.Connections, stats.Channels, len(conns), least)
		}
	}
	for _, s := range []*sidecar{p.a, p.b} { // one process is one application, however many channels it has
		channels, err := control.Channels(t.Context(), s.socket)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range channels {
			if c.Application != channels[0].Application {
				t.Errorf("channel %d is of application %d, and channel %d of %d", c.Channel, c.Application, channels[0].Channel, channels[0].Application)
			}
		}
	}
}

// collected is a log.
type collected struct {
	mu    sync.Mutex
	lines []string
}

func (c *collected) Enabled(context.Context, slog.Level) bool { return true }
func (c *collected) WithAttrs([]slog.Attr) slog.Handler       { return c }
func (c *collected) WithGroup(string) slog.Handler            { return c }
func (c *collected) Handle(_ context.Context, r slog.Record) error {
	line := r.Level.String() + " " + r.Message
	r.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lines = append(c.lines, line)
	return nil
}

func (c *collected) has(part string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, line := range c.lines {
		if strings.Contains(line, part) {
			return nil
		}
	}
	return fmt.Errorf("no %q in the log:\n%s", part, strings.Join(c.lines, "\n"))
}

// What ends one channel of several ends its connections, and nobody else's.
func TestAChannelThatIsDrainedTakesItsConnectionsAlone(t *testing.T) {
	p := newPair(t, "--flows", "8")
	log := new(collected)
	far, err := machnet.Attach(t.Context(), machnet.Config{Socket: p.b.socket, Logger: slog.New(log)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = far.Close() })
	l := listen(t, far)
	go echoEach(l)
	near := p.a.attach(t)
	conns := dialEach(t, near, l.Addr(), 32)
	exchangeEach(t, conns, 1)
	channels, err := control.Channels(t.Context(), p.b.socket)
	if err != nil {
		t.Fatal(err)
	}
	if len(channels) < 4 || len(channels) > 6 {
		t.Fatalf("%d channels for 32 connections of 8 each: %+v", len(channels), channels)
	}
	drained := channels[1]
	if err := control.Drain(t.Context(), p.b.socket, drained.Channel); err != nil {
		t.Fatal(err)
	}
	until(t, "the log tells of it", func() error { return log.has("WARN machnet: the sidecar has ended some of the channels") })
	ended := 0
	for i, c := range conns {
		err := echoOne(c, i)
		var timeout net.Error
		switch {
		case err == nil:
		case errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET):
			ended++
		case errors.As(err, &timeout) && timeout.Timeout():
			t.Errorf("connection %d hangs: %v", i, err)
		default:
			t.Errorf("connection %d: %v", i, err)
		}
	}
	if ended != int(drained.Connections) {
		t.Errorf("%d connections have ended with a channel that had %d", ended, drained.Connections)
	}
	select {
	case <-far.Done():
		t.Errorf("the stack has ended: %v", far.Err())
	default:
	}
	exchangeEach(t, dialEach(t, near, l.Addr(), 16), 1) // the listener listens on, and there is room
	if stats := far.Stats(); stats.Restarts != 0 {
		t.Errorf("%+v: the stack has not lost its sidecar", stats)
	}
	for _, want := range []string{"INFO machnet: attached sidecar=" + p.b.socket, "INFO machnet: attached another channel"} {
		if err := log.has(want); err != nil {
			t.Error(err)
		}
	}
}

func TestASidecarIsKilledUnderAHundredBusyConnectionsAndTenListeners(t *testing.T) {
	leavesNoGoroutine(t)
	p := newPair(t, "--flows", "16", "--dead-peer", "300")
	near, far := p.a.attach(t), p.b.attach(t)
	var addresses []net.Addr
	for range 10 {
		l := listen(t, far)
		go echoEach(l)
		addresses = append(addresses, l.Addr())
	}
	var echoed [100]atomic.Int64
	over, stop := context.WithCancel(t.Context())
	var busy sync.WaitGroup
	for i := range echoed {
		busy.Go(func() { // a client as programs have them: it dials again when its connection ends
			for over.Err() == nil {
				c, err := (&machnet.Dialer{Stack: near, Timeout: time.Second}).Dial("machnet", addresses[i%len(addresses)].String())
				if err != nil {
					time.Sleep(time.Millisecond)
					continue
				}
				for over.Err() == nil && echoOne(c, i) == nil {
					echoed[i].Add(1)
				}
				_ = c.Close()
			}
		})
	}
	defer busy.Wait()
	defer stop()
	all := func(what string) {
		t.Helper()
		var before [len(echoed)]int64
		for i := range echoed {
			before[i] = echoed[i].Load()
		}
		until(t, "all echo "+what, func() error {
			for i := range echoed {
				if n := echoed[i].Load() - before[i]; n < 5 {
					return fmt.Errorf("connection %d: %d echoes", i, n)
				}
			}
			return nil
		})
	}
	all("at first")
	ends := []*sidecar{p.a, p.b}
	for round, end := range []int{1, 0, 1} {
		ends[end].kill()
		ends[end] = ends[end].restart(t)
		all(fmt.Sprintf("after kill %d, of sidecar %d", round, end))
	}
	if stats := far.Stats(); stats.Restarts != 2 || stats.Channels < 7 || stats.Listeners != 10 {
		t.Errorf("the listening stack: %+v; want two restarts, ten listeners, seven channels for 100 connections of 16 each", stats)
	}
}
