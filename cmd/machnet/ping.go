package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"github.com/machnet/machnet/cmd/internal/load"
)

// defaultEchoPort is where `machnet echo` listens and `machnet ping` connects to.
const defaultEchoPort = "7000"

func runPing(ctx context.Context, args []string, stdout, _ io.Writer) error {
	fs := flag.NewFlagSet("ping", flag.ContinueOnError)
	count := fs.Int("c", 10, "echoes to ask for; 0 goes on until interrupted")
	interval := fs.Duration("i", 200*time.Millisecond, "pause between two")
	size := fs.Int("s", 64, "message size in bytes, 8 to 8388608")
	timeout := fs.Duration("W", 2*time.Second, "wait for the connection, and for each echo, at most so long")
	socket := fs.String("socket", "", socketHelp)
	if err := parse(fs, args, stdout, "IP[:port]"); err != nil {
		return err
	}
	if fs.NArg() != 1 {
		return usagef("name one peer, like 10.0.0.2 or 10.0.0.2:%s, that runs `machnet echo`", defaultEchoPort)
	}
	switch {
	case *size < load.MinSize || *size > load.MaxSize:
		return usagef("-s %d: a message is %d to %d bytes", *size, load.MinSize, load.MaxSize)
	case *count < 0:
		return usagef("-c %d: ask for one echo or more, or 0 to go on until interrupted", *count)
	case *interval < 0:
		return usagef("-i %v: a pause cannot be negative", *interval)
	case *timeout <= 0:
		return usagef("-W %v: wait for some time, like 2s", *timeout)
	}
	addr := fs.Arg(0)
	if _, _, err := net.SplitHostPort(addr); err != nil {
		addr = net.JoinHostPort(addr, defaultEchoPort)
	}
	dialContext, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	began := time.Now()
	conn, err := endpoint{transport: "machnet", socket: *socket}.dial(dialContext, addr)
	switch op := (*net.OpError)(nil); {
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w; nobody listens there: run `machnet echo` on that host", err)
	case errors.As(err, &op) && op.Op == "dial" && op.Timeout() && ctx.Err() == nil:
		return fmt.Errorf("%w; no answer in %v (-W): the host is down, unreachable, or runs no sidecar", err, *timeout)
	case err != nil:
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if _, err := fmt.Fprintf(stdout, "connected to %s in %.1f us\n", addr, micros(time.Since(began))); err != nil {
		return err
	}
	pinger := load.NewPinger(conn, *size)
	for i := 0; ctx.Err() == nil && (*count == 0 || i < *count); i++ {
		if i > 0 {
			select {
			case <-ctx.Done():
			case <-time.After(*interval):
			}
		}
		var took time.Duration
		if err = conn.SetDeadline(time.Now().Add(*timeout)); err == nil {
			took, err = pinger.Ping()
		}
		if err == nil {
			_, err = fmt.Fprintf(stdout, "%s from %s: seq=%d time=%.1f us\n", byteSize(*size), addr, i+1, micros(took))
		}
		if err != nil {
			break
		}
	}
	if h := pinger.Latency; h.TotalCount() > 0 {
		fmt.Fprintf(stdout, "%d echoes: min %.1f, p50 %.1f, p99 %.1f, max %.1f us\n", h.TotalCount(),
			float64(h.Min())/1e3, float64(h.ValueAtQuantile(50))/1e3, float64(h.ValueAtQuantile(99))/1e3, float64(h.Max())/1e3)
	}
	if ctx.Err() != nil && errors.Is(err, net.ErrClosed) {
		return nil // interrupted: the summary is what was wanted
	}
	return err
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

func runEcho(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	fs := flag.NewFlagSet("echo", flag.ContinueOnError)
	transport := fs.String("transport", "machnet", "machnet, tcp or udp")
	socket := fs.String("socket", "", socketHelp)
	addr := fs.String("addr", ":"+defaultEchoPort, "IP:port to listen on; without an IP, the sidecar's")
	if err := parse(fs, args, stdout, ""); err != nil {
		return err
	}
	if err := checkTransport(*transport); err != nil {
		return usagef("--%v", err)
	}
	ready := func(at net.Addr) { fmt.Fprintf(stdout, "echo over %s at %s\n", *transport, at) }
	report := func(err error) { fmt.Fprintf(stderr, "machnet echo: a connection ended: %v\n", err) }
	return endpoint{transport: *transport, socket: *socket}.serve(ctx, *addr, ready, report)
}
