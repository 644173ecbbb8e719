// Command http2 serves HTTP/2 over Machnet: with TLS where it is given a certificate, as plain HTTP/2 (h2c) where not. Requests
// share one connection.
//
//	MACHNET_SOCKET=/tmp/b.sock http2 -listen :8443 -cert cert.pem -key key.pem
//	MACHNET_SOCKET=/tmp/a.sock http2 -ca cert.pem https://10.0.0.2:8443/
//
//	MACHNET_SOCKET=/tmp/b.sock http2 -listen :8080
//	MACHNET_SOCKET=/tmp/a.sock http2 http://10.0.0.2:8080/
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"

	"github.com/machnet/machnet/go/machnet"
)

func main() {
	listen := flag.String("listen", "", "serve at this address, like :8443")
	cert := flag.String("cert", "", "the server's certificate, a PEM file; without one there is no TLS")
	key := flag.String("key", "", "its key")
	ca := flag.String("ca", "", "the certificates that a client believes, a PEM file")
	flag.Parse()
	if (*listen == "") == (flag.NArg() != 1) {
		log.Fatal("say -listen ADDRESS to serve, or a URL to get")
	}
	if *listen != "" {
		l, err := machnet.Listen("machnet", *listen)
		if err != nil {
			log.Fatal(err)
		}
		server := newServer(http.HandlerFunc(hello))
		if *cert != "" {
			log.Fatal(server.ServeTLS(l, *cert, *key))
		}
		log.Fatal(server.Serve(l))
	}
	believed := x509.NewCertPool()
	if *ca != "" {
		pem, err := os.ReadFile(*ca)
		if err != nil || !believed.AppendCertsFromPEM(pem) {
			log.Fatalf("-ca %s: no certificate in it: %v", *ca, err)
		}
	}
	r, err := newClient(&machnet.Dialer{}, &tls.Config{RootCAs: believed}).Get(flag.Arg(0))
	if err != nil {
		log.Fatal(err)
	}
	defer r.Body.Close()
	_, _ = io.Copy(os.Stdout, r.Body)
}

func hello(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "hello over %s\n", r.Proto) }

// newServer gives a server of HTTP/2 alone.
func newServer(h http.Handler) *http.Server {
	return &http.Server{Handler: h, Protocols: http2Only()}
}

// newClient gives a client of HTTP/2 alone: TLS for https URLs, plain for http.
func newClient(d *machnet.Dialer, secure *tls.Config) *http.Client {
	return &http.Client{Transport: &http.Transport{
		Protocols:       http2Only(),
		TLSClientConfig: secure,
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			return d.DialContext(ctx, "machnet", address)
		},
	}}
}

func http2Only() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP2(true)
	p.SetUnencryptedHTTP2(true)
	return p
}
