package e2e

import (
	"errors"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/machnet/machnet/go/machnet"
)

func TestTheSidecarsDeathFailsEveryCallAtOnce(t *testing.T) {
	p := newPair(t)
	from, to := p.a.attach(t), p.b.attach(t)
	reader, _ := connect(t, from, to)
	writer, _ := connect(t, from, to)
	l, err := (&machnet.ListenConfig{Stack: from, FailFast: true}).Listen(t.Context(), "machnet", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	calls := map[string]func() error{
		"Read":   func() error { _, err := reader.Read(make([]byte, 1)); return err },
		"Recv":   func() error { _, err := writer.Recv(t.Context()); return err },
		"Write":  func() error { _, err := writer.Write(make([]byte, 64<<20)); return err },
		"Accept": func() error { _, err := l.Accept(); return err },
		"Dial": func() error {
			d := machnet.Dialer{Stack: from, Timeout: time.Minute}
			_, err := d.Dial("machnet", "10.0.0.77:1")
			return err
		},
	}
	type result struct {
		name string
		err  error
		at   time.Time
	}
	results := make(chan result, len(calls))
	for name, call := range calls {
		go func() { err := call(); results <- result{name, err, time.Now()} }()
	}
	time.Sleep(200 * time.Millisecond) // everybody blocks
	killed := time.Now()
	p.a.kill()
	for range calls {
		select {
		case r := <-results:
			if !errors.Is(r.err, syscall.ENETDOWN) {
				t.Errorf("%s returned %v, want ENETDOWN", r.name, r.err)
			}
			if took := r.at.Sub(killed); took > time.Second {
				t.Errorf("%s returned after %v, want at once", r.name, took)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("a call is still blocked")
		}
	}
	if _, err := reader.Write([]byte("x")); !errors.Is(err, syscall.ENETDOWN) {
		t.Errorf("a Write afterwards: %v, want ENETDOWN", err)
	}
	lc := machnet.ListenConfig{Stack: from}
	if _, err := lc.Listen(t.Context(), "machnet", ":0"); !errors.Is(err, syscall.ENETDOWN) {
		t.Errorf("a Listen afterwards: %v, want ENETDOWN", err)
	}
	if err := reader.Close(); err != nil {
		t.Errorf("Close afterwards: %v", err)
	}
}

func TestTheDeathOfThePeersSidecarEndsItsConnections(t *testing.T) {
	p := newPair(t, "--dead-peer", "300")
	from, to := p.a.attach(t), p.b.attach(t)
	a, _ := connect(t, from, to)
	p.b.kill()
	_ = a.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := a.Write([]byte("anybody there?")); err != nil {
		t.Fatal(err)
	}
	_, err := a.Read(make([]byte, 1))
	var ne net.Error
	if !errors.Is(err, syscall.ETIMEDOUT) && !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("Read: %v, want ETIMEDOUT or ECONNRESET", err)
	}
	if errors.As(err, &ne) && errors.Is(err, syscall.ETIMEDOUT) && !ne.Timeout() {
		t.Errorf("%v does not call itself a timeout", err)
	}
	// The sidecar here goes on.
	x, y := connect(t, from, from)
	if _, err := x.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := y.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

func TestAPeerThatDetachesEndsItsConnections(t *testing.T) {
	p := sharedPair(t)
	from, to := p.a.attach(t), p.b.attach(t)
	a, _ := connect(t, from, to)
	_ = to.Close()
	_ = a.SetDeadline(time.Now().Add(20 * time.Second))
	if n, err := a.Read(make([]byte, 1)); err == nil {
		t.Fatalf("Read %d bytes from a peer that has gone", n)
	} else if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
		t.Fatalf("Read: %v, want the end or a reset", err)
	}
}

func TestAnApplicationMayAttachAgainAndAgain(t *testing.T) {
	p := sharedPair(t)
	to := p.b.attach(t)
	l := listen(t, to)
	for i := range 50 {
		s, err := machnet.Attach(t.Context(), machnet.Config{Socket: p.a.socket})
		if err != nil {
			t.Fatalf("attach %d: %v", i, err)
		}
		d := machnet.Dialer{Stack: s, Timeout: 10 * time.Second}
		c, err := d.Dial("machnet", l.Addr().String())
		if err != nil {
			t.Fatalf("dial %d: %v", i, err)
		}
		in, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		_ = in.Close()
		_ = s.Close()
	}
}
