package vm

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/machnet/machnet/cmd/netns"
)

// Network is an Ethernet switch that guests' NICs are plugged into: a bridge of the kernel, in a network namespace of its own.
type Network struct {
	Namespace *netns.Namespace // for tests that send or listen on the bridge, "br0"
	taps      int
}

// NewNetwork makes a network for one test. It needs root, and skips the test without.
func NewNetwork(t testing.TB) *Network {
	t.Helper()
	if err := netns.Available(); err != nil {
		t.Skip(err)
	}
	namespace, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = namespace.Close() })
	n := &Network{Namespace: namespace}
	for _, args := range [][]string{
		// Without snooping and spanning trees it passes everything on from its first moment.
		{"ip", "link", "add", "name", "br0", "type", "bridge", "stp_state", "0", "mcast_snooping", "0", "forward_delay", "0", "nf_call_iptables", "0"},
		{"ip", "link", "set", "dev", "br0", "addrgenmode", "none"},
		{"ip", "link", "set", "dev", "br0", "up"},
	} {
		if err := namespace.Run(args[0], args[1:]...); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// plug makes a device of the network for one NIC, and gives QEMU's words for it.
func (n *Network) plug(id string, queues int) (string, error) {
	n.taps++
	tap := "tap" + strconv.Itoa(n.taps)
	words := fmt.Sprintf("tap,id=%s,ifname=%s,script=no,downscript=no", id, tap)
	create := []string{"tuntap", "add", "dev", tap, "mode", "tap", "vnet_hdr"}
	if queues > 1 {
		words += ",queues=" + strconv.Itoa(queues)
		create = append(create, "multi_queue")
	}
	for _, args := range [][]string{
		create,
		{"link", "set", "dev", tap, "addrgenmode", "none"},
		{"link", "set", "dev", tap, "master", "br0", "up"},
	} {
		if err := n.Namespace.Run("ip", args...); err != nil {
			return "", err
		}
	}
	return words, nil
}
