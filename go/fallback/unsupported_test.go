//go:build !cgo

package fallback_test

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"testing"

	"github.com/machnet/machnet/go/fallback"
	"github.com/machnet/machnet/go/machnet"
)

func TestABuildWithoutMachnetGoesByTCPAndSaysWhy(t *testing.T) {
	quiet := slog.New(slog.DiscardHandler)
	l, err := (&fallback.ListenConfig{Logger: quiet}).Listen(t.Context(), ":7000", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = c.Write([]byte("hello"))
		_ = c.Close()
	}()
	d := fallback.Dialer{Logger: quiet}
	c, err := d.DialContext(t.Context(), "10.0.0.2:7000", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, ok := c.(*net.TCPConn); !ok {
		t.Errorf("the connection is a %T", c)
	}
	if got, err := io.ReadAll(c); string(got) != "hello" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
	if reason := d.Stats().LastReason; !errors.Is(reason, machnet.ErrUnsupported) || !errors.Is(reason, errors.ErrUnsupported) {
		t.Errorf("the reason is %v", reason)
	}
}
