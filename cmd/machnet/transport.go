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
}

func (e endpoint) onEngine() machnet.Engine {
	if e.engine == 0 {
		return machnet.Engine{}
	}
	return machnet.OnEngine(e.engine - 1)
}

// dial connects to an echo. TCP_NODELAY is on in every TCP connection that Go makes.
func (e endpoint) dial(ctx context.Context, addr string) (net.Conn, error) {
	if e.transport != "machnet" {
		var d net.Dialer
		return d.DialContext(ctx, e.transport, addr)
	}
	stack, err := machnet.Attach(ctx, machnet.Config{Socket: e.socket, Engine: e.onEngine()})
	if err != nil {
		return nil, err
	}
	d := machnet.Dialer{Stack: stack}
	conn, err := d.DialContext(ctx, "machnet", addr)
	if err != nil {
		_ = stack.Close()
		return nil, err
	}
	return stackConn{conn, stack}, nil
}

// stackConn closes the attachment with its only connection.
type stackConn struct {
	net.Conn
	stack *machnet.Stack
}

func (c stackConn) Close() error {
	err := c.Conn.Close()
	_ = c.stack.Close()
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
	return unlessDone(ctx, load.ServeListener(listener, func(err error) {
		if ctx.Err() == nil { // else connections end because the caller wanted it
			report(err)
		}
	}))
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
