//go:build linux && cgo && (amd64 || arm64)

package machnettest_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/machnet/machnet/go/machnet"
	"github.com/machnet/machnet/go/machnettest"
)

// full are connections of two stacks that nobody reads at either end, though both ends write all they can.
type full struct {
	ends    [][2]*machnet.Conn
	writers sync.WaitGroup
	bytes   atomic.Int64 // accepted so far
	done    atomic.Int32 // writers that are through
	failed  chan error
}

// fullBytes is what each end writes: more than a connection may ever hold, at its sender (256 packets) and its receiver (256 more).
const fullBytes = 1 << 20

// quiet is how long no writer gets on when all are blocked.
const quiet = 500 * time.Millisecond

// fill makes count such connections, and returns when no writer gets on any more.
func fill(t *testing.T, from, to *machnet.Stack, toIP string, count int) *full {
	t.Helper()
	f := &full{failed: make(chan error, 2*count)}
	for range count {
		var ends [2]*machnet.Conn
		ends[0], ends[1] = connection(t, from, to, toIP)
		f.ends = append(f.ends, ends)
	}
	for i, ends := range f.ends {
		for side, end := range ends {
			f.writers.Add(1)
			go func() {
				defer f.writers.Done()
				data := pattern(2*i + side)
				for at := 0; at < len(data); at += 10_000 {
					n, err := end.Write(data[at:min(at+10_000, len(data))])
					f.bytes.Add(int64(n))
					if err != nil {
						f.failed <- err
						return
					}
				}
				f.done.Add(1)
			}()
		}
	}
	last, since := int64(0), time.Now()
	for deadline := time.Now().Add(time.Minute); last == 0 || time.Since(since) < quiet; time.Sleep(10 * time.Millisecond) {
		if now := f.bytes.Load(); now != last {
			last, since = now, time.Now()
		}
		if time.Now().After(deadline) {
			t.Fatalf("after a minute the writers still get on: %d bytes", last)
		}
	}
	if done := f.done.Load(); done > 0 {
		t.Fatalf("%d writers are through: they should all be blocked", done)
	}
	return f
}

// drain reads everything at both ends, and compares.
func (f *full) drain(t *testing.T) {
	t.Helper()
	var readers sync.WaitGroup
	for i, ends := range f.ends {
		for side, end := range ends {
			readers.Add(1)
			go func() {
				defer readers.Done()
				_ = end.SetReadDeadline(time.Now().Add(2 * time.Minute))
				got := make([]byte, fullBytes)
				if n, err := io.ReadFull(end, got); err != nil || !bytes.Equal(got, pattern(2*i+1-side)) {
					t.Errorf("connection %d, end %d: %d bytes of %d, or others than were sent: %v", i, side, n, fullBytes, err)
				}
			}()
		}
	}
	readers.Wait()
	f.writers.Wait()
	select {
	case err := <-f.failed:
		t.Error(err)
	default:
	}
}

func pattern(seed int) []byte {
	p := make([]byte, fullBytes)
	for i := range p {
		p[i] = byte(i*7 + i/256 + seed*31)
	}
	return p
}

// connection gives both ends of a new connection.
func connection(t testing.TB, from, to *machnet.Stack, toIP string) (dialled, accepted *machnet.Conn) {
	t.Helper()
	listener, err := (&machnet.ListenConfig{Stack: to}).Listen(context.Background(), "machnet", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	address := netip.AddrPortFrom(netip.MustParseAddr(toIP), listener.Addr().(*machnet.Addr).Port)
	conn, err := (&machnet.Dialer{Stack: from, Timeout: 10 * time.Second}).Dial("machnet", address.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	other, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close() })
	return conn.(*machnet.Conn), other.(*machnet.Conn)
}

// echoes sends and gets back as many messages of a size.
func echoes(t *testing.T, conn *machnet.Conn, count, size int) {
	t.Helper()
	sent, got := make([]byte, size), make([]byte, size)
	_ = conn.SetDeadline(time.Now().Add(3 * time.Minute))
	for i := range count {
		for j := range sent {
			sent[j] = byte(i + j)
		}
		if _, err := conn.Write(sent); err != nil {
			t.Fatalf("echo %d of %d bytes: %v", i, size, err)
		}
		if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("echo %d of %d bytes: it differs, or did not come: %v", i, size, err)
		}
	}
}

// One stack has 64 connections that are full in both directions. Another of its connections works as ever, be it with the same
// peer, whose stack is as full, or with a third host, whose counters speak of that one connection alone.
func TestTheConnectionsThatNobodyReadsBlockOnlyThemselves(t *testing.T) {
	network := machnettest.NewNetwork(t, machnettest.Options{Hosts: 3})
	hosts, stacks := make([]*machnettest.Host, 3), make([]*machnet.Stack, 3)
	for i := range hosts {
		hosts[i] = network.Host(i)
		stacks[i] = hosts[i].Stack()
	}
	full := fill(t, stacks[0], stacks[1], "10.0.0.2", 64)

	third, other := connection(t, stacks[0], stacks[2], "10.0.0.3")
	go echoMessages(other)
	echoes(t, third, 1000, 64)
	// What the third host sent always found a unit of its connection's own: nothing was refused, to be sent again.
	within(t, "the third host to count its units", func() bool { return hosts[2].Counter("flow_units_sent") >= 1000 })
	for _, name := range []string{"flow_refused_by_peer", "flow_refused"} {
		if n := hosts[2].Counter(name); n != 0 {
			t.Errorf("%s = %d after 1000 echoes of one packet, want 0", name, n)
		}
	}

	same, other := connection(t, stacks[0], stacks[1], "10.0.0.2")
	go echoMessages(other)
	echoes(t, same, 1000, 64)
	echoes(t, same, 1000, 32<<10)
	for _, conn := range []*machnet.Conn{third, same} {
		within(t, "a message of one packet to find room at once", func() bool {
			err := conn.TrySend([]byte("x"))
			if err != nil && !errors.Is(err, machnet.ErrWouldBlock) {
				t.Fatal(err)
			}
			return err == nil
		})
	}
	full.drain(t)
}

func echoMessages(conn *machnet.Conn) {
	for {
		m, err := conn.Recv(context.Background())
		if err != nil || conn.Send(m.Bytes()) != nil {
			return
		}
		m.Release()
	}
}

// within waits for a condition for up to ten seconds.
func within(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited ten seconds for %s", what)
		}
	}
}
