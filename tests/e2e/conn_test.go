package e2e

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/machnet/machnet/go/machnet"
	"golang.org/x/net/nettest"
)

func TestConnBehavesAsNettestDemands(t *testing.T) {
	p := sharedPair(t)
	for name, stacks := range map[string]func() (*machnet.Stack, *machnet.Stack){
		"two hosts": func() (*machnet.Stack, *machnet.Stack) { return p.a.attach(t), p.b.attach(t) },
		"one host":  func() (*machnet.Stack, *machnet.Stack) { s := p.a.attach(t); return s, s },
	} {
		t.Run(name, func(t *testing.T) {
			from, to := stacks()
			l := listen(t, to)
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				d := machnet.Dialer{Stack: from, Timeout: 10 * time.Second}
				if c1, err = d.Dial("machnet", l.Addr().String()); err != nil {
					return nil, nil, nil, err
				}
				if c2, err = l.Accept(); err != nil {
					return nil, nil, nil, err
				}
				return c1, c2, func() { _ = c1.Close(); _ = c2.Close() }, nil
			})
		})
	}
}

func TestShortReadsKeepTheRestOfAMessage(t *testing.T) {
	a, b := twoHosts(t)
	for _, m := range []string{"hello world", "XY"} {
		if _, err := a.Write([]byte(m)); err != nil {
			t.Fatal(err)
		}
	}
	got, buf := "", make([]byte, 5)
	for len(got) < len("hello worldXY") {
		n, err := b.Read(buf)
		if err != nil || n == 0 {
			t.Fatalf("after %q: Read = %d, %v", got, n, err)
		}
		got += string(buf[:n])
	}
	if got != "hello worldXY" {
		t.Fatalf("got %q", got)
	}
}

func TestAnEmptyWriteSendsNothing(t *testing.T) {
	a, b := twoHosts(t)
	if n, err := a.Write(nil); n != 0 || err != nil {
		t.Fatalf("Write(nil) = %d, %v", n, err)
	}
	if n, err := b.Read(nil); n != 0 || err != nil {
		t.Fatalf("Read(nil) = %d, %v", n, err)
	}
	if _, err := a.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if m, err := b.Recv(t.Context()); err != nil || string(m.Bytes()) != "x" {
		t.Fatalf("the first message is %q, %v; want x", m.Bytes(), err)
	}
}

func TestAStreamArrivesWholeThroughAnyBuffers(t *testing.T) {
	total := 64 << 20
	if testing.Short() {
		total = 4 << 20
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for name, tc := range map[string]struct {
		total, least, most int
	}{
		"1 B to 1 MiB": {total, 1, 1 << 20},
		"1 to 64 B":    {total / 256, 1, 64},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := twoHosts(t)
			sent := sha256.New()
			failed := make(chan error, 1)
			go func() {
				r := rand.New(rand.NewPCG(seed, 1))
				data := make([]byte, tc.most)
				for left := tc.total; left > 0; {
					p := data[:min(left, size(r, tc.least, tc.most))]
					for i := 0; i < len(p); i += 97 {
						p[i] = byte(r.Uint32())
					}
					sent.Write(p)
					if _, err := a.Write(p); err != nil {
						failed <- err
						return
					}
					left -= len(p)
				}
				failed <- a.CloseWrite()
			}()
			r := rand.New(rand.NewPCG(seed, 2))
			got, n := sha256.New(), 0
			buf := make([]byte, tc.most)
			_ = b.SetReadDeadline(time.Now().Add(time.Minute))
			for {
				m, err := b.Read(buf[:size(r, tc.least, tc.most)])
				got.Write(buf[:m])
				n += m
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatalf("after %d bytes: %v", n, err)
				}
			}
			if err := <-failed; err != nil {
				t.Fatal(err)
			}
			if n != tc.total || !bytes.Equal(got.Sum(nil), sent.Sum(nil)) {
				t.Fatalf("got %d bytes of %d, or others than were sent", n, tc.total)
			}
		})
	}
}

// size is a length from least to most whose logarithm is spread evenly.
func size(r *rand.Rand, least, most int) int {
	n := most
	for n > least && r.IntN(3) > 0 {
		n /= 2
	}
	return max(least, n-r.IntN(n-n/2+1))
}

func TestCloseDeliversWhatWasWritten(t *testing.T) {
	a, b := twoHosts(t)
	data := bytes.Repeat([]byte("machnet "), 1<<15) // 256 KiB
	go func() {
		_, _ = a.Write(data)
		_ = a.Close()
	}()
	_ = b.SetReadDeadline(time.Now().Add(20 * time.Second))
	got, err := io.ReadAll(b)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("got %d bytes of %d, %v", len(got), len(data), err)
	}
}

