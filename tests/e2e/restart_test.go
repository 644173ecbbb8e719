package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/machnet/machnet/go/machnet"
)

// until asks for something again and again until it is so.
func until(t *testing.T, what string, holds func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if err = holds(); err == nil {
			return
		}
	}
	t.Fatalf("waited 30 s until %s: %v", what, err)
}

// leavesNoGoroutine fails the test if goroutines of the client are left at its end, when everything it opened is closed.
func leavesNoGoroutine(t *testing.T) {
	t.Helper()
	ours := func() (n int, stacks string) {
		text := make([]byte, 1<<22)
		for _, g := range strings.Split(string(text[:runtime.Stack(text, true)]), "\n\n") {
			if strings.Contains(g, "machnet/go/") && !strings.Contains(g, "testing.tRunner") {
				n++
				stacks += "\n\n" + g
			}
		}
		return n, stacks
	}
	before, _ := ours()
	t.Cleanup(func() {
		until(t, "the client's goroutines have ended", func() error {
			if n, stacks := ours(); n > before {
				return fmt.Errorf("%d goroutines, %d before:%s", n, before, stacks)
			}
			return nil
		})
	})
}

func TestAnHTTPServerServesOnWhenItsSidecarIsRestarted(t *testing.T) {
	for name, end := range map[string]func(*sidecar){"killed": (*sidecar).kill, "terminated": (*sidecar).stop} {
		t.Run(name, func(t *testing.T) {
			leavesNoGoroutine(t)
			p := newPair(t, "--dead-peer", "300")
			at := p.a.attach(t)
			l := listen(t, at)
			address := l.Addr().String()
			server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "hello") })}
			served := make(chan error, 1)
			go func() { served <- server.Serve(l) }()
			from := p.b.attach(t)
			transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&machnet.Dialer{Stack: from, Timeout: time.Second}).DialContext(ctx, "machnet", address)
			}}
			defer transport.CloseIdleConnections()
			client := &http.Client{Transport: transport, Timeout: 2 * time.Second}
			get := func() error {
				response, err := client.Get("http://machnet/")
				if err != nil {
					return err
				}
				defer response.Body.Close()
				if body, err := io.ReadAll(response.Body); err != nil || string(body) != "hello" {
					return fmt.Errorf("got %q, %v", body, err)
				}
				return nil
			}
			if err := get(); err != nil {
				t.Fatal(err)
			}
			sidecar := p.a
			for range 2 {
				end(sidecar)
				sidecar = sidecar.restart(t)
				until(t, "the server answers at the restarted sidecar", get)
			}
			select {
			case err := <-served:
				t.Fatalf("Serve returned %v", err)
			default:
			}
			if now := l.Addr().String(); now != address {
				t.Errorf("the listener is at %s, and was at %s", now, address)
			}
			_ = server.Close()
			if err := <-served; err != http.ErrServerClosed {
				t.Errorf("Serve returned %v, want http.ErrServerClosed", err)
			}
		})
	}
}

func TestWithoutItsSidecarAStackSaysSoAndWithTheNextItWorks(t *testing.T) {
	leavesNoGoroutine(t)
	p := newPair(t)
	s := p.a.attach(t)
	l := listen(t, s)
	go echoEach(l)
	old := dial(t, s, l.Addr())
	p.a.kill()
	d := machnet.Dialer{Stack: s}
	lc := machnet.ListenConfig{Stack: s}
	calls := map[string]func() error{
		"Read":       func() error { _, err := old.Read(make([]byte, 1)); return err },
		"empty Read": func() error { _, err := old.Read(nil); return err },
		"Write":      func() error { _, err := old.Write([]byte("x")); return err },
		"CloseWrite": old.CloseWrite,
		"Recv":       func() error { _, err := old.Recv(t.Context()); return err },
		"TrySend":    func() error { return old.TrySend(nil) },
	}
	attaching := map[string]func() error{
		"Dial":   func() error { _, err := d.Dial("machnet", l.Addr().String()); return err },
		"Listen": func() error { _, err := lc.Listen(t.Context(), "machnet", ":0"); return err },
	}
	_ = old.SetReadDeadline(time.Now().Add(20 * time.Second))
	for name, call := range calls {
		until(t, name+" says that the sidecar is gone", func() error {
			if err := call(); !errors.Is(err, syscall.ENETDOWN) || errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("%v, want ENETDOWN", err)
			}
			return nil
		})
	}
	// Many at once, and whatever others do, nobody is told that it closed something itself.
	results := make(chan error)
	for range 50 {
		for _, call := range attaching {
			go func() { results <- call() }()
		}
		for _, call := range calls {
			go func() { results <- call() }()
		}
	}
	for range 50 * (len(calls) + len(attaching)) {
		if err := <-results; !errors.Is(err, syscall.ENETDOWN) || errors.Is(err, net.ErrClosed) {
			t.Errorf("%v, want ENETDOWN", err)
		}
	}
	for name, call := range attaching {
		err := call()
		var op *net.OpError
		if !errors.As(err, &op) || !errors.Is(err, machnet.ErrNoSidecar) || !strings.Contains(err.Error(), p.a.socket) {
			t.Errorf("%s: %v, want an error of package net that wraps ErrNoSidecar and names the socket", name, err)
		}
	}
	if a := s.LocalAddrs(); len(a) != 1 || a[0].String() != p.a.ip {
		t.Errorf("LocalAddrs = %v, want those of the last sidecar", a)
	}
	p.a.restart(t)
	var c net.Conn
	until(t, "the listener is back", func() (err error) { c, err = d.Dial("machnet", l.Addr().String()); return err })
	defer c.Close()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
	for name, call := range calls {
		if err := call(); !errors.Is(err, syscall.ENETDOWN) {
			t.Errorf("%s on the old connection: %v, want ENETDOWN", name, err)
		}
	}
	another, err := lc.Listen(t.Context(), "machnet", ":0")
	if err != nil {
		t.Fatalf("Listen at the restarted sidecar: %v", err)
	}
	_ = another.Close()
}

