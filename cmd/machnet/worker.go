package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net"
	"os"

	"github.com/machnet/machnet/cmd/internal/load"
)

func runWorker(ctx context.Context, args []string, stdout, _ io.Writer) error {
	fs := flag.NewFlagSet(workerCommand, flag.ContinueOnError)
	transport := fs.String("transport", "machnet", "machnet, tcp or udp")
	socket := fs.String("socket", "", "the sidecar's control socket (machnet)")
	buffer := fs.Int("buffer", 0, "bytes that a server of streams reads at a time; 0: as suits one connection")
	messages := fs.Bool("messages", false, "a server takes messages and not a stream (machnet)")
	stream := fs.Bool("stream", false, "a server reads streams to their end, and answers nothing before")
	engine := fs.Int("engine", 0, "number of the sidecar's engine and one; 0 leaves the choice to the sidecar")
	addr := fs.String("addr", "", "where to listen, whom to dial, (relay) two devices, or (churn) how long to stay attached and away, and how many idle channels to keep")
	if len(args) == 0 {
		return usagef("serve, drive, stream, connect, churn, hog or relay")
	}
	if err := parse(fs, args[1:], stdout, ""); err != nil {
		return err
	}
	if err := checkTransport(*transport); err != nil {
		return err
	}
	e := endpoint{transport: *transport, socket: *socket, engine: *engine, buffer: *buffer, messages: *messages, stream: *stream}
	out := json.NewEncoder(stdout)
	var err error
	switch args[0] {
	case "serve":
		err = workerServe(ctx, e, *addr, out)
	case "drive":
		err = workerDrive(ctx, e, *addr, out)
	case "connect":
		err = workerConnect(ctx, e, json.NewDecoder(os.Stdin), out)
	case "churn":
		err = workerChurn(ctx, e, *addr, json.NewDecoder(os.Stdin), out)
	case "hog":
		err = workerHog(ctx, os.Stdin, out)
	case "stream":
		err = workerStream(ctx, e, json.NewDecoder(os.Stdin), out)
	case roleRelay:
		err = workerRelay(ctx, *addr, out)
	default:
		return usagef("%q: a worker can serve, drive, stream, connect, churn, hog or relay", args[0])
	}
	if err != nil && ctx.Err() == nil {
		_ = out.Encode(workerLine{Error: err.Error()})
	}
	return err
}

func workerServe(ctx context.Context, e endpoint, addr string, out *json.Encoder) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel(nil)
	}()
	ready := func(at net.Addr) { _ = out.Encode(workerLine{Addr: at.String()}) }
	// A connection that fails while we serve ends the worker: the run that it belongs to is lost.
	failed := func(err error) {
		if ctx.Err() == nil {
			cancel(err)
		}
	}
	if err := e.serve(ctx, addr, ready, failed); err != nil {
		return err
	}
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

func workerDrive(ctx context.Context, e endpoint, addr string, out *json.Encoder) error {
	dial, closeAll, err := e.dialer(ctx)
	if err != nil {
		return err
	}
	defer closeAll()
	conns := &connections{dial: func() (net.Conn, error) { return dial(ctx, addr) }}
	defer conns.close()
	defer context.AfterFunc(ctx, conns.close)()
	if err := conns.become(1); err != nil {
		return err
	}
	return obey(json.NewDecoder(os.Stdin), out, func(order driveOrder) (*load.Result, error) {
		if err := conns.become(order.Connections); err != nil || order.ConnectOnly {
			return &load.Result{Latency: load.NewHistogram()}, err
		}
		order.Resend = e.transport == "udp"
		return load.Drive(conns.all, order.Params)
	})
}
