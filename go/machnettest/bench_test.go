//go:build linux && cgo && (amd64 || arm64)

package machnettest_test

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/machnet/machnet/go/machnet"
	"github.com/machnet/machnet/go/machnettest"
)

// BenchmarkDial connects and closes again, both ends in this process: what is counted is of both, or of one and a half, since the server
// does nothing but close.
func BenchmarkDial(b *testing.B) {
	network := machnettest.NewNetwork(b, machnettest.Options{})
	listener, err := network.Host(1).Listen("machnet", ":7000")
	if err != nil {
		b.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
	dialer := machnet.Dialer{Stack: network.Host(0).Stack()}
	address := listener.Addr().(*machnet.Addr)
	end := make([]byte, 1)
	b.ReportAllocs()
	for b.Loop() {
		conn, err := dialer.DialMachnet(context.Background(), address)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := conn.Read(end); !errors.Is(err, io.EOF) {
			b.Fatal(err)
		}
		if err := conn.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkEcho sends a message of 64 bytes and waits for its echo.
func BenchmarkEcho(b *testing.B) {
	network := machnettest.NewNetwork(b, machnettest.Options{})
	listener, err := network.Host(1).Listen("machnet", ":7000")
	if err != nil {
		b.Fatal(err)
	}
	go echo(listener)
	conn, err := network.Host(0).DialContext(b.Context(), "machnet", listener.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	message := make([]byte, 64)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := conn.Write(message); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(conn, message); err != nil {
			b.Fatal(err)
		}
	}
}
