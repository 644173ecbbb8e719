package e2e

import (
	"errors"
	"fmt"
	"testing"
	"time"

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

// Messages arrive once, in order and whole over every kind of path that a relay makes, and it did to them what it should.
func TestMessagesArriveOverEveryKindOfPath(t *testing.T) {
	const us = time.Microsecond
	for name, tc := range map[string]struct {
		path relay.Path
		did  func(c relay.Counts) bool
	}{
		"ticks":       {relay.Path{Tick: 500 * us}, func(c relay.Counts) bool { return c.Passed == c.Arrived }},
		"jitter":      {relay.Path{Delay: 100 * us, Jitter: 200 * us}, func(c relay.Counts) bool { return c.Passed == c.Arrived && c.Overtaken == 0 }},
		"far away":    {relay.Path{Delay: 10 * time.Millisecond}, func(c relay.Counts) bool { return c.Passed == c.Arrived }},
		"a slow line": {relay.Path{Rate: 100e6, Buffer: 128 << 10}, func(c relay.Counts) bool { return c.Passed == c.Arrived-c.Full }},
		"a bucket":    {relay.Path{Rate: 100e6, Burst: 64 << 10, Buffer: 128 << 10}, func(c relay.Counts) bool { return c.Passed == c.Arrived-c.Full }},
		"copies":      {relay.Path{Copies: 0.1}, func(c relay.Counts) bool { return c.Copied > 0 && c.Passed == c.Arrived+c.Copied }},
		"reordering":  {relay.Path{Reorder: 0.1, ReorderBy: 2 * time.Millisecond}, func(c relay.Counts) bool { return c.Overtaken > 0 && c.Passed == c.Arrived }},
		"all of it": {relay.Path{Delay: 100 * us, Jitter: 100 * us, Tick: 50 * us, Loss: 0.02, Copies: 0.02, Reorder: 0.02, ReorderBy: 500 * us},
			func(c relay.Counts) bool {
				return c.Lost > 0 && c.Copied > 0 && c.Overtaken > 0 && c.Passed == c.Arrived-c.Lost+c.Copied
			}},
	} {
		t.Run(name, func(t *testing.T) {
			onAnyLink(t)
			w, r := relayedWire(t, tc.path, 1)
			p := newPairOn(t, shortTempDir(t), w)
			exchange(t, p, 1, 1<<20)
			exchange(t, p, 4, 32<<10)
			until(t, "the relay has passed all that it had, and did what it should", func() error {
				for _, way := range r.Counts() {
					if !tc.did(way) || way.NoRoom != 0 || way.Missed != 0 || way.TooLong != 0 {
						return fmt.Errorf("it counts %+v", way)
					}
				}
				return nil
			})
		})
	}
}
