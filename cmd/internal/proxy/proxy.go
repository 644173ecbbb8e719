// Package proxy joins connections of Machnet with connections of TCP and Unix sockets, so that programs that know nothing of Machnet can
// use it.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/machnet/machnet/go/machnet"
)

// Config says how to serve. All fields but Stack are needed.
type Config struct {
	Stack       *machnet.Stack // for endpoints of Machnet
	Log         *slog.Logger
	DialTimeout time.Duration   // how long a connection may wait for its other half
	Grace       time.Duration   // how long connections may go on once serving ends
	Hurry       <-chan struct{} // closed when they may not
}

// Proxy takes connections at one endpoint and connects each to another.
type Proxy struct {
	config   Config
	from, to Endpoint
	listener net.Listener
	log      *slog.Logger
	failures limiter

	accepted, failed, cutOff atomic.Int64
	sent, received           atomic.Int64 // bytes from those who connect, and to them

	mu     sync.Mutex
	relays map[*relay]struct{}
	ending bool           // no connection may go on
	all    sync.WaitGroup // of the connections
}

// Listen listens at an endpoint for connections to another.
func Listen(ctx context.Context, c Config, from, to Endpoint) (*Proxy, error) {
	l, err := from.listen(ctx, c.Stack)
	if err != nil {
		return nil, fmt.Errorf("listen at %v: %w", from, err)
	}
	from.address = l.Addr().String() // with the port that was chosen
	p := &Proxy{config: c, from: from, to: to, listener: l, relays: make(map[*relay]struct{})}
	p.log = c.Log.With("listen", from.String(), "to", to.String())
	return p, nil
}

// String says where it listens, with the port that was chosen if 0 was asked for, and where it connects to.
func (p *Proxy) String() string { return fmt.Sprintf("%v -> %v", p.from, p.to) }

// Close ends the listening of a Proxy that does not serve.
func (p *Proxy) Close() { _ = p.listener.Close() }

// Serve serves until ctx ends, when it takes no more connections and waits for those that it has until Config.Grace or Config.Hurry cut
// them off; or until the listener fails, with its error.
func (p *Proxy) Serve(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { _ = p.listener.Close() })()
	dialling, stopDialling := context.WithCancel(context.Background())
	defer stopDialling()
	err := p.accept(ctx, dialling)
	_ = p.listener.Close()
	p.log.Info("no more connections are taken", "open", p.open(), "grace", p.config.Grace)
	ended := make(chan struct{})
	go func() {
		p.all.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return err
	case <-time.After(p.config.Grace):
	case <-p.config.Hurry:
	}
	stopDialling()
	p.mu.Lock()
	p.ending = true
	if n := len(p.relays); n > 0 {
		p.log.Warn("connections are cut off", "connections", n, "grace", p.config.Grace)
	}
	for r := range p.relays {
		r.cut(errEnding)
	}
	p.mu.Unlock()
	<-ended
	return err
}

var errEnding = errors.New("the proxy ends")

// accept takes connections until ctx ends, or the listener has.
func (p *Proxy) accept(ctx, dialling context.Context) error {
	for pause := time.Duration(0); ; {
		c, err := p.listener.Accept()
		if err == nil {
			pause = 0
			p.accepted.Add(1)
			p.all.Add(1)
			go func() {
				defer p.all.Done()
				p.connect(dialling, c.(stream))
			}()
			continue
		}
		if ctx.Err() != nil {
			return nil
		}
		var passing interface{ Temporary() bool } // too many open files, and the like
		if !errors.As(err, &passing) || !passing.Temporary() {
			return fmt.Errorf("accept at %v: %w", p.from, err)
		}
		p.report("a connection cannot be accepted", "error", err)
		pause = min(max(2*pause, shortestPause), longestPause)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
	}
}

// The pauses after connections that could not be accepted.
const (
	shortestPause = 5 * time.Millisecond
	longestPause  = time.Second
)

// connect gives a connection its other half and moves bytes until both have ended. Where there is no other half, the one that
// was accepted is reset at once.
func (p *Proxy) connect(ctx context.Context, near stream) {
	dialling, cancel := context.WithTimeout(ctx, p.config.DialTimeout)
	far, err := p.to.dial(dialling, p.config.Stack)
	cancel()
	if err != nil {
		reset(near)
		_ = near.Close()
		p.failed.Add(1)
		p.report("a connection has nowhere to go", "from", near.RemoteAddr().String(), "error", err)
		return
	}
	r := &relay{near: near, far: far, sent: &p.sent, received: &p.received}
	p.enlist(r, true)
	began := time.Now()
	err = r.run()
	p.enlist(r, false)
	if err != nil {
		p.cutOff.Add(1)
	}
	p.log.Debug("a connection has ended", "from", near.RemoteAddr().String(), "after", time.Since(began), "cause", err)
}

func (p *Proxy) enlist(r *relay, there bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !there {
		delete(p.relays, r)
		return
	}
	p.relays[r] = struct{}{}
	if p.ending {
		r.cut(errEnding)
	}
}

// open is how many connections there are.
func (p *Proxy) open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.relays)
}

// LogCounters logs what there was so far. Bytes that the proxy holds this moment may count already.
func (p *Proxy) LogCounters() {
	p.log.Info("counters", "accepted", p.accepted.Load(), "open", p.open(), "failed", p.failed.Load(), "reset", p.cutOff.Load(),
		"bytes_to", p.sent.Load(), "bytes_back", p.received.Load())
}

// report warns, at most once a second, of what every connection may meet.
func (p *Proxy) report(what string, args ...any) {
	if unsaid, ok := p.failures.allow(time.Now()); ok {
		if unsaid > 0 {
			args = append(args, "unsaid", unsaid)
		}
		p.log.Warn(what, args...)
	}
}

// limiter lets through one a second.
type limiter struct {
	mu     sync.Mutex
	last   time.Time
	unsaid int // since then
}

func (l *limiter) allow(now time.Time) (unsaid int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.last.IsZero() && now.Sub(l.last) < time.Second {
		l.unsaid++
		return 0, false
	}
	unsaid, l.last, l.unsaid = l.unsaid, now, 0
	return unsaid, true
}
