// Command http keeps blobs in memory and serves them by HTTP over Machnet; it is its own client, too.
//
//	MACHNET_SOCKET=/tmp/b.sock http -listen :8080
//	MACHNET_SOCKET=/tmp/a.sock http -put http://10.0.0.2:8080/greeting < greeting.txt
//	MACHNET_SOCKET=/tmp/a.sock http http://10.0.0.2:8080/greeting
//
// A server of net/http needs nothing but the listener, a client nothing but DialContext.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/machnet/machnet/go/machnet"
)

func main() {
	listen := flag.String("listen", "", "serve at this address, like :8080")
	put := flag.Bool("put", false, "store standard input at the URL")
	flag.Parse()
	if (*listen == "") == (flag.NArg() != 1) {
		log.Fatal("say -listen ADDRESS to serve, or a URL to get, or with -put to store")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch {
	case *listen != "":
		var l net.Listener
		if l, err = machnet.Listen("machnet", *listen); err == nil {
			err = serve(ctx, l)
		}
	case *put:
		err = request(ctx, newClient(&machnet.Dialer{}), http.MethodPut, flag.Arg(0), os.Stdin, os.Stdout)
	default:
		err = request(ctx, newClient(&machnet.Dialer{}), http.MethodGet, flag.Arg(0), nil, os.Stdout)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// serve serves until ctx ends, and then until the requests under way are answered, for 10 s at most.
func serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{Handler: new(store)}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return errors.Join(server.Shutdown(bound), ignore(<-ended, http.ErrServerClosed))
}

// newClient gives a client whose connections are Machnet's. Hosts of URLs are addresses or names of sidecars.
func newClient(d *machnet.Dialer) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			return d.DialContext(ctx, "machnet", address)
		},
		MaxIdleConnsPerHost: 16,
		IdleConnTimeout:     time.Minute,
	}}
}

// request sends a body and writes the answer's.
func request(ctx context.Context, c *http.Client, method, url string, body io.Reader, out io.Writer) error {
	r, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return err
	}
	answer, err := c.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close() // read to its end, it leaves the connection to the next request
	if answer.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s", method, url, answer.Status)
	}
	_, err = io.Copy(out, answer.Body)
	return err
}

// store keeps what is put to a path.
type store struct{ blobs sync.Map }

func (s *store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodPut:
		blob, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 64<<20))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		s.blobs.Store(r.URL.Path, blob)
	case http.MethodGet:
		blob, ok := s.blobs.Load(r.URL.Path)
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(blob.([]byte))
	default:
		http.Error(w, "GET or PUT", http.StatusMethodNotAllowed)
	}
}

func ignore(err, expected error) error {
	if errors.Is(err, expected) {
		return nil
	}
	return err
}
