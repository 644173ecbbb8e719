package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

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
	if err := out.Encode(workerLine{Ready: true}); err != nil {
		return err
	}
	for {
		var order churnOrder
		if err := in.Decode(&order); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read a command: %w", err)
		}
		latency, result := load.NewHistogram(), workResult{}
		began := time.Now()
		for time.Since(began) < order.For {
			before := time.Now()
			stack, err := machnet.Attach(ctx, machnet.Config{Socket: e.socket})
			if err != nil {
				return err
			}
			_ = latency.RecordValue(max(1, time.Since(before).Nanoseconds()))
			result.Messages++
			time.Sleep(rest)
			if err := stack.Close(); err != nil {
				return err
			}
			time.Sleep(rest)
		}
		result.Seconds = time.Since(began).Seconds()
		if result.Latency, err = latency.Encode(hdrhistogram.V2CompressedEncodingCookieBase); err != nil {
			return err
		}
		if err := out.Encode(workerLine{Result: &result}); err != nil {
			return err
		}
	}
}
