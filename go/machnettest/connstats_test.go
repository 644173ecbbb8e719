//go:build linux && cgo && (amd64 || arm64)

package machnettest_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/machnet/machnet/go/machnet"
	"github.com/machnet/machnet/go/machnettest"
)

func stats(t *testing.T, c *machnet.Conn) machnet.ConnStats {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s, err := c.Stats(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStatsOfAConnectionAreTrue(t *testing.T) {
	const delay = 2 * time.Millisecond
	_, server, near, far := hosts(t, machnettest.Options{Delay: delay, Loss: 0.05})
	a, b := connection(t, near, far, "10.0.0.2")
	go echoMessages(b)
	const count, size = 200, 3000
	echoes(t, a, count, size)
	s := stats(t, a)
	if s.State != machnet.StateOpen || s.Err != nil || s.At.IsZero() {
		t.Errorf("it lives, and is %v, %v, at %v", s.State, s.Err, s.At)
	}
	if s.RoundTrip < 2*delay || s.RoundTripDeviation == 0 {
		t.Errorf("the round trip is %v (%v), and the network takes %v each way", s.RoundTrip, s.RoundTripDeviation, delay)
	}
	if s.BytesSent != count*size || s.BytesReceived != count*size {
		t.Errorf("sent %d bytes, received %d; want %d each", s.BytesSent, s.BytesReceived, count*size)
	}
	if s.UnitsSent != 3*count || s.UnitsReceived != 3*count {
		t.Errorf("sent %d units, received %d; want %d each", s.UnitsSent, s.UnitsReceived, 3*count)
	}
	// The other host has no other connection.
	within(t, "the counters of the other host to agree with the statistics of its end", func() bool {
		return stats(t, b).Retransmitted == uint64(server.Counter("flow_retransmitted")) && s.Retransmitted > 0
	})
	if s.Window == 0 || s.Granted == 0 || s.InFlight > s.Queued {
		t.Errorf("window %d, granted %d, in flight %d of %d queued", s.Window, s.Granted, s.InFlight, s.Queued)
	}
	if other := stats(t, b); s.UDP.Source == 0 || s.UDP != other.PeerUDP || s.PeerUDP != other.UDP {
		t.Errorf("this end sends by %v and saw %v; the other by %v, and saw %v", s.UDP, s.PeerUDP, other.UDP, other.PeerUDP)
	}
	for _, words := range []string{"open", "600000 bytes", "waits not"} {
		if !strings.Contains(s.String(), words) {
			t.Errorf("%q does not say %q", s, words)
		}
	}
}

func TestStatsSayThatThePeerDoesNotRead(t *testing.T) {
	_, _, near, far := hosts(t, machnettest.Options{})
	a, _ := connection(t, near, far, "10.0.0.2")
	go func() {
		for {
			if a.Send(make([]byte, 1000)) != nil {
				return
			}
		}
	}()
	within(t, "the writer to wait for the peer", func() bool {
		s := stats(t, a)
		return s.Waits == machnet.WaitsForCredit && s.Credit == 0 && s.Queued > s.InFlight
	})
}

func TestStatsKeepTheCauseOfTheEnd(t *testing.T) {
	network, _, near, far := hosts(t, machnettest.Options{})
	sent := func(t *testing.T) (a, b *machnet.Conn) {
		a, b = connection(t, near, far, "10.0.0.2")
		if err := a.Send([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		within(t, "the message to count", func() bool { return stats(t, a).BytesSent == 5 })
		return a, b
	}
	for name, tc := range map[string]struct {
		end  func(a, b *machnet.Conn)
		want error
	}{
		"the peer resets it":     {func(_, b *machnet.Conn) { _ = b.SetLinger(0); _ = b.Close() }, syscall.ECONNRESET},
		"this program closes it": {func(a, _ *machnet.Conn) { _ = a.Close() }, net.ErrClosed},
		"this program resets it": {func(a, _ *machnet.Conn) { _ = a.SetLinger(0); _ = a.Close() }, net.ErrClosed},
		"reset, and then closed": {func(a, b *machnet.Conn) {
			_ = b.SetLinger(0)
			_ = b.Close()
			_, _ = a.Read(make([]byte, 1))
			_ = a.Close()
		}, syscall.ECONNRESET},
		"the sidecar goes, at last": {func(_, _ *machnet.Conn) { network.Host(0).Kill() }, syscall.ENETDOWN},
	} {
		if strings.HasSuffix(name, "at last") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			a, b := sent(t)
			tc.end(a, b)
			within(t, "the cause", func() bool { return stats(t, a).Err != nil })
			s := stats(t, a)
			if !errors.Is(s.Err, tc.want) || s.State != machnet.StateOver || s.BytesSent != 5 {
				t.Errorf("%v: want over by %v, and what was known", s, tc.want)
			}
		})
	}
	t.Run("both ends finish", func(t *testing.T) {
		a, b := sent(t)
		_ = a.CloseWrite()
		_ = b.CloseWrite()
		within(t, "the end", func() bool { s := stats(t, a); return s.State >= machnet.StateFinished })
		if s := stats(t, a); s.Err != nil {
			t.Errorf("after a clean end, the cause is %v", s.Err)
		}
	})
	t.Run("the stack closes", func(t *testing.T) {
		stack, err := network.Host(0).Attach(t.Context(), machnet.Config{})
		if err != nil {
			t.Fatal(err)
		}
		a, _ := connection(t, stack, far, "10.0.0.2")
		_ = stack.Close()
		if s := stats(t, a); !errors.Is(s.Err, net.ErrClosed) {
			t.Errorf("%v: want over by net.ErrClosed", s)
		}
	})
	t.Run("the sidecar goes", func(t *testing.T) {
		a, _ := sent(t)
		network.Host(0).Kill()
		within(t, "the cause", func() bool { return stats(t, a).Err != nil })
		if s := stats(t, a); !errors.Is(s.Err, syscall.ENETDOWN) || s.BytesSent != 5 {
			t.Errorf("%v: want over by ENETDOWN, and what was known", s)
		}
	})
}

func TestStatsByTheThousandAndGivenUp(t *testing.T) {
	_, _, near, far := hosts(t, machnettest.Options{})
	a, b := connection(t, near, far, "10.0.0.2")
	errs := atOnce(t, 1000, func(i int) error {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if i%2 == 1 {
			go cancel()
		}
		s, err := a.Stats(ctx)
		if err == nil && (s.At.IsZero() || s.Err != nil) {
			return errors.New(s.String())
		}
		if i%2 == 1 && errors.Is(err, context.Canceled) {
			return nil
		}
		return err
	})
	for i, err := range errs {
		if err != nil {
			t.Fatalf("question %d: %v", i, err)
		}
	}
	go echoMessages(b)
	echoes(t, a, 10, 100)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var op *net.OpError
	if _, err := a.Stats(ctx); !errors.Is(err, context.Canceled) || !errors.As(err, &op) || op.Op != "stats" {
		t.Errorf("with a context that has ended, Stats = %v", err)
	}
}
