package relay

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/machnet/machnet/cmd/netns"
)

// hosts are two kernels, with a relay between them.
type hosts struct {
	middle   *netns.Namespace
	from, to net.PacketConn
	received atomic.Int64
	relay    *Relay
}

// newHosts lays the links and starts the relay. The hosts know each other's hardware address, so that no ARP meets the relay's faults.
func newHosts(t *testing.T, p Path) *hosts {
	t.Helper()
	if err := netns.Available(); err != nil {
		t.Skip(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var n [3]*netns.Namespace
	for i := range n {
		made, err := netns.New()
		must(err)
		t.Cleanup(func() { made.Close() })
		n[i] = made
	}
	h := &hosts{middle: n[2]}
	var conns [2]net.PacketConn
	for i, device := range []string{"a", "b"} {
		end := netns.End{Namespace: n[i], Device: "eth0"}
		must(netns.Veth(end, netns.End{Namespace: h.middle, Device: device}, 1500))
		must(n[i].Run("ip", "link", "set", "dev", "eth0", "address", fmt.Sprintf("02:00:00:00:00:0%d", i+1)))
		must(end.Address(fmt.Sprintf("10.9.0.%d/24", i+1)))
		must(end.FrameInSoftware())
		must(n[i].Run("ip", "neighbor", "add", fmt.Sprintf("10.9.0.%d", 2-i), "lladdr", fmt.Sprintf("02:00:00:00:00:0%d", 2-i), "dev", "eth0"))
		must(n[i].Do(func() (err error) {
			conns[i], err = net.ListenPacket("udp4", fmt.Sprintf("10.9.0.%d:7", i+1))
			return err
		}))
		t.Cleanup(func() { conns[i].Close() })
	}
	h.from, h.to = conns[0], conns[1]
	go h.receive()
	var err error
	h.relay, err = Start(h.middle, "a", "b", p, 1)
	must(err)
	t.Cleanup(func() {
		if err := h.relay.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// send sends so many datagrams of so many bytes from A to B, and waits until B has those of them that pass the relay.
func (h *hosts) send(t *testing.T, count, size int) {
	t.Helper()
	before := h.relay.Counts()[0].Arrived
	for i := range count {
		if _, err := h.from.WriteTo(make([]byte, size), h.to.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		if i%50 == 49 { // no buffer overflows
			h.until(t, before+int64(i+1))
		}
	}
	h.until(t, before+int64(count))
}

func (h *hosts) until(t *testing.T, arrived int64) {
	t.Helper()
	settled := func(c Counts) bool {
		return c.Arrived >= arrived && c.Passed+c.NoRoom == c.Arrived-c.Lost+c.Copied-c.TooLong-c.Full && h.received.Load() == c.Passed
	}
	for deadline := time.Now().Add(20 * time.Second); !settled(h.relay.Counts()[0]); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d frames were sent; 20 s later %d have arrived, and the relay says %+v", arrived, h.received.Load(), h.relay.Counts())
		}
	}
}

// receive counts what B gets, for as long as its socket is open.
func (h *hosts) receive() {
	buffer := make([]byte, 2048)
	for {
		if _, _, err := h.to.ReadFrom(buffer); err != nil {
			return
		}
		h.received.Add(1)
	}
}

func TestEveryKnobIsCounted(t *testing.T) {
	router := netip.MustParseAddr("10.9.0.254")
	for name, tc := range map[string]struct {
		path Path
		size int
		is   func(c Counts) bool
	}{
		"nothing": {Path{}, 100, func(c Counts) bool { return c.Passed == 1000 }},
		"delay, jitter and ticks": {Path{Delay: 200 * time.Microsecond, Jitter: 100 * time.Microsecond, Tick: 100 * time.Microsecond}, 100,
			func(c Counts) bool { return c.Passed == 1000 && c.Overtaken == 0 }},
		"loss":       {Path{Loss: 0.5}, 100, func(c Counts) bool { return c.Lost > 400 && c.Lost < 600 && c.Passed == 1000-c.Lost }},
		"copies":     {Path{Copies: 0.5}, 100, func(c Counts) bool { return c.Copied > 400 && c.Copied < 600 && c.Passed == 1000+c.Copied }},
		"reordering": {Path{Reorder: 0.2, ReorderBy: 2 * time.Millisecond}, 100, func(c Counts) bool { return c.Overtaken > 50 && c.Passed == 1000 }},
		"bridge":     {Path{MTU: 1400}, 1400, func(c Counts) bool { return c.TooLong == 1000 && c.Passed == 0 && c.Told == 0 }},
		"short enough for a bridge": {Path{MTU: 1400}, 1372,
			func(c Counts) bool { return c.TooLong == 0 && c.Passed == 1000 }},
		"rate": {Path{Rate: 1e6, Buffer: 1 << 20}, 60, func(c Counts) bool { return c.Passed == 1000 && c.Full == 0 }},
		"rate with a small buffer": {Path{Rate: 100e6, Buffer: 1 << 17}, 1400,
			func(c Counts) bool { return c.Passed+c.Full == 1000 }},
		"router": {Path{MTU: 1400, Router: router}, 1300, func(c Counts) bool { return c.Told == 0 && c.Passed == 1000 }},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHosts(t, tc.path)
			h.send(t, 1000, tc.size)
			c := h.relay.Counts()[0]
			if !tc.is(c) || c.Arrived != 1000 || c.Missed != 0 || c.NoRoom != 0 {
				t.Errorf("%+v", c)
			}
		})
	}
}

// A sender's kernel that is told by the router how long a packet may be sends no longer one: it believes ICMP that quotes its own packet.
func TestTheSendersKernelBelievesTheRouter(t *testing.T) {
	h := newHosts(t, Path{MTU: 1400, Router: netip.MustParseAddr("10.9.0.254")})
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		_, err := h.from.WriteTo(make([]byte, 1472), h.to.LocalAddr())
		if err != nil && strings.Contains(err.Error(), "message too long") {
			break // a kernel that discovers path MTUs forbids to cut its packets, and cuts them itself from then on
		}
		if c := h.relay.Counts()[0]; err == nil && c.Passed > 0 {
			break // two fragments
		}
		if time.Now().After(deadline) {
			t.Fatalf("the kernel goes on sending packets of 1500 bytes: %v, %+v", err, h.relay.Counts())
		}
	}
	if c := h.relay.Counts()[0]; c.Told == 0 || c.TooLong != c.Told {
		t.Errorf("%+v, want every long packet answered", c)
	}
}

func TestAPathChangesWhileTheRelayRuns(t *testing.T) {
	h := newHosts(t, Path{})
	h.send(t, 100, 60)
	if err := h.relay.Set(Path{Loss: 1}); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); h.relay.Counts()[0].Lost == 0; {
		if time.Now().After(deadline) {
			t.Fatal("nothing is lost on a path that loses all")
		}
		h.send(t, 1, 60)
	}
	if err := h.relay.Set(Path{Loss: 2}); err == nil {
		t.Error("a path that loses two of one frame")
	}
}

func TestADeviceWithoutRoomLosesTheFrameAndNotTheRelay(t *testing.T) {
	h := newHosts(t, Path{})
	// A queue that is full with no frame in it.
	if err := h.middle.Run("tc", "qdisc", "add", "dev", "b", "root", "tbf", "rate", "8bit", "burst", "1", "limit", "1"); err != nil {
		t.Skip(err)
	}
	h.send(t, 3, 60)
	if c := h.relay.Counts()[0]; c.NoRoom != 3 || c.Passed != 0 {
		t.Errorf("%+v, want no room for all three", c)
	}
}

func TestARelayThatCannotBeginSaysWhy(t *testing.T) {
	h := newHosts(t, Path{})
	for want, device := range map[string]string{"relay between a and none: packet socket on none": "none"} {
		r, err := Start(h.middle, "a", device, Path{}, 1)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
		if err == nil {
			_ = r.Close()
		}
	}
	if _, err := Start(h.middle, "a", "b", Path{Loss: -1}, 1); err == nil {
		t.Error("a path that cannot be began")
	}
}
