package main

import (
	"context"
	"io"
	"sync"
)

// output is standard output as a command sees it. The first write that is refused ends the command, which may have minutes before it
// that nobody will see, and is its error, whatever the command makes of it: a table on a full disk is no result.
type output struct {
	to   io.Writer
	stop context.CancelCauseFunc

	mu  sync.Mutex
	err error
}

func newOutput(ctx context.Context, to io.Writer) (*output, context.Context) {
	ctx, stop := context.WithCancelCause(ctx)
	return &output{to: to, stop: stop}, ctx
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return 0, o.err
	}
	n, err := o.to.Write(p)
	if err != nil {
		o.err = err
		o.stop(err)
	}
	return n, err
}

// refused is the error of the first write that was refused.
func (o *output) refused() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}
