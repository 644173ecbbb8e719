package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/machnet/machnet/cmd/internal/proxy"
	"github.com/machnet/machnet/go/machnet"
)

// proxyPair is one --listen with its --to.
type proxyPair struct{ from, to proxy.Endpoint }

// runProxy joins connections of Machnet with those of TCP and Unix sockets until it is told to end.
func runProxy(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	fs := flag.NewFlagSet("proxy", flag.ContinueOnError)
	var listens, tos []proxy.Endpoint
	fs.Func("listen", "take connections at `URL`: tcp://:6379, machnet://:6379 or unix:///run/name.sock; once for each --to",
		appendTo(&listens, proxy.ParseListen))
	fs.Func("to", "connect each to `URL`: machnet://10.0.0.2:6379, tcp://localhost:6379 or unix:///run/name.sock",
		appendTo(&tos, proxy.ParseTo))
	socket := fs.String("socket", "", socketHelp)
	dialTimeout := fs.Duration("dial-timeout", 5*time.Second, "a connection waits for its other half at most so long")
	grace := fs.Duration("grace", 10*time.Second, "when told to end, let connections go on for so long at most; a second signal cuts them off")
	level := slog.LevelInfo
	fs.TextVar(&level, "log", slog.LevelInfo, "debug, info, warn or error; debug has a line for each connection")
	if err := parse(fs, args, stdout, ""); err != nil {
		return err
	}
	pairs, err := pairUp(listens, tos)
	switch {
	case err != nil:
		return err
	case *dialTimeout <= 0:
		return usagef("--dial-timeout %v: wait for some time, like 5s", *dialTimeout)
	case *grace < 0:
		return usagef("--grace %v: it cannot be negative; 0 cuts connections off at once", *grace)
	}
	config := proxy.Config{
		Log:         slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level})),
		DialTimeout: *dialTimeout, Grace: *grace, Hurry: secondSignal(ctx),
	}
	config.Stack, err = machnet.Attach(ctx, machnet.Config{Socket: *socket, Logger: config.Log})
	if err != nil {
		return err
	}
	defer config.Stack.Close()
	return serveProxies(ctx, config, pairs, stdout)
}

// appendTo is a flag that may be given again and again.
func appendTo(list *[]proxy.Endpoint, parse func(string) (proxy.Endpoint, error)) func(string) error {
	return func(text string) error {
		e, err := parse(text)
		*list = append(*list, e)
		return err
	}
}

// pairUp joins the first --listen with the first --to, and so on.
func pairUp(listens, tos []proxy.Endpoint) ([]proxyPair, error) {
	if len(listens) != len(tos) || len(listens) == 0 {
		return nil, usagef("%d --listen and %d --to: one of each is wanted, or more in pairs, like --listen tcp://:6379 --to machnet://10.0.0.2:6379",
			len(listens), len(tos))
	}
	var pairs []proxyPair
	for i, from := range listens {
		if !from.IsMachnet() && !tos[i].IsMachnet() {
			return nil, usagef("--listen %v --to %v: neither end is of Machnet; say machnet:// for one", from, tos[i])
		}
		pairs = append(pairs, proxyPair{from, tos[i]})
	}
	return pairs, nil
}

// secondSignal is closed when another signal to end comes after the one that has ended ctx.
func secondSignal(ctx context.Context) <-chan struct{} {
	hurry := make(chan struct{})
	context.AfterFunc(ctx, func() {
		again := make(chan os.Signal, 1)
		signal.Notify(again, os.Interrupt, syscall.SIGTERM)
		<-again
		close(hurry)
	})
	return hurry
}

// serveProxies serves until ctx ends or one of the listeners fails, which ends the others. It prints a line for each when it listens; SIGUSR1
// has the counters logged.
func serveProxies(ctx context.Context, c proxy.Config, pairs []proxyPair, stdout io.Writer) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR1) // before anything shows that we run: unheard it would end us
	defer signal.Stop(asked)
	var proxies []*proxy.Proxy
	for _, pair := range pairs {
		p, err := proxy.Listen(ctx, c, pair.from, pair.to)
		if err != nil {
			return err
		}
		defer p.Close()
		proxies = append(proxies, p)
		fmt.Fprintln(stdout, p)
	}
	logCounters := func() {
		for _, p := range proxies {
			p.LogCounters()
		}
	}
	ended := make(chan error)
	for _, p := range proxies {
		go func() { ended <- p.Serve(ctx) }()
	}
	var failed error
	for left := len(proxies); left > 0; {
		select {
		case <-asked:
			logCounters()
		case err := <-ended:
			left--
			if err != nil && failed == nil {
				failed = err
				stop()
			}
		}
	}
	logCounters()
	return failed
}
