package conformance

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/machnet/machnet/go/machnet"
)

func closeUnblocksEveryCall(t *testing.T, p Pair) {
	a, _ := p.connect(t)
	errs := make(chan error, 4)
	for range 2 {
		go func() { _, err := a.Read(make([]byte, 1)); errs <- err }()
		go func() { _, err := a.Write(make([]byte, 64<<20)); errs <- err }()
	}
	time.Sleep(50 * time.Millisecond)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		select {
		case err := <-errs:
			if !errors.Is(err, net.ErrClosed) {
				t.Errorf("a blocked call returned %v, want net.ErrClosed", err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("a call is still blocked")
		}
	}
	if err := a.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the second Close returned %v, want net.ErrClosed", err)
	}
	if err := a.SetDeadline(time.Now()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("SetDeadline after Close returned %v, want net.ErrClosed", err)
	}
}

func closingTheStackUnblocksEveryCall(t *testing.T, p Pair) {
	a, _ := p.connect(t)
	l, err := (&machnet.ListenConfig{Stack: p.From}).Listen(t.Context(), "machnet", ":0")
	if err != nil {
		t.Fatal(err)
	}
	errs := make(chan error, 2)
	go func() { _, err := a.Read(make([]byte, 1)); errs <- err }()
	go func() { _, err := l.Accept(); errs <- err }()
	time.Sleep(20 * time.Millisecond)
	if err := p.From.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := <-errs; !errors.Is(err, net.ErrClosed) {
			t.Errorf("a blocked call returned %v, want net.ErrClosed", err)
		}
	}
	if _, err := a.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write on a closed stack: %v, want net.ErrClosed", err)
	}
	d := machnet.Dialer{Stack: p.From}
	if _, err := d.Dial("machnet", "10.0.0.2:1"); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Dial on a closed stack: %v, want net.ErrClosed", err)
	}
}

func aResetReachesTheReader(t *testing.T, p Pair) {
	l := p.listen(t)
	c := p.dial(t, l)
	// A connection that nobody has accepted is reset when its listener closes.
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond)
	_ = l.Close()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("Read: %v, want ECONNRESET", err)
	}
}

// allowed reports whether an operation that another goroutine's Close came into may end so: with success, or net.ErrClosed.
func allowed(err error) bool { return err == nil || errors.Is(err, net.ErrClosed) }

// Each end is closed at any moment of its reading and writing. Who closes has net.ErrClosed; the other end, the end of the stream or of the
// connection.
func closeWhileReadingAndWriting(t *testing.T, p Pair) {
	r := p.random(1)
	l := p.listen(t)
	for round := range 100 {
		a := p.dial(t, l)
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		b := c.(*machnet.Conn)
		_ = b.SetDeadline(time.Now().Add(patience))
		var all sync.WaitGroup
		for range 2 {
			all.Go(func() {
				buf := make([]byte, 1000)
				var err error
				for err == nil {
					_, err = a.Read(buf)
				}
				if !allowed(err) {
					t.Errorf("round %d: Read: %v, want net.ErrClosed", round, err)
				}
			})
			all.Go(func() {
				var err error
				for err == nil {
					_, err = a.Write(make([]byte, 5000))
				}
				if !allowed(err) {
					t.Errorf("round %d: Write: %v, want net.ErrClosed", round, err)
				}
			})
		}
		all.Go(func() {
			_, err := io.Copy(b, b)
			if err != nil && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
				t.Errorf("round %d: the other end: %v", round, err)
			}
			_ = b.Close()
		})
		time.Sleep(time.Duration(r.IntN(2000)) * time.Microsecond)
		if err := a.Close(); err != nil {
			t.Errorf("round %d: Close: %v", round, err)
		}
		over := make(chan struct{})
		go func() { all.Wait(); close(over) }()
		finish(t, "a call on a closed connection", over)
	}
}

// A listener is closed at any moment of what its callers do. Accept has net.ErrClosed; who dials gets a connection, which ends, or is refused.
func closeWhileAcceptingAndDialling(t *testing.T, p Pair) {
	r := p.random(2)
	for round := range 50 {
		l := p.listen(t)
		var all sync.WaitGroup
		for range 2 {
			all.Go(func() {
				for {
					c, err := l.Accept()
					if err != nil {
						if !errors.Is(err, net.ErrClosed) {
							t.Errorf("round %d: Accept: %v, want net.ErrClosed", round, err)
						}
						return
					}
					_ = c.Close()
				}
			})
		}
		for range 4 {
			all.Go(func() {
				for {
					c, err := p.dialer().Dial("machnet", l.Addr().String())
					if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) {
						return
					}
					if err != nil {
						t.Errorf("round %d: Dial: %v, want ECONNREFUSED", round, err)
						return
					}
					_ = c.SetDeadline(time.Now().Add(patience))
					if _, err := c.Read(make([]byte, 1)); err != io.EOF && !errors.Is(err, syscall.ECONNRESET) {
						t.Errorf("round %d: Read: %v, want EOF or ECONNRESET", round, err)
					}
					_ = c.Close()
				}
			})
		}
		time.Sleep(time.Duration(r.IntN(2000)) * time.Microsecond)
		if err := l.Close(); err != nil {
			t.Errorf("round %d: Close: %v", round, err)
		}
		over := make(chan struct{})
		go func() { all.Wait(); close(over) }()
		finish(t, "a call of a closed listener, or a dial to it", over)
	}
}

// A dial that is given up leaves nothing, and the next ones find all connections free: more are given up than a channel has.
func dialsGivenUpAtAnyMoment(t *testing.T, p Pair) {
	r := p.random(3)
	l := p.listen(t)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	for round := range 400 {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		time.AfterFunc(time.Duration(r.IntN(400))*time.Microsecond, cancel)
		c, err := p.dialer().DialContext(ctx, "machnet", l.Addr().String())
		cancel()
		switch {
		case err == nil:
			_ = c.Close()
		case !errors.Is(err, context.Canceled):
			t.Fatalf("round %d: %v, want context.Canceled", round, err)
		}
	}
	p.dial(t, l)
}
