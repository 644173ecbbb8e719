package main

import (
	"io"
	"testing"
	"time"

	"github.com/machnet/machnet/go/machnettest"
)

// TestEcho is a test as a user of machnettest writes it: two hosts, a link that loses packets, and nothing to install.
func TestEcho(t *testing.T) {
	network := machnettest.NewNetwork(t, machnettest.Options{Loss: 0.01, Delay: 20 * time.Microsecond})
	listener, err := network.Host(0).Listen("machnet", ":7000")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = echo(listener) }()
	conn, err := network.Host(1).DialContext(t.Context(), "machnet", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range 1000 {
		if _, err := conn.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
	}
}
