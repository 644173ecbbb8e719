package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/machnet/machnet/cmd/internal/load"
	"github.com/machnet/machnet/go/machnet"
)

// workerConnect obeys orders to connect, and answers each with how long that took.
func workerConnect(ctx context.Context, e endpoint, in *json.Decoder, out *json.Encoder) error {
	var dialer interface {
		DialContext(ctx context.Context, network, address string) (net.Conn, error)
	} = &net.Dialer{}
	if e.transport == "machnet" {
		stack, err := machnet.Attach(ctx, machnet.Config{Socket: e.socket})
		if err != nil {
			return err
		}
		defer stack.Close()
		dialer = &machnet.Dialer{Stack: stack}
	}
	var kept []net.Conn
	defer func() {
		for _, conn := range kept {
			conn.Close()
		}
	}()
	return obey(in, out, func(order connectOrder) (*load.Result, error) {
		found := &load.Result{Latency: load.NewHistogram()}
		began := time.Now()
		for range order.Connections {
			time.Sleep(order.Pause)
			before := time.Now()
			conn, err := dialer.DialContext(ctx, e.transport, order.Addr)
			if err != nil {
				return nil, err
			}
			took := time.Since(before)
			_ = found.Latency.RecordValue(max(1, took.Nanoseconds()))
			if order.Keep {
				kept = append(kept, conn)
			} else if err := endBothWays(conn); err != nil {
				return nil, err
			}
			found.Messages++
		}
		found.Seconds = time.Since(began).Seconds()
		return found, nil
	})
}

// endBothWays closes a connection and waits until its server has done so, too: a server that falls behind would be measured otherwise.
func endBothWays(conn net.Conn) error {
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		if err := half.CloseWrite(); err != nil {
			return err
		}
	}
	if n, err := conn.Read(make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) {
		return fmt.Errorf("read %d bytes, %v from a server that had nothing to say", n, err)
	}
	return conn.Close()
}
