//go:build linux && cgo && (amd64 || arm64)

package machnettest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/machnet/machnet/go/machnet"
	"github.com/machnet/machnet/go/machnettest"
)

// conn is what *net.TCPConn and *machnet.Conn both are.
type conn interface {
	net.Conn
	CloseRead() error
	CloseWrite() error
}

// said is an error in words that do not depend on the transport: the operation, what it is, and which ends it names.
func said(err error) string {
	if err == nil {
		return "nil"
	}
	kind := err.Error()
	for what, is := range map[string]error{
		"EOF": io.EOF, "closed": net.ErrClosed, "deadline": os.ErrDeadlineExceeded, "EPIPE": syscall.EPIPE,
		"context deadline": context.DeadlineExceeded, "canceled": context.Canceled,
	} {
		if errors.Is(err, is) {
			kind = what
		}
	}
	var op *net.OpError
	if !errors.As(err, &op) {
		return kind
	}
	return fmt.Sprintf("%s: %s, source %t, address %t, timeout %t, temporary %t", op.Op, kind, op.Source != nil, op.Addr != nil, op.Timeout(), op.Temporary())
}

func past() time.Time { return time.Now().Add(-time.Second) }

// smallThings are calls at the edges, each with the pair of ends it wants and what it gives.
var smallThings = map[string]func(c, peer conn) []any{
	"nothing is read or written": func(c, _ conn) []any { return []any{read(c, 0), write(c, 0)} },
	"after Close": func(c, _ conn) []any {
		local, remote := c.LocalAddr().String(), c.RemoteAddr().String()
		first := c.Close()
		return []any{
			said(first), said(c.Close()), read(c, 0), read(c, 1), write(c, 0), write(c, 1), said(c.CloseRead()), said(c.CloseWrite()),
			said(c.SetDeadline(time.Time{})), said(c.SetReadDeadline(past())), said(c.SetWriteDeadline(past())),
			c.LocalAddr().String() == local, c.RemoteAddr().String() == remote,
		}
	},
	"after CloseWrite": func(c, peer conn) []any {
		first := c.CloseWrite()
		return []any{said(first), said(c.CloseWrite()), write(c, 0), write(c, 1), said(c.SetDeadline(time.Time{})), read(peer, 1), said(c.Close())}
	},
	"after CloseRead": func(c, peer conn) []any {
		first := c.CloseRead()
		return []any{said(first), said(c.CloseRead()), read(c, 0), read(c, 1), write(c, 3), read(peer, 3), said(c.Close())}
	},
	"CloseRead, then a deadline": func(c, _ conn) []any {
		return []any{said(c.CloseRead()), said(c.SetReadDeadline(past())), read(c, 0), read(c, 1)}
	},
	"at the end of the peer's data": func(c, peer conn) []any {
		_, _ = peer.Write([]byte("ab"))
		_ = peer.CloseWrite()
		return []any{read(c, 2), read(c, 0), read(c, 1), read(c, 0), read(c, 1), write(c, 1), read(peer, 1)}
	},
	"past the read deadline": func(c, peer conn) []any {
		_, _ = peer.Write([]byte("ab"))
		first := read(c, 1)
		_ = c.SetReadDeadline(past())
		late := []any{read(c, 0), read(c, 1), write(c, 1)}
		_ = c.SetReadDeadline(time.Time{})
		return append(late, first, read(c, 1))
	},
	"past the write deadline": func(c, peer conn) []any {
		_ = c.SetWriteDeadline(past())
		late := []any{write(c, 0), write(c, 1)}
		_ = c.SetWriteDeadline(time.Time{})
		return append(late, write(c, 1), read(peer, 1))
	},
	"CloseWrite past the deadline": func(c, peer conn) []any {
		_, _ = c.Write([]byte("ab"))
		_ = c.SetDeadline(past())
		return []any{said(c.CloseWrite()), said(c.CloseWrite()), read(peer, 2), read(peer, 1)}
	},
	"a Read that Close ends": func(c, _ conn) []any {
		return []any{whileReading(c, func() { _ = c.Close() })}
	},
	"a Read that CloseRead ends": func(c, _ conn) []any {
		return []any{whileReading(c, func() { _ = c.CloseRead() })}
	},
	"a Read that a deadline ends": func(c, _ conn) []any {
		return []any{whileReading(c, func() { _ = c.SetReadDeadline(past()) })}
	},
}

