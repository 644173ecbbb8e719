//go:build linux && cgo && (amd64 || arm64) && !race

package machnettest_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/machnet/machnet/go/machnet"
	"github.com/machnet/machnet/go/machnettest"
)

// Both ends are in this process, so that what is counted is a request and its reply, sent and received each. Not with the race detector,
// under which a sync.Pool forgets on purpose.
func TestSendingAndReceivingMakesNoGarbage(t *testing.T) {
	_, _, near, far := hosts(t, machnettest.Options{})
	send := map[string]func(c *machnet.Conn, p []byte, b net.Buffers) error{
		"Write":       func(c *machnet.Conn, p []byte, _ net.Buffers) error { _, err := c.Write(p); return err },
		"Send":        func(c *machnet.Conn, p []byte, _ net.Buffers) error { return c.Send(p) },
		"TrySend":     func(c *machnet.Conn, p []byte, _ net.Buffers) error { return c.TrySend(p) },
		"SendBuffers": func(c *machnet.Conn, _ []byte, b net.Buffers) error { return c.SendBuffers(b) },
	}
	receive := map[string]func(c *machnet.Conn, p []byte) error{
		"Read":        func(c *machnet.Conn, p []byte) error { _, err := io.ReadFull(c, p); return err },
		"ReadMessage": func(c *machnet.Conn, p []byte) error { _, err := c.ReadMessage(p); return err },
		"Recv": func(c *machnet.Conn, _ []byte) error {
			m, err := c.Recv(context.Background())
			m.Release()
			return err
		},
	}
	for sending, send := range send {
		for receiving, receive := range receive {
			for _, size := range []int{64, 1400, 32 << 10} {
				t.Run(fmt.Sprintf("%s and %s of %d bytes", sending, receiving, size), func(t *testing.T) {
					a, b := connection(t, near, far, "10.0.0.2")
					go echoMessages(b)
					p := make([]byte, size)
					buffers := net.Buffers{p[:10], p[10:40], p[40:]}
					n := testing.AllocsPerRun(100, func() {
						if err := send(a, p, buffers); err != nil {
							t.Error(err)
						}
						if err := receive(a, p); err != nil {
							t.Error(err)
						}
					})
					if n != 0 {
						t.Errorf("%v allocations", n)
					}
				})
			}
		}
	}
}
