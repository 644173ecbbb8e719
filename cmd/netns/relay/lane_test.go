package relay

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// left is a frame that has left a lane: its number, and when it was given and went, since the lane began.
type left struct {
	number    uint32
	took, now time.Duration
}

// run gives a lane count frames of size bytes, numbered, every so often, and polls it whenever next says so, in virtual time.
func run(t *testing.T, l *lane, count, size int, every time.Duration) []left {
	t.Helper()
	var all []left
	given := map[uint32]time.Duration{}
	leave := func(until time.Duration) {
		for {
			at, ok := l.next()
			if !ok || time.Duration(at) > until {
				return
			}
			if f := l.poll(at - 1); f != nil {
				t.Fatalf("frame %d leaves at %d, before the %d that next says", binary.BigEndian.Uint32(f.bytes), f.leave, at)
			}
			f := l.poll(at)
			if f == nil {
				t.Fatalf("next says %d, and nothing leaves then", at)
			}
			n := binary.BigEndian.Uint32(f.bytes)
			if len(f.bytes) != size {
				t.Fatalf("frame %d has %d bytes, %d were given", n, len(f.bytes), size)
			}
			all = append(all, left{n, time.Duration(at) - given[n], time.Duration(at)})
			l.done(f, true)
		}
	}
	frame := make([]byte, size)
	for i := range count {
		now := time.Duration(i) * every
		leave(now)
		binary.BigEndian.PutUint32(frame, uint32(i))
		given[uint32(i)] = now
		l.take(int64(now), frame)
	}
	leave(math.MaxInt64)
	return all
}

func numbers(all []left) []uint32 {
	var n []uint32
	for _, f := range all {
		n = append(n, f.number)
	}
	return n
}

func newTestLane(t *testing.T, p Path) *lane {
	t.Helper()
	if err := p.Check(); err != nil {
		t.Fatal(err)
	}
	return newLane(p, 7, 0)
}

func TestFramesLeaveInOrderAndWhenThePathSays(t *testing.T) {
	const us = time.Microsecond
	for name, tc := range map[string]struct {
		path        Path
		least, most time.Duration // of what a frame takes
	}{
		"nothing":           {Path{}, 0, 0},
		"delay":             {Path{Delay: 200 * us}, 200 * us, 200 * us},
		"ticks":             {Path{Tick: 100 * us}, 0, 100*us - 1},
		"ticks and a delay": {Path{Tick: 100 * us, Delay: 30 * us}, 30 * us, 130*us - 1},
		"jitter":            {Path{Delay: 100 * us, Jitter: 200 * us}, 100 * us, 300 * us},
	} {
		t.Run(name, func(t *testing.T) {
			all := run(t, newTestLane(t, tc.path), 2000, 60, 7*us)
			if len(all) != 2000 || !slices.IsSorted(numbers(all)) {
				t.Fatalf("%d of 2000 frames left, in order: %v", len(all), slices.IsSorted(numbers(all)))
			}
			least, most := all[0].took, all[0].took
			for _, f := range all {
				least, most = min(least, f.took), max(most, f.took)
				if tc.path.Tick > 0 && f.now%tc.path.Tick != 0 {
					t.Fatalf("frame %d left at %v, between two ticks", f.number, f.now)
				}
			}
			if least < tc.least || most > tc.most || most-least < (tc.most-tc.least)*7/10 { // jitter that keeps the order has frames wait for those before
				t.Errorf("frames took %v to %v, want %v to %v", least, most, tc.least, tc.most)
			}
		})
	}
}

func TestTheDiceTakeTheirShare(t *testing.T) {
	const count = 100_000
	for name, tc := range map[string]struct {
		path Path
		want float64 // of the frames that leave
	}{
		"loss":            {Path{Loss: 0.03}, 0.97},
		"copies":          {Path{Copies: 0.01}, 1.01},
		"loss and copies": {Path{Loss: 0.1, Copies: 0.2}, 1.2 * 0.9},
		"all is lost":     {Path{Loss: 1}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			l := newTestLane(t, tc.path)
			all := run(t, l, count, 60, time.Microsecond)
			if share := float64(len(all)) / count; math.Abs(share-tc.want) > 0.006 {
				t.Errorf("%.4f of the frames left, want %.4f", share, tc.want)
			}
			c := l.counts()
			if c.Arrived != count || c.Passed != int64(len(all)) || c.Passed != c.Arrived-c.Lost+c.Copied || c.Bytes != 60*c.Passed {
				t.Errorf("%d frames left, and the counts do not add up: %+v", len(all), c)
			}
			if !slices.IsSorted(numbers(all)) {
				t.Error("frames overtook each other though none is held back")
			}
		})
	}
}

