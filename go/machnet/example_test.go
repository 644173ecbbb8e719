package machnet_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
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

// A deadline ends a call and not the connection: with another, everything goes on.
func ExampleConn_SetReadDeadline() {
	conn, err := machnet.Dial("machnet", "10.0.0.2:7000")
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	buf := make([]byte, 2048)
	for {
		_ = conn.SetReadDeadline(time.Now().Add(time.Second))
		n, err := conn.Read(buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			log.Print("nothing for a second")
		case err == io.EOF:
			return
		case err != nil:
			log.Fatal(err)
		}
		fmt.Printf("%s", buf[:n])
	}
}

// A half close tells the peer that the request is complete, while the reply is yet to come.
func ExampleConn_CloseWrite() {
	c, err := machnet.Dial("machnet", "10.0.0.2:7000")
	if err != nil {
		log.Fatal(err)
	}
	conn := c.(*machnet.Conn)
	defer conn.Close()
	if _, err := io.Copy(conn, os.Stdin); err != nil {
		log.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		log.Fatal(err)
	}
	if _, err := io.Copy(os.Stdout, conn); err != nil {
		log.Fatal(err)
	}
}

// A Close that waits says whether the other host has everything.
func ExampleConn_SetLinger() {
	c, err := machnet.Dial("machnet", "10.0.0.2:7000")
	if err != nil {
		log.Fatal(err)
	}
	conn := c.(*machnet.Conn)
	if err := conn.Send([]byte("the last word")); err != nil {
		log.Fatal(err)
	}
	_ = conn.SetLinger(5)
	if err := conn.Close(); errors.Is(err, syscall.ETIMEDOUT) {
		log.Print("it was not acknowledged in five seconds, and is discarded")
	}
}

// What a slow connection waits for.
func ExampleConn_Stats() {
	c, err := machnet.Dial("machnet", "10.0.0.2:7000")
	if err != nil {
		log.Fatal(err)
	}
	conn := c.(*machnet.Conn)
	defer conn.Close()
	s, err := conn.Stats(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	switch {
	case s.Err != nil:
		log.Printf("it has ended: %v", s.Err)
	case s.Waits == machnet.WaitsForCredit:
		log.Print("the other program does not read")
	case s.Retransmitted > s.UnitsSent/100:
		log.Print("the network loses more than one packet in a hundred")
	}
	log.Print(s) // the round trip, what was sent and received, for what it waits
}

// TrySend is for whoever has something else to do when there is no room.
func ExampleConn_TrySend() {
	c, err := machnet.Dial("machnet", "10.0.0.2:7000")
	if err != nil {
		log.Fatal(err)
	}
	conn := c.(*machnet.Conn)
	defer conn.Close()
	dropped := 0
	for sample := range 1000 {
		err := conn.TrySend([]byte{byte(sample)})
		if errors.Is(err, machnet.ErrWouldBlock) {
			dropped++ // an old sample is of no use
			continue
		}
		if err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println(dropped, "dropped")
}

// A server with a listener on each of two engines has them share a port.
func ExampleOnEngine() {
	for engine := range 2 {
		stack, err := machnet.Attach(context.Background(), machnet.Config{Engine: machnet.OnEngine(engine)})
		if err != nil {
			log.Fatal(err) // EINVAL where the sidecar has no such engine
		}
		lc := machnet.ListenConfig{Stack: stack, ReusePort: true}
		l, err := lc.Listen(context.Background(), "machnet", ":7000")
		if err != nil {
			log.Fatal(err)
		}
		go http.Serve(l, nil)
	}
	select {}
}

// A server of package net/http ends in good order.
func ExampleListener() {
	l, err := machnet.Listen("machnet", ":8000")
	if err != nil {
		log.Fatal(err)
	}
	server := http.Server{Handler: http.FileServer(http.Dir("."))}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	context.AfterFunc(ctx, func() { _ = server.Shutdown(context.Background()) })
	if err := server.Serve(l); err != http.ErrServerClosed {
		log.Fatal(err)
	}
}
