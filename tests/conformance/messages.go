package conformance

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/machnet/machnet/go/machnet"
)

// messageSizes are those around every border: nothing, inline or not, one unit or two, one Write or two, the largest.
var messageSizes = []int{0, 1, 95, 96, 97, 1423, 1424, 1425, 2848, 2849, 64 << 10, 64<<10 + 1, 1 << 20, machnet.MaxMessage}

func messagesKeepTheirBoundaries(t *testing.T, p Pair) {
	a, b := p.connect(t)
	data := Pattern(machnet.MaxMessage)
	failed := make(chan error, 1)
	go func() {
		for _, n := range messageSizes {
			if err := a.Send(data[:n]); err != nil {
				failed <- err
				return
			}
		}
		failed <- a.CloseWrite()
	}()
	_ = b.SetReadDeadline(time.Now().Add(time.Minute))
	for i, n := range messageSizes {
		if i%2 == 0 {
			m, err := b.Recv(t.Context())
			if err != nil || !bytes.Equal(m.Bytes(), data[:n]) {
				t.Fatalf("Recv of %d bytes: %d bytes, %v", n, len(m.Bytes()), err)
			}
			m.Release()
			continue
		}
		p := make([]byte, n)
		if got, err := b.ReadMessage(p); err != nil || got != n || !bytes.Equal(p, data[:n]) {
			t.Fatalf("ReadMessage of %d bytes: %d, %v", n, got, err)
		}
	}
	if _, err := b.Recv(t.Context()); err != io.EOF {
		t.Fatalf("after the last message: %v, want EOF", err)
	}
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
}

func sendBuffersMakesOneMessage(t *testing.T, p Pair) {
	a, b := p.connect(t)
	data := Pattern(300_000)
	for name, parts := range map[string]net.Buffers{
		"few":     {data[:10], nil, data[10:20], data[20:2000]},
		"large":   {data[:1], data[1:200_001], data[200_001:]},
		"nothing": {nil, {}},
		"many": func() (b net.Buffers) {
			for i := range 100 {
				b = append(b, data[i*7:i*7+7])
			}
			return b
		}(),
	} {
		t.Run(name, func(t *testing.T) {
			want := bytes.Join(parts, nil)
			go func() {
				if err := a.SendBuffers(parts); err != nil {
					t.Error(err)
				}
			}()
			_ = b.SetReadDeadline(time.Now().Add(10 * time.Second))
			m, err := b.Recv(context.Background())
			if err != nil || !bytes.Equal(m.Bytes(), want) {
				t.Fatalf("got %d bytes, %v; want %d", len(m.Bytes()), err, len(want))
			}
		})
	}
}

func aShortBufferKeepsTheMessage(t *testing.T, p Pair) {
	a, b := p.connect(t)
	for _, n := range []int{50, 1000, 100_000} {
		if err := a.Send(Pattern(n)); err != nil {
			t.Fatal(err)
		}
		_ = b.SetReadDeadline(time.Now().Add(10 * time.Second))
		if need, err := b.ReadMessage(make([]byte, n-1)); err != io.ErrShortBuffer || need != n {
			t.Fatalf("ReadMessage into %d bytes = %d, %v; want %d, io.ErrShortBuffer", n-1, need, err, n)
		}
		p := make([]byte, n)
		if got, err := b.ReadMessage(p); err != nil || got != n || !bytes.Equal(p, Pattern(n)) {
			t.Fatalf("ReadMessage into %d bytes = %d, %v", n, got, err)
		}
	}
}

func afterAPartialReadComesTheRestOfTheMessage(t *testing.T, p Pair) {
	a, b := p.connect(t)
	for _, n := range []int{60, 5000} {
		data := Pattern(n)
		if err := a.Send(data); err != nil {
			t.Fatal(err)
		}
		if err := a.Send([]byte("next")); err != nil {
			t.Fatal(err)
		}
		_ = b.SetReadDeadline(time.Now().Add(10 * time.Second))
		head := make([]byte, 10)
		if _, err := io.ReadFull(b, head); err != nil || !bytes.Equal(head, data[:10]) {
			t.Fatalf("Read: %q, %v", head, err)
		}
		m, err := b.Recv(t.Context())
		if err != nil || !bytes.Equal(m.Bytes(), data[10:]) {
			t.Fatalf("Recv: %d bytes, %v; want the %d that are left", len(m.Bytes()), err, n-10)
		}
		if m, err = b.Recv(t.Context()); err != nil || string(m.Bytes()) != "next" {
			t.Fatalf("Recv: %q, %v; want next", m.Bytes(), err)
		}
	}
}

