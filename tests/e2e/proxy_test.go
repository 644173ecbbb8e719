package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/machnet/machnet/go/machnet"
)

// startProxy starts `machnet proxy` at a sidecar and returns where it listens.
func startProxy(t *testing.T, at *sidecar, listen, to string, flags ...string) (proxy *command, address string) {
	t.Helper()
	proxy = startCommand(t, append([]string{"proxy", "--socket", at.socket, "--listen", listen, "--to", to}, flags...)...)
	until(t, "the proxy listens", func() error {
		select {
		case <-proxy.gone:
			t.Fatalf("it ended: %s", proxy.errs)
		default:
		}
		url, _, ok := strings.Cut(proxy.out.String(), " -> ")
		if !ok {
			return errors.New("not yet")
		}
		_, address, _ = strings.Cut(url, "://")
		return nil
	})
	return proxy, address
}

// count asks a proxy for one of its counters.
func (c *command) count(t *testing.T, name string) (n int64) {
	t.Helper()
	before := strings.Count(c.errs.String(), "msg=counters")
	if err := c.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	until(t, "the proxy says its counters", func() error {
		all := strings.Split(c.errs.String(), "msg=counters")
		if len(all)-1 == before || !strings.HasSuffix(all[len(all)-1], "\n") {
			return errors.New("not yet")
		}
		_, value, ok := strings.Cut(all[len(all)-1], " "+name+"=")
		if !ok {
			t.Fatalf("there is no counter %q", name)
		}
		_, err := fmt.Sscan(value, &n)
		return err
	})
	return n
}

// listenTCP listens until the test ends.
func listenTCP(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// dialTCP connects and gives up after a while, so that what hangs fails.
func dialTCP(t *testing.T, address string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	return c.(*net.TCPConn)
}

// accept takes one connection.
func accept(t *testing.T, l *machnet.Listener) *machnet.Conn {
	t.Helper()
	_ = l.SetDeadline(time.Now().Add(time.Minute))
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	return c.(*machnet.Conn)
}

// proxyToTCP leads from TCP on one host over Machnet to a server of TCP on the other.
func proxyToTCP(t *testing.T, server string) (there, back *command, address string) {
	p := sharedPair(t)
	back, far := startProxy(t, p.b, "machnet://:0", "tcp://"+server)
	there, address = startProxy(t, p.a, "tcp://127.0.0.1:0", "machnet://"+far)
	return there, back, address
}

func TestAProxyCarriesHTTP(t *testing.T) {
	l := listenTCP(t)
	server := &http.Server{Handler: hash}
	go func() { _ = server.Serve(l) }()
	defer server.Close()
	there, back, address := proxyToTCP(t, l.Addr().String())
	client := &http.Client{Transport: new(http.Transport), Timeout: time.Minute}
	var made atomic.Int32
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
		if !i.Reused {
			made.Add(1)
		}
	}})
	for _, size := range []int{0, 1, 20_000, 1 << 20, 8 << 20} {
		body := pattern(size)
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if want := fmt.Sprintf("HTTP/1.1 %x", sha256.Sum256(body)); err != nil || string(got) != want {
			t.Errorf("%d bytes: got %q, %v; want %q", size, got, err, want)
		}
	}
	client.CloseIdleConnections()
	if made.Load() != 1 {
		t.Errorf("five requests made %d connections, want 1", made.Load())
	}
	for _, c := range []*command{there, back} {
		until(t, "the proxy has closed the connection", func() error {
			if n := c.count(t, "open"); n != 0 {
				return fmt.Errorf("%d are open", n)
			}
			return nil
		})
		if accepted, cut := c.count(t, "accepted"), c.count(t, "reset"); accepted != 1 || cut != 0 {
			t.Errorf("%d connections, %d of them reset; want 1 and 0", accepted, cut)
		}
	}
}

