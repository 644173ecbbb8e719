//go:build linux && cgo && (amd64 || arm64)

package machnettest_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/machnet/machnet/go/fallback"
	"github.com/machnet/machnet/go/machnet"
	"github.com/machnet/machnet/go/machnettest"
)

// logLines keeps what is logged.
type logLines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// count is how many lines hold all of the words.
func (l *logLines) count(words ...string) (count int) {
	l.mu.Lock()
	defer l.mu.Unlock()
lines:
	for _, line := range strings.Split(l.text.String(), "\n") {
		for _, word := range words {
			if !strings.Contains(line, word) {
				continue lines
			}
		}
		count++
	}
	return count
}

func (l *logLines) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// machnetEcho is an echo server on a stack.
func machnetEcho(t *testing.T, on *machnet.Stack, address string) {
	t.Helper()
	l, err := (&machnet.ListenConfig{Stack: on}).Listen(t.Context(), "machnet", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go echo(l)
}

// tcpEcho is an echo server of the kernel's.
func tcpEcho(t *testing.T) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go echo(l)
	return l.Addr().String()
}

// kind says by what a connection goes, after an echo over it.
func kind(t *testing.T, c net.Conn, err error) string {
	t.Helper()
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	p := []byte("hello")
	if _, err := c.Write(p); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, p); err != nil || string(p) != "hello" {
		t.Fatalf("the echo is %q, %v", p, err)
	}
	switch c.(type) {
	case *machnet.Conn:
		return "machnet"
	case *net.TCPConn:
		return "tcp"
	}
	t.Fatalf("the connection is a %T", c)
	return ""
}

func TestADialGoesByMachnetWhereBothEndsHaveItAndByTCPWhereNot(t *testing.T) {
	_, _, near, far := hosts(t, machnettest.Options{})
	tcp := tcpEcho(t)
	var lines logLines
	d := fallback.Dialer{Machnet: machnet.Dialer{Stack: near}, Retry: time.Hour, Logger: lines.logger()}
	const address = "10.0.0.2:7000"
	dial := func() string {
		t.Helper()
		c, err := d.DialContext(t.Context(), address, tcp)
		return kind(t, c, err)
	}

	// Nobody listens there by Machnet.
	if got := dial(); got != "tcp" {
		t.Fatalf("the first dial went by %s", got)
	}
	if s := d.Stats(); s.TCP != 1 || s.Machnet != 0 || !errors.Is(s.LastReason, syscall.ECONNREFUSED) || s.LastTime.IsZero() {
		t.Errorf("stats are %+v", s)
	}
	if got := lines.count("WARN", address, tcp, "refused"); got != 1 {
		t.Errorf("%d lines of the log say so", got)
	}

	// While that is fresh, Machnet is not asked.
	tried := d.Stats().LastTime
	for range 3 {
		if got := dial(); got != "tcp" {
			t.Fatalf("a dial soon after went by %s", got)
		}
	}
	if now := d.Stats().LastTime; now != tried {
		t.Errorf("Machnet was tried again, %v later", now.Sub(tried))
	}

	// Once it is old, Machnet is asked again, and by one dial at a time.
	d.Retry = time.Nanosecond
	if got := dial(); got != "tcp" { // remembered for an hour
		t.Fatalf("a dial within the hour went by %s", got)
	}
	other := fallback.Dialer{Machnet: d.Machnet, Retry: time.Nanosecond, Logger: lines.logger()}
	c, err := other.DialContext(t.Context(), address, tcp)
	if got := kind(t, c, err); got != "tcp" {
		t.Fatalf("another dialer's dial went by %s", got)
	}
	machnetEcho(t, far, address)
	for range 2 {
		c, err := other.DialContext(t.Context(), address, tcp)
		if got := kind(t, c, err); got != "machnet" {
			t.Fatalf("with a listener there, a dial went by %s", got)
		}
	}
	if s := other.Stats(); s.TCP != 1 || s.Machnet != 2 {
		t.Errorf("stats are %+v", s)
	}
	if got := lines.count("INFO", "again", address); got != 1 {
		t.Errorf("%d lines of the log say that Machnet is back", got)
	}
}