func messagesBeyondTheLimitAreRefusedWhole(t *testing.T, p Pair) {
	a, b := p.connect(t)
	tooLarge := make([]byte, machnet.MaxMessage+1)
	for name, send := range map[string]func() error{
		"Send":        func() error { return a.Send(tooLarge) },
		"SendBuffers": func() error { return a.SendBuffers(net.Buffers{tooLarge[:1], tooLarge[1:]}) },
		"TrySend":     func() error { return a.TrySend(tooLarge) },
	} {
		if err := send(); !errors.Is(err, machnet.ErrTooLarge) {
			t.Errorf("%s: %v, want ErrTooLarge", name, err)
		}
	}
	if err := a.Send([]byte("fits")); err != nil {
		t.Fatal(err)
	}
	_ = b.SetReadDeadline(time.Now().Add(10 * time.Second))
	if m, err := b.Recv(t.Context()); err != nil || string(m.Bytes()) != "fits" {
		t.Fatalf("the peer got %q, %v", m.Bytes(), err)
	}
}

func trySendSaysWhenThereIsNoRoom(t *testing.T, p Pair) {
	a, b := p.connect(t)
	sent := 0
	var err error
	for sent < 100_000 {
		if err = a.TrySend(Pattern(1000)); err != nil {
			break
		}
		sent++
	}
	if !errors.Is(err, machnet.ErrWouldBlock) {
		t.Fatalf("after %d messages that nobody reads: %v, want ErrWouldBlock", sent, err)
	}
	_ = b.SetReadDeadline(time.Now().Add(10 * time.Second))
	for i := range sent {
		if m, err := b.Recv(t.Context()); err != nil || !bytes.Equal(m.Bytes(), Pattern(1000)) {
			t.Fatalf("message %d of %d: %v", i, sent, err)
		}
	}
}

