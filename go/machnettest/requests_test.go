//go:build linux && cgo && (amd64 || arm64)

package machnettest_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/machnet/machnet/go/machnet"
	"github.com/machnet/machnet/go/machnettest"
)

// many is more than the ring of requests holds, several times.
const many = 1000

// atOnce does something so many times at the same moment, and gives the errors.
func atOnce(t *testing.T, count int, what func(i int) error) []error {
	t.Helper()
	errs := make([]error, count)
	var all sync.WaitGroup
	start := make(chan struct{})
	for i := range errs {
		all.Add(1)
		go func() {
			defer all.Done()
			<-start
			errs[i] = what(i)
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

// serve takes whatever connects, for as long as the listener is open.
func serve(t *testing.T, stack *machnet.Stack) (address string) {
	t.Helper()
	listener, err := (&machnet.ListenConfig{Stack: stack, Backlog: many}).Listen(context.Background(), "machnet", ":"+port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go echo(listener)
	return listener.Addr().String()
}

func TestDialsBeyondTheRingOfRequestsWaitForRoom(t *testing.T) {
	_, _, near, far := hosts(t, machnettest.Options{})
	address := serve(t, far)
	conns := make([]net.Conn, 250)
	for i, err := range atOnce(t, len(conns), func(i int) (err error) {
		conns[i], err = (&machnet.Dialer{Stack: near}).Dial("machnet", address)
		return err
	}) {
		if err != nil {
			t.Errorf("dial %d of %d: %v", i, len(conns), err)
		}
	}
	for _, conn := range conns {
		if conn != nil {
			conn.Close()
		}
	}
}

// What is closed goes to the sidecar before what listens later, though there was no room for it: its port is free at once.
func TestListenersByTheThousandComeAndGoTogetherAndGiveTheirPortsBack(t *testing.T) {
	_, _, near, _ := hosts(t, machnettest.Options{})
	lc := machnet.ListenConfig{Stack: near}
	for round := range 3 {
		listeners := make([]net.Listener, many)
		for i, err := range atOnce(t, many, func(i int) (err error) {
			listeners[i], err = lc.Listen(context.Background(), "machnet", fmt.Sprintf(":%d", 8000+i))
			return err
		}) {
			if err != nil {
				t.Fatalf("round %d, listener %d: %v", round, i, err)
			}
		}
		for i, err := range atOnce(t, many, func(i int) error { return listeners[i].Close() }) {
			if err != nil {
				t.Errorf("round %d, closing listener %d: %v", round, i, err)
			}
		}
	}
}

func TestDialsThatAreGivenUpTogetherHoldNoConnection(t *testing.T) {
	_, _, near, far := hosts(t, machnettest.Options{})
	address := serve(t, far)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	const count = 250
	under := make(chan struct{}, count)
	go func() {
		for range count {
			<-under
		}
		time.Sleep(10 * time.Millisecond) // most are under way by then; none has an answer for seconds
		cancel()
	}()
	for i, err := range atOnce(t, count, func(int) error {
		under <- struct{}{}
		_, err := (&machnet.Dialer{Stack: near}).DialContext(ctx, "machnet", "10.0.0.99:"+port) // nobody is there
		return err
	}) {
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("dial %d: %v, want that it was given up", i, err)
		}
	}
	// A channel has 256 connections: these find room only where those hold none.
	conns := make([]net.Conn, count)
	for i, err := range atOnce(t, count, func(i int) (err error) {
		conns[i], err = (&machnet.Dialer{Stack: near}).Dial("machnet", address)
		return err
	}) {
		if err != nil {
			t.Fatalf("dial %d after those that were given up: %v", i, err)
		}
		conns[i].Close()
	}
}

func TestDialsTowardsSilenceAllEndWithoutAnotherRequest(t *testing.T) {
	_, _, near, _ := hosts(t, machnettest.Options{})
	dialer := machnet.Dialer{Stack: near}
	for i, err := range atOnce(t, 250, func(int) error {
		_, err := dialer.Dial("machnet", "10.0.0.99:"+port)
		return err
	}) {
		if !errors.Is(err, syscall.EHOSTUNREACH) && !errors.Is(err, syscall.ETIMEDOUT) {
			t.Errorf("dial %d: %v, want that nobody answered", i, err)
		}
	}
}