func TestHeldFramesAreOvertakenAndNoOthersAre(t *testing.T) {
	const count = 100_000
	l := newTestLane(t, Path{Delay: 100 * time.Microsecond, Reorder: 0.02, ReorderBy: 50 * time.Microsecond})
	all := run(t, l, count, 60, time.Microsecond)
	overtaken, newest := int64(0), uint32(0)
	for _, f := range all {
		if f.number < newest {
			overtaken++
			if f.took > 150*time.Microsecond {
				t.Fatalf("a frame was held until %v, beyond delay and ReorderBy", f.took)
			}
		} else if newest = f.number; f.took < 100*time.Microsecond {
			t.Fatalf("a frame took %v, less than the delay", f.took)
		}
	}
	if len(all) != count || overtaken < count*17/1000 || overtaken > count*23/1000 {
		t.Errorf("%d of %d frames left and %d were overtaken, want 2 %%", len(all), count, overtaken)
	}
	if c := l.counts(); c.Overtaken != overtaken {
		t.Errorf("%d counted as overtaken, %d were", c.Overtaken, overtaken)
	}
}

func TestARateHasItsBufferAndItsBurst(t *testing.T) {
	const size = 1476 // with what Ethernet adds, 12 000 bits: 12 us at 1 Gb/s
	line := Path{Rate: 1e9, Buffer: 100_000}
	bucket := line
	bucket.Burst = 15_000 // ten frames
	for name, tc := range map[string]struct {
		path        Path
		first, last time.Duration
		passed      int
	}{
		// What waits, with the frame that comes, has 100 000 bytes at most: some 67 frames of 1 476, and each that goes makes room for one more.
		"line":   {line, 12 * time.Microsecond, 12 * time.Microsecond, 67},
		"bucket": {bucket, 0, 0, 77},
	} {
		t.Run(name, func(t *testing.T) {
			l := newTestLane(t, tc.path)
			l.take(0, make([]byte, size)) // long ago: the bucket is full again
			if f := l.poll(int64(time.Second)); f == nil {
				t.Fatal("a frame is stuck")
			}
			began := 2 * time.Second
			frame := make([]byte, size)
			for range 200 {
				l.take(int64(began), frame)
			}
			var times []time.Duration
			for {
				at, ok := l.next()
				if !ok {
					break
				}
				l.done(l.poll(at), true)
				times = append(times, time.Duration(at)-began)
			}
			if len(times) < tc.passed-1 || len(times) > tc.passed+1 || l.counts().Full != int64(200-len(times)) {
				t.Errorf("%d frames of 200 passed, want %d; %+v", len(times), tc.passed, l.counts())
			}
			if times[0] != tc.first {
				t.Errorf("the first left after %v, want %v", times[0], tc.first)
			}
			for i := len(times) - 40; i < len(times); i++ {
				if gap := times[i] - times[i-1]; gap != 12*time.Microsecond {
					t.Fatalf("frame %d left %v after the one before, want 12us", i, gap)
				}
			}
			if tc.path.Burst > 0 && (times[8] != 0 || times[12] == 0) {
				t.Errorf("the first ten frames go at once and no more: the ninth after %v, the thirteenth after %v", times[8], times[12])
			}
		})
	}
}

func TestTheSameSeedMakesTheSamePath(t *testing.T) {
	p := Path{Delay: time.Millisecond, Jitter: time.Millisecond, Loss: 0.1, Copies: 0.1, Reorder: 0.1, ReorderBy: time.Millisecond}
	trace := func(seed, direction uint64) string {
		return fmt.Sprint(run(t, newLane(p, seed, direction), 1000, 60, 10*time.Microsecond))
	}
	first, again := trace(1, 0), trace(1, 0)
	if first != again {
		t.Error("two runs of one seed differ")
	}
	if first == trace(2, 0) || first == trace(1, 1) {
		t.Error("the dice of two seeds, or of two directions, fall alike")
	}
}

