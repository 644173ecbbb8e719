//go:build linux && cgo && (amd64 || arm64)

package machnettest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/machnet/machnet/go/fallback"
	"github.com/machnet/machnet/go/machnet"
	"github.com/machnet/machnet/go/machnettest"
)

// exampleRun is the testing.TB of an example, which has none of its own.
type exampleRun struct {
	testing.TB
	cleanups []func()
}

func (*exampleRun) Helper()                      {}
func (*exampleRun) Failed() bool                 { return false }
func (r *exampleRun) Cleanup(f func())           { r.cleanups = append(r.cleanups, f) }
func (*exampleRun) Fatal(args ...any)            { panic(fmt.Sprint(args...)) }
func (*exampleRun) Fatalf(text string, a ...any) { panic(fmt.Sprintf(text, a...)) }
func (*exampleRun) Errorf(text string, a ...any) { panic(fmt.Sprintf(text, a...)) }

func (r *exampleRun) end() {
	for i := range r.cleanups {
		r.cleanups[len(r.cleanups)-1-i]()
	}
}

// pair is a connection between the two hosts of a network, both ends of it.
func (r *exampleRun) pair(o machnettest.Options) (network *machnettest.Network, a, b *machnet.Conn) {
	network = machnettest.NewNetwork(r, o)
	a, b = connection(r, network.Host(0).Stack(), network.Host(1).Stack(), "10.0.0.2")
	return network, a, b
}

// must is for what an example has no error of.
func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func Example_dial() {
	var run exampleRun
	defer run.end()
	network := machnettest.NewNetwork(&run, machnettest.Options{})

	listener := must(network.Host(1).Listen("machnet", ":7000"))
	go func() {
		conn := must(listener.Accept())
		defer conn.Close()
		_, _ = io.Copy(conn, conn)
	}()

	d := machnet.Dialer{Stack: network.Host(0).Stack(), Timeout: 10 * time.Second}
	conn := must(d.Dial("machnet", "10.0.0.2:7000"))
	defer conn.Close()
	fmt.Fprint(conn, "hello")
	reply := make([]byte, 5)
	must(io.ReadFull(conn, reply))
	fmt.Printf("%s from %v\n", reply, conn.RemoteAddr())

	_, err := d.Dial("machnet", "10.0.0.2:7001")
	fmt.Println(err, errors.Is(err, syscall.ECONNREFUSED))
	// Output:
	// hello from 10.0.0.2:7000
	// dial machnet 10.0.0.2:7001: connection refused true
}

func Example_messages() {
	var run exampleRun
	defer run.end()
	_, a, b := run.pair(machnettest.Options{})

	_ = a.Send([]byte("one"))
	_ = a.Send(nil)
	_ = a.SendBuffers(net.Buffers{[]byte("header, "), []byte("body")})
	_ = a.CloseWrite()
	for {
		m, err := b.Recv(context.Background())
		if err == io.EOF {
			break
		}
		fmt.Printf("%q\n", m.Bytes())
		m.Release()
	}
	// Output:
	// "one"
	// ""
	// "header, body"
}

func Example_shortBuffer() {
	var run exampleRun
	defer run.end()
	_, a, b := run.pair(machnettest.Options{})

	_ = a.Send([]byte("a message"))
	buf := make([]byte, 4)
	n, err := b.ReadMessage(buf)
	fmt.Println(n, err)
	buf = make([]byte, n)
	n, err = b.ReadMessage(buf)
	fmt.Printf("%s, %v\n", buf[:n], err)
	// Output:
	// 9 short buffer
	// a message, <nil>
}

func Example_deadline() {
	var run exampleRun
	defer run.end()
	_, a, b := run.pair(machnettest.Options{})

	_ = b.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	_, err := b.Read(make([]byte, 1))
	fmt.Println(errors.Is(err, os.ErrDeadlineExceeded), err.(net.Error).Timeout())

	_ = b.SetReadDeadline(time.Time{}) // and everything goes on
	fmt.Fprint(a, "x")
	n, err := b.Read(make([]byte, 1))
	fmt.Println(n, err)
	// Output:
	// true true
	// 1 <nil>
}

func Example_halfClose() {
	var run exampleRun
	defer run.end()
	_, a, b := run.pair(machnettest.Options{})
	go func() {
		request := must(io.ReadAll(b)) // until the half close
		_, _ = b.Write(bytes.ToUpper(request))
		_ = b.Close()
	}()

	fmt.Fprint(a, "request")
	_ = a.CloseWrite()
	fmt.Printf("%s\n", must(io.ReadAll(a)))
	// Output: REQUEST
}

func Example_stats() {
	var run exampleRun
	defer run.end()
	_, a, b := run.pair(machnettest.Options{Delay: 3 * time.Millisecond})

	_ = a.Send(make([]byte, 1000))
	must(b.ReadMessage(make([]byte, 1000)))
	s := must(b.Stats(context.Background()))
	fmt.Println(s.State, s.UnitsReceived, s.Waits, s.Err)

	_ = a.SetLinger(0) // so that Close resets it
	_ = a.Close()
	_, _ = b.Read(make([]byte, 1))
	s = must(b.Stats(context.Background()))
	fmt.Println(s.State, s.Err)
	// Output:
	// open 1 not <nil>
	// over connection reset by peer
}

func Example_http() {
	var run exampleRun
	defer run.end()
	network := machnettest.NewNetwork(&run, machnettest.Options{Loss: 0.01})

	listener := must(network.Host(1).Listen("machnet", ":8000"))
	server := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello, %s", r.URL.Path[1:])
	})}
	go server.Serve(listener)

	client := http.Client{Transport: &http.Transport{DialContext: network.Host(0).DialContext}}
	r := must(client.Get("http://10.0.0.2:8000/gopher"))
	fmt.Printf("%s\n", must(io.ReadAll(r.Body)))
	_ = r.Body.Close()
	client.CloseIdleConnections()
	fmt.Println(server.Shutdown(context.Background()))
	// Output:
	// hello, gopher
	// <nil>
}

func Example_fallback() {
	var run exampleRun
	defer run.end()
	network := machnettest.NewNetwork(&run, machnettest.Options{})
	quiet := slog.New(slog.DiscardHandler)

	lc := fallback.ListenConfig{Machnet: machnet.ListenConfig{Stack: network.Host(1).Stack()}, Logger: quiet}
	listener := must(lc.Listen(context.Background(), ":7000", "127.0.0.1:0"))
	defer listener.Close()
	go echo(listener)

	d := fallback.Dialer{Machnet: machnet.Dialer{Stack: network.Host(0).Stack()}, Logger: quiet}
	for range 2 {
		conn := must(d.DialContext(context.Background(), "10.0.0.2:7000", listener.Addr().String()))
		fmt.Printf("%T\n", conn)
		_ = conn.Close()
		network.Host(0).Kill() // the sidecar of the one that dials
	}
	fmt.Println(errors.Is(d.Stats().LastReason, syscall.ENETDOWN))
	// Output:
	// *machnet.Conn
	// *net.TCPConn
	// true
}
