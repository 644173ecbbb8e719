package fallback

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/machnet/machnet/go/machnet"
)

// ListenConfig says how to listen by Machnet and TCP together. The zero ListenConfig is ready for use.
type ListenConfig struct {
	// Machnet listens on the Machnet address.
	Machnet machnet.ListenConfig
	// TCP listens on the TCP address.
	TCP net.ListenConfig
	// Retry is how often Machnet is tried while there is no sidecar; 0 means DefaultRetry.
	Retry time.Duration
	// Logger hears when Machnet is not there, with the reason, when it joins, and of errors of either side; nil means slog.Default().
	Logger *slog.Logger
}

// Listen listens on machnetAddr, such as ":7000", and on tcpAddr, such as ":7000". It fails where TCP cannot be listened on, and where a
// sidecar refuses the Machnet address, since that is a mistake: the port is taken (EADDRINUSE), or the address is not the sidecar's (a
// *net.AddrError). Where there is no sidecar, or none that can be used (ErrNoSidecar, ErrVersion, ErrUnsupported, fs.ErrPermission, ENETDOWN, or
// it does not answer within 2 s), the Listener begins with TCP alone. The context bounds the setting up only.
func (lc *ListenConfig) Listen(ctx context.Context, machnetAddr, tcpAddr string) (*Listener, error) {
	tcp, err := lc.TCP.Listen(ctx, "tcp", tcpAddr)
	if err != nil {
		return nil, err
	}
	over, cancel := context.WithCancel(context.Background())
	l := &Listener{
		config: *lc, tcp: tcp, wanted: machnetAddr, over: over, cancel: cancel, accepted: make(chan net.Conn),
	}
	first, err := l.listenMachnet(ctx)
	if err != nil && !isAbsence(err) {
		cancel()
		_ = tcp.Close()
		return nil, err
	}
	l.sides.Add(2)
	go l.serveTCP()
	go l.serveMachnet(first, err)
	return l, nil
}

// Listener accepts connections by Machnet and by TCP. It implements net.Listener, and may be used by many goroutines at once.
type Listener struct {
	config   ListenConfig
	tcp      net.Listener
	over     context.Context // ends with Close
	cancel   context.CancelFunc
	sides    sync.WaitGroup
	accepted chan net.Conn // where both sides wait in one line, so that neither keeps the other from being served
	wanted   string        // the Machnet address, with the port that was chosen the first time; of the goroutine that listens there

	mu      sync.Mutex
	machnet *machnet.Listener // nil while there is none
	stats   ListenerStats
	told    string // the error that was logged last, unless that side has worked since
}

// ListenerStats is what a Listener has done.
type ListenerStats struct {
	Machnet uint64 // connections accepted by Machnet
	TCP     uint64 // connections accepted by TCP
	Joined  bool   // Machnet is listened on now
	// LastReason is the last error of either side, at LastTime; nil if there never was one.
	LastReason error
	LastTime   time.Time
}

// Stats gives what the Listener has done so far.
func (l *Listener) Stats() ListenerStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stats
}

// Addr is the TCP address listened on.
func (l *Listener) Addr() net.Addr { return l.tcp.Addr() }

// MachnetAddr is the Machnet address listened on, nil while there is none.
func (l *Listener) MachnetAddr() *machnet.Addr {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.machnet == nil {
		return nil
	}
	return l.machnet.Addr().(*machnet.Addr)
}

// Accept waits for the next connection, a *machnet.Conn or a *net.TCPConn, and takes them in the order in which they came. It fails with
// net.ErrClosed after Close, and never otherwise: an error of one side is logged, counted and tried again, while the other goes on.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.accepted:
		l.mu.Lock()
		defer l.mu.Unlock()
		if _, ok := c.(*machnet.Conn); ok {
			l.stats.Machnet++
		} else {
			l.stats.TCP++
		}
		return c, nil
	case <-l.over.Done():
		return nil, l.closedError("accept")
	}
}

// Close ends both sides. Blocked Accepts return net.ErrClosed, as does a second Close; connections that nobody has accepted are reset.
func (l *Listener) Close() error {
	l.mu.Lock()
	if l.over.Err() != nil {
		l.mu.Unlock()
		return l.closedError("close")
	}
	l.cancel()
	m := l.machnet
	l.mu.Unlock()
	err := l.tcp.Close()
	if m != nil {
		_ = m.Close() // it may have ended by itself, which was told then
	}
	l.sides.Wait()
	return err
}

