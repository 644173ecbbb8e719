//go:build linux && cgo && (amd64 || arm64)

package machnettest_test

import (
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/machnet/machnet/go/machnet"
	"github.com/machnet/machnet/go/machnettest"
)

func TestCloseWithoutLingerDiscardsAndResets(t *testing.T) {
	_, _, near, far := hosts(t, machnettest.Options{})
	ours, peer := connection(t, near, far, "10.0.0.2")
	theirs, tcpPeer := tcpConnection(t)
	type lingerer interface {
		conn
		SetLinger(int) error
	}
	does := func(c lingerer, peer conn) []any {
		first := c.SetLinger(0)
		closed := c.Close()
		_ = peer.SetReadDeadline(time.Now().Add(30 * time.Second))
		_, err := peer.Read(make([]byte, 1))
		return []any{said(first), said(closed), errors.Is(err, syscall.ECONNRESET), said(c.SetLinger(0))}
	}
	got, want := does(ours, peer), does(theirs, tcpPeer)
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("result %d: %v, with TCP %v", i, got[i], want[i])
		}
	}
}

func TestALingeringCloseWaitsForTheAcknowledgementOfEverything(t *testing.T) {
	const delay = 20 * time.Millisecond
	_, _, near, far := hosts(t, machnettest.Options{Delay: delay})
	a, b := connection(t, near, far, "10.0.0.2")
	if err := a.SetLinger(60); err != nil {
		t.Fatal(err)
	}
	sent := pattern(1)
	reading := make(chan error, 1)
	go func() {
		_, err := a.Read(make([]byte, 1))
		reading <- err
	}()
	read := readAll(b)
	if _, err := a.Write(sent); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := a.Close(); err != nil {
		t.Fatalf("Close = %v", err)
	}
	if took := time.Since(began); took < delay {
		t.Errorf("Close returned after %v, before anything can have been acknowledged", took)
	}
	if err := <-reading; !errors.Is(err, net.ErrClosed) {
		t.Errorf("a Read meanwhile gives %v", err)
	}
	if got := <-read; got.err != nil || string(got.bytes) != string(sent) {
		t.Errorf("%d of %d bytes came, %v", len(got.bytes), len(sent), got.err)
	}
	if err := a.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a second Close = %v", err)
	}
}

func TestALingeringCloseGivesUpInTheEnd(t *testing.T) {
	network, _, near, far := hosts(t, machnettest.Options{})
	for name, tc := range map[string]struct {
		end  func(a, b *machnet.Conn) // before Close, and after a Write of more than the peer, which does not read, has room for
		want error
		says string
	}{
		"the peer does not read": {func(a, b *machnet.Conn) {}, syscall.ETIMEDOUT, "packets were not acknowledged in 1s"},
		"the peer resets it":     {func(a, b *machnet.Conn) { _ = b.SetLinger(0); _ = b.Close() }, syscall.ECONNRESET, ""},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := connection(t, near, far, "10.0.0.2")
			_ = a.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
			for {
				if _, err := a.Write(make([]byte, 64<<10)); err != nil {
					break
				}
			}
			_ = a.SetLinger(1)
			tc.end(a, b)
			if err := a.Close(); !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("Close = %v, want %v with %q", err, tc.want, tc.says)
			}
			within(t, "the peer to hear of the reset", func() bool {
				_ = b.SetReadDeadline(time.Now().Add(30 * time.Second))
				_, err := io.Copy(io.Discard, b)
				return ended(err) || errors.Is(err, net.ErrClosed)
			})
		})
	}
	t.Run("the peer resets it after a half close", func(t *testing.T) {
		a, b := connection(t, near, far, "10.0.0.2")
		// More than the peer, which does not read, has room for, but no more than may be under way.
		if _, err := a.Write(make([]byte, 200_000)); err != nil {
			t.Fatal(err)
		}
		if err := a.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		_ = b.SetLinger(0)
		_ = b.Close()
		_ = a.SetLinger(60)
		if err := a.Close(); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("Close = %v, want ECONNRESET, since not everything has come", err)
		}
	})
	t.Run("the stack closes", func(t *testing.T) {
		stack, err := network.Host(0).Attach(t.Context(), machnet.Config{})
		if err != nil {
			t.Fatal(err)
		}
		a, b := connection(t, stack, far, "10.0.0.2")
		sent := pattern(2)[:200_000]
		if _, err := a.Write(sent); err != nil {
			t.Fatal(err)
		}
		_ = a.SetLinger(3600)
		if err := stack.Close(); err != nil { // which does not wait for it
			t.Fatal(err)
		}
		if got := <-readAll(b); got.err != nil || string(got.bytes) != string(sent) {
			t.Errorf("%d of %d bytes came, %v; the stack's Close does not discard", len(got.bytes), len(sent), got.err)
		}
	})
}