func TestAListenerThatFailsFastDoes(t *testing.T) {
	p := newPair(t)
	lc := machnet.ListenConfig{Stack: p.a.attach(t), FailFast: true}
	l, err := lc.Listen(t.Context(), "machnet", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	result := make(chan error, 1)
	go func() { _, err := l.Accept(); result <- err }()
	p.a.kill()
	if err := <-result; !errors.Is(err, syscall.ENETDOWN) {
		t.Fatalf("Accept: %v, want ENETDOWN", err)
	}
	p.a.restart(t)
	until(t, "the stack is attached again", func() error {
		c, err := (&machnet.Dialer{Stack: lc.Stack}).Dial("machnet", l.Addr().String())
		if err == nil {
			_ = c.Close()
			return errors.New("somebody listens where nobody should")
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return err
		}
		return nil
	})
	if _, err := l.Accept(); !errors.Is(err, syscall.ENETDOWN) {
		t.Errorf("Accept afterwards: %v, want ENETDOWN", err)
	}
}

// detour is a path that leads to a sidecar's socket, or nowhere.
type detour string

func (d detour) leadTo(t *testing.T, socket string) {
	t.Helper()
	_ = os.Remove(string(d))
	if socket == "" {
		return
	}
	if err := os.Symlink(socket, string(d)); err != nil {
		t.Fatal(err)
	}
}

// attachBy attaches by a detour to a sidecar.
func (d detour) attachTo(t *testing.T, to *sidecar) *machnet.Stack {
	t.Helper()
	d.leadTo(t, to.socket)
	s, err := machnet.Attach(t.Context(), machnet.Config{Socket: string(d)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestAListenerThatCannotBeAttachedAgainEndsAndSaysWhy(t *testing.T) {
	for name, tc := range map[string]struct {
		// comes is what the stack finds at the end of its detour once its sidecar has ended.
		comes func(t *testing.T, p *pair, port string) (socket string)
		want  error
		says  string
	}{
		"another has taken the port": {
			func(t *testing.T, p *pair, port string) string {
				next := p.a.restart(t)
				until(t, "the sidecar takes applications", func() error {
					s, err := machnet.Attach(t.Context(), machnet.Config{Socket: next.socket})
					if err != nil {
						return err
					}
					t.Cleanup(func() { _ = s.Close() })
					l, err := (&machnet.ListenConfig{Stack: s}).Listen(t.Context(), "machnet", ":"+port)
					if err == nil {
						t.Cleanup(func() { _ = l.Close() })
					}
					return err
				})
				return next.socket
			}, syscall.EADDRINUSE, "listen again at the restarted sidecar: address already in use",
		},
		"the address is another": {
			func(_ *testing.T, p *pair, _ string) string { return p.b.socket },
			syscall.EADDRNOTAVAIL, "the sidecar's address is 10.0.0.2 now",
		},
		"the version is another": {
			func(t *testing.T, p *pair, _ string) string { return sidecarThatRefuses(t, 1, 99, "") },
			machnet.ErrVersion, "sidecar speaks 99",
		},
		"the engine is not there": {
			func(t *testing.T, p *pair, _ string) string { return sidecarThatRefuses(t, 4, 0, "no engine 7") },
			syscall.EINVAL, "no engine 7",
		},
	} {
		t.Run(name, func(t *testing.T) {
			leavesNoGoroutine(t)
			p := newPair(t)
			path := detour(filepath.Join(shortTempDir(t), "detour"))
			s := path.attachTo(t, p.a)
			l := listen(t, s)
			result := make(chan error, 1)
			go func() { _, err := l.Accept(); result <- err }()
			path.leadTo(t, "")
			p.a.kill()
			_, port, err := net.SplitHostPort(l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			path.leadTo(t, tc.comes(t, p, port))
			select {
			case err := <-result:
				var op *net.OpError
				if !errors.Is(err, tc.want) || !errors.As(err, &op) || op.Temporary() || !strings.Contains(err.Error(), tc.says) {
					t.Fatalf("Accept: %v, want one that wraps %v, passes for no passing one, and says %q", err, tc.want, tc.says)
				}
				t.Log(err)
			case <-time.After(30 * time.Second):
				t.Fatal("Accept still waits")
			}
			if name == "the address is another" {
				if a := s.LocalAddrs(); a[0].String() != p.b.ip {
					t.Errorf("LocalAddrs = %v, want those of the sidecar that is there now", a)
				}
			}
			if err := l.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
			if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Accept after Close: %v", err)
			}
		})
	}
}

// sidecarThatRefuses listens at a socket and sends every application away, with a status and a
// sentence of docs/channel.md; version 0 is the application's own.
func sidecarThatRefuses(t *testing.T, status, version byte, sentence string) (socket string) {
	t.Helper()
	socket = filepath.Join(shortTempDir(t), "other.sock")
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: socket, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			hello := make([]byte, 64)
			_, _ = c.Read(hello)
			welcome := make([]byte, 176)
			copy(welcome, "MACHNETA")
			welcome[8], welcome[12], welcome[28] = 2, status, version
			copy(welcome[16:24], hello[16:24]) // the same layout
			if version == 0 {
				copy(welcome[28:32], hello[12:16]) // the application's own
			}
			copy(welcome[64:], sentence)
			_, _ = c.Write(welcome)
			_ = c.Close()
		}
	}()
	return socket
}

func TestWhatIsClosedWithoutASidecarLeavesNothing(t *testing.T) {
	leavesNoGoroutine(t)
	p := newPair(t)
	s, other := p.a.attach(t), p.a.attach(t)
	l, gone := listen(t, s), listen(t, other)
	result := make(chan error, 2)
	for _, l := range []*machnet.Listener{l, gone} {
		go func() { _, err := l.Accept(); result <- err }()
	}
	p.a.kill()
	until(t, "the outage is known", func() error {
		if _, err := (&machnet.Dialer{Stack: s}).Dial("machnet", ":1"); !errors.Is(err, syscall.ENETDOWN) {
			return fmt.Errorf("%v, want ENETDOWN", err)
		}
		return nil
	})
	if err := l.Close(); err != nil {
		t.Errorf("Listener.Close: %v", err)
	}
	for _, s := range []*machnet.Stack{s, other} {
		if err := s.Close(); err != nil {
			t.Errorf("Stack.Close: %v", err)
		}
	}
	for range 2 {
		if err := <-result; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept: %v, want net.ErrClosed", err)
		}
	}
	if _, err := (&machnet.Dialer{Stack: s}).Dial("machnet", ":1"); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Dial on a closed stack: %v, want net.ErrClosed", err)
	}
	// A listener that was closed meanwhile does not come back.
	next := p.a.restart(t)
	until(t, "the port is free", func() error {
		s, err := machnet.Attach(t.Context(), machnet.Config{Socket: next.socket})
		if err != nil {
			return err
		}
		defer s.Close()
		again, err := (&machnet.ListenConfig{Stack: s}).Listen(t.Context(), "machnet", l.Addr().String())
		if err == nil {
			_ = again.Close()
		}
		return err
	})
}

func TestADialThatWaitsForASilentSidecarEndsWithItsContextAndItsStack(t *testing.T) {
	leavesNoGoroutine(t)
	p := newPair(t)
	folder := shortTempDir(t)
	path := detour(filepath.Join(folder, "detour"))
	s := path.attachTo(t, p.a)
	silent, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: filepath.Join(folder, "silent.sock"), Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	path.leadTo(t, silent.Addr().String())
	p.a.kill()
	d := machnet.Dialer{Stack: s}
	until(t, "the outage is known, and nobody answers", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if _, err := d.DialContext(ctx, "machnet", ":1"); !errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("%v, want context.DeadlineExceeded", err)
		}
		return nil
	})
	results := make(chan error, 10)
	for range cap(results) {
		go func() { _, err := d.Dial("machnet", ":1"); results <- err }()
	}
	time.AfterFunc(20*time.Millisecond, func() { _ = s.Close() })
	for range cap(results) {
		select {
		case err := <-results:
			if !errors.Is(err, net.ErrClosed) {
				t.Errorf("%v, want net.ErrClosed", err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("a Dial still waits")
		}
	}
}