func TestHalfCloseLeavesTheOtherDirection(t *testing.T) {
	a, b := twoHosts(t)
	if _, err := a.Write([]byte("question")); err != nil {
		t.Fatal(err)
	}
	if err := a.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Write([]byte("more")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("Write after CloseWrite: %v, want EPIPE", err)
	}
	_ = b.SetDeadline(time.Now().Add(10 * time.Second))
	if got, err := io.ReadAll(b); err != nil || string(got) != "question" {
		t.Fatalf("read %q, %v", got, err)
	}
	if _, err := b.Write([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	_ = a.SetDeadline(time.Now().Add(10 * time.Second))
	if got, err := io.ReadAll(a); err != nil || string(got) != "answer" {
		t.Fatalf("read %q, %v", got, err)
	}
}

func TestCloseReadDropsWhatThePeerSends(t *testing.T) {
	a, b := twoHosts(t)
	blocked := make(chan error, 1)
	go func() {
		_, err := b.Read(make([]byte, 1))
		blocked <- err
	}()
	time.Sleep(10 * time.Millisecond)
	if err := b.CloseRead(); err != nil {
		t.Fatal(err)
	}
	if err := <-blocked; err != io.EOF {
		t.Errorf("a blocked Read returned %v, want EOF", err)
	}
	if _, err := b.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("Read after CloseRead: %v, want EOF", err)
	}
	_ = a.SetWriteDeadline(time.Now().Add(20 * time.Second))
	if _, err := a.Write(make([]byte, 8<<20)); err != nil { // far more than fits on the way
		t.Errorf("the sender is held up: %v", err)
	}
	if _, err := b.Write([]byte("still")); err != nil {
		t.Errorf("the other direction: %v", err)
	}
}

func TestAWriterWaitsForItsReader(t *testing.T) {
	a, b := twoHosts(t)
	_ = a.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
	n, err := a.Write(make([]byte, 64<<20))
	if !errors.Is(err, os.ErrDeadlineExceeded) || n == 64<<20 || n%(64<<10) != 0 {
		t.Fatalf("Write to a peer that does not read = %d, %v; want whole messages and a timeout", n, err)
	}
	_ = a.SetWriteDeadline(time.Time{})
	_, _ = a.Write([]byte("end"))
	_ = a.CloseWrite()
	_ = b.SetReadDeadline(time.Now().Add(20 * time.Second))
	got, err := io.Copy(io.Discard, b)
	if err != nil || got != int64(n+3) {
		t.Fatalf("the peer read %d bytes, %v; want %d", got, err, n+3)
	}
}

func TestOneConnectionThatIsNotReadBlocksNoOther(t *testing.T) {
	p := sharedPair(t)
	from, to := p.a.attach(t), p.b.attach(t)
	stuck, _ := connect(t, from, to)
	a, b := connect(t, from, to)
	_ = stuck.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	if _, err := stuck.Write(make([]byte, 64<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("Write to a peer that does not read: %v", err)
	}
	echo := make([]byte, 4096)
	for range 100 {
		_ = a.SetDeadline(time.Now().Add(5 * time.Second))
		_ = b.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := a.Write(echo); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(b, echo); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDeadlinesDoNotDisturbEachOther(t *testing.T) {
	a, b := twoHosts(t)
	_ = a.SetReadDeadline(time.Now().Add(-time.Second))
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("Read past its deadline: %v", err)
	}
	var ne net.Error
	if _, err := a.Read(make([]byte, 1)); !errors.As(err, &ne) || !ne.Timeout() {
		t.Fatalf("Read past its deadline: %v; want a timeout", err)
	}
	if _, err := a.Write([]byte("x")); err != nil {
		t.Fatalf("Write while only the read deadline has passed: %v", err)
	}
	if _, err := b.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	_ = a.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) < 50*time.Millisecond {
		t.Fatalf("Read with 50 ms: %v after %v", err, time.Since(began))
	}
	_ = a.SetReadDeadline(time.Time{})
	go b.Write([]byte("y"))
	if n, err := a.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Fatalf("Read without a deadline again = %d, %v", n, err)
	}
}

func TestCloseUnblocksEveryCall(t *testing.T) {
	a, _ := twoHosts(t)
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

func TestClosingTheStackUnblocksEveryCall(t *testing.T) {
	p := sharedPair(t)
	from, to := p.a.attach(t), p.b.attach(t)
	a, _ := connect(t, from, to)
	l := listen(t, from)
	errs := make(chan error, 2)
	go func() { _, err := a.Read(make([]byte, 1)); errs <- err }()
	go func() { _, err := l.Accept(); errs <- err }()
	time.Sleep(20 * time.Millisecond)
	if err := from.Close(); err != nil {
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
	d := machnet.Dialer{Stack: from}
	if _, err := d.Dial("machnet", "10.0.0.2:1"); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Dial on a closed stack: %v, want net.ErrClosed", err)
	}
}

func TestManyConnectionsOfOneStackEchoAtOnce(t *testing.T) {
	p := sharedPair(t)
	from, to := p.a.attach(t), p.b.attach(t)
	l := listen(t, to)
	go echoEach(l)
	const conns, rounds = 32, 100
	var all sync.WaitGroup
	for i := range conns {
		all.Go(func() {
			c := dial(t, from, l.Addr())
			_ = c.SetDeadline(time.Now().Add(30 * time.Second))
			r := rand.New(rand.NewPCG(1, uint64(i)))
			for range rounds {
				p := bytes.Repeat([]byte{byte(i)}, size(r, 1, 16<<10))
				got := make([]byte, len(p))
				if _, err := c.Write(p); err != nil {
					t.Error(err)
					return
				}
				if _, err := io.ReadFull(c, got); err != nil {
					t.Error(err)
					return
				}
				if !bytes.Equal(p, got) {
					t.Errorf("connection %d got the bytes of another", i)
					return
				}
			}
		})
	}
	all.Wait()
}

func TestAResetReachesTheReader(t *testing.T) {
	p := sharedPair(t)
	from, to := p.a.attach(t), p.b.attach(t)
	l := listen(t, to)
	c := dial(t, from, l.Addr())
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
