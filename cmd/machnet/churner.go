package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/machnet/machnet/cmd/internal/load"
	"github.com/machnet/machnet/go/machnet"
)

// workerChurn obeys orders, and answers each with how often it attached and how long that took. how is the pause and the number of
// channels that it keeps attached all the time.
func workerChurn(ctx context.Context, e endpoint, how string, in *json.Decoder, out *json.Encoder) error {
	words := strings.Fields(how)
	if len(words) != 2 {
		return fmt.Errorf("%q: a pause and a number of idle channels", how)
	}
	rest, err := time.ParseDuration(words[0])
	if err != nil {
		return err
	}
	idle, err := strconv.Atoi(words[1])
	if err != nil {
		return err
	}
	for range idle {
		stack, err := machnet.Attach(ctx, machnet.Config{Socket: e.socket})
		if err != nil {
			return err
		}
		defer stack.Close()
	}
	return obey(in, out, func(order churnOrder) (*load.Result, error) {
		found := &load.Result{Latency: load.NewHistogram()}
		began := time.Now()
		for time.Since(began) < order.For {
			before := time.Now()
			stack, err := machnet.Attach(ctx, machnet.Config{Socket: e.socket})
			if err != nil {
				return nil, err
			}
			_ = found.Latency.RecordValue(max(1, time.Since(before).Nanoseconds()))
			found.Messages++
			time.Sleep(rest)
			if err := stack.Close(); err != nil {
				return nil, err
			}
			time.Sleep(rest)
		}
		found.Seconds = time.Since(began).Seconds()
		return found, nil
	})
}
