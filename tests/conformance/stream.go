package conformance

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/machnet/machnet/go/machnet"
)

// A Read takes what its buffer holds of the message and leaves the rest to the next, whatever the two sizes: messages that
// ride in a slot, of one packet and of several, and buffers from one byte to one more than the message.
func shortReadsOfEverySize(t *testing.T, p Pair) {
	a, b := p.connect(t)
	_ = b.SetReadDeadline(time.Now().Add(2 * patience))
	data := Pattern(3000)
	got := make([]byte, len(data)+1)
	for _, length := range []int{1, 2, 95, 96, 97, 1424, 1425, 3000} {
		for buffer := 1; buffer <= length+1; buffer++ {
			if _, err := a.Write(data[:length]); err != nil {
				t.Fatal(err)
			}
			for at := 0; at < length; {
				n, err := b.Read(got[at : at+min(buffer, len(got)-at)])
				if err != nil || n == 0 {
					t.Fatalf("%d bytes by %d: after %d: Read = %d, %v", length, buffer, at, n, err)
				}
				at += n
				if at > length {
					t.Fatalf("%d bytes by %d: %d came", length, buffer, at)
				}
			}
			if !bytes.Equal(got[:length], data[:length]) {
				t.Fatalf("%d bytes by %d: others came", length, buffer)
			}
		}
	}
}

func anEmptyWriteSendsNothing(t *testing.T, p Pair) {
	a, b := p.connect(t)
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

// 64 MiB each way at the same time.
func streamsBothWaysArriveWhole(t *testing.T, p Pair) {
	const total = 64 << 20
	for name, tc := range map[string]struct {
		total, least, most int
	}{
		"1 B to 1 MiB": {total, 1, 1 << 20},
		"1 to 64 B":    {total / 256, 1, 64},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := p.connect(t)
			var all sync.WaitGroup
			for way, ends := range [][2]*machnet.Conn{{a, b}, {b, a}} {
				sent := make(chan []byte, 1)
				all.Go(func() {
					sum, err := writeStream(ends[0], p.random(2*way), tc.total, tc.least, tc.most)
					if err != nil {
						t.Errorf("way %d: %v", way, err)
					}
					sent <- sum
				})
				all.Go(func() {
					sum, n, err := readStream(ends[1], p.random(2*way+1), tc.least, tc.most)
					if want := <-sent; err != nil || n != tc.total || !bytes.Equal(sum, want) {
						t.Errorf("way %d: got %d bytes of %d, or others than were sent: %v", way, n, tc.total, err)
					}
				})
			}
			all.Wait()
		})
	}
}

// writeStream writes total bytes in pieces of any size and then the end, and gives their SHA-256.
func writeStream(c *machnet.Conn, r *rand.Rand, total, least, most int) ([]byte, error) {
	sum := sha256.New()
	data := make([]byte, most)
	_ = c.SetWriteDeadline(time.Now().Add(10 * patience))
	for left := total; left > 0; {
		piece := data[:min(left, Size(r, least, most))]
		for i := 0; i < len(piece); i += 97 {
			piece[i] = byte(r.Uint32())
		}
		sum.Write(piece)
		if _, err := c.Write(piece); err != nil {
			return sum.Sum(nil), err
		}
		left -= len(piece)
	}
	return sum.Sum(nil), c.CloseWrite()
}

// readStream reads to the end into buffers of any size, and gives the SHA-256 and the length of what came.
func readStream(c *machnet.Conn, r *rand.Rand, least, most int) (sum []byte, n int, err error) {
	got := sha256.New()
	buf := make([]byte, most)
	_ = c.SetReadDeadline(time.Now().Add(10 * patience))
	for {
		m, err := c.Read(buf[:Size(r, least, most)])
		got.Write(buf[:m])
		n += m
		if err == io.EOF {
			return got.Sum(nil), n, nil
		}
		if err != nil {
			return got.Sum(nil), n, err
		}
	}
}

func closeDeliversWhatWasWritten(t *testing.T, p Pair) {
	a, b := p.connect(t)
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

func halfCloseLeavesTheOtherDirection(t *testing.T, p Pair) {
	a, b := p.connect(t)
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

// One end says its last while the other sends on, and hears all of it.
func halfCloseInTheMiddleOfTraffic(t *testing.T, p Pair) {
	r := p.random(1)
	for range 20 {
		a, b := p.connect(t)
		up, down := Pattern(Size(r, 1, 1<<20)), Pattern(Size(r, 1, 1<<20))
		var all sync.WaitGroup
		for _, way := range []struct {
			from, to *machnet.Conn
			data     []byte
		}{{a, b, up}, {b, a, down}} {
			all.Go(func() {
				if _, err := way.from.Write(way.data); err != nil {
					t.Error(err)
				}
				if err := way.from.CloseWrite(); err != nil {
					t.Error(err)
				}
			})
			all.Go(func() {
				_ = way.to.SetReadDeadline(time.Now().Add(patience))
				if got, err := io.ReadAll(way.to); err != nil || !bytes.Equal(got, way.data) {
					t.Errorf("%d bytes of %d came, or others: %v", len(got), len(way.data), err)
				}
			})
		}
		all.Wait()
		_, _ = a.Close(), b.Close()
	}
}

func closeReadDropsWhatThePeerSends(t *testing.T, p Pair) {
	a, b := p.connect(t)
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

func aWriterWaitsForItsReader(t *testing.T, p Pair) {
	a, b := p.connect(t)
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

func oneConnectionThatIsNotReadBlocksNoOther(t *testing.T, p Pair) {
	stuck, _ := p.connect(t)
	a, b := p.connect(t)
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

func manyConnectionsOfOneStackEchoAtOnce(t *testing.T, p Pair) {
	l := p.listen(t)
	go EchoEach(l)
	const conns, rounds = 32, 100
	var all sync.WaitGroup
	for i := range conns {
		all.Go(func() {
			c, err := p.dialer().Dial("machnet", l.Addr().String())
			// On a busy machine the peer may need longer for its next channel than the engine has callers wait.
			for end := time.Now().Add(patience); errors.Is(err, syscall.ENOBUFS) && time.Now().Before(end); {
				time.Sleep(10 * time.Millisecond)
				c, err = p.dialer().Dial("machnet", l.Addr().String())
			}
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(patience))
			r := p.random(i)
			for range rounds {
				sent := bytes.Repeat([]byte{byte(i)}, Size(r, 1, 16<<10))
				got := make([]byte, len(sent))
				if _, err := c.Write(sent); err != nil {
					t.Error(err)
					return
				}
				if _, err := io.ReadFull(c, got); err != nil {
					t.Error(err)
					return
				}
				if !bytes.Equal(sent, got) {
					t.Errorf("connection %d got the bytes of another", i)
					return
				}
			}
		})
	}
	all.Wait()
}

// EchoEach sends what each connection brings back to it, until the listener is closed.
func EchoEach(l *machnet.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			_, _ = io.Copy(c, c)
			_ = c.Close()
		}()
	}
}