func TestAProxyCarriesMoreConnectionsThanAChannelHolds(t *testing.T) {
	const conns, size = 300, 50_000 // of 256; and bytes on the first, one more on each that follows
	l := listenTCP(t)
	go func() { // sends everything back once it has ended
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				all, _ := io.ReadAll(c)
				_, _ = c.Write(all)
				_ = c.Close()
			}()
		}
	}()
	there, _, address := proxyToTCP(t, l.Addr().String())
	var all sync.WaitGroup
	for i := range conns {
		c, want := dialTCP(t, address), pattern(size+i)
		all.Go(func() {
			if _, err := c.Write(want); err != nil {
				t.Error(err)
				return
			}
			if err := c.CloseWrite(); err != nil {
				t.Error(err)
				return
			}
			if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes came back of %d, %v", len(got), len(want), err)
			}
		})
	}
	all.Wait()
	until(t, "all are closed", func() error {
		if n := there.count(t, "open"); n != 0 {
			return fmt.Errorf("%d are open", n)
		}
		return nil
	})
	if accepted, cut, bytes := there.count(t, "accepted"), there.count(t, "reset"), there.count(t, "bytes_back"); accepted != conns ||
		cut != 0 || bytes != conns*size+conns*(conns-1)/2 {
		t.Errorf("%d connections, %d reset, %d bytes back", accepted, cut, bytes)
	}
}

// proxied gives both ends of a connection through one proxy, TCP's and Machnet's, whichever is dialled.
func proxied(t *testing.T, toMachnet bool, flags ...string) (proxy *command, tcp *net.TCPConn, end *machnet.Conn) {
	t.Helper()
	p := sharedPair(t)
	if toMachnet {
		l := listen(t, p.b.attach(t))
		proxy, address := startProxy(t, p.a, "tcp://127.0.0.1:0", "machnet://"+l.Addr().String(), flags...)
		tcp = dialTCP(t, address)
		return proxy, tcp, accept(t, l)
	}
	l := listenTCP(t)
	proxy, address := startProxy(t, p.a, "machnet://:0", "tcp://"+l.Addr().String(), flags...)
	c, err := (&machnet.Dialer{Stack: p.b.attach(t), Timeout: patience}).DialContext(t.Context(), "machnet", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = accepted.Close() })
	_ = accepted.SetDeadline(time.Now().Add(time.Minute))
	return proxy, accepted.(*net.TCPConn), c.(*machnet.Conn)
}

// closer is what both kinds of connection know.
type closer interface {
	net.Conn
	CloseWrite() error
	SetLinger(sec int) error
}

// bothWays runs a test with each end as the one that begins, and each kind of end as the one that was dialled.
func bothWays(t *testing.T, test func(t *testing.T, proxy *command, one, other closer), flags ...string) {
	for _, toMachnet := range []bool{true, false} {
		for _, fromTCP := range []bool{true, false} {
			t.Run(fmt.Sprintf("to machnet %v, from tcp %v", toMachnet, fromTCP), func(t *testing.T) {
				proxy, tcp, end := proxied(t, toMachnet, flags...)
				if fromTCP {
					test(t, proxy, tcp, end)
				} else {
					test(t, proxy, end, tcp)
				}
			})
		}
	}
}

func TestAProxyKeepsAHalfClose(t *testing.T) {
	bothWays(t, func(t *testing.T, proxy *command, one, other closer) {
		if _, err := io.WriteString(one, "question"); err != nil {
			t.Fatal(err)
		}
		if err := one.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(other); err != nil || string(got) != "question" {
			t.Fatalf("%q, %v", got, err)
		}
		answer := pattern(3 << 20)
		go func() {
			_, _ = other.Write(answer)
			_ = other.Close()
		}()
		if got, err := io.ReadAll(one); err != nil || !bytes.Equal(got, answer) {
			t.Fatalf("%d bytes of %d, %v", len(got), len(answer), err)
		}
		until(t, "the proxy has closed both", func() error {
			if n := proxy.count(t, "open"); n != 0 {
				return fmt.Errorf("%d are open", n)
			}
			return nil
		})
		if n := proxy.count(t, "reset"); n != 0 {
			t.Errorf("%d connections were reset", n)
		}
	})
}

