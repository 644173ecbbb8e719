package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/machnet/machnet/cmd/internal/load"
	"github.com/machnet/machnet/cmd/netns/relay"
)

// streamOrder has a worker send a stream on a new connection for so long.
type streamOrder struct {
	Addr string
	For  time.Duration
}

// workerStream obeys orders to send streams, and answers each with how much went. A stream is over when its receiver has said that it has all.
func workerStream(ctx context.Context, e endpoint, in *json.Decoder, out *json.Encoder) error {
	dial, closeAll, err := e.dialer(ctx)
	if err != nil {
		return err
	}
	defer closeAll()
	return obey(in, out, func(order streamOrder) (*load.Result, error) {
		conn, err := dial(ctx, order.Addr)
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		defer context.AfterFunc(ctx, func() { conn.Close() })()
		return load.Stream(conn, order.For)
	})
}

// roleRelay is that of a worker that is a path between hosts (cmd/netns/relay).
const roleRelay = "relay"

// relayOrder has a worker's relay do something else from now on, or only say what it has done.
type relayOrder struct{ Path *relay.Path }

// workerRelay passes frames between two devices, and answers each order with the counts so far.
func workerRelay(ctx context.Context, devices string, out *json.Encoder) error {
	one, other, two := strings.Cut(devices, ",")
	if !two {
		return fmt.Errorf("%q: two devices", devices)
	}
	r, err := relay.Start(nil, one, other, relay.Path{}, relaySeed)
	if err != nil {
		return err
	}
	orders := make(chan error, 1)
	go func() { orders <- obeyRelay(r, json.NewDecoder(os.Stdin), out) }()
	select {
	case err = <-orders:
	case <-r.Done():
	case <-ctx.Done():
	}
	return errors.Join(err, r.Close())
}

func obeyRelay(r *relay.Relay, in *json.Decoder, out *json.Encoder) error {
	if err := out.Encode(workerLine{Ready: true}); err != nil {
		return err
	}
	for {
		var order relayOrder
		if err := in.Decode(&order); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read a command: %w", err)
		}
		if order.Path != nil {
			if err := r.Set(*order.Path); err != nil {
				return err
			}
		}
		counts := r.Counts()
		if err := out.Encode(workerLine{Relay: &counts}); err != nil {
			return err
		}
	}
}

// relaySeed is of all relays: the same dice fall for every arm.
const relaySeed = 1
