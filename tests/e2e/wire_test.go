package e2e

import (
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/machnet/machnet/cmd/netns"
)

var link = flag.String("link", "memif", "what joins the hosts: memif, veth (two network namespaces; root), or xdp (the same, and the kernel keeps the devices)")

func checkLink() error {
	if *link != "memif" && *link != "veth" && *link != "xdp" {
		return fmt.Errorf("-link %q: use memif, veth or xdp", *link)
	}
	return nil
}

// wire is what joins the two hosts of a pair.
type wire struct {
	a, b   wireEnd
	middle *netns.Namespace // of a relay's, which has the devices a and b towards them
	close  func()           // once both sidecars have ended
}

// wireEnd is what machnetd needs to use one end.
type wireEnd struct {
	device    []string         // flags
	namespace *netns.Namespace // to run in; nil for that of the tests
}

// makeWire lays the link of this run.
func makeWire(folder string) (*wire, error) {
	switch *link {
	case "veth":
		return vethWire(1500)
	case "xdp":
		w, err := vethWire(1500)
		if err == nil {
			w.a, w.b = xdpEnd(w.a.namespace), xdpEnd(w.b.namespace)
		}
		return w, err
	}
	return memifWire(folder), nil
}

// newWire lays the link of this run for one test, who closes it.
func newWire(t *testing.T, folder string) *wire {
	t.Helper()
	needLink(t)
	w, err := makeWire(folder)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// memifWire is shared memory, behind a socket in the folder.
func memifWire(folder string) *wire {
	socket := filepath.Join(folder, "link.sock")
	return &wire{
		a:     wireEnd{device: []string{"--memif", "server:" + socket}},
		b:     wireEnd{device: []string{"--memif", "client:" + socket}},
		close: func() {},
	}
}

// vethWire is a pair of Ethernet devices of the kernel, each in a namespace of its own.
func vethWire(mtu int) (*wire, error) {
	a, errA := netns.New()
	b, errB := netns.New()
	w := &wire{a: afPacket(a), b: afPacket(b), close: func() { _, _ = a.Close(), b.Close() }}
	err := errors.Join(errA, errB)
	if err == nil {
		err = netns.Veth(netns.End{Namespace: a, Device: device}, netns.End{Namespace: b, Device: device}, mtu)
	}
	if err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

// device is the Ethernet device of each namespace.
const device = "machnet0"

func afPacket(n *netns.Namespace) wireEnd {
	return wireEnd{device: []string{"--vdev", "net_af_packet0,iface=" + device}, namespace: n}
}

// namespaces says why none can be made here, or nil.
var namespaces = sync.OnceValue(netns.Available)

func needNamespaces(t *testing.T) {
	t.Helper()
	if err := namespaces(); err != nil {
		t.Skip(err)
	}
}

func needLink(t *testing.T) {
	t.Helper()
	if *link != "memif" {
		needNamespaces(t)
	}
}

// onAnyLink marks a test that would find the same on any link: it runs with memif only.
func onAnyLink(t *testing.T) {
	t.Helper()
	if *link != "memif" {
		t.Skip("the same on any link: it runs with memif only")
	}
}
