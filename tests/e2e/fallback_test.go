package e2e

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/machnet/machnet/go/fallback"
	"github.com/machnet/machnet/go/machnet"
)

// byWhat says by what a connection to an echo server goes.
func byWhat(c net.Conn, err error) (string, error) {
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	p := []byte("hello")
	if _, err := c.Write(p); err != nil {
		return "", err
	}
	if _, err := io.ReadFull(c, p); err != nil || string(p) != "hello" {
		return "", fmt.Errorf("the echo is %q: %w", p, err)
	}
	return fmt.Sprintf("%T", c), nil
}

// echoAll serves the connections of a listener of any kind until it is closed.
func echoAll(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			_, _ = io.Copy(c, c)
		}()
	}
}

// One binary at both ends, whose sidecars die and come back one after the other.
func TestProgramsGoByTCPWhileEitherSidecarIsAwayAndByMachnetAgainAfterThat(t *testing.T) {
	leavesNoGoroutine(t)
	p := newPair(t, "--dead-peer", "300")
	quiet := slog.New(slog.DiscardHandler)
	server, client := p.a, p.b
	lc := fallback.ListenConfig{Machnet: machnet.ListenConfig{Stack: server.attach(t)}, Retry: 20 * time.Millisecond, Logger: quiet}
	l, err := lc.Listen(t.Context(), ":0", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go echoAll(l)
	address := (&machnet.Addr{IP: l.MachnetAddr().IP, Port: l.MachnetAddr().Port}).String()
	d := fallback.Dialer{
		Machnet: machnet.Dialer{Stack: client.attach(t)}, Wait: 100 * time.Millisecond, Retry: 20 * time.Millisecond, Logger: quiet,
	}
	dial := func() (string, error) { return byWhat(d.DialContext(t.Context(), address, l.Addr().String())) }
	goes := func(by string) func() error {
		return func() error {
			if got, err := dial(); err != nil || got != by {
				return fmt.Errorf("a dial goes by %s, %w", got, err)
			}
			return nil
		}
	}
	const machnetConn, tcpConn = "*machnet.Conn", "*net.TCPConn"
	if err := goes(machnetConn)(); err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]*sidecar{"the client's": client, "the server's": server} {
		open, err := d.DialContext(t.Context(), address, l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		s.kill()
		// No dial fails meanwhile, whichever way it goes.
		for range 3 {
			if _, err := dial(); err != nil && !errors.Is(err, syscall.ENETDOWN) {
				t.Errorf("with %s sidecar killed, a dial: %v", name, err)
			}
		}
		until(t, "dials go by TCP with "+name+" sidecar killed", goes(tcpConn))
		_ = open.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := open.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("with %s sidecar killed, an open connection reads %v", name, err)
		}
		open.Close()
		s.restart(t)
		until(t, "dials go by Machnet again with "+name+" sidecar back", goes(machnetConn))
	}
	if s := d.Stats(); s.TCP == 0 || s.Machnet == 0 || s.LastReason == nil {
		t.Errorf("the dialer's stats are %+v", s)
	}
	if s := l.Stats(); !s.Joined || s.TCP == 0 || s.Machnet == 0 {
		t.Errorf("the listener's stats are %+v", s)
	}
}

// A program that starts before its sidecar, as on a laptop, or while a machine boots.
func TestAListenerOfAProgramThatStartsBeforeItsSidecarJoinsMachnet(t *testing.T) {
	p := newPair(t)
	p.a.kill()
	t.Setenv("MACHNET_SOCKET", p.a.socket) // for the Default stack
	_ = os.Remove(p.a.socket)
	lc := fallback.ListenConfig{Retry: 20 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)}
	l, err := lc.Listen(t.Context(), ":7000", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go echoAll(l)
	if got, err := byWhat(net.Dial("tcp", l.Addr().String())); err != nil || l.Stats().Joined || !errors.Is(l.Stats().LastReason, machnet.ErrNoSidecar) {
		t.Fatalf("without a sidecar, a dial goes by %s, %v, and the stats are %+v", got, err, l.Stats())
	}
	p.a.restart(t)
	d := machnet.Dialer{Stack: p.b.attach(t), Timeout: time.Second}
	until(t, "a dial goes by Machnet", func() error {
		_, err := byWhat(d.Dial("machnet", p.a.ip+":7000"))
		return err
	})
	stack, err := machnet.Default()
	if err != nil {
		t.Fatal(err)
	}
	stack.Close()
}
