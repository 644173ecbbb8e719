package proxy

import (
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"
)

// ends gives a connection of TCP: the relay's end and the peer's.
func ends(t *testing.T) (ours, peers *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialled, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{dialled, accepted} {
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(time.Minute))
	}
	return accepted.(*net.TCPConn), dialled.(*net.TCPConn)
}

// A server that answers and closes at once must be heard to its end, although what its client sends after that cannot be delivered.
func TestWhatWasGivenWholeIsNotTakenBackByAResetOfTheOtherDirection(t *testing.T) {
	near, client := ends(t)
	far, server := ends(t)
	// Most of the answer is still on its way when the other direction breaks.
	const size = 48 << 10
	if err := near.SetWriteBuffer(2 * size); err != nil {
		t.Fatal(err)
	}
	if err := client.SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	var sent, received atomic.Int64
	r := &relay{near: near, far: far, sent: &sent, received: &received}
	over := make(chan error, 1)
	go func() { over <- r.run() }()
	if _, err := server.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	for !r.back.Load() {
		time.Sleep(time.Millisecond)
	}
	// One byte after the other, each when the relay has taken the last, until one meets the reset.
	for n := int64(1); ; n++ {
		if _, err := client.Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
		for sent.Load() < n && len(over) == 0 {
			time.Sleep(time.Millisecond)
		}
		if len(over) > 0 {
			break
		}
	}
	if err := <-over; err == nil {
		t.Error("the relay ended in good order, though a byte was not delivered")
	}
	if got, err := io.ReadAll(client); err != nil || len(got) != size {
		t.Errorf("the client read %d bytes of %d, %v", len(got), size, err)
	}
}

func TestOneWarningASecondSaysHowManyWereNotSaid(t *testing.T) {
	var l limiter
	began := time.Now()
	for _, tc := range []struct {
		after  time.Duration
		ok     bool
		unsaid int
	}{
		{0, true, 0}, {time.Millisecond, false, 0}, {999 * time.Millisecond, false, 0}, {time.Second, true, 2}, {1500 * time.Millisecond, false, 0},
		{2100 * time.Millisecond, true, 1}, {10 * time.Second, true, 0},
	} {
		if unsaid, ok := l.allow(began.Add(tc.after)); ok != tc.ok || unsaid != tc.unsaid {
			t.Errorf("after %v: %d, %v; want %d, %v", tc.after, unsaid, ok, tc.unsaid, tc.ok)
		}
	}
}