func TestALongPacketIsDroppedAndItsSenderTold(t *testing.T) {
	router := netip.MustParseAddr("10.0.0.254")
	for name, tc := range map[string]struct {
		mtu    int
		router netip.Addr
		change func(frame []byte)
		told   bool
	}{
		"just fits":           {1500, router, nil, false},
		"bridge":              {1499, netip.Addr{}, nil, false},
		"router":              {1400, router, nil, true},
		"no IP":               {1400, router, func(f []byte) { f[12] = 0x86 }, false},
		"may be cut":          {1400, router, func(f []byte) { f[20] = 0 }, false},
		"ICMP of another one": {1400, router, func(f []byte) { f[23] = protocolICMP }, false},
	} {
		t.Run(name, func(t *testing.T) {
			l := newTestLane(t, Path{MTU: tc.mtu, Router: tc.router})
			frame := packet(1500)
			if tc.change != nil {
				tc.change(frame)
			}
			answer := l.take(0, frame)
			want := Counts{Arrived: 1, TooLong: 1}
			if tc.mtu == 1500 {
				want.TooLong = 0
			}
			if tc.told {
				want.Told = 1
			}
			if f := l.poll(0); (f != nil) != (tc.mtu == 1500) {
				t.Errorf("a packet of 1500 bytes passed: %v", f != nil)
			}
			if got := l.counts(); got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
			if (answer != nil) != tc.told {
				t.Fatalf("told by % x", answer)
			}
			if answer == nil {
				return
			}
			ip, icmp := answer[14:34], answer[34:]
			if string(answer[:6]) != string(frame[6:12]) || string(ip[16:20]) != string(frame[26:30]) || string(ip[12:16]) != "\x0a\x00\x00\xfe" {
				t.Errorf("the answer does not go from the router to the sender: % x", answer)
			}
			if checksum(ip) != 0 || checksum(icmp) != 0 || int(binary.BigEndian.Uint16(ip[2:])) != len(answer)-14 || len(answer) != 14+576 {
				t.Errorf("checksums or length are wrong: % x", answer)
			}
			if icmp[0] != 3 || icmp[1] != 4 || binary.BigEndian.Uint16(icmp[6:]) != 1400 || string(icmp[8:]) != string(frame[14:14+548]) {
				t.Errorf("not \"fragmentation needed\" with the MTU and the packet: % x", icmp)
			}
		})
	}
}

// packet is a frame with a UDP packet of so many bytes.
func packet(size int) []byte {
	frame := make([]byte, 14+size)
	copy(frame, "\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01\x08\x00")
	ip := frame[14:]
	ip[0], ip[6], ip[8], ip[9] = 0x45, dontFragment, 64, 17
	binary.BigEndian.PutUint16(ip[2:], uint16(size))
	copy(ip[12:20], "\x0a\x00\x00\x01\x0a\x00\x00\x02")
	return frame
}

func TestAPathThatCannotBeIsRefused(t *testing.T) {
	for want, p := range map[string]Path{
		"delay of -1ns":               {Delay: -1},
		"jitter of 1m0s":              {Jitter: time.Minute},
		"loss of 1.5":                 {Loss: 1.5},
		"copies of NaN":               {Copies: math.NaN()},
		"by how much":                 {Reorder: 0.1},
		"MTU of 67":                   {MTU: 67},
		"router 10.0.0.1: an IPv4":    {Router: netip.MustParseAddr("10.0.0.1")},
		"router ::1: an IPv4":         {Router: netip.MustParseAddr("::1"), MTU: 1400},
		"rate of 5":                   {Rate: 5},
		"burst of 10 bytes":           {Burst: 10},
		"buffer of 100 bytes: at lea": {Rate: 1e9, Buffer: 100},
	} {
		if err := p.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", p, err, want)
		}
	}
}
