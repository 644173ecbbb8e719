package e2e

import (
	"errors"
	"testing"

	"github.com/machnet/machnet/cmd/netns"
	"github.com/machnet/machnet/cmd/netns/relay"
)

// relayedWire joins two hosts by veth pairs to a namespace in the middle, where a relay makes a path of them.
func relayedWire(t *testing.T, path relay.Path, seed uint64) (*wire, *relay.Relay) {
	t.Helper()
	needNamespaces(t)
	t.Logf("path %+v, seed %d", path, seed)
	var n [3]*netns.Namespace
	var err error
	for i := range n {
		if err == nil {
			n[i], err = netns.New()
		}
	}
	a, b, middle := n[0], n[1], n[2]
	var r *relay.Relay
	closeAll := func() {
		if r != nil {
			if err := r.Close(); err != nil {
				t.Errorf("the relay ended: %v", err)
			}
		}
		for _, n := range n {
			_ = n.Close()
		}
	}
	if err == nil {
		err = errors.Join(
			netns.Veth(netns.End{Namespace: a, Device: device}, netns.End{Namespace: middle, Device: "a"}, 1500),
			netns.Veth(netns.End{Namespace: b, Device: device}, netns.End{Namespace: middle, Device: "b"}, 1500))
	}
	if err == nil {
		r, err = relay.Start(middle, "a", "b", path, seed)
	}
	if err != nil {
		closeAll()
		t.Fatal(err)
	}
	return &wire{a: afPacket(a), b: afPacket(b), middle: middle, close: closeAll}, r
}
