package main

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/machnet/machnet/go/examples/internal/hosts"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// blob is n bytes that nobody could guess.
func blob(seed uint64, n int) []byte {
	b := make([]byte, n)
	source := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = source.Read(b)
	return b
}

func TestBodiesOfAMegabyteGoBothWays(t *testing.T) {
	d, l := hosts.Two(t)
	hosts.Serve(t, func(ctx context.Context) error { return serve(ctx, l) })
	c := newClient(d)
	defer c.CloseIdleConnections()
	url := "http://" + l.Addr().String()
	var all sync.WaitGroup
	for i, size := range []int{0, 1, 20_000, 1 << 20, 1<<20 + 1, 3 << 20} {
		all.Go(func() {
			want, path := blob(uint64(i), size), url+"/"+string(rune('a'+i))
			if err := request(t.Context(), c, http.MethodPut, path, bytes.NewReader(want), io.Discard); err != nil {
				t.Error(err)
				return
			}
			var got bytes.Buffer
			if err := request(t.Context(), c, http.MethodGet, path, nil, &got); err != nil || !bytes.Equal(got.Bytes(), want) {
				t.Errorf("%d bytes came back as %d others, %v", size, got.Len(), err)
			}
		})
	}
	all.Wait()
	if err := request(t.Context(), c, http.MethodGet, url+"/nothing", nil, io.Discard); err == nil {
		t.Error("a path where nothing was put is served")
	}
}

func TestAConnectionIsKeptForTheNextRequest(t *testing.T) {
	d, l := hosts.Two(t)
	hosts.Serve(t, func(ctx context.Context) error { return serve(ctx, l) })
	c := newClient(d)
	defer c.CloseIdleConnections()
	var fresh, reused atomic.Int32
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
		if i.Reused {
			reused.Add(1)
		} else {
			fresh.Add(1)
		}
	}})
	for range 50 {
		err := request(ctx, c, http.MethodPut, "http://"+l.Addr().String()+"/x", bytes.NewReader(blob(0, 5000)), io.Discard)
		if err != nil {
			t.Fatal(err)
		}
	}
	if fresh.Load() != 1 || reused.Load() != 49 {
		t.Errorf("50 requests one after the other made %d connections and used them again %d times; want 1 and 49", fresh.Load(), reused.Load())
	}
}

func TestShutdownWaitsForTheRequestUnderWay(t *testing.T) {
	d, l := hosts.Two(t)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, l) }()
	c := newClient(d)
	defer c.CloseIdleConnections()
	body, more := io.Pipe()
	answered := make(chan error, 1)
	url := "http://" + l.Addr().String() + "/slow"
	go func() { answered <- request(t.Context(), c, http.MethodPut, url, body, io.Discard) }()
	// More than the server's first read: it is within the handler when all of this was taken.
	if _, err := more.Write(blob(0, 1<<20)); err != nil {
		t.Fatal(err)
	}
	stop()
	if conn, err := d.DialContext(t.Context(), "machnet", l.Addr().String()); err == nil {
		_ = conn.Close() // the listener may not have closed yet
	}
	select {
	case err := <-ended:
		t.Fatalf("the server ended with %v while a request was under way", err)
	default:
	}
	_ = more.Close()
	if err := <-answered; err != nil {
		t.Errorf("the request under way got %v", err)
	}
	if err := <-ended; err != nil {
		t.Errorf("the server ended with %v", err)
	}
}
