//go:build linux && cgo && (amd64 || arm64)

package machnettest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/machnet/machnet/go/machnet"
	"github.com/machnet/machnet/go/machnettest"
)

const port = "7000"

// hosts makes a network of two hosts, 10.0.0.1 with one engine and 10.0.0.2 with two, and attaches to both.
func hosts(t *testing.T, o machnettest.Options) (network *machnettest.Network, server *machnettest.Host, near, far *machnet.Stack) {
	t.Helper()
	o.Hosts, o.Seed = 1, 1
	network = machnettest.NewNetwork(t, o)
	server = network.AddHost(machnettest.HostOptions{Engines: 2})
	return network, server, network.Host(0).Stack(), server.Stack()
}

// echo serves the connections of a listener until it is closed.
func echo(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			_, _ = io.Copy(conn, conn)
		}()
	}
}

func listenAndDial(t *testing.T, near, far *machnet.Stack) net.Conn {
	t.Helper()
	listener, err := (&machnet.ListenConfig{Stack: far}).Listen(context.Background(), "machnet", "10.0.0.2:"+port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go echo(listener)
	conn, err := (&machnet.Dialer{Stack: near, Timeout: 10 * time.Second}).Dial("machnet", "10.0.0.2:"+port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestHostsInOneProcessEcho(t *testing.T) {
	for name, link := range map[string]machnettest.Options{
		"faultless": {},
		"faulty":    {Loss: 0.01, Duplication: 0.01, Reorder: 0.01, Corruption: 0.001, Jitter: 5 * time.Microsecond},
	} {
		t.Run(name, func(t *testing.T) {
			_, server, near, far := hosts(t, link)
			conn := listenAndDial(t, near, far)
			for _, size := range []int{1, 64, 1424, 1425, 100_000} {
				sent := make([]byte, size)
				for i := range sent {
					sent[i] = byte(i*7 + i/256)
				}
				go func() { _, _ = conn.Write(sent) }()
				got := make([]byte, size)
				conn.SetReadDeadline(time.Now().Add(20 * time.Second))
				if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, sent) {
					t.Fatalf("%d bytes: the echo differs, or did not come: %v", size, err)
				}
			}
			if server.Counter("rx_frames") == 0 {
				t.Fatal("rx_frames = 0: the echo did not cross the network")
			}
		})
	}
}

func TestNobodyListensIsRefused(t *testing.T) {
	_, _, near, _ := hosts(t, machnettest.Options{})
	_, err := (&machnet.Dialer{Stack: near, Timeout: 10 * time.Second}).Dial("machnet", "10.0.0.2:9")
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("dial = %v, want ECONNREFUSED", err)
	}
}

func TestAKilledHostIsNoticedAtOnce(t *testing.T) {
	_, server, near, far := hosts(t, machnettest.Options{})
	listenAndDial(t, near, far)
	listener, err := (&machnet.ListenConfig{Stack: far, FailFast: true}).Listen(context.Background(), "machnet", "10.0.0.2:7001")
	if err != nil {
		t.Fatal(err)
	}
	blocked := make(chan error)
	go func() {
		_, err := listener.Accept()
		blocked <- err
	}()
	time.Sleep(10 * time.Millisecond)
	server.Kill()
	select {
	case err := <-blocked:
		if !errors.Is(err, syscall.ENETDOWN) {
			t.Fatalf("accept on a killed host = %v, want ENETDOWN", err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("accept on a killed host did not return within 5 s")
	}
	select {
	case <-far.Done():
		t.Fatalf("the stack has ended with its host, which may come back: %v", far.Err())
	default:
	}
	if _, err := server.Attach(context.Background(), machnet.Config{}); !errors.Is(err, machnet.ErrNoSidecar) {
		t.Fatalf("attach to a killed host = %v, want ErrNoSidecar", err)
	}
}

// refusing makes a Config.Connect that gives sockets of the host until it is told to end.
func refusing(host *machnettest.Host, end *atomic.Bool) func(context.Context) (*os.File, error) {
	return func(context.Context) (*os.File, error) {
		if end.Load() {
			return nil, fmt.Errorf("moved away: %w", net.ErrClosed)
		}
		c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: host.Socket(), Net: "unixpacket"})
		if err != nil {
			return nil, err
		}
		defer c.Close()
		return c.File()
	}
}

func TestAStackEndsWhenThereWillBeNoSidecarAnyMore(t *testing.T) {
	host := machnettest.NewNetwork(t, machnettest.Options{}).Host(1)
	var end atomic.Bool
	far, err := machnet.Attach(t.Context(), machnet.Config{Connect: refusing(host, &end)})
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	listener, err := (&machnet.ListenConfig{Stack: far}).Listen(t.Context(), "machnet", ":0")
	if err != nil {
		t.Fatal(err)
	}
	if err := far.Err(); err != nil {
		t.Fatalf("before the end: %v", err)
	}
	end.Store(true)
	host.Kill()
	select {
	case <-far.Done():
	case <-time.After(20 * time.Second):
		t.Fatal("the stack still waits for a host that will never come back")
	}
	for what, err := range map[string]error{
		"Err":    far.Err(),
		"Accept": second(listener.Accept()),
		"Dial":   second((&machnet.Dialer{Stack: far}).Dial("machnet", "10.0.0.1:9")),
	} {
		if !errors.Is(err, net.ErrClosed) || !strings.Contains(err.Error(), "moved away") {
			t.Errorf("%s = %v, want the error of Config.Connect", what, err)
		}
	}
}

func second(_ any, err error) error { return err }

// The thread that runs the hosts may not take the time of a test's other threads when nothing happens.
func TestHostsSleepWhileNothingHappens(t *testing.T) {
	network := machnettest.NewNetwork(t, machnettest.Options{})
	host := network.Host(0)
	if err := says(dialFrom(t, network.Host(1), serveOn(t, host)), 10*time.Second); err != nil {
		t.Fatal(err)
	}
	within(t, "a time in which hosts hardly wake", func() bool {
		before := host.Counter("sleeps")
		time.Sleep(500 * time.Millisecond)
		return host.Counter("sleeps")-before <= 15
	})
}
