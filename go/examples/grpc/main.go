// Command grpc serves gRPC over Machnet: one call of each kind. It is its own client, too.
//
//	MACHNET_SOCKET=/tmp/b.sock grpc -listen :7002
//	MACHNET_SOCKET=/tmp/a.sock grpc -to 10.0.0.2:7002 hello
//
// A server needs nothing but the listener; a client a dialer, and the scheme "passthrough", which leaves the address to it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/machnet/machnet/go/machnet"
)

func main() {
	listen := flag.String("listen", "", "serve at this address")
	to := flag.String("to", "", "call this address")
	flag.Parse()
	if (*listen == "") == (*to == "" || flag.NArg() != 1) {
		log.Fatal("say -listen ADDRESS to serve, or -to ADDRESS and a word to call")
	}
	if *listen != "" {
		l, err := machnet.Listen("machnet", *listen)
		if err != nil {
			log.Fatal(err)
		}
		log.Fatal(newServer().Serve(l))
	}
	conn, err := dial(&machnet.Dialer{}, *to)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	answer, err := upper(context.Background(), conn, flag.Arg(0))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(answer)
}

func newServer(more ...grpc.ServerOption) *grpc.Server {
	s := grpc.NewServer(append(more, grpc.MaxRecvMsgSize(largestMessage))...)
	s.RegisterService(&service, texts{})
	return s
}

// dial gives a connection that is made when it is used first, and again when it has broken.
func dial(d *machnet.Dialer, to string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+to,
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return d.DialContext(ctx, "machnet", address)
		}),
		grpc.WithTransportCredentials(insecure.NewCredentials()), // TLS works as well: package mutualtls has certificates
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(largestMessage)),
	)
}

// largestMessage replaces gRPC's bound of 4 MiB.
const largestMessage = 64 << 20

// texts is the service.
type texts struct{}

// upper answers a text with its capitals.
func (texts) upper(ctx context.Context, text *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
	if text.Value == "" {
		<-ctx.Done() // there is nothing to say
		return nil, ctx.Err()
	}
	return wrapperspb.String(strings.ToUpper(text.Value)), nil
}

// split answers a text with its words.
func (texts) split(text *wrapperspb.StringValue, words grpc.ServerStreamingServer[wrapperspb.StringValue]) error {
	for word := range strings.FieldsSeq(text.Value) {
		if err := words.Send(wrapperspb.String(word)); err != nil {
			return err
		}
	}
	return nil
}

// join answers words with a text.
func (texts) join(words grpc.ClientStreamingServer[wrapperspb.StringValue, wrapperspb.StringValue]) error {
	var all []string
	for {
		word, err := words.Recv()
		if errors.Is(err, io.EOF) {
			return words.SendAndClose(wrapperspb.String(strings.Join(all, " ")))
		}
		if err != nil {
			return err
		}
		all = append(all, word.Value)
	}
}

// echo answers each text with itself.
func (texts) echo(both grpc.BidiStreamingServer[wrapperspb.StringValue, wrapperspb.StringValue]) error {
	for {
		text, err := both.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = both.Send(text)
		}
		if err != nil {
			return err
		}
	}
}