func TestADialWaitsForMachnetNoLongerThanItMay(t *testing.T) {
	_, _, near, _ := hosts(t, machnettest.Options{})
	tcp := tcpEcho(t)
	quiet := slog.New(slog.DiscardHandler)
	t.Run("a silent host", func(t *testing.T) {
		d := fallback.Dialer{Machnet: machnet.Dialer{Stack: near}, Wait: 20 * time.Millisecond, Logger: quiet}
		c, err := d.DialContext(t.Context(), "10.0.0.99:7000", tcp) // whom the sidecar would seek for a second
		if got := kind(t, c, err); got != "tcp" {
			t.Fatalf("the dial went by %s", got)
		}
		if reason := d.Stats().LastReason; !errors.Is(reason, context.DeadlineExceeded) || !strings.Contains(reason.Error(), "no answer in the time") {
			t.Errorf("the reason is %v", reason)
		}
	})
	t.Run("a context with less time", func(t *testing.T) {
		d := fallback.Dialer{Machnet: machnet.Dialer{Stack: near}, Wait: time.Hour, Logger: quiet}
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		c, err := d.DialContext(ctx, "10.0.0.98:7000", tcp)
		if ctx.Err() != nil {
			t.Skip("the machine was too slow to tell")
		}
		if got := kind(t, c, err); got != "tcp" {
			t.Fatalf("the dial went by %s; Machnet may have half of the time only", got)
		}
	})
}

func TestOneDialAtATimeTriesMachnetAgain(t *testing.T) {
	network, server, near, far := hosts(t, machnettest.Options{})
	tcp := tcpEcho(t)
	machnetEcho(t, far, ":7000")
	d := fallback.Dialer{Machnet: machnet.Dialer{Stack: near}, Wait: 20 * time.Millisecond, Retry: time.Nanosecond, Logger: slog.New(slog.DiscardHandler)}
	network.Partition(network.Host(0), server)
	c, err := d.DialContext(t.Context(), "10.0.0.2:7000", tcp)
	if got := kind(t, c, err); got != "tcp" {
		t.Fatalf("a dial to a host that is cut off went by %s", got)
	}
	d.Wait, d.Retry = time.Hour, time.Hour
	went := make(chan net.Conn, 2)
	for range 2 {
		go func() {
			c, _ := d.DialContext(t.Context(), "10.0.0.2:7000", tcp)
			went <- c
		}()
	}
	first := kind(t, <-went, nil) // while the other waits for the host
	network.Heal()
	if second := kind(t, <-went, nil); first != "tcp" || second != "machnet" {
		t.Errorf("of two dials, the first went by %s, and the one that waited by %s", first, second)
	}
}

