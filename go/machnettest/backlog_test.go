//go:build linux && cgo && (amd64 || arm64)

package machnettest_test

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/machnet/machnet/go/machnet"
	"github.com/machnet/machnet/go/machnettest"
)

// A place in a backlog is given back by Accept, or by closing the listener, and by nothing else that a program does not do.
func TestADialWaitsForAPlaceInTheBacklog(t *testing.T) {
	_, _, near, far := hosts(t, machnettest.Options{})
	lc := &machnet.ListenConfig{Stack: far, Backlog: 1}
	l, err := lc.Listen(context.Background(), "machnet", "10.0.0.2:"+port)
	if err != nil {
		t.Fatal(err)
	}
	dial := func(timeout time.Duration) (net.Conn, error) {
		return (&machnet.Dialer{Stack: near, Timeout: timeout}).Dial("machnet", "10.0.0.2:"+port)
	}
	isTimeout := func(err error) bool {
		return errors.Is(err, syscall.ETIMEDOUT) || errors.Is(err, context.DeadlineExceeded)
	}
	first, err := dial(10 * time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dial(50 * time.Millisecond); !isTimeout(err) {
		t.Fatalf("a dial without a place: %v, want a timeout", err)
	}
	// A connection that its caller has left keeps its place, and is handed out with what was sent.
	if _, err := first.Write([]byte("last words")); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := dial(50 * time.Millisecond); !isTimeout(err) {
		t.Fatalf("a dial after the first caller left: %v, want a timeout", err)
	}
	second := make(chan error, 1)
	go func() {
		c, err := dial(10 * time.Second)
		if err == nil {
			defer c.Close()
			_, err = c.Write([]byte("second"))
		}
		second <- err
	}()
	for _, want := range []string{"last words", "second"} {
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(c); string(got) != want || err != nil {
			t.Fatalf("read %q and %v, want %q", got, err, want)
		}
		defer c.Close() // only then: accepting it has freed its place
	}
	if err := <-second; err != nil {
		t.Fatalf("a dial while Accept is called: %v", err)
	}
	// Who waits for Accept when the listener closes is reset.
	waits, err := dial(10 * time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_ = waits.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := waits.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("who waited for Accept reads %v, want ECONNRESET", err)
	}
}
