package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/machnet/machnet/go/machnet"
)

// together does something so many times at the same moment, and gives the errors by their words.
func together(t *testing.T, count int, what func(i int) error) map[string]int {
	t.Helper()
	errs := map[string]int{}
	var mu sync.Mutex
	var all sync.WaitGroup
	start := make(chan struct{})
	for i := range count {
		all.Add(1)
		go func() {
			defer all.Done()
			<-start
			err := what(i)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs[err.Error()]++
			}
		}()
	}
	close(start)
	over := make(chan struct{})
	go func() {
		all.Wait()
		close(over)
	}()
	select {
	case <-over:
	case <-time.After(time.Minute):
		t.Fatal("after a minute some have not returned")
	}
	return errs
}

func TestBurstsOfDialsListensAndClosesLoseNothing(t *testing.T) {
	p := sharedPair(t)
	near, far := p.a.attach(t), p.b.attach(t)
	lc := machnet.ListenConfig{Stack: far, Backlog: 1024}
	l, err := lc.Listen(context.Background(), "machnet", ":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go echoEach(l.(*machnet.Listener))
	conns := make([]net.Conn, 250)
	if errs := together(t, len(conns), func(i int) (err error) {
		conns[i], err = (&machnet.Dialer{Stack: near}).Dial("machnet", l.Addr().String())
		return err
	}); len(errs) > 0 {
		t.Fatalf("%d dials at once: %v", len(conns), errs)
	}
	for _, c := range conns {
		c.Close()
	}
	for round := range 2 {
		listeners := make([]net.Listener, 900)
		if errs := together(t, len(listeners), func(i int) (err error) {
			listeners[i], err = (&machnet.ListenConfig{Stack: near}).Listen(context.Background(), "machnet", fmt.Sprintf(":%d", 20_000+i))
			return err
		}); len(errs) > 0 {
			t.Fatalf("round %d: %d listens at once: %v", round, len(listeners), errs)
		}
		if errs := together(t, len(listeners), func(i int) error { return listeners[i].Close() }); len(errs) > 0 {
			t.Fatalf("round %d: closing them at once: %v", round, errs)
		}
	}
}

func TestDialsTowardsSilenceEndWithoutAnotherRequest(t *testing.T) {
	s := sharedPair(t).a.attach(t)
	errs := together(t, 250, func(int) error {
		_, err := (&machnet.Dialer{Stack: s}).Dial("machnet", "10.0.0.77:9999")
		if errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ETIMEDOUT) {
			return nil
		}
		return fmt.Errorf("not unreachable: %w", err)
	})
	if len(errs) > 0 {
		t.Fatal(errs)
	}
}

func TestWhoIsFullIsToldToBothEndsAndWarnedOfWhereItIs(t *testing.T) {
	folder := shortTempDir(t)
	w := newWire(t, folder)
	a, err := startSidecar(folder, "10.0.0.1", w.a)
	if err != nil {
		t.Fatal(err)
	}
	b, err := startSidecar(folder, "10.0.0.2", w.b, "--flows", "4", "--channels-per-application", "1")
	if err != nil {
		a.stop()
		t.Fatal(err)
	}
	p := &pair{a, b, w}
	t.Cleanup(func() { p.stop(t) })
	near, far := a.attach(t), b.attach(t)
	l := listen(t, far)
	for range 4 {
		dial(t, near, l.Addr())
	}
	// From the one side it is the other that is full, from the other it is itself.
	for name, tc := range map[string]struct {
		from *machnet.Stack
		text string
		next string
		errs []error
	}{
		"the peer": {near, "the process that listens there has 4 connections", "--flows", []error{syscall.ECONNREFUSED, syscall.ENOBUFS}},
		"oneself":  {far, "this application has 1 channels", "channels.per_application", []error{syscall.ENOBUFS}},
	} {
		_, err := (&machnet.Dialer{Stack: tc.from}).Dial("machnet", l.Addr().String())
		if err == nil || !strings.Contains(err.Error(), tc.text) || !strings.Contains(err.Error(), tc.next) {
			t.Errorf("%s is full: %v, want it to say %q and the setting", name, err, tc.text)
		}
		for _, want := range tc.errs {
			if !errors.Is(err, want) {
				t.Errorf("%s is full: %v, want %v", name, err, want)
			}
		}
	}
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(b.out.String(), "its application has 4 connections, as many as its channels hold"); {
		if time.Now().After(deadline) {
			t.Fatalf("the sidecar that refused has not said so: %s", b.out)
		}
		time.Sleep(5 * time.Millisecond)
	}
	if strings.Contains(a.out.String(), "refused") {
		t.Errorf("the other one warns of what is not its own: %s", a.out)
	}
}