func aMessageCutByADeadlineIsTakenBack(t *testing.T, p Pair) {
	a, b := p.connect(t)
	_ = a.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
	if err := a.Send(Pattern(machnet.MaxMessage)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("Send to a peer that does not read: %v, want a timeout", err)
	}
	_ = a.SetWriteDeadline(time.Time{})
	sent := make(chan error, 1)
	go func() { sent <- a.Send([]byte("after")) }()
	_ = b.SetReadDeadline(time.Now().Add(20 * time.Second))
	for {
		m, err := b.Recv(t.Context())
		if errors.Is(err, io.ErrUnexpectedEOF) {
			continue // it had begun
		}
		if err != nil || string(m.Bytes()) != "after" {
			t.Fatalf("got %d bytes, %v; want the message after", len(m.Bytes()), err)
		}
		break
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
}

func recvObeysItsContext(t *testing.T, p Pair) {
	a, b := p.connect(t)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := b.Recv(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Recv: %v, want a timeout", err)
	}
	if err := a.Send([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if m, err := b.Recv(context.Background()); err != nil || string(m.Bytes()) != "x" {
		t.Fatalf("Recv afterwards: %q, %v", m.Bytes(), err)
	}
}

func messagesAndStreamMix(t *testing.T, p Pair) {
	a, b := p.connect(t)
	const total = 1 << 20
	data := Pattern(total)
	failed := make(chan error, 1)
	go func() {
		r := p.random(1)
		for at := 0; at < total; {
			piece := data[at:min(total, at+Size(r, 1, 100_000))]
			var err error
			switch r.IntN(3) {
			case 0:
				_, err = a.Write(piece)
			case 1:
				err = a.Send(piece)
			case 2:
				err = a.SendBuffers(net.Buffers{piece[:len(piece)/3], piece[len(piece)/3:]})
			}
			if err != nil {
				failed <- err
				return
			}
			at += len(piece)
		}
		failed <- a.CloseWrite()
	}()
	r := p.random(2)
	_ = b.SetReadDeadline(time.Now().Add(30 * time.Second))
	var got []byte
	for {
		var p []byte
		var err error
		if r.IntN(2) == 0 {
			p = make([]byte, Size(r, 1, 10_000))
			var n int
			n, err = b.Read(p)
			p = p[:n]
		} else {
			var m machnet.Message
			m, err = b.Recv(t.Context())
			p = bytes.Clone(m.Bytes())
			m.Release()
		}
		got = append(got, p...)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, data) {
		t.Fatalf("got %d bytes of %d, or others", len(got), total)
	}
}

// A message may have no bytes, and is one all the same. A reader of the stream never sees it.
func messagesWithoutAByte(t *testing.T, p Pair) {
	a, b := p.connect(t)
	_ = b.SetReadDeadline(time.Now().Add(patience))
	empty := map[string]func() error{
		"Send":        func() error { return a.Send(nil) },
		"SendBuffers": func() error { return a.SendBuffers(net.Buffers{nil, {}}) },
		"TrySend":     func() error { return a.TrySend([]byte{}) },
	}
	for name, send := range empty {
		for _, step := range []func() error{send, func() error { return a.Send([]byte("x")) }, send, send} {
			if err := step(); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		for i, want := range []string{"", "x", "", ""} {
			if i%2 == 0 {
				m, err := b.Recv(t.Context())
				if err != nil || string(m.Bytes()) != want {
					t.Fatalf("%s: Recv of message %d: %q, %v; want %q", name, i, m.Bytes(), err, want)
				}
				m.Release()
				continue
			}
			buf := make([]byte, len(want))
			if n, err := b.ReadMessage(buf); err != nil || string(buf[:n]) != want {
				t.Fatalf("%s: ReadMessage of message %d: %q, %v; want %q", name, i, buf[:n], err, want)
			}
		}
	}
	for name, send := range empty {
		for _, step := range []func() error{send, func() error { return a.Send([]byte("ab")) }, send, send, func() error { return a.Send([]byte("cd")) }} {
			if err := step(); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		got := ""
		for buf := make([]byte, 3); len(got) < 4; {
			n, err := b.Read(buf)
			if n == 0 || err != nil {
				t.Fatalf("%s: after %q: Read = %d, %v", name, got, n, err)
			}
			got += string(buf[:n])
		}
		if got != "abcd" {
			t.Fatalf("%s: read %q", name, got)
		}
	}
}

func aWriteBeyondTheLimitIsTwoMessages(t *testing.T, p Pair) {
	a, b := p.connect(t)
	data := Pattern(machnet.MaxMessage + 1)
	sent := make(chan error, 1)
	go func() {
		_, err := a.Write(data)
		if err == nil {
			err = a.CloseWrite()
		}
		sent <- err
	}()
	_ = b.SetReadDeadline(time.Now().Add(2 * patience))
	got, err := io.ReadAll(b)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes of %d came, or others: %v", len(got), len(data), err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

// Several goroutines send by every call there is, several receive, deadlines move. Each message comes once and whole, and those of one
// sender are taken in their order.
func everythingAtOnce(t *testing.T, p Pair) {
	const senders, receivers, each = 4, 3, 200
	type message struct {
		sender, number uint32
		from           int // the end that sent it
	}
	a, b := p.connect(t)
	var all sync.WaitGroup
	for side, ends := range [][2]*machnet.Conn{{a, b}, {b, a}} {
		var sending sync.WaitGroup
		for s := range senders {
			all.Add(1)
			sending.Go(func() {
				defer all.Done()
				r := p.random(100*side + s)
				for n := range each {
					text := make([]byte, 12+Size(r, 1, 20_000))
					binary.BigEndian.PutUint32(text, uint32(s))
					binary.BigEndian.PutUint32(text[4:], uint32(n))
					binary.BigEndian.PutUint32(text[8:], uint32(len(text)))
					for {
						var err error
						switch r.IntN(3) {
						case 0:
							err = ends[0].Send(text)
						case 1:
							err = ends[0].SendBuffers(net.Buffers{text[:12], text[12:]})
						case 2:
							err = ends[0].TrySend(text)
						}
						if err == nil {
							break
						}
						if !errors.Is(err, machnet.ErrWouldBlock) && !errors.Is(err, os.ErrDeadlineExceeded) {
							t.Errorf("side %d, sender %d: %v", side, s, err)
							return
						}
					}
				}
			})
		}
		all.Go(func() {
			moving(p, ends[0].SetWriteDeadline, sending.Wait)
			_ = ends[0].SetWriteDeadline(time.Time{})
			if err := ends[0].CloseWrite(); err != nil {
				t.Error(err)
			}
		})
		got := make([]chan message, receivers)
		for i := range got {
			got[i] = make(chan message, senders*each)
			all.Go(func() {
				defer close(got[i])
				buf := make([]byte, 1<<20)
				_ = ends[1].SetReadDeadline(time.Now().Add(3 * patience))
				for {
					n, err := ends[1].ReadMessage(buf)
					switch {
					case err == io.EOF:
						return
					case errors.Is(err, io.ErrUnexpectedEOF):
						continue // its deadline passed when it had begun
					case err != nil || n < 12 || binary.BigEndian.Uint32(buf[8:]) != uint32(n):
						t.Errorf("side %d: a message of %d bytes: %v", side, n, err)
						return
					}
					got[i] <- message{binary.BigEndian.Uint32(buf), binary.BigEndian.Uint32(buf[4:]), side}
				}
			})
		}
		all.Go(func() {
			count := make(map[message]int)
			for i, c := range got {
				last := make(map[uint32]int64)
				for m := range c {
					count[m]++
					if before, ok := last[m.sender]; ok && before >= int64(m.number) {
						t.Errorf("side %d, receiver %d: message %d of sender %d after %d", side, i, m.number, m.sender, before)
					}
					last[m.sender] = int64(m.number)
				}
			}
			for s := range senders {
				for n := range each {
					if c := count[message{uint32(s), uint32(n), side}]; c != 1 {
						t.Errorf("side %d: message %d of sender %d came %d times", side, n, s, c)
						return
					}
				}
			}
			if len(count) != senders*each {
				t.Errorf("side %d: %d messages came, %d were sent", side, len(count), senders*each)
			}
		})
	}
	over := make(chan struct{})
	go func() { all.Wait(); close(over) }()
	select {
	case <-over:
	case <-time.After(4 * patience):
		t.Fatalf("%d senders and receivers do not end", 2*(senders+receivers))
	}
}
