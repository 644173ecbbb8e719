package fallback_test

import (
	"context"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/machnet/machnet/go/fallback"
	"github.com/machnet/machnet/go/machnet"
)

// A client that uses Machnet in the cloud, and TCP on a laptop or towards hosts without a sidecar.
func ExampleDialer() {
	d := fallback.Dialer{Wait: 100 * time.Millisecond, Retry: 30 * time.Second}
	c, err := d.DialContext(context.Background(), "10.0.0.2:7000", "db.internal:7000")
	if err != nil {
		log.Fatal(err) // both ways failed
	}
	defer c.Close()
	if _, ok := c.(*machnet.Conn); !ok {
		s := d.Stats()
		log.Printf("by TCP, since %v", s.LastReason)
	}
}

// A client of package net/http. The map is the program's own: nothing leads from one address to the other.
func ExampleDialer_DialContext() {
	sidecars := map[string]string{"api.internal:8000": "10.0.0.2:8000"}
	var d fallback.Dialer
	client := http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if sidecar, ok := sidecars[address]; ok {
				return d.DialContext(ctx, sidecar, address)
			}
			return d.TCP.DialContext(ctx, network, address)
		},
	}}
	r, err := client.Get("http://api.internal:8000/")
	if err != nil {
		log.Fatal(err)
	}
	defer r.Body.Close()
}

// A server for clients of both kinds. Without a sidecar it begins with TCP.
func ExampleListenConfig() {
	var lc fallback.ListenConfig
	l, err := lc.Listen(context.Background(), ":8000", ":8000")
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.Serve(l, nil))
}
