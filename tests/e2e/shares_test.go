package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/machnet/machnet/go/machnet"
)

// A proxy copies both ways between two connections of one stack. Both far ends write far more than fits on the way, and read late and
// slowly: so each of the proxy's connections is full, again and again, while the other has to go on.
func TestAProxyBetweenTwoConnectionsOfOneStackNeverStops(t *testing.T) {
	total := 16 << 20
	if testing.Short() {
		total = 4 << 20
	}
	for _, others := range []int{0, 62} {
		t.Run(fmt.Sprintf("%d other connections are full", others), func(t *testing.T) {
			p := sharedPair(t)
			proxy, far := p.a.attach(t), p.b.attach(t)
			clog(t, proxy, far, others)
			var inner, outer [2]*machnet.Conn
			for i := range inner {
				inner[i], outer[i] = connect(t, proxy, far)
				_ = inner[i].SetDeadline(time.Now().Add(3 * time.Minute))
				_ = outer[i].SetDeadline(time.Now().Add(3 * time.Minute))
			}
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			var all sync.WaitGroup
			for i := range outer {
				all.Go(func() {
					if _, err := io.Copy(inner[1-i], inner[i]); err != nil {
						t.Errorf("the proxy, from connection %d: %v", i, err)
					}
					if err := inner[1-i].CloseWrite(); err != nil {
						t.Errorf("the proxy, from connection %d: %v", i, err)
					}
				})
				all.Go(func() {
					if err := write(outer[i], noise(seed, i), total); err != nil {
						t.Errorf("far end %d writes: %v", i, err)
					}
				})
				all.Go(func() {
					time.Sleep(200 * time.Millisecond)
					want := sha256.New()
					_ = write(want, noise(seed, 1-i), total)
					got, n := sha256.New(), 0
					r := rand.New(rand.NewPCG(seed, uint64(2+i)))
					buf := make([]byte, 64<<10)
					for {
						m, err := outer[i].Read(buf[:1+r.IntN(len(buf))])
						got.Write(buf[:m])
						n += m
						if r.IntN(1000) == 0 {
							time.Sleep(time.Millisecond)
						}
						if err == io.EOF {
							break
						}
						if err != nil {
							t.Errorf("far end %d, after %d bytes: %v", i, n, err)
							return
						}
					}
					if n != total || !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
						t.Errorf("far end %d got %d bytes of %d, or others than were sent", i, n, total)
					}
				})
			}
			all.Wait()
		})
	}
}

// clog fills as many connections between two stacks in both directions; nobody reads them, and they stay so until the test ends.
func clog(t *testing.T, from, to *machnet.Stack, count int) {
	t.Helper()
	var written atomic.Int64
	var writers sync.WaitGroup
	var ends []*machnet.Conn
	for range count {
		a, b := connect(t, from, to)
		ends = append(ends, a, b)
	}
	for _, end := range ends {
		writers.Go(func() {
			for data := make([]byte, 10_000); ; {
				n, err := end.Write(data)
				written.Add(int64(n))
				if err != nil {
					if !errors.Is(err, net.ErrClosed) {
						t.Errorf("a writer that nobody reads: %v", err)
					}
					return
				}
			}
		})
	}
	t.Cleanup(func() {
		for _, end := range ends {
			_ = end.Close()
		}
		writers.Wait()
	})
	last, since := int64(0), time.Now()
	for deadline := time.Now().Add(time.Minute); count > 0 && (last == 0 || time.Since(since) < quiet); time.Sleep(10 * time.Millisecond) {
		if now := written.Load(); now != last {
			last, since = now, time.Now()
		}
		if time.Now().After(deadline) {
			t.Fatalf("after a minute the writers still get on: %d bytes", last)
		}
	}
}

// quiet is how long no writer gets on when all are blocked.
const quiet = 500 * time.Millisecond

// noise is an endless stream of bytes.
func noise(seed uint64, stream int) io.Reader {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	key[8] = byte(stream)
	return rand.NewChaCha8(key)
}

// write copies total bytes of a stream in pieces of 64 KiB, and ends the direction if it is a connection's.
func write(to io.Writer, from io.Reader, total int) error {
	if _, err := io.CopyN(to, from, int64(total)); err != nil {
		return err
	}
	if c, ok := to.(*machnet.Conn); ok {
		return c.CloseWrite()
	}
	return nil
}
