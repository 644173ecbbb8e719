package machnet_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/machnet/machnet/go/machnet"
)

// An echo server is the one that TCP would have, with another listener.
func ExampleListen() {
	l, err := machnet.Listen("machnet", ":7000")
	if err != nil {
		log.Fatal(err)
	}
	for {
		c, err := l.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go func() {
			defer c.Close()
			_, _ = io.Copy(c, c)
		}()
	}
}

func ExampleDial() {
	c, err := machnet.Dial("machnet", "10.0.0.2:7000")
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		log.Fatal("nobody listens there")
	case errors.Is(err, machnet.ErrNoSidecar):
		log.Fatal(err) // names the socket and says what to do
	case err != nil:
		log.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintln(c, "hello")
}

// Several sidecars can run on one machine; a Stack is an attachment to one of them.
func ExampleAttach() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	stack, err := machnet.Attach(ctx, machnet.Config{Socket: "/run/machnet/second.sock"})
	if err != nil {
		log.Fatal(err)
	}
	defer stack.Close()
	d := machnet.Dialer{Stack: stack, Timeout: time.Second}
	c, err := d.Dial("machnet", "10.0.0.2:7000")
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
}

// A server of package net/http needs the listener, a client the dialer.
func ExampleDialer_DialContext() {
	var d machnet.Dialer
	client := http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			return d.DialContext(ctx, "machnet", address)
		},
	}}
	r, err := client.Get("http://10.0.0.2:8000/")
	if err != nil {
		log.Fatal(err)
	}
	defer r.Body.Close()
}

// Messages keep their boundaries, without framing of one's own.
func ExampleConn_Recv() {
	l, err := machnet.Listen("machnet", ":7000")
	if err != nil {
		log.Fatal(err)
	}
	conn, err := l.(*machnet.Listener).AcceptMachnet(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	for {
		m, err := conn.Recv(context.Background())
		if err == io.EOF {
			return
		}
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("a request of %d bytes\n", len(m.Bytes()))
		m.Release() // the bytes are gone after this
		if err := conn.SendBuffers(net.Buffers{[]byte("header"), []byte("body")}); err != nil {
			log.Fatal(err)
		}
	}
}

func ExampleConn_ReadMessage() {
	c, err := machnet.Dial("machnet", "10.0.0.2:7000")
	if err != nil {
		log.Fatal(err)
	}
	conn := c.(*machnet.Conn)
	defer conn.Close()
	buf := make([]byte, 2048)
	n, err := conn.ReadMessage(buf)
	if err == io.ErrShortBuffer { // the message is still there, and n bytes long
		buf = make([]byte, n)
		n, err = conn.ReadMessage(buf)
	}
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(buf[:n])
}
