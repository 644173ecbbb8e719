// Command copy sends a file from one host to another over Machnet, and prints what arrived and its SHA-256. It is io.Copy on
// both sides: the half close says that the file has ended, and the answer comes back on the other half.
//
//	MACHNET_SOCKET=/tmp/b.sock copy -listen :7003 -into /tmp/received
//	MACHNET_SOCKET=/tmp/a.sock copy -to 10.0.0.2:7003 some.file
package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"

	"github.com/machnet/machnet/go/machnet"
)

func main() {
	listen := flag.String("listen", "", "wait for a file at this address")
	into := flag.String("into", "received", "the file that it becomes")
	to := flag.String("to", "", "send the file to this address")
	flag.Parse()
	if (*listen == "") == (*to == "" || flag.NArg() != 1) {
		log.Fatal("say -listen ADDRESS to wait for a file, or -to ADDRESS and the name of a file to send one")
	}
	var answer string
	var err error
	if *listen != "" {
		answer, err = receiveFile(*listen, *into)
	} else {
		answer, err = sendFile(*to, flag.Arg(0))
	}
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(answer)
}

func receiveFile(listen, name string) (string, error) {
	l, err := machnet.Listen("machnet", listen)
	if err != nil {
		return "", err
	}
	defer l.Close()
	f, err := os.Create(name)
	if err != nil {
		return "", err
	}
	answer, err := receive(l, f)
	return answer, errors.Join(err, f.Close())
}

func sendFile(to, name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return send(context.Background(), &machnet.Dialer{}, to, f)
}

// receive takes one file, and tells its sender how long it is and what its hash is.
func receive(l net.Listener, file io.Writer) (string, error) {
	c, err := l.Accept()
	if err != nil {
		return "", err
	}
	defer c.Close()
	hash := sha256.New()
	n, err := io.Copy(io.MultiWriter(file, hash), c)
	if err != nil {
		return "", err
	}
	answer := fmt.Sprintf("%d bytes %x\n", n, hash.Sum(nil))
	_, err = io.WriteString(c, answer)
	return answer, err
}

// send sends a file and returns what its receiver says of it.
func send(ctx context.Context, d *machnet.Dialer, to string, file io.Reader) (string, error) {
	c, err := d.DialContext(ctx, "machnet", to)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if _, err := io.Copy(c, file); err != nil {
		return "", err
	}
	if err := c.(*machnet.Conn).CloseWrite(); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(c)
	return string(answer), err
}
