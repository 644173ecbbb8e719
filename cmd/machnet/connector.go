package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

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
	if err := out.Encode(workerLine{Ready: true}); err != nil {
		return err
	}
	for {
		var order connectOrder
		if err := in.Decode(&order); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read a command: %w", err)
		}
		latency, result := load.NewHistogram(), workResult{}
		began := time.Now()
		for range order.Connections {
			time.Sleep(order.Pause)
			before := time.Now()
			conn, err := dialer.DialContext(ctx, e.transport, order.Addr)
			if err != nil {
				return err
			}
			took := time.Since(before)
			_ = latency.RecordValue(max(1, took.Nanoseconds()))
			if order.Keep {
				defer conn.Close()
			} else if err := endBothWays(conn); err != nil {
				return err
			}
			result.Messages++
		}
		result.Seconds = time.Since(began).Seconds()
		var err error
		if result.Latency, err = latency.Encode(hdrhistogram.V2CompressedEncodingCookieBase); err != nil {
			return err
		}
		if err := out.Encode(workerLine{Result: &result}); err != nil {
			return err
		}
	}
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
