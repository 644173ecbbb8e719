// Command rpc serves Go's own remote procedure calls over Machnet.
//
//	MACHNET_SOCKET=/tmp/b.sock rpc -listen :7001
//	MACHNET_SOCKET=/tmp/a.sock rpc -to 10.0.0.2:7001 6 7
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"net/rpc"
	"strconv"

	"github.com/machnet/machnet/go/machnet"
)

// Calculator is the service.
type Calculator struct{}

// Factors are what Multiply takes.
type Factors struct{ A, B int }

// Multiply multiplies.
func (Calculator) Multiply(f Factors, product *int) error {
	*product = f.A * f.B
	return nil
}

func main() {
	listen := flag.String("listen", "", "serve at this address")
	to := flag.String("to", "", "call this address")
	flag.Parse()
	if (*listen == "") == (*to == "" || flag.NArg() != 2) {
		log.Fatal("say -listen ADDRESS to serve, or -to ADDRESS and two numbers to multiply")
	}
	if *listen != "" {
		l, err := machnet.Listen("machnet", *listen)
		if err != nil {
			log.Fatal(err)
		}
		serve(l)
		return
	}
	a, errA := strconv.Atoi(flag.Arg(0))
	b, errB := strconv.Atoi(flag.Arg(1))
	if errA != nil || errB != nil {
		log.Fatal("two numbers are wanted")
	}
	client, err := dial(context.Background(), &machnet.Dialer{}, *to)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	var product int
	if err := client.Call("Calculator.Multiply", Factors{a, b}, &product); err != nil {
		log.Fatal(err)
	}
	fmt.Println(product)
}

// serve serves until the listener closes.
func serve(l net.Listener) {
	server := rpc.NewServer()
	if err := server.Register(Calculator{}); err != nil {
		log.Fatal(err)
	}
	server.Accept(l)
}

func dial(ctx context.Context, d *machnet.Dialer, to string) (*rpc.Client, error) {
	c, err := d.DialContext(ctx, "machnet", to)
	if err != nil {
		return nil, err
	}
	return rpc.NewClient(c), nil
}
