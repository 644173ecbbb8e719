//go:build linux && cgo && (amd64 || arm64)

package machnettest_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/machnet/machnet/go/machnet"
	"github.com/machnet/machnet/go/machnettest"
)

// reader hides every method but Read.
type reader struct{ io.Reader }

func TestCopiesThroughTCPAndMachnetKeepEveryByte(t *testing.T) {
	_, _, near, far := hosts(t, machnettest.Options{Loss: 0.001})
	sent := pattern(5)
	for len(sent) < 3<<20 {
		sent = append(sent, sent...)
	}
	// TCP to Machnet by ReadFrom, Machnet to TCP by WriteTo: what a proxy does.
	in, inPeer := tcpConnection(t)
	a, b := connection(t, near, far, "10.0.0.2")
	out, outPeer := tcpConnection(t)
	failed := make(chan error, 3)
	go func() {
		_, err := io.Copy(in, bytes.NewReader(sent))
		failed <- errors.Join(err, in.CloseWrite())
	}()
	go func() {
		n, err := io.Copy(a, inPeer)
		if err == nil && n != int64(len(sent)) {
			err = io.ErrShortWrite
		}
		failed <- errors.Join(err, a.CloseWrite())
	}()
	go func() {
		n, err := io.Copy(outPeer, b)
		if err == nil && n != int64(len(sent)) {
			err = io.ErrShortWrite
		}
		failed <- errors.Join(err, outPeer.CloseWrite())
	}()
	_ = out.SetReadDeadline(time.Now().Add(60 * time.Second))
	got, err := io.ReadAll(out)
	for range 3 {
		err = errors.Join(err, <-failed)
	}
	if err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("%d of %d bytes came, and they are equal: %t; %v", len(got), len(sent), bytes.Equal(got, sent), err)
	}
}

func TestReadFromSendsEachReadAtOnceAsAMessage(t *testing.T) {
	_, _, near, far := hosts(t, machnettest.Options{})
	a, b := connection(t, near, far, "10.0.0.2")
	source, feed := io.Pipe()
	type result struct {
		n   int64
		err error
	}
	done := make(chan result, 1)
	go func() {
		n, err := a.ReadFrom(reader{source})
		done <- result{n, err}
	}()
	buf := make([]byte, 64<<10)
	_ = b.SetReadDeadline(time.Now().Add(30 * time.Second))
	total := int64(0)
	for _, size := range []int{1, 100, 5000, 8192, 1} {
		if _, err := feed.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		total += int64(size)
		// It has come although the reader goes on: one message, but where the buffer was smaller.
		for got := 0; got < size; {
			n, err := b.ReadMessage(buf)
			if err != nil {
				t.Fatalf("%d bytes written to the source, %d came: %v", size, got, err)
			}
			got += n
		}
	}
	broken := errors.New("the source broke")
	_ = feed.CloseWithError(broken)
	if r := <-done; r.n != total || r.err != broken {
		t.Errorf("ReadFrom = %d, %v; want %d and the source's error", r.n, r.err, total)
	}
}

