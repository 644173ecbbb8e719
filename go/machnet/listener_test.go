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

// listenerAt is a listener at a channel without a sidecar, which never offers anything.
func listenerAt(at *attachment, follows bool) (*Listener, *place) {
	l := &Listener{
		stack: &Stack{}, follows: follows, addr: addrFrom(0x0a000001, 7000), turn: make(chan struct{}, 1), note: make(chan struct{}, 1),
	}
	p := &place{l: l, at: at}
	l.places, l.here = []*place{p}, nil
	return l, p
}

func TestAListenerThatHasEndedKeepsNobodyBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, p := listenerAt(new(attachment), false)
		l.lose(p, syscall.ENETDOWN)
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
	l, p := listenerAt(at, true)
	l.here = p
	at.places = map[uint32]*place{7: p}
	at.onEvent(&core.Event{Kind: core.EvListenFailed, ID: 7, Code: core.Ending})
	if len(l.places) != 0 || l.here != nil || l.err != nil {
		t.Errorf("its places are %v, it waits at %v, its error is %v; want none", l.places, l.here, l.err)
	}
	at.places[8] = p
	at.onEvent(&core.Event{Kind: core.EvListenFailed, ID: 8, Code: core.InUse})
	if !errors.Is(l.err, syscall.EADDRINUSE) {
		t.Errorf("its error is %v, want EADDRINUSE", l.err)
	}
}

func TestAListenerThatLosesOneOfItsPlacesGoesOnAtTheOthers(t *testing.T) {
	for _, follows := range []bool{true, false} {
		one, two := new(attachment), new(attachment)
		l, first := listenerAt(one, follows)
		second := &place{l: l, at: two}
		l.places, l.here = append(l.places, second), first
		kept := &Conn{at: two}
		l.queue = []*Conn{{at: one}, kept, {at: one}}
		l.lose(first, syscall.ENETDOWN)
		if l.err != nil || l.here != second || len(l.queue) != 1 || l.queue[0] != kept {
			t.Fatalf("follows %v: error %v, waits at %v, queue %v; want none, the second place, its connection", follows, l.err, l.here, l.queue)
		}
		l.lose(second, syscall.ENETDOWN)
		if ended := l.err != nil; ended == follows || l.here != nil {
			t.Fatalf("follows %v: without a place its error is %v, and it waits at %v", follows, l.err, l.here)
		}
	}
}

func TestAPortOfAStackHasOneListenerUnlessAllShareIt(t *testing.T) {
	for _, first := range []bool{false, true} {
		for _, second := range []bool{false, true} {
			s := &Stack{ports: make(map[uint16][]*Listener)}
			one, two := &Listener{stack: s, reusePort: first}, &Listener{stack: s, reusePort: second}
			if err := s.claim(one, 80); err != nil {
				t.Fatal(err)
			}
			if err := s.claim(two, 81); err != nil {
				t.Fatal(err)
			}
			s.delist(two)
			err := s.claim(two, 80)
			if shared := first && second; shared != (err == nil) || err != nil && !errors.Is(err, syscall.EADDRINUSE) {
				t.Errorf("shared by the first %v, by the second %v: %v", first, second, err)
			}
			s.delist(one)
			if err := s.claim(two, 80); err != nil {
				t.Errorf("once the first has gone: %v", err)
			}
			three := &Listener{stack: s}
			two.err = net.ErrClosed
			if err := s.claim(three, 80); err != nil {
				t.Errorf("once the second has ended: %v", err)
			}
		}
	}
}

func TestAcceptWaitsWhileTheListenerHasNoSidecar(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, p := listenerAt(new(attachment), true)
		result := make(chan error, 1)
		go func() { _, err := l.Accept(); result <- err }()
		synctest.Wait()
		l.lose(p, syscall.ENETDOWN)
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
		l.lose(p, net.ErrClosed)
		if l.err != syscall.EADDRINUSE {
			t.Errorf("the listener ended with %v", l.err)
		}
	})
}
