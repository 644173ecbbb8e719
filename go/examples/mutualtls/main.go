// Command mutualtls is a service that knows its callers by their certificates, over Machnet: it greets them by name.
//
//	MACHNET_SOCKET=/tmp/b.sock mutualtls -listen :7443 -cert server.pem -key server.key -ca ca.pem
//	MACHNET_SOCKET=/tmp/a.sock mutualtls -to 10.0.0.2:7443 -name greeter -cert alice.pem -key alice.key -ca ca.pem
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"time"

	"github.com/machnet/machnet/go/machnet"
)

func main() {
	listen := flag.String("listen", "", "serve at this address")
	to := flag.String("to", "", "call this address")
	name := flag.String("name", "", "the name that the server's certificate has to have")
	cert := flag.String("cert", "cert.pem", "this end's certificate, a PEM file")
	key := flag.String("key", "key.pem", "its key")
	ca := flag.String("ca", "ca.pem", "who signs the certificates of both ends, a PEM file")
	flag.Parse()
	if (*listen == "") == (*to == "" || *name == "") {
		log.Fatal("say -listen ADDRESS to serve, or -to ADDRESS and the -name of the server to call")
	}
	own, err := tls.LoadX509KeyPair(*cert, *key)
	if err != nil {
		log.Fatal(err)
	}
	pem, err := os.ReadFile(*ca)
	authority := x509.NewCertPool()
	if err != nil || !authority.AppendCertsFromPEM(pem) {
		log.Fatalf("-ca %s: no certificate in it: %v", *ca, err)
	}
	if *listen != "" {
		l, err := machnet.Listen("machnet", *listen)
		if err != nil {
			log.Fatal(err)
		}
		log.Fatal(serve(l, own, authority))
	}
	said, err := call(context.Background(), &machnet.Dialer{}, *to, *name, own, authority)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(said)
}

// serve greets callers until the listener closes. Who shows no certificate of the authority's is not greeted.
func serve(l net.Listener, own tls.Certificate, authority *x509.CertPool) error {
	secure := tls.NewListener(l, &tls.Config{
		Certificates: []tls.Certificate{own},
		ClientCAs:    authority,
		ClientAuth:   tls.RequireAndVerifyClientCert,
	})
	for {
		c, err := secure.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			// The handshake is here and not in Accept, where a slow caller would hold up all others.
			_ = c.SetDeadline(time.Now().Add(5 * time.Second))
			if err := c.(*tls.Conn).Handshake(); err != nil {
				log.Printf("%v: %v", c.RemoteAddr(), err)
				return
			}
			fmt.Fprintf(c, "hello, %s\n", c.(*tls.Conn).ConnectionState().PeerCertificates[0].Subject.CommonName)
		}()
	}
}

// call returns what the server of this name says.
func call(ctx context.Context, d *machnet.Dialer, to, name string, own tls.Certificate, authority *x509.CertPool) (string, error) {
	raw, err := d.DialContext(ctx, "machnet", to)
	if err != nil {
		return "", err
	}
	c := tls.Client(raw, &tls.Config{Certificates: []tls.Certificate{own}, RootCAs: authority, ServerName: name})
	defer c.Close()
	if err := c.HandshakeContext(ctx); err != nil {
		return "", err
	}
	return bufio.NewReader(c).ReadString('\n')
}
