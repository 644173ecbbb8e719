package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/rpc"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/machnet/machnet/go/machnet"
)

// httpOver serves on one host and gives a client on the other.
func httpOver(t *testing.T, h http.Handler, tls bool) (*httptest.Server, *http.Client, *machnet.Listener) {
	t.Helper()
	p := sharedPair(t)
	from, to := p.a.attach(t), p.b.attach(t)
	l := listen(t, to)
	s := httptest.NewUnstartedServer(h)
	_ = s.Listener.Close()
	s.Listener = l
	s.EnableHTTP2 = tls
	if tls {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	client := s.Client()
	d := machnet.Dialer{Stack: from}
	client.Transport.(*http.Transport).DialContext = func(ctx context.Context, _, address string) (net.Conn, error) {
		return d.DialContext(ctx, "machnet", l.Addr().String())
	}
	if tls {
		client.Transport.(*http.Transport).TLSClientConfig.ServerName = "example.com" // which httptest's certificate names
	}
	client.Timeout = 30 * time.Second
	return s, client, l
}

// hash answers a request with the SHA-256 of its body.
var hash = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	sum := sha256.New()
	if _, err := io.Copy(sum, r.Body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	fmt.Fprintf(w, "%s %x", r.Proto, sum.Sum(nil))
})

func post(t *testing.T, c *http.Client, to string, body []byte, proto string) {
	t.Helper()
	r, err := c.Post(to, "application/octet-stream", bytes.NewReader(body))
	if err != nil {
		t.Error(err)
		return
	}
	defer r.Body.Close()
	got, err := io.ReadAll(r.Body)
	if want := fmt.Sprintf("%s %x", proto, sha256.Sum256(body)); err != nil || string(got) != want {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
}

func TestHTTP(t *testing.T) {
	for name, tls := range map[string]bool{"HTTP/1.1": false, "HTTP/2.0": true} {
		t.Run(name, func(t *testing.T) {
			s, client, _ := httpOver(t, hash, tls)
			for _, n := range []int{0, 1, 20_000, 1 << 20} {
				post(t, client, s.URL, pattern(n), name)
			}
			var all sync.WaitGroup
			for i := range 16 {
				all.Go(func() { post(t, client, s.URL, pattern(i*10_000), name) })
			}
			all.Wait()
		})
	}
}

func TestHTTPThroughAReverseProxy(t *testing.T) {
	back, _, l := httpOver(t, hash, false)
	target, err := url.Parse(back.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	d := machnet.Dialer{Stack: sharedPair(t).a.attach(t)}
	proxy.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return d.DialContext(ctx, "machnet", l.Addr().String())
	}}
	front, client, _ := httpOver(t, proxy, false)
	post(t, client, front.URL, pattern(300_000), "HTTP/1.1")
}

func TestHTTPShutdownWaitsForRequests(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	s, client, _ := httpOver(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(entered)
		<-leave
		_, _ = io.WriteString(w, "done")
	}), false)
	body := make(chan string, 1)
	go func() {
		r, err := client.Get(s.URL)
		if err != nil {
			body <- err.Error()
			return
		}
		defer r.Body.Close()
		got, _ := io.ReadAll(r.Body)
		body <- string(got)
	}()
	<-entered
	shut := make(chan error, 1)
	go func() { shut <- s.Config.Shutdown(context.Background()) }()
	time.Sleep(20 * time.Millisecond)
	close(leave)
	if got := <-body; got != "done" {
		t.Errorf("the request under way got %q", got)
	}
	if err := <-shut; err != nil {
		t.Error(err)
	}
}

func TestHTTPHijack(t *testing.T) {
	s, _, l := httpOver(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		c, buf, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n")
		line, _ := buf.ReadString('\n')
		_, _ = io.WriteString(c, "echo "+line)
	}), false)
	_ = s
	c := dial(t, sharedPair(t).a.attach(t), l.Addr())
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\r\n")
	_, _ = io.WriteString(c, "hello\n")
	got, err := io.ReadAll(c)
	if err != nil || !bytes.HasSuffix(got, []byte("echo hello\n")) {
		t.Fatalf("got %q, %v", got, err)
	}
}

// Arith is the service of net/rpc's documentation.
type Arith int

// Multiply multiplies.
func (*Arith) Multiply(args *[2]int, reply *int) error {
	*reply = args[0] * args[1]
	return nil
}

func TestNetRPC(t *testing.T) {
	p := sharedPair(t)
	server := rpc.NewServer()
	if err := server.Register(new(Arith)); err != nil {
		t.Fatal(err)
	}
	l := listen(t, p.b.attach(t))
	go server.Accept(l)
	client := rpc.NewClient(dial(t, p.a.attach(t), l.Addr()))
	defer client.Close()
	var calls []*rpc.Call
	for i := range 200 {
		calls = append(calls, client.Go("Arith.Multiply", &[2]int{i, i + 1}, new(int), nil))
	}
	for i, c := range calls {
		select {
		case <-c.Done:
		case <-time.After(10 * time.Second):
			t.Fatal("a call does not return")
		}
		if c.Error != nil || *c.Reply.(*int) != i*(i+1) {
			t.Fatalf("%d * %d = %d, %v", i, i+1, *c.Reply.(*int), c.Error)
		}
	}
}
