package machnet

import (
	"context"
	"net"
	"time"

	"github.com/machnet/machnet/go/internal/core"
)

// Dialer says how to connect. The zero Dialer is ready for use, by many goroutines at once.
type Dialer struct {
	// Stack to dial from; nil is Default.
	Stack *Stack
	// Timeout bounds a dial, as do Deadline and the context; the earliest counts. Without any, the sidecar's own
	// bound makes it ETIMEDOUT.
	Timeout  time.Duration
	Deadline time.Time
	// LocalAddr is the local address; its IP must be the sidecar's or none, its port may be 0. nil leaves both to the sidecar.
	LocalAddr *Addr
	// Resolver looks names up; nil is net.DefaultResolver.
	Resolver *net.Resolver
}

// Dial connects to an address of the network "machnet", from the Default stack. Its errors are those of Dialer.DialContext, and of Attach.
func Dial(network, address string) (net.Conn, error) {
	var d Dialer
	return d.Dial(network, address)
}

// Dial is DialContext without a context.
func (d *Dialer) Dial(network, address string) (net.Conn, error) {
	return d.DialContext(context.Background(), network, address)
}

// DialContext connects to an address of the network "machnet". When nobody listens there it fails with ECONNREFUSED at once; when
// no host answers, with ETIMEDOUT; while there is no sidecar, with ENETDOWN. Where a limit is met, the error says which, whose, how much and
// what to change; it is ENOBUFS, with ECONNREFUSED too where the limit is the other end's. The context bounds the dialling only. The
// net.Conn is a *Conn.
//
// Where the host is a name with several IPv4 addresses, they are tried one after the other, as by net.Dialer: each has its part of the
// time that is left, at least 2 s where there is as much, and if none can be dialled, the error is the first one's. A name with IPv6
// addresses alone is refused, and so is 127.0.0.1, in words that say what to dial.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := d.bound(ctx)
	defer cancel()
	addrs, err := resolve(ctx, d.Resolver, "dial", network, address)
	if err != nil {
		return nil, err
	}
	c, err := d.dialSerial(ctx, addrs)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// DialMachnet is DialContext for one address that is resolved already. Without an IP it is the local sidecar's. Its errors are those of
// DialContext; a nil Addr, and one with an IPv6, multicast or broadcast address or no port, are refused.
func (d *Dialer) DialMachnet(ctx context.Context, raddr *Addr) (*Conn, error) {
	fail := func(err error) (*Conn, error) {
		return nil, opError("dial", d.LocalAddr, raddr, err)
	}
	if err := raddr.checkPeer(); err != nil {
		return fail(err)
	}
	ctx, cancel := d.bound(ctx)
	defer cancel()
	if err := contextError(ctx); err != nil {
		return fail(err)
	}
	s := d.Stack
	if s == nil {
		var err error
		if s, err = defaultFor(ctx); err != nil {
			return fail(err)
		}
	}
	if d.LocalAddr != nil {
		if err := d.LocalAddr.check(); err != nil {
			return fail(err)
		}
	}
	c, err := s.dial(ctx, raddr, d.LocalAddr)
	if err != nil {
		return fail(err)
	}
	return c, nil
}

// dial dials from a channel that has room.
func (s *Stack) dial(ctx context.Context, raddr, laddr *Addr) (*Conn, error) {
	for {
		at, err := s.takePlace(ctx)
		if err != nil {
			return nil, err
		}
		c, full, err := at.dial(ctx, raddr, laddr)
		if err == nil {
			return c, nil
		}
		if !full {
			return nil, explainLocal(raddr, at.addr(), err, net.InterfaceAddrs)
		}
		at.isFull(time.Now())
	}
}

// bound is ctx with the Dialer's own limits. As in package net, a negative Timeout is over already.
func (d *Dialer) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	end := d.Deadline
	if d.Timeout != 0 {
		if own := time.Now().Add(d.Timeout); end.IsZero() || own.Before(end) {
			end = own
		}
	}
	if end.IsZero() {
		return ctx, func() {}
	}
	return context.WithDeadline(ctx, end)
}

// dialing is one dial under way.
type dialing struct {
	waiter core.Waiter
	id     uint32 // the sidecar's number for it
	conn   *Conn  // when it has succeeded; under the attachment's mu
	err    error  // when it has failed
	full   bool   // because the channel has no room
}

// fail ends the dial. The attachment's mu is held.
func (d *dialing) fail(err error) {
	if d.conn == nil && d.err == nil {
		d.err = err
	}
	d.waiter.Wake()
}

// dial dials from an attachment where it has taken a place. full: there is no room after all, and another attachment may have some.
func (at *attachment) dial(ctx context.Context, raddr, laddr *Addr) (c *Conn, full bool, err error) {
	d := new(dialing)
	if err := at.beginDial(ctx, d, raddr, laddr); err != nil {
		at.mu.Lock()
		at.begun--
		at.mu.Unlock()
		return nil, false, err
	}
	if ctx.Done() != nil {
		defer context.AfterFunc(ctx, d.waiter.Wake)()
	}
	for {
		at.mu.Lock()
		conn, err, full := d.conn, d.err, d.full
		if conn == nil && err == nil {
			if err = at.err; err == nil {
				err = contextError(ctx)
			}
			if err != nil {
				delete(at.dials, d.id)
				at.mu.Unlock()
				at.ch.CancelDial(d.id)
				return nil, false, err
			}
		}
		at.mu.Unlock()
		if conn != nil || err != nil {
			return conn, full, err
		}
		d.waiter.Wait()
	}
}

// beginDial asks the sidecar for a connection, for which a place was taken.
func (at *attachment) beginDial(ctx context.Context, d *dialing, raddr, laddr *Addr) error {
	ip := raddr.hostOrder()
	if ip == 0 {
		ip = at.ch.Info().IP
	}
	if err := refuseLoopback(raddr, at.addr()); err != nil {
		return err
	}
	var localPort uint16
	if laddr != nil {
		if err := at.checkLocal(laddr); err != nil {
			return err
		}
		localPort = laddr.Port
	}
	// The sidecar gives up a little after the context does, so that the context's error wins.
	var patience time.Duration
	if end, ok := ctx.Deadline(); ok {
		patience = time.Until(end) + time.Second
	}
	at.ch.Begin(&d.waiter, core.ForEvent)
	code := at.ch.Dial(ctx, ip, raddr.Port, localPort, patience, func(given uint32) {
		at.mu.Lock()
		defer at.mu.Unlock()
		at.begun--
		d.id = given
		at.dials[given] = d
	})
	if code != core.OK {
		return at.askError(ctx, code)
	}
	return nil
}

// askError is why a request was not sent: the context's error, where that has ended first.
func (at *attachment) askError(ctx context.Context, code core.Code) error {
	if err := contextError(ctx); code == core.Canceled && err != nil {
		return err
	}
	return at.codeError(code)
}

// checkLocal refuses an address that is not the sidecar's.
func (at *attachment) checkLocal(a *Addr) error {
	if ip := a.hostOrder(); ip != 0 && ip != at.ch.Info().IP {
		return &net.AddrError{Err: "not the sidecar's address, which is " + at.addr().String(), Addr: a.String()}
	}
	return nil
}
