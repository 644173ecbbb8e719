// Command websocket is a chat room by WebSocket over Machnet: what one says, all others read.
//
//	MACHNET_SOCKET=/tmp/b.sock websocket -listen :8080
//	MACHNET_SOCKET=/tmp/a.sock websocket -to ws://10.0.0.2:8080/
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/machnet/machnet/go/machnet"
)

func main() {
	listen := flag.String("listen", "", "serve at this address")
	to := flag.String("to", "", "join the room at this URL")
	flag.Parse()
	if (*listen == "") == (*to == "") {
		log.Fatal("say -listen ADDRESS to have a room, or -to URL to join one, like ws://10.0.0.2:8080/")
	}
	if *listen != "" {
		l, err := machnet.Listen("machnet", *listen)
		if err != nil {
			log.Fatal(err)
		}
		log.Fatal(http.Serve(l, new(room)))
	}
	ctx := context.Background()
	c, err := join(ctx, &machnet.Dialer{}, *to)
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		for said := bufio.NewScanner(os.Stdin); said.Scan(); {
			if err := c.Write(ctx, websocket.MessageText, said.Bytes()); err != nil {
				log.Fatal(err)
			}
		}
		_ = c.Close(websocket.StatusNormalClosure, "")
	}()
	for {
		_, said, err := c.Read(ctx)
		if websocket.CloseStatus(err) == websocket.StatusNormalClosure {
			return
		}
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(string(said))
	}
}

// join opens a WebSocket.
func join(ctx context.Context, d *machnet.Dialer, url string) (*websocket.Conn, error) {
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			return d.DialContext(ctx, "machnet", address)
		},
	}}
	c, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{HTTPClient: client})
	if err != nil {
		return nil, err
	}
	c.SetReadLimit(largestSaying)
	return c, nil
}

// largestSaying is the longest message, in bytes.
const largestSaying = 1 << 20

// room passes on what each of its members says.
type room struct {
	mu      sync.Mutex
	members map[*websocket.Conn]struct{}
}

func (r *room) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	c, err := websocket.Accept(w, request, nil)
	if err != nil {
		return // Accept has answered
	}
	defer c.CloseNow()
	c.SetReadLimit(largestSaying)
	r.mu.Lock()
	if r.members == nil {
		r.members = make(map[*websocket.Conn]struct{})
	}
	r.members[c] = struct{}{}
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.members, c)
		r.mu.Unlock()
	}()
	for {
		kind, said, err := c.Read(request.Context())
		if err != nil {
			return
		}
		r.mu.Lock()
		for other := range r.members {
			if other != c {
				tell(request.Context(), other, kind, said)
			}
		}
		r.mu.Unlock()
	}
}

// tell throws a member out that takes nothing for 5 s: Write closes what its context ends.
func tell(ctx context.Context, member *websocket.Conn, kind websocket.MessageType, said []byte) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_ = member.Write(ctx, kind, said)
}
