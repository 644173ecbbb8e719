// Command user is a program as a user of the package writes it: it serves on the default stack, calls itself from another
// host, and prints "ok" when a mebibyte has come back as it was.
//
//	MACHNET_SOCKET=SERVER user ADDRESS CLIENT
//
// ADDRESS is the server's IP address, SERVER and CLIENT the sockets of two sidecars.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/machnet/machnet/go/machnet"
)

func main() {
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("ok")
}

func run(address, socket string) error {
	listener, err := machnet.Listen("machnet", address+":0")
	if err != nil {
		return err
	}
	defer listener.Close()
	served := make(chan error, 1)
	go func() { served <- echo(listener) }()

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	stack, err := machnet.Attach(ctx, machnet.Config{Socket: socket})
	if err != nil {
		return err
	}
	defer stack.Close()
	conn, err := (&machnet.Dialer{Stack: stack}).DialContext(ctx, "machnet", listener.Addr().String())
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	sent := make([]byte, 1<<20)
	for i := range sent {
		sent[i] = byte(i * 31 >> 3)
	}
	wrote := make(chan error, 1)
	go func() {
		_, err := conn.Write(sent)
		wrote <- err
	}()
	received := make([]byte, len(sent))
	if _, err := io.ReadFull(conn, received); err != nil {
		return err
	}
	if !bytes.Equal(sent, received) {
		return errors.New("other bytes came back")
	}
	if err := conn.Close(); err != nil {
		return err
	}
	return errors.Join(<-wrote, <-served)
}

func echo(listener net.Listener) error {
	conn, err := listener.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = io.Copy(conn, conn)
	return err
}