func TestAProxyPassesAResetOn(t *testing.T) {
	bothWays(t, func(t *testing.T, proxy *command, one, other closer) {
		if _, err := io.WriteString(one, "begun"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(other, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		if err := one.SetLinger(0); err != nil {
			t.Fatal(err)
		}
		if err := one.Close(); err != nil {
			t.Fatal(err)
		}
		if n, err := other.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%d bytes, %v; want ECONNRESET", n, err)
		}
		until(t, "the proxy has counted it", func() error {
			if n := proxy.count(t, "reset"); n != 1 {
				return fmt.Errorf("%d were reset", n)
			}
			return nil
		})
	})
}

func TestAProxyHoldsUpWhoeverSendsToOneThatDoesNotRead(t *testing.T) {
	const size = 64 << 20
	bothWays(t, func(t *testing.T, proxy *command, one, other closer) {
		want := sha256.New()
		sent := make(chan error, 1)
		var accepted atomic.Int64
		go func() {
			piece := pattern(1 << 20)
			for accepted.Load() < size {
				n, err := one.Write(piece)
				accepted.Add(int64(n))
				want.Write(piece[:n])
				if err != nil {
					sent <- err
					return
				}
			}
			sent <- one.CloseWrite()
		}()
		// Held up is who gets no further for a while. On a busy machine that may be too early, which makes the test weaker and not wrong.
		was, since := int64(-1), time.Now()
		for time.Since(since) < 300*time.Millisecond {
			if is := accepted.Load(); is != was {
				was, since = is, time.Now()
			}
			time.Sleep(10 * time.Millisecond)
		}
		carried := proxy.count(t, "bytes_to") + proxy.count(t, "bytes_back")
		if was >= size || carried >= size/2 {
			t.Fatalf("%d bytes were taken and %d carried though nobody reads", was, carried)
		}
		got := sha256.New()
		if n, err := io.Copy(got, other); err != nil || n < size {
			t.Fatalf("%d bytes arrived, %v", n, err)
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
			t.Error("what arrived is not what was sent")
		}
	})
}

func TestAConnectionThatHasNowhereToGoIsResetAtOnce(t *testing.T) {
	p := sharedPair(t)
	closed := listenTCP(t)
	_ = closed.Close()
	proxy, address := startProxy(t, p.a, "tcp://127.0.0.1:0", "machnet://10.0.0.2:9")
	c, err := net.Dial("tcp", address)
	if err == nil { // the reset may be faster
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		_, err = c.Read(make([]byte, 1))
		_ = c.Close()
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("TCP: %v, want ECONNRESET", err)
	}
	until(t, "the log says why", func() error {
		if !strings.Contains(proxy.errs.String(), "10.0.0.2:9: connection refused") {
			return errors.New(proxy.errs.String())
		}
		return nil
	})
	if n := proxy.count(t, "failed"); n != 1 {
		t.Errorf("%d connections failed, want 1", n)
	}
	_, address = startProxy(t, p.a, "machnet://:0", "tcp://"+closed.Addr().String())
	c, err = (&machnet.Dialer{Stack: p.b.attach(t), Timeout: patience}).DialContext(t.Context(), "machnet", address)
	if err == nil {
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		_, err = c.Read(make([]byte, 1))
		_ = c.Close()
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("Machnet: %v, want ECONNRESET", err)
	}
}

func TestAProxyThatIsToldToEndLetsConnectionsEndFirst(t *testing.T) {
	proxy, tcp, end := proxied(t, true)
	if err := proxy.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	until(t, "it takes no more", func() error {
		if !strings.Contains(proxy.errs.String(), "no more connections are taken") {
			return errors.New("it does not say so")
		}
		return nil
	})
	if c, err := net.Dial("tcp", tcp.RemoteAddr().String()); !errors.Is(err, syscall.ECONNREFUSED) {
		_ = c.Close()
		t.Errorf("another connection: %v, want ECONNREFUSED", err)
	}
	go func() {
		_, _ = io.Copy(end, end)
		_ = end.Close()
	}()
	if _, err := io.WriteString(tcp, "still here"); err != nil {
		t.Fatal(err)
	}
	if err := tcp.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(tcp); err != nil || string(got) != "still here" {
		t.Errorf("%q, %v", got, err)
	}
	if code := proxy.exit(t, patience); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if log := proxy.errs.String(); !strings.Contains(log, "msg=counters") || strings.Contains(log, "cut off") {
		t.Errorf("the log is %s", log)
	}
}

func TestAProxyCutsOffWhatDoesNotEnd(t *testing.T) {
	for name, tc := range map[string]struct {
		flags []string
		then  func(*command) error
	}{
		"after its grace":       {[]string{"--grace", "50ms"}, func(*command) error { return nil }},
		"after a second signal": {[]string{"--grace", "1h"}, func(c *command) error { return c.cmd.Process.Signal(syscall.SIGTERM) }},
	} {
		t.Run(name, func(t *testing.T) {
			proxy, tcp, end := proxied(t, true, tc.flags...)
			if err := proxy.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			until(t, "it ends", func() error {
				select {
				case <-proxy.gone:
					return nil
				default:
					_ = tc.then(proxy)
					return errors.New("it runs")
				}
			})
			if code := proxy.exit(t, patience); code != 0 {
				t.Errorf("exit code %d", code)
			}
			for _, c := range []net.Conn{tcp, end} {
				if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("%s: %v, want ECONNRESET", c.RemoteAddr().Network(), err)
				}
			}
		})
	}
}

