package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/machnet/machnet/go/machnet"
)

// dials are dials of one port that go on side by side.
type dials struct {
	mu        sync.Mutex
	connected []net.Conn
	failed    []error
	all       sync.WaitGroup
}

// dialMany dials address from each of these stacks, count times in all. Each connection is used as soon as it is there.
func dialMany(stacks []*machnet.Stack, address string, count int, timeout time.Duration, use func(net.Conn) error) *dials {
	d := new(dials)
	for i := range count {
		dialer := machnet.Dialer{Stack: stacks[i%len(stacks)], Timeout: timeout}
		d.all.Go(func() {
			c, err := dialer.Dial("machnet", address)
			if err == nil {
				d.mu.Lock()
				d.connected = append(d.connected, c)
				d.mu.Unlock()
				err = use(c)
			}
			if err != nil {
				d.mu.Lock()
				d.failed = append(d.failed, err)
				d.mu.Unlock()
			}
		})
	}
	return d
}

// outcome is how many have connected, and failed, so far.
func (d *dials) outcome() (connected, failed int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.connected), len(d.failed)
}

// await waits until so many have connected.
func (d *dials) await(t *testing.T, connected int) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		n, failed := d.outcome()
		if n >= connected {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d connected in %v, %d failed", n, connected, patience, failed)
		}
	}
}

// waitAll waits until all are through, and checks how many connected. None may have failed.
func (d *dials) waitAll(t *testing.T, connected int) {
	t.Helper()
	d.all.Wait()
	if n, failed := d.outcome(); n != connected || failed != 0 {
		t.Fatalf("%d connected, and %d failed: %v; want %d and none", n, failed, d.failed, connected)
	}
}

// request sends a request, reads it back, and closes.
func request(c net.Conn) error {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * patience))
	if _, err := c.Write([]byte("request")); err != nil {
		return err
	}
	got := make([]byte, len("request"))
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if string(got) != "request" {
		return fmt.Errorf("%q came back", got)
	}
	return nil
}

// keep does nothing with a connection yet.
func keep(net.Conn) error { return nil }

// awaitTurnedAway waits until the sidecar has left so many more SYNs unanswered.
func (s *sidecar) awaitTurnedAway(t *testing.T, more int) {
	t.Helper()
	before := s.counters(t)["syn_backlog"]
	for deadline := time.Now().Add(patience); s.counters(t)["syn_backlog"] < before+more; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not %d SYNs found the backlog full in %v", more, patience)
		}
	}
}

func attachMany(t *testing.T, s *sidecar, count int) []*machnet.Stack {
	t.Helper()
	var stacks []*machnet.Stack
	for range count {
		stacks = append(stacks, s.attach(t))
	}
	return stacks
}

// A server that is slow to start serving: 200 dials at once, of which 128, the default, find a place.
func TestDialsWaitForASlowServerAndAreAllServed(t *testing.T) {
	p := newPair(t)
	l := listen(t, p.b.attach(t))
	d := dialMany(attachMany(t, p.a, 4), l.Addr().String(), 200, patience, request)
	d.await(t, 128)
	p.b.awaitTurnedAway(t, 5*72) // each of the others has asked some five times
	if connected, failed := d.outcome(); connected != 128 || failed != 0 {
		t.Fatalf("%d connected, %d failed, before anybody accepts; want 128 and none", connected, failed)
	}
	go echoEach(l)
	d.waitAll(t, 200)
}

func TestAsManyConnectAsTheBacklogHoldsAndTheRestTimeOut(t *testing.T) {
	p := newPair(t)
	stack := p.b.attach(t)
	lc := machnet.ListenConfig{Stack: stack, Backlog: 16}
	listener, err := lc.Listen(context.Background(), "machnet", ":0")
	if err != nil {
		t.Fatal(err)
	}
	l := listener.(*machnet.Listener)
	from := []*machnet.Stack{p.a.attach(t)}
	d := dialMany(from, l.Addr().String(), 60, time.Second, keep)
	d.all.Wait()
	if len(d.connected) != 16 || len(d.failed) != 44 {
		t.Fatalf("%d connected, %d failed: %v; want 16 and 44", len(d.connected), len(d.failed), d.failed)
	}
	for _, err := range d.failed {
		if !errors.Is(err, syscall.ETIMEDOUT) && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a dial that found no place: %v, want a timeout", err)
		}
	}
	// Half of them leave before they are accepted. They are handed out all the same, and each makes room for one more.
	for _, c := range d.connected[8:] {
		_ = c.Close()
	}
	more := dialMany(from, l.Addr().String(), 3, patience, request)
	p.b.awaitTurnedAway(t, 6)
	if connected, failed := more.outcome(); connected != 0 || failed != 0 {
		t.Fatalf("%d more connected, %d failed, though nobody accepted", connected, failed)
	}
	go echoEach(l)
	more.waitAll(t, 3)
	for _, c := range d.connected[:8] {
		if err := request(c); err != nil {
			t.Errorf("who connected while nobody accepted: %v", err)
		}
	}
	// What waits when the listener closes is reset.
	again, err := lc.Listen(context.Background(), "machnet", ":0")
	if err != nil {
		t.Fatal(err)
	}
	last := dialMany(from, again.Addr().String(), 1, patience, keep)
	last.waitAll(t, 1)
	_ = again.Close()
	_ = last.connected[0].SetDeadline(time.Now().Add(patience))
	if _, err := last.connected[0].Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a connection whose listener closed: %v, want ECONNRESET", err)
	}
}

// A server in C with a backlog of 16, whose process is stopped before it has accepted anybody.
func TestAStoppedServerInCServesAllWhoWaitedWhenItGoesOn(t *testing.T) {
	p := newPair(t)
	server := exec.Command("../../bin/machnet-echo-c", "server", "0.0.0.0", "0")
	server.Env = append(os.Environ(), "MACHNET_SOCKET="+p.b.socket)
	out := new(lockedBuffer)
	server.Stdout, server.Stderr = out, out
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	}()
	port := 0
	for deadline := time.Now().Add(patience); port == 0; time.Sleep(time.Millisecond) {
		if text, found := strings.CutPrefix(out.String(), "listening on port "); found && strings.HasSuffix(text, "\n") {
			port, _ = strconv.Atoi(strings.TrimSpace(text))
		} else if time.Now().After(deadline) {
			t.Fatalf("the server does not listen: %q", out.String())
		}
	}
	if err := server.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	d := dialMany([]*machnet.Stack{p.a.attach(t)}, net.JoinHostPort(p.b.ip, strconv.Itoa(port)), 60, 2*patience, request)
	d.await(t, 16)
	p.b.awaitTurnedAway(t, 5*44)
	if connected, failed := d.outcome(); connected != 16 || failed != 0 {
		t.Fatalf("%d connected, %d failed, while the server is stopped; want 16 and none", connected, failed)
	}
	if err := server.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	// It serves one after the other, so that each makes room for one more.
	d.waitAll(t, 60)
}