func TestCopiesEndAsReadAndWriteDo(t *testing.T) {
	_, _, near, far := hosts(t, machnettest.Options{})
	t.Run("WriteTo at the peer's end", func(t *testing.T) {
		a, b := connection(t, near, far, "10.0.0.2")
		for _, message := range []string{"ab", "", "c", ""} {
			if err := b.Send([]byte(message)); err != nil {
				t.Fatal(err)
			}
		}
		_ = b.CloseWrite()
		var got bytes.Buffer
		if n, err := a.WriteTo(&got); n != 3 || err != nil || got.String() != "abc" {
			t.Errorf("WriteTo = %d, %v, %q; want all that was sent and no error", n, err, &got)
		}
	})
	t.Run("WriteTo past the deadline", func(t *testing.T) {
		a, b := connection(t, near, far, "10.0.0.2")
		time.AfterFunc(10*time.Millisecond, func() { _ = a.SetReadDeadline(past()) })
		if n, err := a.WriteTo(io.Discard); n != 0 || said(err) != "read: deadline, source true, address true, timeout true, temporary true" {
			t.Errorf("WriteTo = %d, %s", n, said(err))
		}
		_ = a.SetReadDeadline(time.Time{})
		_, _ = b.Write([]byte("more"))
		_ = b.CloseWrite()
		if n, err := a.WriteTo(io.Discard); n != 4 || err != nil {
			t.Errorf("WriteTo without the deadline = %d, %v; want the 4 bytes that came meanwhile", n, err)
		}
	})
	t.Run("WriteTo in the middle of a message", func(t *testing.T) {
		a, b := connection(t, near, far, "10.0.0.2")
		_ = b.Send([]byte("a message"))
		_ = b.CloseWrite()
		var got bytes.Buffer
		if read(a, 2) != "read 2 nil" {
			t.Fatal("nothing came")
		}
		if n, err := a.WriteTo(&got); n != 7 || err != nil || got.String() != "message" {
			t.Errorf("WriteTo = %d, %v, %q; want the rest of the message", n, err, &got)
		}
	})
	t.Run("WriteTo of a writer that fails", func(t *testing.T) {
		a, b := connection(t, near, far, "10.0.0.2")
		_, _ = b.Write([]byte("lost"))
		source, sink := io.Pipe()
		broken := errors.New("the writer broke")
		_ = source.CloseWithError(broken)
		if _, err := a.WriteTo(sink); err != broken {
			t.Errorf("WriteTo = %v, want the writer's error", err)
		}
	})
	t.Run("ReadFrom after the peer has closed", func(t *testing.T) {
		a, b := connection(t, near, far, "10.0.0.2")
		_ = b.Close()
		endless, err := io.Pipe() // a source that never ends
		go func() {
			for {
				if _, err := err.Write([]byte("x")); err != nil {
					return
				}
			}
		}()
		if _, err := a.ReadFrom(endless); !ended(err) {
			t.Errorf("ReadFrom = %v, want ECONNRESET", err)
		}
		_ = endless.Close()
	})
}

var (
	_ io.ReaderFrom = (*machnet.Conn)(nil)
	_ io.WriterTo   = (*machnet.Conn)(nil)
	_ net.Conn      = (*machnet.Conn)(nil)
)

// A proxy has thousands of connections that are quiet.
func TestCopiesThatWaitHoldLittle(t *testing.T) {
	_, _, near, far := hosts(t, machnettest.Options{})
	const count = 100
	held := func() uint64 {
		for range 3 { // a sync.Pool lets go after two
			runtime.GC()
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	type ends struct{ a, b *machnet.Conn }
	var conns []ends
	for range count {
		a, b := connection(t, near, far, "10.0.0.2")
		conns = append(conns, ends{a, b})
	}
	got := make(chan int, count)
	before := held()
	for _, c := range conns {
		source, feed := io.Pipe()
		t.Cleanup(func() { feed.Close() })
		go c.a.ReadFrom(reader{source})
		go c.b.WriteTo(lengths(got))
		// What was busy before is no different.
		for _, size := range []int{100_000, 10} {
			if _, err := feed.Write(make([]byte, size)); err != nil {
				t.Fatal(err)
			}
			for size > 0 {
				size -= <-got
			}
		}
	}
	const most = 16 << 10 // for both directions; one io.Copy alone would hold 32 KiB
	if grown := (int64(held()) - int64(before)) / count; grown > most {
		t.Errorf("each connection that is copied holds %d bytes more while it is quiet, want %d at most", grown, most)
	}
	runtime.KeepAlive(conns)
}

// lengths is a writer that tells how much it was given.
type lengths chan<- int

func (l lengths) Write(p []byte) (int, error) {
	l <- len(p)
	return len(p), nil
}

// BenchmarkRelay moves 1 MiB from TCP to Machnet and on to TCP, as a proxy does, by ReadFrom and WriteTo or by Read and Write.
func BenchmarkRelay(b *testing.B) {
	network := machnettest.NewNetwork(b, machnettest.Options{})
	for name, copies := range map[string]func(io.Writer, io.Reader) (int64, error){
		"ReadFrom and WriteTo": io.Copy,
		"Read and Write": func(w io.Writer, r io.Reader) (int64, error) {
			return io.Copy(struct{ io.Writer }{w}, reader{r})
		},
	} {
		b.Run(name, func(b *testing.B) {
			a, c := connection(b, network.Host(0).Stack(), network.Host(1).Stack(), "10.0.0.2")
			in, inPeer := tcpConnection(b)
			out, outPeer := tcpConnection(b)
			go copies(a, inPeer)
			go copies(outPeer, c)
			sent, got := make([]byte, 1<<20), make([]byte, 1<<20)
			b.SetBytes(1 << 20)
			b.ReportAllocs()
			for b.Loop() {
				go in.Write(sent)
				if _, err := io.ReadFull(out, got); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
