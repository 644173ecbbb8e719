package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/machnet/machnet/cmd/internal/load"
	"github.com/machnet/machnet/cmd/netns/relay"
)

// A worker is one side of one arm of a benchmark, in a process of its own: `machnet worker serve|drive|stream|connect|churn|hog|relay`, or machnet-load-c
// (tests/c/load.c), which serves and drives. It obeys
// lines of JSON on standard input, answers with lines of JSON on standard output, and ends when its input ends.
const workerCommand = "worker"

// workerLine is one answer of a worker.
type workerLine struct {
	Addr   string      `json:"addr,omitempty"`   // serve: listening here
	Ready  bool        `json:"ready,omitempty"`  // drive, connect, churn, hog: connected, or ready
	Result *workResult `json:"result,omitempty"` // likewise: a run is over

	Relay *[2]relay.Counts `json:"relay,omitempty"` // relay: what it has done so far

	Error string `json:"error,omitempty"` // the worker ends
}

// workResult is load.Result as it crosses the pipe; the histogram in its V2 compressed encoding, or from C as pairs of a latency in nanoseconds
// and how often it was.
type workResult struct {
	Messages, All, Lost int64
	Seconds             float64
	Latency             []byte     `json:",omitempty"`
	Buckets             [][2]int64 `json:",omitempty"`
}

func (r *workResult) histogram() (*hdrhistogram.Histogram, error) {
	if len(r.Latency) > 0 {
		return hdrhistogram.Decode(r.Latency)
	}
	h := load.NewHistogram()
	for _, b := range r.Buckets {
		if err := h.RecordValues(max(1, b[0]), b[1]); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// driveOrder has a worker send frames over so many connections, no more and no fewer being open.
type driveOrder struct {
	load.Params
	Connections int
	ConnectOnly bool // to measure none of what connecting costs
}

// churnOrder has a worker attach and leave in a loop.
type churnOrder struct {
	For time.Duration
}

// connectOrder has a worker connect so often, one connection after the other, each closed before the next.
type connectOrder struct {
	Addr        string
	Connections int
	Pause       time.Duration // before each
	Keep        bool          // none is closed before the worker ends
}

// obey says that a worker is ready, and answers each order with what do found, until there are no more.
func obey[Order any](in *json.Decoder, out *json.Encoder, do func(Order) (*load.Result, error)) error {
	if err := out.Encode(workerLine{Ready: true}); err != nil {
		return err
	}
	for {
		var order Order
		if err := in.Decode(&order); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read a command: %w", err)
		}
		found, err := do(order)
		if err != nil {
			return err
		}
		latency, err := found.Latency.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
		if err != nil {
			return err
		}
		result := workResult{Messages: found.Messages, All: found.All, Lost: found.Lost, Seconds: found.Seconds, Latency: latency}
		if err := out.Encode(workerLine{Result: &result}); err != nil {
			return err
		}
	}
}
