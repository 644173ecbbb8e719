package e2e

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/machnet/machnet/go/machnet"
)

func TestCloseUnblocksAccept(t *testing.T) {
	l := listen(t, sharedPair(t).a.attach(t))
	errs := make(chan error, 3)
	for range 3 {
		go func() { _, err := l.Accept(); errs <- err }()
	}
	time.Sleep(20 * time.Millisecond)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		select {
		case err := <-errs:
			if !errors.Is(err, net.ErrClosed) {
				t.Errorf("Accept returned %v, want net.ErrClosed", err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("Accept is still blocked")
		}
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close: %v, want net.ErrClosed", err)
	}
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the second Close returned %v, want net.ErrClosed", err)
	}
}

func TestAcceptObeysItsDeadlineAndContext(t *testing.T) {
	p := sharedPair(t)
	l := listen(t, p.a.attach(t))
	_ = l.SetDeadline(time.Now().Add(20 * time.Millisecond))
	if _, err := l.Accept(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("Accept: %v, want a timeout", err)
	}
	_ = l.SetDeadline(time.Time{})
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := l.AcceptMachnet(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("AcceptMachnet: %v, want context.Canceled", err)
	}
	dial(t, p.b.attach(t), l.Addr())
	if _, err := l.Accept(); err != nil {
		t.Fatalf("Accept afterwards: %v", err)
	}
}

func TestAddressesNameBothEnds(t *testing.T) {
	p := sharedPair(t)
	from, to := p.a.attach(t), p.b.attach(t)
	l := listen(t, to)
	at := l.Addr().(*machnet.Addr)
	if at.IP.String() != p.b.ip || at.Port == 0 {
		t.Errorf("the listener is at %v, want %s and a port", at, p.b.ip)
	}
	c := dial(t, from, at)
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if c.RemoteAddr().String() != at.String() || s.LocalAddr().String() != at.String() {
		t.Errorf("dialled %v, accepted at %v, listened at %v", c.RemoteAddr(), s.LocalAddr(), at)
	}
	if c.LocalAddr().String() != s.RemoteAddr().String() || !strings.HasPrefix(c.LocalAddr().String(), p.a.ip+":") {
		t.Errorf("dialled from %v, accepted from %v; want %s", c.LocalAddr(), s.RemoteAddr(), p.a.ip)
	}
}

func TestAPortIsListenedOnOnce(t *testing.T) {
	p := sharedPair(t)
	s := p.a.attach(t)
	l := listen(t, s)
	lc := machnet.ListenConfig{Stack: p.a.attach(t)}
	if _, err := lc.Listen(context.Background(), "machnet", l.Addr().String()); !errors.Is(err, syscall.EADDRINUSE) {
		t.Fatalf("listening on a port in use: %v, want EADDRINUSE", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		again, err := lc.Listen(context.Background(), "machnet", l.Addr().String())
		if err == nil {
			_ = again.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("listening on a port that was given back: %v", err)
		}
	}
}

func TestListenRefusesAnAddressOfAnother(t *testing.T) {
	lc := machnet.ListenConfig{Stack: sharedPair(t).a.attach(t)}
	_, err := lc.Listen(context.Background(), "machnet", "10.9.9.9:1")
	if err == nil || !strings.Contains(err.Error(), "10.0.0.1") {
		t.Fatalf("got %v, want an error that names the sidecar's address", err)
	}
}

func TestNobodyListensIsRefusedAtOnce(t *testing.T) {
	p := sharedPair(t)
	s := p.a.attach(t)
	for name, address := range map[string]string{"at the other host": p.b.ip + ":9", "at this host": p.a.ip + ":9"} {
		t.Run(name, func(t *testing.T) {
			d := machnet.Dialer{Stack: s, Timeout: 10 * time.Second}
			began := time.Now()
			_, err := d.Dial("machnet", address)
			if !errors.Is(err, syscall.ECONNREFUSED) {
				t.Fatalf("dial: %v, want ECONNREFUSED", err)
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("refused after %v, want at once", took)
			}
		})
	}
}

func TestASilentHostTimesOut(t *testing.T) {
	s := sharedPair(t).a.attach(t)
	t.Run("in the dialer's time", func(t *testing.T) {
		d := machnet.Dialer{Stack: s, Timeout: 200 * time.Millisecond}
		began := time.Now()
		_, err := d.Dial("machnet", "10.0.0.77:1")
		var ne net.Error
		if !errors.As(err, &ne) || !ne.Timeout() {
			t.Fatalf("dial: %v, want a timeout", err)
		}
		if took := time.Since(began); took < 150*time.Millisecond || took > 5*time.Second {
			t.Errorf("gave up after %v, want 200 ms", took)
		}
	})
	t.Run("when the context ends", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(50*time.Millisecond, cancel)
		d := machnet.Dialer{Stack: s}
		if _, err := d.DialContext(ctx, "machnet", "10.0.0.77:1"); !errors.Is(err, context.Canceled) {
			t.Fatalf("dial: %v, want context.Canceled", err)
		}
	})
}

