package fallback

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/machnet/machnet/go/machnet"
)

// What the zero Dialer and the zero ListenConfig do.
const (
	DefaultWait  = 250 * time.Millisecond
	DefaultRetry = 10 * time.Second
)

// Dialer dials by Machnet, or else by TCP. The zero Dialer is ready for use, by many goroutines at once; it must not be copied after that.
type Dialer struct {
	// Machnet dials the Machnet address. Its Timeout and Deadline count for that only; the context of DialContext counts for both.
	Machnet machnet.Dialer
	// TCP dials the TCP address.
	TCP net.Dialer
	// Wait is how long Machnet has before TCP is tried, or half of the time that the context leaves, if that is less; 0 means DefaultWait.
	Wait time.Duration
	// Retry is how long an address that Machnet did not reach is dialled by TCP at once; 0 means DefaultRetry.
	Retry time.Duration
	// Logger hears of every change from one to the other; nil means slog.Default().
	Logger *slog.Logger

	mu      sync.Mutex
	stats   Stats
	without map[string]absence // the Machnet addresses that could not be reached
}

// absence says of an address why Machnet did not reach it, and when one dial is to try again.
type absence struct {
	reason error
	again  time.Time
}

// Stats is what a Dialer has done.
type Stats struct {
	Machnet uint64 // connections dialled by Machnet
	TCP     uint64 // connections dialled by TCP
	// LastReason is why Machnet could not be used the last time that it was tried in vain, at LastTime; nil if that never was.
	LastReason error
	LastTime   time.Time
}

// Stats gives what the Dialer has done so far.
func (d *Dialer) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stats
}

// DialContext connects to machnetAddr, such as "10.0.0.2:7000", or else to tcpAddr, such as "192.0.2.2:7000". The net.Conn is a
// *machnet.Conn or a *net.TCPConn. Any failure of Machnet leads to TCP but two, which are returned: a context that has ended, and an address
// that cannot be (a *net.AddrError), since that is a mistake whichever way is taken. Where both ways fail, the error is TCP's, joined with
// Machnet's reason; errors.Is and errors.As find either. The context bounds the dialling only.
func (d *Dialer) DialContext(ctx context.Context, machnetAddr, tcpAddr string) (net.Conn, error) {
	reason := d.known(machnetAddr)
	if reason == nil {
		var c net.Conn
		if c, reason = d.dialMachnet(ctx, machnetAddr); reason == nil {
			d.reached(machnetAddr)
			return c, nil
		}
		if ctx.Err() != nil || isMistake(reason) {
			d.forget(machnetAddr)
			return nil, reason
		}
		d.unreached(machnetAddr, tcpAddr, reason)
	}
	c, err := d.TCP.DialContext(ctx, "tcp", tcpAddr)
	if err != nil {
		return nil, &bothError{tcp: err, machnet: reason}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stats.TCP++
	return c, nil
}

// known is why Machnet need not be tried now; nil where it is to be, by this caller.
func (d *Dialer) known(address string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	known, without := d.without[address]
	if !without {
		return nil
	}
	now := time.Now()
	if now.Before(known.again) {
		return known.reason
	}
	d.without[address] = absence{known.reason, now.Add(d.retry())} // the others do not wait with this caller
	return nil
}

func (d *Dialer) dialMachnet(ctx context.Context, address string) (net.Conn, error) {
	wait := d.Wait
	if wait <= 0 {
		wait = DefaultWait
	}
	if end, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(end)/2)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, wait, errNoAnswer)
	defer cancel()
	return d.Machnet.DialContext(ctx, "machnet", address)
}

// errNoAnswer is why a dial by Machnet was given up.
var errNoAnswer = errors.New("no answer in the time that a Dialer waits for Machnet")

// reached is called after a dial by Machnet.
func (d *Dialer) reached(address string) {
	d.mu.Lock()
	_, without := d.without[address]
	delete(d.without, address)
	d.stats.Machnet++
	d.mu.Unlock()
	if without {
		d.logger().Info("machnet reaches the address again", "address", address)
	}
}

// unreached is called after a dial by Machnet that failed.
func (d *Dialer) unreached(address, tcp string, reason error) {
	d.mu.Lock()
	if d.without == nil {
		d.without = make(map[string]absence)
	}
	if _, there := d.without[address]; !there && len(d.without) >= mostWithout {
		d.makeRoom()
	}
	now := time.Now()
	d.without[address] = absence{reason, now.Add(d.retry())}
	d.stats.LastReason, d.stats.LastTime = reason, now
	d.mu.Unlock()
	d.logger().Warn("machnet does not reach the address; TCP is used", "address", address, "tcp", tcp, "reason", reason, "for", d.retry())
}

// forget is called after a dial that says nothing of the address.
func (d *Dialer) forget(address string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if known, there := d.without[address]; there {
		d.without[address] = absence{known.reason, time.Now()} // so the next dial tries
	}
}

// mostWithout bounds what is remembered of addresses that are dialled once and never again.
const mostWithout = 1024

// makeRoom forgets the addresses whose time is over, or any one. mu is held.
func (d *Dialer) makeRoom() {
	now := time.Now()
	for address, known := range d.without {
		if !now.Before(known.again) {
			delete(d.without, address)
		}
	}
	for address := range d.without {
		if len(d.without) < mostWithout {
			return
		}
		delete(d.without, address)
	}
}

func (d *Dialer) retry() time.Duration {
	if d.Retry <= 0 {
		return DefaultRetry
	}
	return d.Retry
}

func (d *Dialer) logger() *slog.Logger { return loggerOr(d.Logger) }

func loggerOr(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.Default()
	}
	return l
}

// isMistake reports whether an error says that an address can never be used, on any machine.
func isMistake(err error) bool {
	var address *net.AddrError
	return errors.As(err, &address)
}

// bothError is why neither way led to the other end.
type bothError struct{ tcp, machnet error }

func (e *bothError) Error() string {
	return e.tcp.Error() + " (and before that, " + e.machnet.Error() + ")"
}
func (e *bothError) Unwrap() []error { return []error{e.tcp, e.machnet} }
func (e *bothError) Timeout() bool {
	timeout, ok := e.tcp.(net.Error)
	return ok && timeout.Timeout()
}

// Temporary is a part of net.Error.
func (e *bothError) Temporary() bool { return e.Timeout() }
