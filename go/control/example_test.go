package control_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/machnet/machnet/go/control"
)

// The connections of a sidecar, and how much of each waits.
func ExampleConnections() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	connections, err := control.Connections(ctx, "") // $MACHNET_SOCKET, or DefaultSocket
	if errors.Is(err, control.ErrNoSidecar) {
		log.Fatal("is machnetd running? ", err)
	}
	if err != nil {
		log.Fatal(err)
	}
	for _, c := range connections {
		fmt.Printf("%s -> %s: %s, %d queued, of these %d sent\n", c.Local, c.Peer, c.State, c.Queued, c.InFlight)
	}
}

// Orders are taken from root and the sidecar's own user; from others they are refused in a sentence.
func ExampleDrain() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	channels, err := control.Channels(ctx, "/tmp/a.sock")
	if err != nil {
		log.Fatal(err)
	}
	for _, c := range channels {
		if c.PID != 4711 {
			continue
		}
		var refusal *control.Refusal
		if err := control.Drain(ctx, "/tmp/a.sock", c.Channel); errors.As(err, &refusal) {
			fmt.Println("refused:", refusal)
		} else if err != nil {
			log.Fatal(err)
		}
	}
}
