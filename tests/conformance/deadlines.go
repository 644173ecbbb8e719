package conformance

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/machnet/machnet/go/machnet"
)

func deadlinesDoNotDisturbEachOther(t *testing.T, p Pair) {
	a, b := p.connect(t)
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

// move moves a deadline to and fro, around now, until told to stop: passed, so near that it passes while a call waits, away.
func move(r *rand.Rand, set func(time.Time) error, stop <-chan struct{}) {
	for {
		switch r.IntN(4) {
		case 0:
			_ = set(time.Now().Add(-time.Second))
		case 1:
			_ = set(time.Time{})
		default:
			_ = set(time.Now().Add(time.Duration(r.IntN(300)) * time.Microsecond))
		}
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(r.IntN(200)) * time.Microsecond):
		}
	}
}

// moving runs what until it is done, while several goroutines move a deadline.
func moving(p Pair, set func(time.Time) error, what func()) {
	stop := make(chan struct{})
	var movers sync.WaitGroup
	for i := range 3 {
		movers.Go(func() { move(p.random(10+i), set, stop) })
	}
	what()
	close(stop)
	movers.Wait()
}

// Pieces arrive while the deadline passes or is moved: a Read has the data or the deadline's error, and nothing is lost or comes twice.
func readDeadlinesThatOthersMove(t *testing.T, p Pair) {
	a, b := p.connect(t)
	data := Pattern(300_000)
	sent := make(chan error, 1)
	go func() {
		r := p.random(1)
		for at := 0; at < len(data); {
			n := min(len(data)-at, Size(r, 1, 3000))
			if _, err := a.Write(data[at : at+n]); err != nil {
				sent <- err
				return
			}
			at += n
			time.Sleep(time.Duration(r.IntN(150)) * time.Microsecond)
		}
		sent <- a.CloseWrite()
	}()
	var got []byte
	passed, end := 0, time.Now().Add(2*patience)
	moving(p, b.SetReadDeadline, func() {
		buf := make([]byte, 1000)
		for time.Now().Before(end) {
			n, err := b.Read(buf)
			got = append(got, buf[:n]...)
			switch {
			case err == io.EOF:
				return
			case errors.Is(err, os.ErrDeadlineExceeded):
				passed++
				if n != 0 {
					t.Errorf("Read = %d, %v", n, err)
				}
			case err != nil:
				t.Errorf("Read: %v", err)
				return
			}
		}
	})
	if err := <-sent; err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes of %d came, or others, after %d deadlines: %v", len(got), len(data), passed, err)
	}
	if passed == 0 {
		t.Error("no deadline has passed: this shows nothing")
	}
}

// A Write whose deadline passes says how much of it will arrive; the rest, written again, follows without a gap.
func writeDeadlinesThatOthersMove(t *testing.T, p Pair) {
	a, b := p.connect(t)
	data := Pattern(4 << 20)
	type result struct {
		got []byte
		err error
	}
	read := make(chan result, 1)
	go func() {
		r := p.random(1)
		var got []byte
		buf := make([]byte, 64<<10)
		_ = b.SetReadDeadline(time.Now().Add(3 * patience))
		for {
			n, err := b.Read(buf)
			got = append(got, buf[:n]...)
			if err != nil {
				if err == io.EOF {
					err = nil
				}
				read <- result{got, err}
				return
			}
			if r.IntN(20) == 0 { // so that the writer has to wait
				time.Sleep(time.Duration(r.IntN(1000)) * time.Microsecond)
			}
		}
	}()
	r := p.random(2)
	passed, end := 0, time.Now().Add(2*patience)
	moving(p, a.SetWriteDeadline, func() {
		for at := 0; at < len(data) && time.Now().Before(end); {
			n, err := a.Write(data[at:min(len(data), at+Size(r, 1, 300_000))])
			at += n
			switch {
			case errors.Is(err, os.ErrDeadlineExceeded):
				passed++
			case err != nil:
				t.Errorf("Write: %v", err)
				return
			}
		}
	})
	_ = a.SetWriteDeadline(time.Time{})
	if err := a.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := finish(t, "the reader", read); got.err != nil || !bytes.Equal(got.got, data) {
		t.Errorf("%d bytes of %d came, or others, after %d deadlines: %v", len(got.got), len(data), passed, got.err)
	}
	if passed == 0 {
		t.Error("no deadline has passed: this shows nothing")
	}
}

// Messages of several units whose deadline passes on the way are taken back; those for which Send returned nil arrive whole and in order.
func sendDeadlinesThatOthersMove(t *testing.T, p Pair) {
	a, b := p.connect(t)
	const count = 300
	got := make(chan []byte, count)
	failed := make(chan error, 1)
	go func() {
		defer close(got)
		_ = b.SetReadDeadline(time.Now().Add(3 * patience))
		for {
			m, err := b.Recv(t.Context())
			switch {
			case errors.Is(err, io.ErrUnexpectedEOF):
				continue // it had begun, and was taken back
			case err == io.EOF:
				failed <- nil
				return
			case err != nil:
				failed <- err
				return
			}
			got <- bytes.Clone(m.Bytes())
			m.Release()
		}
	}()
	r := p.random(1)
	var sent [][]byte
	passed, end := 0, time.Now().Add(2*patience)
	moving(p, a.SetWriteDeadline, func() {
		for i := 0; i < count && time.Now().Before(end); i++ {
			message := bytes.Repeat([]byte{byte(i), byte(i >> 8)}, Size(r, 1, 150_000))
			var err error
			switch i % 3 {
			case 0:
				err = a.Send(message)
			case 1:
				err = a.SendBuffers(net.Buffers{message[:1], message[1:]})
			case 2:
				if err = a.TrySend(message); errors.Is(err, machnet.ErrWouldBlock) || errors.Is(err, machnet.ErrTooLarge) {
					continue
				}
			}
			switch {
			case err == nil:
				sent = append(sent, message)
			case errors.Is(err, os.ErrDeadlineExceeded):
				passed++
			default:
				t.Errorf("message %d: %v", i, err)
				return
			}
		}
	})
	_ = a.SetWriteDeadline(time.Time{})
	if err := a.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if err := finish(t, "the reader", failed); err != nil {
		t.Fatal(err)
	}
	n := 0
	for message := range got {
		if n == len(sent) || !bytes.Equal(message, sent[n]) {
			t.Fatalf("message %d of %d is one of %d bytes that was not sent", n, len(sent), len(message))
		}
		n++
	}
	if n != len(sent) {
		t.Errorf("%d messages of %d came", n, len(sent))
	}
	if passed == 0 || n == 0 {
		t.Errorf("%d deadlines have passed, and %d messages came: this shows nothing", passed, n)
	}
}
