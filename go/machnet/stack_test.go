package machnet

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestAnAttemptToAttachAgainEndsWithTheStack(t *testing.T) {
	silent, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	s := &Stack{
		source: newSource(Config{Socket: silent.Addr().String()}), turn: make(chan struct{}, 1),
		channels: []*attachment{{err: syscall.ENETDOWN}},
	}
	s.closing, s.stop = context.WithCancel(context.Background())
	results := make(chan error, 2)
	for range cap(results) { // one attaches, one waits for its turn
		go func() { _, err := s.current(context.Background()); results <- err }()
	}
	_ = silent.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := silent.Accept(); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.err = net.ErrClosed
	s.mu.Unlock()
	s.stop()
	for range cap(results) {
		select {
		case err := <-results:
			if !errors.Is(err, net.ErrClosed) {
				t.Errorf("%v, want net.ErrClosed", err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("somebody still waits for the silent sidecar")
		}
	}
}

func TestANegativeEngineIsRefused(t *testing.T) {
	for _, number := range []int{-1, -2, math.MinInt} {
		s, err := Attach(t.Context(), Config{Socket: "/nowhere", Engine: OnEngine(number)})
		if !errors.Is(err, syscall.EINVAL) || !strings.Contains(err.Error(), fmt.Sprintf("no engine %d;", number)) {
			t.Errorf("attaching to engine %d = %v, %v; want EINVAL and the number", number, s, err)
		}
	}
}
