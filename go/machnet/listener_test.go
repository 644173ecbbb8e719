//go:build go1.25

package machnet

import (
	"context"
	"errors"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/machnet/machnet/go/internal/core"
)

// listenerAt is a listener of an attachment without a sidecar, which never offers anything.
func listenerAt(at *attachment, follows bool) *Listener {
	return &Listener{
		stack: &Stack{}, at: at, follows: follows, addr: addrFrom(0x0a000001, 7000), turn: make(chan struct{}, 1), note: make(chan struct{}, 1),
	}
}

func TestAListenerThatHasEndedKeepsNobodyBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := new(attachment)
		l := listenerAt(at, false)
		l.lose(at, syscall.ENETDOWN)
		for i, want := range []time.Duration{0, 5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000} {
			began := time.Now()
			_, err := l.Accept()
			if took := time.Since(began); !errors.Is(err, syscall.ENETDOWN) || took != want*time.Millisecond {
				t.Fatalf("Accept %d: %v after %v, want ENETDOWN after %v", i, err, took, want*time.Millisecond)
			}
		}
		time.Sleep(time.Second) // Who waits himself is not made to wait.
		began := time.Now()
		if _, err := l.Accept(); !errors.Is(err, syscall.ENETDOWN) || time.Since(began) != 0 {
			t.Fatalf("Accept: %v after %v, want ENETDOWN at once", err, time.Since(began))
		}
		// What ends a wait ends this one.
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := l.AcceptMachnet(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("AcceptMachnet: %v, want context.DeadlineExceeded", err)
		}
		time.AfterFunc(time.Millisecond, func() { _ = l.Close() })
		began = time.Now()
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) || time.Since(began) != time.Millisecond {
			t.Errorf("Accept: %v after %v, want net.ErrClosed after 1 ms", err, time.Since(began))
		}
	})
}

// Whoever accepts would wait at that sidecar's channel, where every wait returns at once when it has ended.
func TestAListenerThatAnEndingSidecarTurnsAwayWaitsForTheNext(t *testing.T) {
	at := new(attachment)
	l := listenerAt(at, true)
	l.waiter = new(core.Waiter)
	at.listeners = map[uint32]*Listener{7: l}
	at.onEvent(&core.Event{Kind: core.EvListenFailed, ID: 7, Code: core.Ending})
	if l.at != nil || l.waiter != nil || l.err != nil {
		t.Errorf("its attachment is %p, its waiter %p, its error %v; want none", l.at, l.waiter, l.err)
	}
	at.listeners[8] = l
	at.onEvent(&core.Event{Kind: core.EvListenFailed, ID: 8, Code: core.InUse})
	if !errors.Is(l.err, syscall.EADDRINUSE) {
		t.Errorf("its error is %v, want EADDRINUSE", l.err)
	}
}

func TestAcceptWaitsWhileTheListenerHasNoSidecar(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := new(attachment)
		l := listenerAt(at, true)
		result := make(chan error, 1)
		go func() { _, err := l.Accept(); result <- err }()
		synctest.Wait()
		l.lose(at, syscall.ENETDOWN)
		time.Sleep(time.Hour)
		select {
		case err := <-result:
			t.Fatalf("Accept returned %v", err)
		default:
		}
		l.end(syscall.EADDRINUSE)
		if err := <-result; !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatalf("Accept: %v, want EADDRINUSE", err)
		}
		// The next attachment's failure is none of a listener's that has ended, nor an old one's of any.
		l.lose(at, net.ErrClosed)
		if l.err != syscall.EADDRINUSE {
			t.Errorf("the listener ended with %v", l.err)
		}
	})
}