func TestAProxyServesOnWhenItsSidecarIsRestarted(t *testing.T) {
	p := newPair(t, "--dead-peer", "300")
	l := listenTCP(t)
	go echoAll(l)
	_, far := startProxy(t, p.b, "machnet://:0", "tcp://"+l.Addr().String())
	_, address := startProxy(t, p.a, "tcp://127.0.0.1:0", "machnet://"+far)
	ask := func() (net.Conn, error) {
		c, err := net.Dial("tcp", address)
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(patience))
		if _, err := io.WriteString(c, "hello"); err != nil {
			return nil, err
		}
		_, err = io.ReadFull(c, make([]byte, 5))
		return c, err
	}
	for _, which := range []**sidecar{&p.a, &p.b} {
		c, err := ask()
		if err != nil {
			t.Fatal(err)
		}
		(*which).kill()
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a connection whose sidecar was killed: %v, want ECONNRESET", err)
		}
		*which = (*which).restart(t)
		until(t, "the proxies serve again", func() error {
			_, err := ask()
			return err
		})
	}
}

func TestAProxyOfUnixSockets(t *testing.T) {
	p := sharedPair(t)
	folder := shortTempDir(t)
	service := filepath.Join(folder, "service.sock")
	l, err := net.Listen("unix", service)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	server := &http.Server{Handler: hash}
	go func() { _ = server.Serve(l) }()
	defer server.Close()
	_, far := startProxy(t, p.b, "machnet://:0", "unix://"+service)
	front := filepath.Join(folder, "front.sock")
	there, address := startProxy(t, p.a, "unix://"+front, "machnet://"+far)
	if address != front {
		t.Errorf("it listens at %q", address)
	}
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", front)
	}}}
	defer client.CloseIdleConnections()
	post(t, client, "http://service/", pattern(1<<20), "HTTP/1.1")
	client.CloseIdleConnections()
	if err := there.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := there.exit(t, patience); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if files, _ := filepath.Glob(front); len(files) > 0 {
		t.Error("the socket is left")
	}
}

func TestTheBenchmarkOfTheProxyMeasuresEveryPathAndLeavesNothing(t *testing.T) {
	needLink(t)
	c := startCommand(t, "bench", "proxy", "--rounds", "1", "--duration", "50ms", "--json", "-")
	if code := c.exit(t, time.Minute); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	var rows []benchRow
	if err := json.Unmarshal([]byte(c.out.String()), &rows); err != nil || len(rows) != 4 {
		t.Fatalf("%d rows, %v; want one for each path", len(rows), err)
	}
	for _, r := range rows {
		p50 := r.number(t, "p50_us", 0.1, 1e6)
		r.number(t, "p99_us", p50, 1e7)
		r.number(t, "msgs_per_s", 1, 1e8)
		for i, to := range []string{"p50_added_to_tcp_us", "p50_added_to_machnet_us"} {
			other := rows[i]["p50_us"].(float64)
			r.number(t, to, p50-other-0.01, p50-other+0.01)
		}
	}
	c.leavesNothing(t)
}
