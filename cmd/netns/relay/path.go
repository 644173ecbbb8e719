// Package relay is a network path in user space, in the middle of two hosts: it passes Ethernet frames between two devices and does to them
// what real paths do, which the kernel does only where it has the modules for it. `machnet bench paths` and the tests of tests/e2e lead
// through it. What it does when is decided without clock and sockets (lane); relay.go brings these.
package relay

import (
	"fmt"
	"net/netip"
	"time"
)

// Path is what a relay does to the frames of each direction, in this order: what is too long is dropped, a copy is made, the rate is kept, losses,
// delay with jitter, order, ticks. The zero Path passes everything on at once. The names and their meaning are those of the simulated links
// (rust/nic/src/sim/link.rs).
type Path struct {
	Delay     time.Duration // of every frame
	Jitter    time.Duration // up to this much more, drawn evenly for each frame; none overtakes another by it
	Tick      time.Duration // frames leave at multiples of this alone, all that are due by then together; 0: at any time
	Loss      float64       // share of the frames that are lost, 0 to 1
	Copies    float64       // share that comes twice
	Reorder   float64       // share that is held back by up to ReorderBy more, so that later frames overtake it
	ReorderBy time.Duration
	MTU       int        // bytes of the longest packet, without the Ethernet header, that passes; 0: any
	Router    netip.Addr // the IPv4 address that says so by ICMP to who sent a longer one; the zero Addr: nobody says anything
	Rate      int64      // bits per second, with what Ethernet adds to a frame on the wire; 0: without bound
	Burst     int        // bytes that may go at once after a pause, as a token bucket has it; 0: none, as on a line
	Buffer    int        // bytes that may wait for the rate; a frame beyond is dropped
}

// Check says what is wrong with a path, or nil.
func (p Path) Check() error {
	for name, d := range map[string]time.Duration{"delay": p.Delay, "jitter": p.Jitter, "tick": p.Tick, "reorder-by": p.ReorderBy} {
		if d < 0 || d > longestDelay {
			return fmt.Errorf("a path's %s of %v: 0 to %v", name, d, longestDelay)
		}
	}
	for name, share := range map[string]float64{"loss": p.Loss, "copies": p.Copies, "reorder": p.Reorder} {
		if !(share >= 0 && share <= 1) {
			return fmt.Errorf("a path's %s of %v: 0 to 1 of the frames", name, share)
		}
	}
	switch {
	case p.Reorder > 0 && p.ReorderBy == 0:
		return fmt.Errorf("a path that reorders %v of the frames needs to know by how much they are held back", p.Reorder)
	case p.MTU != 0 && p.MTU < leastMTU:
		return fmt.Errorf("a path's MTU of %d: at least %d, or 0 for any", p.MTU, leastMTU)
	case p.Router.IsValid() && (!p.Router.Is4() || p.MTU == 0):
		return fmt.Errorf("a path's router %v: an IPv4 address, and an MTU that it tells", p.Router)
	case p.Rate < 0 || p.Rate > 0 && p.Rate < leastRate:
		return fmt.Errorf("a path's rate of %d: at least %d bit/s, or 0 for none", p.Rate, leastRate)
	case p.Burst < 0 || p.Burst > 0 && p.Rate == 0:
		return fmt.Errorf("a path's burst of %d bytes: not negative, and with a rate", p.Burst)
	case p.Rate > 0 && p.Buffer < longestFrame:
		return fmt.Errorf("a path's buffer of %d bytes: at least %d, or a long frame would never pass", p.Buffer, longestFrame)
	}
	return nil
}

const (
	longestDelay = 10 * time.Second
	leastMTU     = 68 // RFC 791: what every link carries
	leastRate    = 1000
	longestFrame = 65536 + 14 // TCP's segments come in one piece where the sender's kernel does not cut them
)

// Counts is what a relay has done in one direction, in frames.
type Counts struct {
	Arrived   int64 // taken from the device
	Passed    int64 // given to the other one, copies included
	Bytes     int64 // of these
	Lost      int64
	Copied    int64
	Overtaken int64 // held back, and at least one that came later went first
	TooLong   int64
	Told      int64 // of these, by ICMP
	Full      int64 // no room in the buffer
	NoRoom    int64 // no room in the device that they should leave by
	Missed    int64 // came while the relay's socket was full
}
