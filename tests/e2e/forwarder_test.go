package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/machnet/machnet/cmd/netns"
)

// faults are what a link does to frames, as shares of them, 0 to 1. Each frame has one fault at most.
type faults struct {
	drop      float64
	duplicate float64 // passed on at once, and once more later
	hold      float64 // passed on later, after frames that came behind it
}

// Held frames go when so many others have passed, or after so long: with little traffic that is a mere delay.
const (
	mostOvertaking = 16
	longestHold    = 3 * time.Millisecond
)

// forwarder passes frames between two hosts, with faults, in a namespace of its own. The kernel could only drop them.
type forwarder struct {
	lanes   [2]*lane
	ends    [2]*packetSocket
	running sync.WaitGroup
}

// lane is one direction.
type lane struct {
	from, to *packetSocket
	faults   faults
	dice     *rand.Rand
	held     []heldFrame
	passed   int64 // frames, for heldFrame.behind

	dropped, duplicated, overtaken, arrived atomic.Int64
	noRoom                                  atomic.Int64 // at the device that they should leave by
}

// heldFrame goes when the lane has passed so many frames, or when it is due.
type heldFrame struct {
	bytes  []byte
	behind int64
	since  int64 // what the lane had passed when it was held
	due    time.Time
	copy   bool // of one that has been passed on
}

// lossyWire joins two hosts by veth pairs to a namespace in the middle, where a forwarder makes the faults.
func lossyWire(t *testing.T, f faults, seed uint64) (*wire, *forwarder) {
	t.Helper()
	needNamespaces(t)
	t.Logf("faults %+v, seed %d", f, seed)
	var n [3]*netns.Namespace
	var err error
	for i := range n {
		if err == nil {
			n[i], err = netns.New()
		}
	}
	a, b, middle := n[0], n[1], n[2]
	fw := new(forwarder)
	closeAll := func() {
		for _, s := range fw.ends {
			if s != nil {
				_ = s.file.Close()
			}
		}
		fw.running.Wait()
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
		err = middle.Do(func() (err error) {
			if fw.ends[0], err = openPacketSocket("a"); err == nil {
				fw.ends[1], err = openPacketSocket("b")
			}
			return err
		})
	}
	if err != nil {
		closeAll()
		t.Fatal(err)
	}
	for i := range fw.lanes {
		l := &lane{from: fw.ends[i], to: fw.ends[1-i], faults: f, dice: rand.New(rand.NewPCG(seed, uint64(i)))}
		fw.lanes[i] = l
		fw.running.Go(func() {
			if err := l.run(); !errors.Is(err, os.ErrClosed) {
				t.Errorf("the forwarder ended: %v", err)
			}
		})
	}
	return &wire{a: afPacket(a), b: afPacket(b), middle: middle, close: closeAll}, fw
}

func (l *lane) run() error {
	frame := make([]byte, 4096)
	for {
		var due time.Time
		if len(l.held) > 0 {
			due = l.held[0].due
		}
		if err := l.from.file.SetReadDeadline(due); err != nil {
			return err
		}
		n, err := l.from.file.Read(frame)
		if err == nil {
			l.arrived.Add(1)
			err = l.take(frame[:n])
		} else if errors.Is(err, os.ErrDeadlineExceeded) {
			err = nil
		}
		if err == nil {
			err = l.release(time.Now())
		}
		if err != nil {
			return err
		}
	}
}

// take does to a frame what the dice say.
func (l *lane) take(frame []byte) error {
	roll := l.dice.Float64()
	if roll < l.faults.drop {
		l.dropped.Add(1)
		return nil
	}
	roll -= l.faults.drop
	if roll < l.faults.duplicate {
		l.duplicated.Add(1)
		l.hold(frame, true)
		return l.pass(frame)
	}
	roll -= l.faults.duplicate
	if roll < l.faults.hold {
		l.hold(frame, false)
		return nil
	}
	return l.pass(frame)
}

func (l *lane) hold(frame []byte, isCopy bool) {
	l.held = append(l.held, heldFrame{
		bytes: append([]byte(nil), frame...), behind: l.passed + 1 + l.dice.Int64N(mostOvertaking), since: l.passed,
		due: time.Now().Add(longestHold), copy: isCopy,
	})
}

func (l *lane) pass(frame []byte) error {
	l.passed++
	err := l.to.send(frame)
	if errors.Is(err, unix.ENOBUFS) { // a queue of the kernel is full: one more frame is lost
		l.noRoom.Add(1)
		return nil
	}
	return err
}

// release passes on the held frames whose time has come.
func (l *lane) release(now time.Time) error {
	keep := l.held[:0]
	for _, h := range l.held {
		if l.passed < h.behind && now.Before(h.due) {
			keep = append(keep, h)
			continue
		}
		if l.passed > h.since && !h.copy {
			l.overtaken.Add(1)
		}
		if err := l.pass(h.bytes); err != nil {
			return err
		}
	}
	l.held = keep
	return nil
}

func TestALaneGoesOnWhereADeviceHasNoRoom(t *testing.T) {
	onAnyLink(t)
	needNamespaces(t)
	w, err := vethWire(1500)
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	// A queue that is full with no frame in it.
	if err := w.a.namespace.Run("tc", "qdisc", "add", "dev", device, "root", "tbf", "rate", "8bit", "burst", "1", "limit", "1"); err != nil {
		t.Skip(err)
	}
	l := lane{to: w.a.packetSocket(t)}
	for range 3 {
		if err := l.pass(make([]byte, 60)); err != nil {
			t.Fatal(err)
		}
	}
	if got := l.noRoom.Load(); got != 3 {
		t.Errorf("%d of 3 frames found no room, want all", got)
	}
}

// packetSocket sends and receives whole frames on one device.
type packetSocket struct {
	file *os.File
}

// openPacketSocket opens one on a device of the calling thread's namespace.
func openPacketSocket(device string) (*packetSocket, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open a packet socket: %w", err)
	}
	file := os.NewFile(uintptr(fd), "packet socket on "+device)
	index, err := deviceIndex(device)
	if err == nil {
		// Room for whatever a sender has in flight: what is lost is lost by the dice.
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20)
	}
	if err == nil {
		const everyProtocol = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8 // in network order
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: everyProtocol & 0xffff, Ifindex: index})
	}
	if err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("packet socket on %s: %w", device, err)
	}
	return &packetSocket{file}, nil
}

// deviceIndex is the number of a device of the calling thread's namespace.
func deviceIndex(device string) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq(device)
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, request); err != nil {
		return 0, err
	}
	return int(request.Uint32()), nil
}

func (s *packetSocket) send(frame []byte) error {
	_, err := s.file.Write(frame)
	return err
}

// lost is how many frames found no room in the socket.
func (s *packetSocket) lost(t *testing.T) int {
	t.Helper()
	raw, err := s.file.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var stats *unix.TpacketStats
	if err := errors.Join(raw.Control(func(fd uintptr) {
		stats, err = unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS)
	}), err); err != nil {
		t.Fatal(err)
	}
	return int(stats.Drops)
}