func read(c conn, n int) string {
	n, err := c.Read(make([]byte, n))
	return fmt.Sprint("read ", n, " ", said(err))
}

func write(c conn, n int) string {
	n, err := c.Write(make([]byte, n))
	return fmt.Sprint("wrote ", n, " ", said(err))
}

// whileReading does something to a connection while it is read, or, should that come late, before: the result is the same.
func whileReading(c conn, what func()) string {
	result := make(chan string, 1)
	go func() { result <- read(c, 1) }()
	time.AfterFunc(10*time.Millisecond, what)
	return <-result
}

func TestConnDoesInSmallThingsAsTCPDoes(t *testing.T) {
	_, _, near, far := hosts(t, machnettest.Options{})
	for name, does := range smallThings {
		t.Run(name, func(t *testing.T) {
			c, peer := connection(t, near, far, "10.0.0.2")
			got := does(c, peer)
			ours, theirs := tcpConnection(t)
			want := does(ours, theirs)
			for i := range want {
				if got[i] != want[i] {
					t.Errorf("result %d: %v, with TCP %v", i, got[i], want[i])
				}
			}
		})
	}
}

func tcpConnection(t testing.TB) (dialled, accepted *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	other, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close() })
	return c.(*net.TCPConn), other.(*net.TCPConn)
}

func TestListenerDoesInSmallThingsAsTCPDoes(t *testing.T) {
	_, _, near, _ := hosts(t, machnettest.Options{})
	type listener interface {
		net.Listener
		SetDeadline(time.Time) error
	}
	accept := func(l listener) string {
		_, err := l.Accept()
		return said(err)
	}
	does := func(l listener) []any {
		address := l.Addr().String()
		_ = l.SetDeadline(past())
		late := accept(l)
		return []any{
			late, said(l.Close()), said(l.Close()), accept(l), l.Addr().String() == address,
			errors.Is(l.SetDeadline(time.Time{}), net.ErrClosed), // which package net gives bare
		}
	}
	ours, err := (&machnet.ListenConfig{Stack: near}).Listen(t.Context(), "machnet", ":0")
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	got, want := does(ours.(listener)), does(theirs.(listener))
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("result %d: %v, with TCP %v", i, got[i], want[i])
		}
	}
}

func TestADialThatItsTimeEndsFailsAsThatOfPackageNet(t *testing.T) {
	_, _, near, _ := hosts(t, machnettest.Options{})
	over := func(context.Context) (context.Context, context.CancelFunc) {
		return context.WithDeadline(t.Context(), past())
	}
	for name, tc := range map[string]struct {
		ctx                func(context.Context) (context.Context, context.CancelFunc)
		deadline           time.Time
		timeout            time.Duration
		isDeadline, isGone bool
	}{
		"the context's deadline": {ctx: over, isDeadline: true},
		"the Dialer's Deadline":  {deadline: past(), isDeadline: true},
		"the Dialer's Timeout":   {timeout: -1, isDeadline: true},
		"both":                   {ctx: over, timeout: time.Hour, isDeadline: true},
		"cancelled": {ctx: func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			return ctx, cancel
		}, isGone: true},
		"cancelled with a cause": {ctx: func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancelCause(ctx)
			cancel(errors.New("no longer wanted"))
			return ctx, func() { cancel(nil) }
		}, isGone: true},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			if tc.ctx != nil {
				var cancel context.CancelFunc
				ctx, cancel = tc.ctx(ctx)
				defer cancel()
			}
			ours := machnet.Dialer{Stack: near, Deadline: tc.deadline, Timeout: tc.timeout}
			theirs := net.Dialer{Deadline: tc.deadline, Timeout: tc.timeout}
			_, got := ours.DialContext(ctx, "machnet", "10.0.0.2:1")
			_, want := theirs.DialContext(ctx, "tcp", "127.0.0.1:1")
			if said(got) != said(want) {
				t.Errorf("%v, with TCP %v", said(got), said(want))
			}
			if errors.Is(got, context.DeadlineExceeded) != tc.isDeadline || errors.Is(got, context.Canceled) != tc.isGone || errors.Is(got, os.ErrDeadlineExceeded) {
				t.Errorf("%v is not the context's error alone", got)
			}
		})
	}
}

