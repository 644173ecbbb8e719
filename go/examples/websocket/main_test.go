package main

import (
	"bytes"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/machnet/machnet/go/examples/internal/hosts"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAllOthersReadWhatOneSays(t *testing.T) {
	d, l := hosts.Two(t)
	hall := new(room)
	server := &http.Server{Handler: hall}
	go func() { _ = server.Serve(l) }()
	defer server.Close()
	var members []*websocket.Conn
	for range 3 {
		c, err := join(t.Context(), d, "ws://"+l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.CloseNow()
		members = append(members, c)
	}
	inside := func(want int) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
			hall.mu.Lock()
			n := len(hall.members)
			hall.mu.Unlock()
			if n == want {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%d are in the room, want %d", n, want)
			}
		}
	}
	inside(3)
	for i, kind := range []websocket.MessageType{websocket.MessageText, websocket.MessageBinary} {
		for _, size := range []int{0, 1, 125, 126, 65_536, largestSaying} {
			want := bytes.Repeat([]byte{'a' + byte(i)}, size)
			if err := members[i].Write(t.Context(), kind, want); err != nil {
				t.Fatal(err)
			}
			// At once, because the room tells one after the other, and not in this order.
			var others sync.WaitGroup
			for j, c := range members {
				if j == i {
					continue
				}
				others.Go(func() {
					if got, said, err := c.Read(t.Context()); err != nil || got != kind || !bytes.Equal(said, want) {
						t.Errorf("member %d got %d bytes as %v, %v; want %d as %v", j, len(said), got, err, size, kind)
					}
				})
			}
			others.Wait()
		}
	}
	// A close is a handshake of its own, and the others stay.
	if err := members[0].Close(websocket.StatusNormalClosure, "goodbye"); err != nil {
		t.Error(err)
	}
	inside(2)
	if err := members[1].Write(t.Context(), websocket.MessageText, []byte("still here")); err != nil {
		t.Fatal(err)
	}
	if _, said, err := members[2].Read(t.Context()); err != nil || string(said) != "still here" {
		t.Fatalf("%q, %v", said, err)
	}
	// Beyond the limit the reader says so and leaves.
	if err := members[1].Write(t.Context(), websocket.MessageText, make([]byte, largestSaying+1)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := members[1].Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusMessageTooBig {
		t.Error(fmt.Errorf("after a message beyond the limit: %w", err))
	}
}
