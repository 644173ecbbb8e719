//go:build linux && cgo && (amd64 || arm64)

package machnettest_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/machnet/machnet/go/machnet"
	"github.com/machnet/machnet/go/machnettest"
)

// senders are the calls that send something.
func senders(c *machnet.Conn) map[string]func() error {
	hello := []byte("hello")
	return map[string]func() error{
		"Write":       func() error { _, err := c.Write(hello); return err },
		"long Write":  func() error { _, err := c.Write(make([]byte, 200_000)); return err },
		"Send":        func() error { return c.Send(hello) },
		"empty Send":  func() error { return c.Send(nil) },
		"long Send":   func() error { return c.Send(make([]byte, 1<<20)) },
		"SendBuffers": func() error { return c.SendBuffers(net.Buffers{hello, hello}) },
		"TrySend": func() error {
			if err := c.TrySend(hello); !errors.Is(err, machnet.ErrWouldBlock) {
				return err
			}
			return nil
		},
	}
}

// ended reports whether err is what TCP gives a writer whose peer has gone.
func ended(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

func TestAWriterWhoNeverReadsHearsThatItsPeerHasClosed(t *testing.T) {
	_, _, near, far := hosts(t, machnettest.Options{})
	for _, name := range []string{"Write", "long Write", "Send", "empty Send", "long Send", "SendBuffers", "TrySend"} {
		t.Run(name, func(t *testing.T) {
			a, b := connection(t, near, far, "10.0.0.2")
			send := senders(a)[name]
			if _, err := a.Write([]byte("hello")); err != nil {
				t.Fatalf("to a peer that is there: %v", err)
			}
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			var err error
			within(t, "an error of "+name, func() bool { err = send(); return err != nil })
			if !ended(err) {
				t.Fatalf("to a peer that has closed: %v, want ECONNRESET or EPIPE", err)
			}
			// Once it is known, every call says so at once.
			others := senders(a)
			others["CloseWrite"] = a.CloseWrite
			others["empty Write"] = func() error { _, err := a.Write(nil); return err }
			for other, send := range others {
				if err := send(); !ended(err) {
					t.Errorf("%s afterwards: %v, want ECONNRESET or EPIPE", other, err)
				}
			}
			if err := a.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
	}
}

func TestAWriterThatWaitsIsWokenWhenItsPeerCloses(t *testing.T) {
	_, _, near, far := hosts(t, machnettest.Options{})
	for name, send := range map[string]func(c *machnet.Conn) error{
		"Write": func(c *machnet.Conn) error { _, err := c.Write(make([]byte, 64<<20)); return err },
		"Send":  func(c *machnet.Conn) error { return c.Send(make([]byte, machnet.MaxMessage)) },
	} {
		t.Run(name, func(t *testing.T) {
			a, b := connection(t, near, far, "10.0.0.2")
			result := make(chan error, 1)
			go func() { result <- send(a) }() // far more than fits on the way to a peer that does not read
			if _, err := b.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-result:
				if !ended(err) {
					t.Fatalf("%v, want ECONNRESET or EPIPE", err)
				}
			case <-time.After(20 * time.Second):
				t.Fatal("the writer still waits")
			}
		})
	}
}

func TestAPeerThatOnlySendsNoMoreIsWrittenTo(t *testing.T) {
	_, _, near, far := hosts(t, machnettest.Options{})
	a, b := connection(t, near, far, "10.0.0.2")
	if err := b.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if n, err := a.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("Read = %d, %v; want EOF", n, err)
	}
	type result struct {
		bytes int64
		err   error
	}
	got := make(chan result, 1)
	go func() { n, err := io.Copy(io.Discard, b); got <- result{n, err} }()
	for name, send := range senders(a) {
		if err := send(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := a.CloseWrite(); err != nil {
		t.Error(err)
	}
	least := int64(200_000 + 1<<20 + 20) // TrySend may have found no room
	if r := <-got; r.err != nil || r.bytes < least || r.bytes > least+5 {
		t.Errorf("%d bytes came, %v; want %d or %d", r.bytes, r.err, least, least+5)
	}
	a, b = connection(t, near, far, "10.0.0.2")
	if err := b.CloseRead(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Write(make([]byte, 4<<20)); err != nil {
		t.Errorf("to a peer that drops what comes: %v", err)
	}
}

func TestAnHTTPHandlerHearsThatItsClientHasGone(t *testing.T) {
	_, _, near, far := hosts(t, machnettest.Options{})
	l, err := (&machnet.ListenConfig{Stack: far}).Listen(t.Context(), "machnet", ":0")
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan error, 1)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for {
			if _, err := w.Write(make([]byte, 1000)); err != nil {
				heard <- err
				return
			}
			w.(http.Flusher).Flush()
		}
	})}
	defer server.Close()
	go server.Serve(l)
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&machnet.Dialer{Stack: near}).DialContext(ctx, "machnet", "10.0.0.2"+l.Addr().String()[len("10.0.0.2"):])
		},
	}}
	response, err := client.Get("http://machnet/")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(response.Body, make([]byte, 10_000)); err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	select {
	case <-heard:
	case <-time.After(20 * time.Second):
		t.Fatal("the handler still writes")
	}
}

// One channel is at one sidecar and the next at another, as when a sidecar is replaced while the old one has not ended.
func TestAListenerWhoseLastSidecarEndsIsNotLeftWithoutAny(t *testing.T) {
	network := machnettest.NewNetwork(t, machnettest.Options{Conns: 1, Seed: 1})
	sockets := []string{network.Host(0).Socket(), network.Host(1).Socket()}
	connects := 0
	stack, err := machnet.Attach(t.Context(), machnet.Config{Connect: func(context.Context) (*os.File, error) {
		c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: sockets[min(connects, 1)], Net: "unixpacket"})
		if err != nil {
			return nil, err
		}
		defer c.Close()
		connects++
		return c.File()
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer stack.Close()
	l, err := (&machnet.ListenConfig{Stack: stack}).ListenMachnet(t.Context(), &machnet.Addr{Port: 7000})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := network.Host(0).DialContext(t.Context(), "machnet", ":7000") // takes the only place
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	within(t, "there is a channel at the other sidecar", func() bool { return stack.Stats().Channels >= 2 })
	network.Host(0).Kill()
	_ = l.SetDeadline(time.Now().Add(20 * time.Second))
	for err == nil {
		_, err = l.Accept() // the connection, perhaps
	}
	if !errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Errorf("Accept gives %v, want that the sidecar's address is another", err)
	}
}