func TestADialThatNoWayCanServeSaysWhy(t *testing.T) {
	_, _, near, _ := hosts(t, machnettest.Options{})
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	d := fallback.Dialer{Machnet: machnet.Dialer{Stack: near}, Logger: slog.New(slog.DiscardHandler)}
	for range 2 { // the second time from memory
		_, err = d.DialContext(t.Context(), "10.0.0.2:7000", closed.Addr().String())
		var op *net.OpError
		if !errors.Is(err, syscall.ECONNREFUSED) || !errors.As(err, &op) || op.Net != "tcp" || !strings.Contains(err.Error(), "10.0.0.2:7000") {
			t.Errorf("both ways refuse, and the error is %v", err)
		}
	}
	for name, address := range map[string]string{"no port": "10.0.0.2", "IPv6": "[2001:db8::1]:7000", "nothing": ""} {
		_, err := d.DialContext(t.Context(), address, closed.Addr().String())
		var wrong *net.AddrError
		if !errors.As(err, &wrong) || errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s: the error is %v, want that the address cannot be, and no dial by TCP", name, err)
		}
	}
	byName := fallback.Dialer{
		Machnet: machnet.Dialer{Stack: near, Resolver: zone{"six.test.": addrs("2001:db8::1")}.resolver()}, Logger: slog.New(slog.DiscardHandler),
	}
	tcp := tcpEcho(t)
	for _, name := range []string{"six.test.", "unknown.test."} { // which the cloud may know
		c, err := byName.DialContext(t.Context(), name+":7000", tcp)
		if got := kind(t, c, err); got != "tcp" {
			t.Errorf("a name that is no sidecar's here is dialled by %s", got)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	before := d.Stats()
	if _, err := d.DialContext(ctx, "10.0.0.3:7000", closed.Addr().String()); !errors.Is(err, context.Canceled) {
		t.Errorf("a context that has ended gives %v", err)
	}
	if d.Stats() != before {
		t.Errorf("a context that has ended counts as %v", d.Stats().LastReason)
	}
	if s := d.Stats(); s.TCP != 0 || s.Machnet != 0 {
		t.Errorf("stats are %+v", s)
	}
}

func TestDialsGoByTCPWhileThereIsNoSidecarAndByMachnetAfterThat(t *testing.T) {
	_, server, near, far := hosts(t, machnettest.Options{})
	tcp := tcpEcho(t)
	machnetEcho(t, far, ":7000")
	d := fallback.Dialer{Machnet: machnet.Dialer{Stack: far}, Retry: time.Nanosecond, Logger: slog.New(slog.DiscardHandler)}
	dial := func() string {
		t.Helper()
		c, err := d.DialContext(t.Context(), "10.0.0.2:7000", tcp)
		return kind(t, c, err)
	}
	if got := dial(); got != "machnet" {
		t.Fatalf("with a sidecar, a dial went by %s", got)
	}
	open, err := d.DialContext(t.Context(), "10.0.0.2:7000", tcp)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	server.Kill()
	if _, err := open.Read(make([]byte, 1)); !errors.Is(err, syscall.ENETDOWN) {
		t.Errorf("a connection whose sidecar was killed reads %v, want ENETDOWN", err)
	}
	if got := dial(); got != "tcp" {
		t.Fatalf("with no sidecar, a dial went by %s", got)
	}
	if reason := d.Stats().LastReason; !errors.Is(reason, syscall.ENETDOWN) {
		t.Errorf("the reason is %v", reason)
	}
	server.Restart()
	within(t, "dials by Machnet again", func() bool { return dial() == "machnet" })
	_ = near
}

func TestAProgramWithoutASidecarDialsAndListensByTCP(t *testing.T) {
	t.Setenv("MACHNET_SOCKET", filepath.Join(t.TempDir(), "none.sock"))
	var lines logLines
	lc := fallback.ListenConfig{Logger: lines.logger()}
	l, err := lc.Listen(t.Context(), ":7000", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go echo(l)
	d := fallback.Dialer{Logger: lines.logger()}
	c, err := d.DialContext(t.Context(), "10.0.0.2:7000", l.Addr().String())
	if got := kind(t, c, err); got != "tcp" {
		t.Fatalf("the dial went by %s", got)
	}
	if reason := d.Stats().LastReason; !errors.Is(reason, machnet.ErrNoSidecar) {
		t.Errorf("the dialer's reason is %v", reason)
	}
	within(t, "the listener to say why it has no Machnet", func() bool { return errors.Is(l.Stats().LastReason, machnet.ErrNoSidecar) })
	if s := l.Stats(); s.TCP != 1 || s.Machnet != 0 || s.Joined || l.MachnetAddr() != nil {
		t.Errorf("the listener's stats are %+v, its Machnet address %v", s, l.MachnetAddr())
	}
	within(t, "a line in the log", func() bool { return lines.count("WARN", "listening", "none.sock") == 1 })
}

func TestAListenerTakesConnectionsOfBothKinds(t *testing.T) {
	network, server, near, far := hosts(t, machnettest.Options{})
	lc := fallback.ListenConfig{
		Machnet: machnet.ListenConfig{Stack: far, FailFast: true}, Retry: time.Millisecond, Logger: slog.New(slog.DiscardHandler),
	}
	// Another has the first free port, and not after a restart, so that a listener that asked for any port again would have another.
	if _, err := (&machnet.ListenConfig{Stack: far, FailFast: true}).Listen(t.Context(), "machnet", ":0"); err != nil {
		t.Fatal(err)
	}
	l, err := lc.Listen(t.Context(), ":0", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go echo(l)
	port := l.MachnetAddr().Port
	byMachnet := func() (net.Conn, error) {
		return (&machnet.Dialer{Stack: near, Timeout: 10 * time.Second}).DialMachnet(t.Context(), &machnet.Addr{IP: server.Addr(), Port: port})
	}
	byTCP := func() (net.Conn, error) { return net.Dial("tcp", l.Addr().String()) }
	for range 3 {
		for want, dial := range map[string]func() (net.Conn, error){"machnet": byMachnet, "tcp": byTCP} {
			c, err := dial()
			if got := kind(t, c, err); got != want {
				t.Fatalf("a dial by %s went by %s", want, got)
			}
		}
	}
	if s := l.Stats(); s.Machnet != 3 || s.TCP != 3 || !s.Joined {
		t.Errorf("stats are %+v", s)
	}

	// While the sidecar is away TCP goes on, and then Machnet is there again, on the same port.
	server.Kill()
	c, err := byTCP()
	if got := kind(t, c, err); got != "tcp" {
		t.Fatalf("without a sidecar, a dial by TCP went by %s", got)
	}
	server.Restart()
	within(t, "a dial by Machnet", func() bool {
		c, err := byMachnet()
		return err == nil && kind(t, c, err) == "machnet"
	})
	network.Close() // the stack has ended for good, and the listener with it
	within(t, "Machnet to leave", func() bool { return !l.Stats().Joined && l.MachnetAddr() == nil && l.Stats().LastReason != nil })
	c, err = byTCP()
	if got := kind(t, c, err); got != "tcp" {
		t.Fatalf("after the sidecar's end, a dial by TCP went by %s", got)
	}
}

func TestAListenerJoinsMachnetWhenASidecarComes(t *testing.T) {
	_, server, near, far := hosts(t, machnettest.Options{})
	server.Kill()
	lc := fallback.ListenConfig{
		Machnet: machnet.ListenConfig{Stack: far}, Retry: time.Millisecond, Logger: slog.New(slog.DiscardHandler),
	}
	l, err := lc.Listen(t.Context(), ":7000", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go echo(l)
	if l.Stats().Joined {
		t.Fatal("Machnet is listened on, and there is no sidecar")
	}
	server.Restart()
	within(t, "a dial by Machnet", func() bool {
		c, err := (&machnet.Dialer{Stack: near, Timeout: 10 * time.Second}).Dial("machnet", "10.0.0.2:7000")
		return err == nil && kind(t, c, err) == "machnet"
	})
}

func TestEveryLossOfMachnetIsLogged(t *testing.T) {
	_, server, _, far := hosts(t, machnettest.Options{})
	var lines logLines
	lc := fallback.ListenConfig{
		Machnet: machnet.ListenConfig{Stack: far, FailFast: true}, Retry: 100 * time.Millisecond,
		Logger: slog.New(slog.NewTextHandler(&lines, nil)),
	}
	l, err := lc.Listen(t.Context(), ":7000", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const losses = 3
	for i := range losses {
		server.Restart()
		within(t, "the loss is noticed", func() bool { return !l.Stats().Joined })
		within(t, "it listens again", func() bool { return l.Stats().Joined })
		if told := lines.count("level=WARN", "not listening by machnet"); told < i+1 {
			t.Fatalf("after %d losses there are %d warnings", i+1, told)
		}
	}
}

func TestAListenerRefusesMistakesAndGivesTheOtherPortBack(t *testing.T) {
	_, _, _, far := hosts(t, machnettest.Options{})
	taken, err := (&machnet.ListenConfig{Stack: far}).Listen(t.Context(), "machnet", ":7000")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tcp := free.Addr().String()
	lc := fallback.ListenConfig{Machnet: machnet.ListenConfig{Stack: far}, Logger: slog.New(slog.DiscardHandler)}
	if _, err := lc.Listen(t.Context(), ":7001", tcp); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a taken TCP port gives %v", err)
	}
	free.Close()
	for name, tc := range map[string]struct {
		address string
		is      func(error) bool
	}{
		"a taken Machnet port":      {":7000", func(err error) bool { return errors.Is(err, syscall.EADDRINUSE) }},
		"another host's address":    {"10.0.0.7:7001", func(err error) bool { return errors.As(err, new(*net.AddrError)) }},
		"an address that is no one": {"7001", func(err error) bool { return errors.As(err, new(*net.AddrError)) }},
	} {
		if _, err := lc.Listen(t.Context(), tc.address, tcp); !tc.is(err) {
			t.Errorf("%s gives %v", name, err)
		}
	}
	l, err := lc.Listen(t.Context(), ":7001", tcp)
	if err != nil {
		t.Fatalf("after mistakes, listening gives %v", err)
	}
	l.Close()
}

func TestCloseEndsBothSidesOfAListener(t *testing.T) {
	_, server, near, far := hosts(t, machnettest.Options{})
	lc := fallback.ListenConfig{Machnet: machnet.ListenConfig{Stack: far}, Logger: slog.New(slog.DiscardHandler)}
	l, err := lc.Listen(t.Context(), ":7000", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	// Connections that nobody accepts.
	var conns []net.Conn
	for range 3 {
		m, err := (&machnet.Dialer{Stack: near, Timeout: 10 * time.Second}).DialMachnet(t.Context(), &machnet.Addr{IP: server.Addr(), Port: 7000})
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, m, c)
	}
	accepted := make(chan error, 1)
	for range 6 {
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	go func() {
		_, err := l.Accept()
		accepted <- err
	}()
	late, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := <-accepted; err != nil {
		t.Fatal(err)
	}
	conns = append(conns, late)
	m, err := (&machnet.Dialer{Stack: near, Timeout: 10 * time.Second}).DialMachnet(t.Context(), &machnet.Addr{IP: server.Addr(), Port: 7000})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_ = m.SetReadDeadline(time.Now().Add(30 * time.Second))
	if _, err := m.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a connection that nobody accepted reads %v, want ECONNRESET", err)
	}
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a second Close gives %v", err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close gives %v", err)
	}
	if _, err := net.Dial("tcp", l.Addr().String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a dial by TCP after Close gives %v", err)
	}
	for _, c := range conns {
		c.Close()
	}
	again, err := lc.Listen(t.Context(), ":7000", l.Addr().String())
	if err != nil {
		t.Fatalf("listening again on both gives %v", err)
	}
	again.Close()
}