func TestKeepAliveCanBeSetWithinItsBounds(t *testing.T) {
	_, _, near, far := hosts(t, machnettest.Options{})
	a, _ := connection(t, near, far, "10.0.0.2")
	for _, period := range []time.Duration{-1, 1, 10*time.Millisecond - 1, 600*time.Second + 1, time.Hour} {
		if err := a.SetKeepAlivePeriod(period); !errors.Is(err, syscall.EINVAL) || !strings.Contains(err.Error(), "10ms to 10m0s") {
			t.Errorf("a period of %v gives %v", period, err)
		}
	}
	for _, period := range []time.Duration{0, 10 * time.Millisecond, 600 * time.Second, 1500 * time.Microsecond * 10} {
		if err := a.SetKeepAlivePeriod(period); err != nil {
			t.Errorf("a period of %v gives %v", period, err)
		}
	}
	for _, on := range []bool{false, true} {
		if err := a.SetKeepAlive(on); err != nil {
			t.Errorf("SetKeepAlive(%t) = %v", on, err)
		}
	}
	theirs, _ := tcpConnection(t)
	_, _ = a.Close(), theirs.Close()
	for i, got := range []error{a.SetKeepAlive(true), a.SetKeepAlivePeriod(time.Second)} {
		if want := []error{theirs.SetKeepAlive(true), theirs.SetKeepAlivePeriod(time.Second)}[i]; said(got) != said(want) {
			t.Errorf("after Close: %s, with TCP %s", said(got), said(want))
		}
	}
}

// whole is all that a connection carried, and how it ended.
type whole struct {
	bytes []byte
	err   error
}

func readAll(c *machnet.Conn) <-chan whole {
	read := make(chan whole, 1)
	_ = c.SetReadDeadline(time.Now().Add(60 * time.Second))
	go func() {
		bytes, err := io.ReadAll(c)
		read <- whole{bytes, err}
	}()
	return read
}

func TestOnlyKeepAlivesNoticeThatASilentPeerHasGone(t *testing.T) {
	network := machnettest.NewNetwork(t, machnettest.Options{Hosts: 3, Seed: 1})
	asks, _ := connection(t, network.Host(0).Stack(), network.Host(1).Stack(), "10.0.0.2")
	silent, _ := connection(t, network.Host(0).Stack(), network.Host(2).Stack(), "10.0.0.3")
	// Twice as late as the sidecar would by itself.
	if err := errors.Join(asks.SetKeepAlivePeriod(2*time.Second), silent.SetKeepAlive(false)); err != nil {
		t.Fatal(err)
	}
	network.Isolate(network.Host(0))
	_ = asks.SetReadDeadline(time.Now().Add(60 * time.Second))
	if _, err := asks.Read(make([]byte, 1)); !errors.Is(err, syscall.ETIMEDOUT) {
		t.Errorf("whose peer is asked reads %v, want ETIMEDOUT", err)
	}
	if s := stats(t, silent); s.State != machnet.StateOpen || s.Err != nil {
		t.Errorf("whose peer is not asked is %v", s)
	}
	// It is noticed by what is sent.
	if err := silent.Send([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	_ = silent.SetReadDeadline(time.Now().Add(60 * time.Second))
	if _, err := silent.Read(make([]byte, 1)); !errors.Is(err, syscall.ETIMEDOUT) {
		t.Errorf("who has sent reads %v, want ETIMEDOUT", err)
	}
	if s := stats(t, silent); !errors.Is(s.Err, syscall.ETIMEDOUT) || s.Timeouts == 0 {
		t.Errorf("and its statistics are %v, with %d timeouts", s, s.Timeouts)
	}
}
