// Command redis is a key-value server of Redis' protocol over Machnet, and a client of it: any Redis library works whose dialer can
// be set.
//
//	MACHNET_SOCKET=/tmp/b.sock redis -listen :6379
//	MACHNET_SOCKET=/tmp/a.sock redis -to 10.0.0.2:6379 -set greeting -value hello
//	MACHNET_SOCKET=/tmp/a.sock redis -to 10.0.0.2:6379 -get greeting
//
// Clients that cannot be changed, like redis-cli, reach it through `machnet proxy`.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
	"github.com/tidwall/redcon"

	"github.com/machnet/machnet/go/machnet"
)

func main() {
	listen := flag.String("listen", "", "serve at this address")
	to := flag.String("to", "", "use the server at this address")
	set := flag.String("set", "", "set this key")
	value := flag.String("value", "", "to this value")
	get := flag.String("get", "", "print the value of this key")
	flag.Parse()
	if (*listen == "") == (*to == "" || *set == "" && *get == "") {
		log.Fatal("say -listen ADDRESS to serve, or -to ADDRESS and a key to -set or to -get")
	}
	if *listen != "" {
		l, err := machnet.Listen("machnet", *listen)
		if err != nil {
			log.Fatal(err)
		}
		log.Fatal(new(store).serve(l))
	}
	ctx, client := context.Background(), newClient(&machnet.Dialer{}, *to)
	defer client.Close()
	if *set != "" {
		if err := client.Set(ctx, *set, *value, 0).Err(); err != nil {
			log.Fatal(err)
		}
	}
	if *get != "" {
		value, err := client.Get(ctx, *get).Result()
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(value)
	}
}

// newClient gives a client with a pool of connections.
func newClient(d *machnet.Dialer, to string) *redis.Client {
	return redis.NewClient(&redis.Options{
		Addr: to,
		Dialer: func(ctx context.Context, _, address string) (net.Conn, error) {
			return d.DialContext(ctx, "machnet", address)
		},
		ContextTimeoutEnabled: true, // a call ends with its context, as one would think
	})
}

// store knows SET, GET, DEL, PING and QUIT.
type store struct {
	mu     sync.Mutex
	values map[string][]byte
}

// serve serves until the listener closes. The replies to a pipeline leave as one message.
func (s *store) serve(l net.Listener) error {
	s.values = make(map[string][]byte)
	return redcon.Serve(l, s.command, nil, nil)
}

func (s *store) command(conn redcon.Conn, cmd redcon.Command) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch name := strings.ToLower(string(cmd.Args[0])); {
	case name == "ping":
		conn.WriteString("PONG")
	case name == "quit":
		conn.WriteString("OK")
		_ = conn.Close()
	case name == "set" && len(cmd.Args) == 3:
		s.values[string(cmd.Args[1])] = append([]byte(nil), cmd.Args[2]...)
		conn.WriteString("OK")
	case name == "get" && len(cmd.Args) == 2:
		if value, ok := s.values[string(cmd.Args[1])]; ok {
			conn.WriteBulk(value)
		} else {
			conn.WriteNull()
		}
	case name == "del" && len(cmd.Args) == 2:
		before := len(s.values)
		delete(s.values, string(cmd.Args[1]))
		conn.WriteInt(before - len(s.values))
	default:
		conn.WriteError(fmt.Sprintf("ERR %q with %d arguments is not known here", name, len(cmd.Args)-1))
	}
}
