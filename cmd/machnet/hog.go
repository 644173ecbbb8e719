package main

import (
	"context"
	"encoding/json"
	"io"
)

// workerHog keeps its core busy until its input ends or it is told to end: a thread that computes and gives nothing away.
func workerHog(ctx context.Context, in io.Reader, out *json.Encoder) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, in)
		cancel()
	}()
	if err := out.Encode(workerLine{Ready: true}); err != nil {
		return err
	}
	for x := uint32(1); ctx.Err() == nil; {
		for range 1 << 16 { // some 50 us
			x = x*1664525 + 1013904223
		}
		if x == 0 { // never, but the compiler cannot know
			return nil
		}
	}
	return nil
}
