// Command reverseproxy takes HTTP over TCP and passes it on over Machnet: browsers and curl on one side, a service of Machnet on
// the other.
//
//	MACHNET_SOCKET=/tmp/a.sock reverseproxy -listen localhost:8080 -to http://10.0.0.2:8080
//	curl http://localhost:8080/greeting
package main

import (
	"context"
	"flag"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"

	"github.com/machnet/machnet/go/machnet"
)

func main() {
	listen := flag.String("listen", "localhost:8080", "serve TCP at this address")
	to := flag.String("to", "http://10.0.0.2:8080", "pass requests on to this URL, whose host is reached over Machnet")
	flag.Parse()
	target, err := url.Parse(*to)
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.ListenAndServe(*listen, passOn(target, &machnet.Dialer{Timeout: 5 * time.Second})))
}

// passOn gives a handler that passes requests on. A service that cannot be reached is a 502 in the log and to the client.
func passOn(target *url.URL, d *machnet.Dialer) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.SetXForwarded()
		},
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
				return d.DialContext(ctx, "machnet", address)
			},
			MaxIdleConnsPerHost: 64,
			IdleConnTimeout:     time.Minute,
		},
	}
}
