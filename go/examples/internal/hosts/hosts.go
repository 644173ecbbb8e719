// Package hosts gives the tests of the examples two hosts on a network in their own process.
package hosts

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/machnet/machnet/go/machnet"
	"github.com/machnet/machnet/go/machnettest"
)

// Two gives a dialer on one host and a listener on another, until the test ends. One packet in a hundred is lost between them.
func Two(t testing.TB) (*machnet.Dialer, net.Listener) {
	t.Helper()
	network := machnettest.NewNetwork(t, machnettest.Options{Loss: 0.01})
	lc := machnet.ListenConfig{Stack: network.Host(1).Stack()}
	l, err := lc.Listen(t.Context(), "machnet", ":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return &machnet.Dialer{Stack: network.Host(0).Stack(), Timeout: 10 * time.Second}, l
}

// Serve runs a server until the test ends: its context ends then, and it has to return nil.
func Serve(t testing.TB, serve func(context.Context) error) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() { result <- serve(ctx) }()
	t.Cleanup(func() {
		stop()
		select {
		case err := <-result:
			if err != nil {
				t.Errorf("the server ended with %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Error("the server did not end within 20 s")
		}
	})
}
