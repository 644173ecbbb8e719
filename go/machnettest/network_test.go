//go:build linux && cgo && (amd64 || arm64)

package machnettest_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/machnet/machnet/go/machnet"
	"github.com/machnet/machnet/go/machnettest"
)

const port = "7000"

// hosts makes a network of two hosts, 10.0.0.1 with one engine and 10.0.0.2 with two, and attaches to both.
func hosts(t *testing.T, link machnettest.Link) (network *machnettest.Network, server *machnettest.Host, near, far *machnet.Stack) {
	t.Helper()
	network, err := machnettest.New(1, link)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(network.Trace())
		}
		network.Close()
	})
	attach := func(ip string, engines int) (*machnettest.Host, *machnet.Stack) {
		host, err := network.AddHost(netip.MustParseAddr(ip), engines)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		stack, err := host.Attach(ctx)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { stack.Close() })
		return host, stack
	}
	_, near = attach("10.0.0.1", 1)
	server, far = attach("10.0.0.2", 2)
	return network, server, near, far
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
	for name, link := range map[string]machnettest.Link{
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
			if frames, err := server.Counter("rx_frames"); err != nil || frames == 0 {
				t.Fatalf("rx_frames = %d, %v: the echo did not cross the network", frames, err)
			}
		})
	}
}

func TestNobodyListensIsRefused(t *testing.T) {
	_, _, near, _ := hosts(t, machnettest.Link{})
	_, err := (&machnet.Dialer{Stack: near, Timeout: 10 * time.Second}).Dial("machnet", "10.0.0.2:9")
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("dial = %v, want ECONNREFUSED", err)
	}
}

func TestAKilledHostIsNoticedAtOnce(t *testing.T) {
	_, server, near, far := hosts(t, machnettest.Link{})
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
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
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
	if _, err := server.Attach(context.Background()); !errors.Is(err, machnet.ErrNoSidecar) {
		t.Fatalf("attach to a killed host = %v, want ErrNoSidecar", err)
	}
}

func TestAStackEndsWithItsNetwork(t *testing.T) {
	network, _, _, far := hosts(t, machnettest.Link{})
	listener, err := (&machnet.ListenConfig{Stack: far}).Listen(t.Context(), "machnet", ":0")
	if err != nil {
		t.Fatal(err)
	}
	if err := far.Err(); err != nil {
		t.Fatalf("before the end: %v", err)
	}
	network.Close()
	select {
	case <-far.Done():
	case <-time.After(20 * time.Second):
		t.Fatal("the stack still waits for a host of a network that is closed")
	}
	if err := far.Err(); !errors.Is(err, net.ErrClosed) || !errors.Is(err, machnettest.ErrClosed) {
		t.Errorf("Err() = %v, want the error of Config.Connect", err)
	}
	if _, err := listener.Accept(); !errors.Is(err, machnettest.ErrClosed) {
		t.Errorf("Accept = %v, want the error of Config.Connect", err)
	}
	if _, err := (&machnet.Dialer{Stack: far}).Dial("machnet", "10.0.0.1:9"); !errors.Is(err, machnettest.ErrClosed) {
		t.Errorf("Dial = %v, want the error of Config.Connect", err)
	}
}

func TestBadPlansAreRefused(t *testing.T) {
	network, err := machnettest.New(1, machnettest.Link{})
	if err != nil {
		t.Fatal(err)
	}
	defer network.Close()
	ip := netip.MustParseAddr("10.0.0.1")
	if _, err := network.AddHost(ip, 1); err != nil {
		t.Fatal(err)
	}
	for name, try := range map[string]func() error{
		"the same address": func() error { _, err := network.AddHost(ip, 1); return err },
		"IPv6":             func() error { _, err := network.AddHost(netip.MustParseAddr("::1"), 1); return err },
		"no engine":        func() error { _, err := network.AddHost(netip.MustParseAddr("10.0.0.3"), 0); return err },
	} {
		if try() == nil {
			t.Errorf("%s: no error", name)
		}
	}
	network.Close()
	if _, err := network.AddHost(netip.MustParseAddr("10.0.0.4"), 1); !errors.Is(err, machnettest.ErrClosed) {
		t.Errorf("add to a closed network = %v, want ErrClosed", err)
	}
}