func TestWhoeverWaitsForAContextGetsItsError(t *testing.T) {
	_, _, near, far := hosts(t, machnettest.Options{})
	a, _ := connection(t, near, far, "10.0.0.2")
	l, err := (&machnet.ListenConfig{Stack: near}).Listen(t.Context(), "machnet", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	calls := map[string]func(ctx context.Context) error{
		"Dial": func(ctx context.Context) error {
			_, err := (&machnet.Dialer{Stack: near}).DialContext(ctx, "machnet", "10.0.0.77:1") // nobody is there
			return err
		},
		"AcceptMachnet": func(ctx context.Context) error { _, err := l.(*machnet.Listener).AcceptMachnet(ctx); return err },
		"Recv":          func(ctx context.Context) error { _, err := a.Recv(ctx); return err },
	}
	for name, call := range calls {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		err := call(ctx)
		cancel()
		var timeout net.Error
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("%s until a deadline: %v, want context.DeadlineExceeded and a timeout", name, err)
		}
		why := errors.New("no longer wanted")
		ctx, give := context.WithCancelCause(t.Context())
		time.AfterFunc(20*time.Millisecond, func() { give(why) })
		if err := call(ctx); !errors.Is(err, context.Canceled) || !errors.Is(err, why) {
			t.Errorf("%s until it is cancelled: %v, want context.Canceled and the cause", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (&machnet.ListenConfig{Stack: near}).Listen(ctx, "machnet", ":0"); !errors.Is(err, context.Canceled) {
		t.Errorf("Listen: %v, want context.Canceled", err)
	}
}

func TestTrySendNamesWhatItCanNeverSend(t *testing.T) {
	_, _, near, far := hosts(t, machnettest.Options{})
	a, b := connection(t, near, far, "10.0.0.2")
	for _, size := range []int{machnet.MaxMessage + 1, machnet.MaxMessage} {
		err := a.TrySend(make([]byte, size))
		if !errors.Is(err, machnet.ErrTooLarge) {
			t.Fatalf("TrySend of %d bytes: %v, want ErrTooLarge", size, err)
		}
	}
	// What it says is true: so many bytes it can send, and not one more.
	var text string
	var size, packets, unit int
	_, text, _ = strings.Cut(a.TrySend(make([]byte, machnet.MaxMessage)).Error(), "message too large: ")
	if _, err := fmt.Sscanf(text, "%d bytes, and at most %d packets of %d bytes go at once", &size, &packets, &unit); err != nil || size != machnet.MaxMessage {
		t.Fatalf("%q: %v", text, err)
	}
	most := make([]byte, packets*unit)
	if err := a.TrySend(append(most, 0)); !errors.Is(err, machnet.ErrTooLarge) {
		t.Errorf("TrySend of %d bytes: %v, want ErrTooLarge", len(most)+1, err)
	}
	if err := a.TrySend(most); err != nil {
		t.Errorf("TrySend of %d bytes: %v", len(most), err)
	}
	if m, err := b.Recv(t.Context()); err != nil || len(m.Bytes()) != len(most) {
		t.Errorf("%d bytes came, %v", len(m.Bytes()), err)
	}
}
