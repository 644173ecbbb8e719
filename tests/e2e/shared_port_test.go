package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/machnet/machnet/go/machnet"
)

// twoEngines are the flags of a pair with two engines each, on the link of this run.
func twoEngines(more ...string) []string {
	if *link == "memif" {
		more = append(more, "--memif-peer-queues", "2")
	}
	return append(more, "--engines", "2")
}

// onEngine gives a stack of one engine, which closes with the test.
func (s *sidecar) onEngine(t *testing.T, number int) *machnet.Stack {
	t.Helper()
	stack, err := machnet.Attach(t.Context(), machnet.Config{Socket: s.socket, Engine: machnet.OnEngine(number)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stack.Close() })
	return stack
}

// listenShared listens on each engine of a sidecar, on one port, and tells every caller which engine serves it.
func listenShared(t *testing.T, s *sidecar, engines int) []*machnet.Listener {
	t.Helper()
	var all []*machnet.Listener
	for engine := range engines {
		address := ":0"
		if engine > 0 {
			address = all[0].Addr().String()
		}
		lc := machnet.ListenConfig{Stack: s.onEngine(t, engine), ReusePort: true}
		l, err := lc.Listen(t.Context(), "machnet", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		all = append(all, l.(*machnet.Listener))
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = c.Write([]byte{byte(engine)})
				_ = c.Close()
			}
		}()
	}
	return all
}

// servedBy dials and says which engine serves the connection.
func servedBy(from *machnet.Stack, to *machnet.Listener) (int, error) {
	d := machnet.Dialer{Stack: from, Timeout: 10 * time.Second}
	c, err := d.Dial("machnet", to.Addr().String())
	if err != nil {
		return 0, err
	}
	defer c.Close()
	engine := make([]byte, 1)
	_, err = io.ReadFull(c, engine)
	return int(engine[0]), err
}

func TestListenersOfAllEnginesShareAPort(t *testing.T) {
	p := newPair(t, twoEngines()...)
	listeners := listenShared(t, p.b, 2)
	from := []*machnet.Stack{p.a.onEngine(t, 0), p.a.onEngine(t, 1)}
	served := make([]int, 2)
	for n := range 200 {
		engine, err := servedBy(from[n%2], listeners[0])
		if err != nil {
			t.Fatalf("connection %d: %v", n, err)
		}
		served[engine]++
	}
	// Each of 200 tossed a coin: fewer than 50 for one of the two happens once in 10^13 times.
	if served[0] < 50 || served[1] < 50 {
		t.Errorf("served by engine: %v", served)
	}

	alone := machnet.ListenConfig{Stack: p.b.attach(t)}
	_, err := alone.Listen(t.Context(), "machnet", listeners[0].Addr().String())
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "ReusePort") {
		t.Errorf("a listener that does not share: %v, want EADDRINUSE and what to do", err)
	}
	single := listen(t, p.b.attach(t))
	sharing := machnet.ListenConfig{Stack: p.b.attach(t), ReusePort: true}
	if _, err := sharing.Listen(t.Context(), "machnet", single.Addr().String()); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a share of a port whose listener does not share: %v, want EADDRINUSE", err)
	}

	_ = listeners[0].Close()
	for n := range 20 {
		if engine, err := servedBy(from[n%2], listeners[1]); err != nil || engine != 1 {
			t.Fatalf("with the first listener closed: engine %d, %v", engine, err)
		}
	}
}

func TestListenersThatShareAPortFollowTheirSidecarsRestart(t *testing.T) {
	p := newPair(t, twoEngines("--dead-peer", "300")...)
	listeners := listenShared(t, p.b, 2)
	from := p.a.attach(t)
	if _, err := servedBy(from, listeners[0]); err != nil {
		t.Fatal(err)
	}
	p.b.kill()
	p.b = p.b.restart(t)
	served := make(map[int]bool)
	until(t, "both serve again", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		d := machnet.Dialer{Stack: from}
		c, err := d.DialContext(ctx, "machnet", listeners[0].Addr().String())
		if err != nil {
			return err
		}
		defer c.Close()
		engine := make([]byte, 1)
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := io.ReadFull(c, engine); err != nil {
			return err
		}
		served[int(engine[0])] = true
		if len(served) < 2 {
			return fmt.Errorf("served by %v", served)
		}
		return nil
	})
}