func TestAttachErrorsNameTheSocketAndTheNextStep(t *testing.T) {
	folder := shortTempDir(t)
	plain := filepath.Join(folder, "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dead := filepath.Join(folder, "dead.sock")
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: dead, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	for name, path := range map[string]string{
		"no such file":     filepath.Join(folder, "none.sock"),
		"nobody listens":   dead,
		"not a socket":     plain,
		"path is too long": filepath.Join(folder, strings.Repeat("x", 200)),
	} {
		t.Run(name, func(t *testing.T) {
			s, err := machnet.Attach(context.Background(), machnet.Config{Socket: path})
			if err == nil {
				_ = s.Close()
				t.Fatal("attached to nothing")
			}
			t.Log(err)
			if name == "path is too long" {
				if !strings.Contains(err.Error(), "use a shorter one") {
					t.Errorf("%q does not say what to do", err)
				}
				return
			}
			if !strings.Contains(err.Error(), path) {
				t.Errorf("%q does not name the socket", err)
			}
			if !errors.Is(err, machnet.ErrNoSidecar) && !errors.Is(err, fs.ErrPermission) {
				t.Errorf("%v is neither ErrNoSidecar nor fs.ErrPermission", err)
			}
		})
	}
}

func TestAttachGivesUpOnASilentSocket(t *testing.T) {
	path := filepath.Join(shortTempDir(t), "silent.sock")
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_, err = machnet.Attach(ctx, machnet.Config{Socket: path})
	var timeout net.Error
	if !errors.Is(err, context.DeadlineExceeded) || !(errors.As(err, &timeout) && timeout.Timeout()) || !strings.Contains(err.Error(), path) {
		t.Fatalf("attach: %v, want a timeout that names the socket", err)
	}
}

func TestAnEngineMayBeNamed(t *testing.T) {
	p := sharedPair(t)
	s, err := machnet.Attach(t.Context(), machnet.Config{Socket: p.a.socket, Engine: machnet.OnEngine(0)})
	if err != nil {
		t.Fatalf("the only engine: %v", err)
	}
	_ = s.Close()
	if s, err = machnet.Attach(t.Context(), machnet.Config{Socket: p.a.socket, Engine: machnet.OnEngine(9)}); err == nil {
		_ = s.Close()
		t.Fatal("attached to engine 9 of one")
	}
	if text := err.Error(); !strings.Contains(text, p.a.socket) || !strings.Contains(text, "no engine 9") {
		t.Errorf("%q does not name the socket and the engine", err)
	}
}

func TestTooManyConnectionsAreRefusedAndLaterOnesAreNot(t *testing.T) {
	p := newPair(t, "--flows", "4", "--channels-per-application", "2")
	from, to := p.a.attach(t), p.b.attach(t)
	l := listen(t, to)
	d := machnet.Dialer{Stack: from, Timeout: 10 * time.Second}
	var open []net.Conn
	var err error
	for range 9 {
		var c net.Conn
		if c, err = d.Dial("machnet", l.Addr().String()); err != nil {
			break
		}
		open = append(open, c)
	}
	if len(open) != 8 || !errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("%d connections, then %v; want 8, then ENOBUFS", len(open), err)
	}
	if text := err.Error(); !strings.Contains(text, "2 channels") || !strings.Contains(text, "channels.per_application") {
		t.Errorf("%q does not say how many channels there may be, and by which setting", text)
	}
	if stats := from.Stats(); stats.Channels != 2 || !stats.ChannelLimit || stats.Refused == 0 {
		t.Errorf("%+v, want two channels and that a third was refused", stats)
	}
	for _, c := range open { // a connection's place is free when both ends have closed it
		_ = c.Close()
	}
	for range open {
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c, err := d.Dial("machnet", p.a.ip+":9")
		if errors.Is(err, syscall.ECONNREFUSED) {
			return // there was room for it
		}
		if err == nil {
			_ = c.Close()
		}
		if time.Now().After(deadline) {
			t.Fatalf("after a Close: %v, want ECONNREFUSED", err)
		}
	}
}