func (l *Listener) closedError(op string) error {
	return &net.OpError{Op: op, Net: "tcp+machnet", Addr: l.tcp.Addr(), Err: net.ErrClosed}
}

// listenWait bounds how long a sidecar may take to answer; the Listener begins without it then.
const listenWait = 2 * time.Second

var errSilent = errors.New("the sidecar does not answer")

// listenMachnet listens on the Machnet address. It is called by one goroutine at a time.
func (l *Listener) listenMachnet(ctx context.Context) (*machnet.Listener, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, listenWait, errSilent)
	defer cancel()
	found, err := l.config.Machnet.Listen(ctx, "machnet", l.wanted)
	if err != nil {
		return nil, err
	}
	m := found.(*machnet.Listener)
	l.mu.Lock()
	over := l.over.Err() != nil
	if !over {
		l.machnet, l.stats.Joined, l.told = m, true, ""
	}
	l.mu.Unlock()
	if over {
		_ = m.Close()
		return nil, net.ErrClosed
	}
	if host, port, err := net.SplitHostPort(l.wanted); err == nil && port == "0" {
		_, chosen, _ := net.SplitHostPort(m.Addr().String())
		l.wanted = net.JoinHostPort(host, chosen) // which callers know, should it have to listen again
	}
	return m, nil
}

// serveMachnet listens and accepts by Machnet until Close; m is the first listener, or err why there is none yet.
func (l *Listener) serveMachnet(m *machnet.Listener, err error) {
	defer l.sides.Done()
	for {
		if err == nil {
			l.logger().Info("listening by machnet", "address", m.Addr().String())
			err = l.acceptFrom(m)
			l.mu.Lock()
			l.machnet, l.stats.Joined = nil, false
			l.mu.Unlock()
			_ = m.Close() // it has ended
		}
		if l.over.Err() != nil {
			return
		}
		l.failed("not listening by machnet; TCP goes on", l.wanted, err)
		if errors.Is(err, machnet.ErrUnsupported) {
			return // nor will it ever be
		}
		if !l.sleep(l.retry()) {
			return
		}
		m, err = l.listenMachnet(l.over)
	}
}

// serveTCP accepts by TCP until Close.
func (l *Listener) serveTCP() {
	defer l.sides.Done()
	const shortest, longest = 5 * time.Millisecond, time.Second
	for pause := time.Duration(0); ; {
		began := time.Now()
		err := l.acceptFrom(l.tcp)
		if l.over.Err() != nil {
			return
		}
		if time.Since(began) > longest {
			pause = 0
			l.mu.Lock()
			l.told = ""
			l.mu.Unlock()
		}
		// Such as for want of descriptors. The pauses are those of package net/http.
		l.failed("accepting by TCP; it is tried again", l.tcp.Addr().String(), err)
		if pause = min(max(2*pause, shortest), longest); !l.sleep(pause) {
			return
		}
	}
}

// acceptFrom accepts until an error.
func (l *Listener) acceptFrom(side net.Listener) error {
	for {
		c, err := side.Accept()
		if err != nil {
			return err
		}
		select {
		case l.accepted <- c:
		case <-l.over.Done():
			if c, ok := c.(interface{ SetLinger(sec int) error }); ok {
				_ = c.SetLinger(0) // a connection that has ended already needs no reset
			}
			_ = c.Close()
			return net.ErrClosed
		}
	}
}

// sleep is false when Close ended it.
func (l *Listener) sleep(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.over.Done():
		return false
	}
}

// failed notes an error, and logs it unless it is the one that was logged last and goes on.
func (l *Listener) failed(what, address string, err error) {
	l.mu.Lock()
	repeated := l.told == err.Error()
	l.told, l.stats.LastReason, l.stats.LastTime = err.Error(), err, time.Now()
	l.mu.Unlock()
	if !repeated {
		l.logger().Warn(what, "address", address, "reason", err)
	}
}

func (l *Listener) retry() time.Duration {
	if l.config.Retry <= 0 {
		return DefaultRetry
	}
	return l.config.Retry
}

func (l *Listener) logger() *slog.Logger { return loggerOr(l.config.Logger) }

// isAbsence reports whether an error says that there is no sidecar that can be used, and not that what is asked of it is wrong.
func isAbsence(err error) bool {
	for _, absence := range []error{
		machnet.ErrNoSidecar, machnet.ErrVersion, machnet.ErrUnsupported, fs.ErrPermission, syscall.ENETDOWN, syscall.ENOBUFS, errSilent,
	} {
		if errors.Is(err, absence) {
			return true
		}
	}
	return false
}
