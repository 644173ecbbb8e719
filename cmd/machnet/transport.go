package main

import (
	"context"
	"fmt"
	"net"

	"github.com/machnet/machnet/cmd/internal/load"
	"github.com/machnet/machnet/cmd/netns"
	"github.com/machnet/machnet/go/machnet"
)

// transports are the names that --transport takes.
var transports = []string{"machnet", "tcp", "udp"}

// endpoint is one side of a measured connection.
type endpoint struct {
	transport string
	socket    string           // machnet: the sidecar's
	engine    int              // machnet: the number of the sidecar's engine and one; 0 leaves the choice to the sidecar
	network   *netns.Namespace // in which its process is started; nil for that of this process
	buffer    int              // bytes that a server of streams reads at a time; 0: as suits one connection
	messages  bool             // machnet: a server takes messages, and not a stream
	stream    bool             // a server reads streams to their end (load.SwallowListener)
	c         bool             // machnet: its process is the C program, in messages
}

func (e endpoint) onEngine() machnet.Engine {
	if e.engine == 0 {
		return machnet.Engine{}
	}
	return machnet.OnEngine(e.engine - 1)
}

// dialer connects to echoes; all connections are of one stack, which closeAll closes. TCP_NODELAY is on in every TCP connection that Go makes.
func (e endpoint) dialer(ctx context.Context) (dial func(ctx context.Context, addr string) (net.Conn, error), closeAll func(), err error) {
	if e.transport != "machnet" {
		var d net.Dialer
		return func(ctx context.Context, addr string) (net.Conn, error) { return d.DialContext(ctx, e.transport, addr) }, func() {}, nil
	}
	stack, err := machnet.Attach(ctx, machnet.Config{Socket: e.socket, Engine: e.onEngine()})
	if err != nil {
		return nil, nil, err
	}
	d := machnet.Dialer{Stack: stack}
	dial = func(ctx context.Context, addr string) (net.Conn, error) { return d.DialContext(ctx, "machnet", addr) }
	return dial, func() { _ = stack.Close() }, nil
}

// dial connects to an echo once.
func (e endpoint) dial(ctx context.Context, addr string) (net.Conn, error) {
	dial, closeAll, err := e.dialer(ctx)
	if err != nil {
		return nil, err
	}
	conn, err := dial(ctx, addr)
	if err != nil {
		closeAll()
		return nil, err
	}
	return onlyConn{conn, closeAll}, nil
}

// onlyConn closes its stack with itself.
type onlyConn struct {
	net.Conn
	closeAll func()
}

func (c onlyConn) Close() error {
	err := c.Conn.Close()
	c.closeAll()
	return err
}

// serve listens, tells ready the address, and answers until ctx ends.
func (e endpoint) serve(ctx context.Context, addr string, ready func(net.Addr), report func(error)) error {
	if e.transport == "udp" {
		at, err := net.ResolveUDPAddr("udp", addr)
		if err != nil {
			return err
		}
		socket, err := net.ListenUDP("udp", at)
		if err != nil {
			return err
		}
		defer context.AfterFunc(ctx, func() { socket.Close() })()
		ready(socket.LocalAddr())
		return unlessDone(ctx, load.ServeUDP(socket))
	}
	var listener net.Listener
	var err error
	if e.transport == "machnet" {
		stack, attachErr := machnet.Attach(ctx, machnet.Config{Socket: e.socket, Engine: e.onEngine()})
		if attachErr != nil {
			return attachErr
		}
		defer stack.Close()
		lc := machnet.ListenConfig{Stack: stack}
		listener, err = lc.Listen(ctx, "machnet", addr)
	} else {
		listener, err = net.Listen(e.transport, addr)
	}
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { listener.Close() })()
	ready(listener.Addr())
	failed := func(err error) {
		if ctx.Err() == nil { // else connections end because the caller wanted it
			report(err)
		}
	}
	if e.stream {
		return unlessDone(ctx, load.SwallowListener(listener, failed))
	}
	if e.messages {
		return unlessDone(ctx, load.ServeMessages(listener, failed))
	}
	buffer := e.buffer
	if buffer == 0 {
		buffer = load.BufferSize(0, 1, 1)
	}
	return unlessDone(ctx, load.ServeListener(listener, buffer, failed))
}

// unlessDone drops an error that came because the context has ended.
func unlessDone(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func checkTransport(name string) error {
	for _, known := range transports {
		if name == known {
			return nil
		}
	}
	return fmt.Errorf("transport %q: unknown; use machnet, tcp or udp", name)
}
