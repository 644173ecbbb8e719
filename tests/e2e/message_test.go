package e2e

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"time"

	"github.com/machnet/machnet/go/machnet"
)

// pattern is n bytes that differ from place to place.
func pattern(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i) ^ byte(i>>8)*31 ^ byte(i>>16)*57
	}
	return p
}

// messageSizes are those around every border: nothing, inline or not, one unit or two, one Write or two, the largest.
var messageSizes = []int{0, 1, 95, 96, 97, 1423, 1424, 1425, 2848, 2849, 64 << 10, 64<<10 + 1, 1 << 20, machnet.MaxMessage}

func TestMessagesKeepTheirBoundaries(t *testing.T) {
	a, b := twoHosts(t)
	data := pattern(machnet.MaxMessage)
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

func TestSendBuffersMakesOneMessage(t *testing.T) {
	a, b := twoHosts(t)
	data := pattern(300_000)
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

func TestAShortBufferKeepsTheMessage(t *testing.T) {
	a, b := twoHosts(t)
	for _, n := range []int{50, 1000, 100_000} {
		if err := a.Send(pattern(n)); err != nil {
			t.Fatal(err)
		}
		_ = b.SetReadDeadline(time.Now().Add(10 * time.Second))
		if need, err := b.ReadMessage(make([]byte, n-1)); err != io.ErrShortBuffer || need != n {
			t.Fatalf("ReadMessage into %d bytes = %d, %v; want %d, io.ErrShortBuffer", n-1, need, err, n)
		}
		p := make([]byte, n)
		if got, err := b.ReadMessage(p); err != nil || got != n || !bytes.Equal(p, pattern(n)) {
			t.Fatalf("ReadMessage into %d bytes = %d, %v", n, got, err)
		}
	}
}

func TestAfterAPartialReadComesTheRestOfTheMessage(t *testing.T) {
	a, b := twoHosts(t)
	for _, n := range []int{60, 5000} {
		data := pattern(n)
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

func TestMessagesBeyondTheLimitAreRefusedWhole(t *testing.T) {
	a, b := twoHosts(t)
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

func TestTrySendSaysWhenThereIsNoRoom(t *testing.T) {
	a, b := twoHosts(t)
	sent := 0
	var err error
	for sent < 100_000 {
		if err = a.TrySend(pattern(1000)); err != nil {
			break
		}
		sent++
	}
	if !errors.Is(err, machnet.ErrWouldBlock) {
		t.Fatalf("after %d messages that nobody reads: %v, want ErrWouldBlock", sent, err)
	}
	_ = b.SetReadDeadline(time.Now().Add(10 * time.Second))
	for i := range sent {
		if m, err := b.Recv(t.Context()); err != nil || !bytes.Equal(m.Bytes(), pattern(1000)) {
			t.Fatalf("message %d of %d: %v", i, sent, err)
		}
	}
}

func TestAMessageCutByADeadlineIsTakenBack(t *testing.T) {
	a, b := twoHosts(t)
	_ = a.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
	if err := a.Send(pattern(machnet.MaxMessage)); !errors.Is(err, os.ErrDeadlineExceeded) {
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

func TestRecvObeysItsContext(t *testing.T) {
	a, b := twoHosts(t)
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

func TestMessagesAndStreamMix(t *testing.T) {
	a, b := twoHosts(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	const total = 1 << 20
	data := pattern(total)
	failed := make(chan error, 1)
	go func() {
		r := rand.New(rand.NewPCG(seed, 1))
		for at := 0; at < total; {
			p := data[at:min(total, at+size(r, 1, 100_000))]
			var err error
			switch r.IntN(3) {
			case 0:
				_, err = a.Write(p)
			case 1:
				err = a.Send(p)
			case 2:
				err = a.SendBuffers(net.Buffers{p[:len(p)/3], p[len(p)/3:]})
			}
			if err != nil {
				failed <- err
				return
			}
			at += len(p)
		}
		failed <- a.CloseWrite()
	}()
	r := rand.New(rand.NewPCG(seed, 2))
	_ = b.SetReadDeadline(time.Now().Add(30 * time.Second))
	var got []byte
	for {
		var p []byte
		var err error
		if r.IntN(2) == 0 {
			p = make([]byte, size(r, 1, 10_000))
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
