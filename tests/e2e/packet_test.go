package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/machnet/machnet/cmd/netns"
	"github.com/machnet/machnet/go/machnet"
)

// What is peculiar to af_packet, the kernel's packet sockets, between two namespaces.

// newVethWire is a veth link, whatever the link of this run; the caller closes it.
func newVethWire(t *testing.T, mtu int) *wire {
	t.Helper()
	onAnyLink(t)
	needNamespaces(t)
	w, err := vethWire(mtu)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// newVethPair is a pair on a veth link, whatever the link of this run.
func newVethPair(t *testing.T, mtu int, flags ...string) *pair {
	t.Helper()
	return newPairOn(t, shortTempDir(t), newVethWire(t, mtu), flags...)
}

// on opens a packet socket at one end, beside the sidecar's.
func (e wireEnd) packetSocket(t *testing.T) *packetSocket {
	t.Helper()
	var s *packetSocket
	if err := e.namespace.Do(func() (err error) { s, err = openPacketSocket(device); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.file.Close() })
	return s
}

// address is the MAC address of the device at this end.
func (e wireEnd) address(t *testing.T) net.HardwareAddr {
	t.Helper()
	var found *net.Interface
	if err := e.namespace.Do(func() (err error) { found, err = net.InterfaceByName(device); return err }); err != nil {
		t.Fatal(err)
	}
	return found.HardwareAddr
}

func TestJumboFramesCarryMessages(t *testing.T) {
	const overhead = 76 // IPv4, UDP and Machnet header: wire::OVERHEAD
	const mtu, unit = 9001, 9001 - overhead
	p := newVethPair(t, mtu, "--mtu", "9001")
	a, b := connect(t, p.a.attach(t), p.b.attach(t))
	sizes := []int{unit - 1, unit, unit + 1, 1 << 20}
	go func() {
		for _, n := range sizes {
			if err := a.Send(pattern(n)); err != nil {
				t.Error(err)
			}
		}
	}()
	_ = b.SetReadDeadline(time.Now().Add(patience))
	for _, n := range sizes {
		m, err := b.Recv(t.Context())
		if err != nil || !bytes.Equal(m.Bytes(), pattern(n)) {
			t.Fatalf("a message of %d bytes: %d bytes, %v", n, len(m.Bytes()), err)
		}
		m.Release()
	}
	// One packet, one, two, and 118: with small ones it would be some 750.
	if sent := p.a.counters(t)["tx_units"]; sent != 1+1+2+118 {
		t.Errorf("%d units sent, want 122 of up to %d bytes", sent, unit)
	}
}

func TestADeviceWithASmallerMTUIsRefused(t *testing.T) {
	w := newVethWire(t, 1400)
	defer w.close()
	s, err := startSidecar(shortTempDir(t), "10.0.0.1", w.a)
	if err == nil {
		s.stop()
		t.Fatal("a sidecar with an MTU of 1500 started on a device of 1400")
	}
	for _, want := range []string{device, "1400 bytes", "MTU of 1500", "ip link set"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %q", want, err)
		}
	}
}

// machnetdForAnybody is a copy of machnetd that any user may run, in a folder where any user may make a socket.
func machnetdForAnybody(t *testing.T) (folder, program string) {
	t.Helper()
	folder = shortTempDir(t)
	program = filepath.Join(folder, "machnetd")
	text, err := os.ReadFile(machnetd)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(program, text, 0o755), os.Chmod(folder, 0o777)); err != nil {
		t.Fatal(err)
	}
	return folder, program
}

func TestWithoutACapabilityTheSidecarSaysWhatItNeeds(t *testing.T) {
	w := newVethWire(t, 1500)
	defer w.close()
	folder, program := machnetdForAnybody(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, append([]string{"--ip", "10.0.0.1/24", "--socket", filepath.Join(folder, "s.sock")}, w.a.device...)...)
	cmd.Env = append(os.Environ(), "RUNTIME_DIRECTORY="+folder)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}, AmbientCaps: []uintptr{unix.CAP_NET_RAW}}
	out := new(lockedBuffer)
	cmd.Stdout, cmd.Stderr = out, out
	if err := w.a.namespace.Do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 3 || !strings.Contains(out.String(), "this process lacks CAP_NET_ADMIN; ") ||
		strings.Count(out.String(), "\n") != 1 {
		t.Errorf("machnetd with CAP_NET_RAW alone: %v, %q; want exit code 3 and what is missing", err, out)
	}
}

func TestADeviceThatIsDownIsTold(t *testing.T) {
	w := newVethWire(t, 1500)
	defer w.close()
	if err := w.a.namespace.Run("ip", "link", "set", "dev", device, "down"); err != nil {
		t.Fatal(err)
	}
	s, err := startSidecar(shortTempDir(t), "10.0.0.1", w.a)
	if err != nil {
		t.Fatal(err)
	}
	defer s.stop()
	want := device + " is down: nothing can be sent or received"
	for deadline := time.Now().Add(patience); !strings.Contains(s.out.String(), want); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no %q in %q", want, s.out)
		}
	}
}

func TestTwoEnginesShareADevice(t *testing.T) {
	p := newVethPair(t, 1500, "--engines", "2")
	// The kernel spreads flows over the queues of a device by a hash that nobody knows, so each engine has what belongs to its applications
	// only because the ends look for UDP ports that lead there.
	const flows = 32
	var from [2]*machnet.Stack
	var to [2]*machnet.Listener
	for engine := range 2 {
		from[engine] = p.a.attachTo(t, engine)
		to[engine] = listen(t, p.b.attachTo(t, engine))
		go echoEach(to[engine])
	}
	var all sync.WaitGroup
	for i := range flows {
		all.Go(func() {
			c := dial(t, from[i%2], to[i/2%2].Addr())
			_ = c.SetDeadline(time.Now().Add(patience))
			for round := range 20 {
				sent := bytes.Repeat([]byte{byte(i), byte(round)}, 2000)
				got := make([]byte, len(sent))
				if _, err := c.Write(sent); err != nil {
					t.Error(err)
					return
				}
				if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, sent) {
					t.Errorf("flow %d, round %d: an echo of other bytes, or %v", i, round, err)
					return
				}
			}
		})
	}
	all.Wait()
	for _, s := range []*sidecar{p.a, p.b} {
		c := s.countersOf(t)
		for _, engine := range []string{"engine 0", "engine 1"} {
			if got := c[engine]["rx_frames"]; got < 100 {
				t.Errorf("%s of %s has received %d frames, want its share of thousands: %v", engine, s.ip, got, c)
			}
		}
	}
}

func TestFramesThatFindNoSlotAreCounted(t *testing.T) {
	p := newVethPair(t, 1500)
	s := p.wire.a.packetSocket(t)
	if err := p.b.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	const sent, slots = 1000, 256
	for range sent {
		if err := s.send(make([]byte, 60)); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.b.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	// The first may have been taken before the process stopped.
	c := p.b.counters(t)
	if missed := c["nic_rx_missed"]; missed < sent-2*slots || missed > sent-slots {
		t.Errorf("%d frames missed of %d that met %d slots: %v", missed, sent, slots, c)
	}
}

// A device that takes no more frames, here a queueing discipline that lets one in nine seconds pass, holds up what goes there and
// nothing else: what stays within the host goes on, and of what waits nothing is lost.
func TestADeviceThatTakesNoFramesHoldsUpNothingElse(t *testing.T) {
	w := newVethWire(t, 9001)
	w.a.device[1] += ",framecnt=16,qdisc_bypass=0"
	p := newPairOn(t, shortTempDir(t), w, "--mtu", "9001", "--dead-peer", "600000")
	limit := func(rate, burst string) {
		t.Helper()
		err := w.a.namespace.Run("tc", "qdisc", "replace", "dev", device, "root", "handle", "1:", "tbf", "rate", rate, "burst", burst, "limit", "16mb")
		if err != nil {
			t.Fatal(err)
		}
	}
	outAndIn := func() (out, in int) {
		there := p.b.counters(t)
		return p.a.counters(t)["nic_tx_frames"], there["nic_rx_frames"] + there["nic_rx_missed"]
	}
	// A host that starts announces itself, and the other one was not there to hear it.
	out, in := outAndIn()
	for again := -1; again != out-in; out, in = outAndIn() {
		again = out - in
		time.Sleep(100 * time.Millisecond)
	}
	unheard := out - in
	if unheard < 0 || unheard > 1 {
		t.Fatalf("%d frames sent, %d came or were missed before there was anything to send", out, in)
	}
	from, to := p.a.attach(t), p.b.attach(t)
	inside, echo := connect(t, p.a.attach(t), from)
	go func() { _, _ = io.Copy(echo, echo) }()
	// Each alone may have a packet under way before the other host has answered, all together more than the ring holds.
	const flows, sent = 48, 64 << 10
	var ends [flows][2]*machnet.Conn
	for i := range ends {
		ends[i][0], ends[i][1] = connect(t, from, to)
	}

	limit("8kbit", "10000")
	var senders sync.WaitGroup
	for _, c := range ends {
		senders.Go(func() {
			if _, err := c[0].Write(pattern(sent)); err != nil {
				t.Error(err)
			}
		})
	}
	for deadline := time.Now().Add(2 * patience); p.a.counters(t)["tx_full"] == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("a ring of 16 slots that nothing leaves is never full: %v", p.a.counters(t))
		}
	}
	// An engine that waited for a free slot would make a round in nine seconds.
	_ = inside.SetDeadline(time.Now().Add(3 * patience))
	for range 200 {
		pingPong(t, inside, pattern(64))
	}

	limit("10gbit", "1mb")
	for i, c := range ends {
		got := make([]byte, sent)
		_ = c[1].SetReadDeadline(time.Now().Add(3 * patience))
		if _, err := io.ReadFull(c[1], got); err != nil || !bytes.Equal(got, pattern(sent)) {
			t.Fatalf("flow %d, once the device takes frames again: other bytes, or %v", i, err)
		}
	}
	senders.Wait()
	// What the engine calls sent left the device.
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		out, in := outAndIn()
		if out == in+unheard {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d frames sent, %d came or were missed: %v", out, in+unheard, p.b.counters(t))
		}
	}
}

// Frames of a larger MTU than the sidecar's, which come when somebody raises the device's: the kernel cuts them to the slot. They are
// refused and counted, and disturb nobody.
func TestADeviceWhoseMTUIsRaisedUnderLoadDeliversNothingTooLarge(t *testing.T) {
	p := newVethPair(t, 1500)
	a, b := connect(t, p.a.attach(t), p.b.attach(t))
	go func() { _, _ = io.Copy(b, b) }()
	_ = a.SetDeadline(time.Now().Add(time.Minute))
	for _, end := range []wireEnd{p.wire.a, p.wire.b} {
		if err := end.namespace.Run("ip", "link", "set", "dev", device, "mtu", "9000"); err != nil {
			t.Fatal(err)
		}
	}
	// Whole packets of IPv4 for the sidecar, of 9000 bytes: with a right checksum, so that their length alone speaks against them.
	from, large := p.wire.a.packetSocket(t), make([]byte, 14+9000)
	address := p.wire.b.address(t)
	copy(large, address)
	copy(large[6:], []byte{2, 0, 0, 0, 0, 9, 8, 0, 0x45, 0, 9000 >> 8, 9000 & 0xff, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2})
	binary.BigEndian.PutUint16(large[24:], internetChecksum(large[14:34]))
	const injected = 500
	var injector sync.WaitGroup
	var done atomic.Bool
	injector.Go(func() {
		defer done.Store(true)
		for range injected {
			if err := from.send(large); err != nil {
				t.Error(err)
				return
			}
			time.Sleep(100 * time.Microsecond)
		}
	})
	for i := byte(0); !done.Load(); i++ {
		sent := bytes.Repeat([]byte{i}, 4000)
		got := bytes.Clone(sent)
		if pingPong(t, a, got); !bytes.Equal(got, sent) {
			t.Fatal("an echo differs from what was sent")
		}
	}
	injector.Wait()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		c := p.b.counters(t)
		if refused := c["rx_bad_ip"]; refused+c["nic_rx_missed"] >= injected && refused > injected/2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d frames above the MTU: %v", injected, c)
		}
	}
}

func TestAnIdleEngineSleepsUntilAFrameComes(t *testing.T) {
	anIdleEngineSleeps(t, newVethPair(t, 1500, "--idle", "adaptive", "--keepalive", "0"))
}

func anIdleEngineSleeps(t *testing.T, p *pair) {
	t.Helper()
	a, b := connect(t, p.a.attach(t), p.b.attach(t))
	go func() { _, _ = io.Copy(b, b) }()
	_ = a.SetDeadline(time.Now().Add(patience))
	for range 3 {
		pingPong(t, a, make([]byte, 64))
		time.Sleep(100 * time.Millisecond)
		before := p.b.counters(t)
		time.Sleep(500 * time.Millisecond)
		after := p.b.counters(t)
		// Naps end after 10 ms at the latest, so that an engine that must nap makes 50 rounds.
		if rounds := after["rounds"] - before["rounds"]; rounds > 20 {
			t.Errorf("an idle engine made %d rounds in half a second, want almost none", rounds)
		}
	}
}

// The kernel, as a host that knows nothing of Machnet, finds the sidecar by ARP and pings it.
func TestTheKernelFindsAndPingsASidecar(t *testing.T) {
	w := newVethWire(t, 1500)
	s, err := startSidecar(shortTempDir(t), "10.0.0.1", w.a)
	if err != nil {
		w.close()
		t.Fatal(err)
	}
	t.Cleanup(func() { s.stop(); w.close() })
	if err := (netns.End{Namespace: w.b.namespace, Device: device}).Address("10.0.0.2/24"); err != nil {
		t.Fatal(err)
	}
	pingFromKernel(t, w.b.namespace, "10.0.0.2", s.ip)
	if c := s.counters(t); c["arp_replies"] == 0 {
		t.Errorf("no ARP request was answered: %v", c)
	}
}

// pingFromKernel has the kernel of a namespace, by its own address, ping another.
func pingFromKernel(t *testing.T, n *netns.Namespace, from, to string) {
	t.Helper()
	var socket net.PacketConn
	if err := n.Do(func() (err error) { socket, err = net.ListenPacket("ip4:icmp", from); return err }); err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	_ = socket.SetDeadline(time.Now().Add(patience))
	for _, size := range []int{0, 56, 1472} {
		request := append([]byte{8, 0, 0, 0, 7, 7, 0, byte(size)}, pattern(size)...)
		binary.BigEndian.PutUint16(request[2:], internetChecksum(request))
		if _, err := socket.WriteTo(request, &net.IPAddr{IP: net.ParseIP(to)}); err != nil {
			t.Fatal(err)
		}
		reply := make([]byte, 2048)
		n, _, err := socket.ReadFrom(reply)
		if err != nil {
			t.Fatalf("a ping of %d bytes: %v", size, err)
		}
		if reply[0] != 0 || internetChecksum(reply[:n]) != 0 || !bytes.Equal(reply[4:n], request[4:]) {
			t.Errorf("a ping of %d bytes is answered by % x", size, reply[:min(n, 16)])
		}
	}
}

// internetChecksum is RFC 1071's; over bytes that hold their checksum it is zero.
func internetChecksum(p []byte) uint16 {
	var sum uint32
	for i, b := range p {
		sum += uint32(b) << (8 * (1 - i%2))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

func TestDamagedAndForeignFramesDisturbNoConnection(t *testing.T) {
	p := newVethPair(t, 1500)
	a, b := connect(t, p.a.attach(t), p.b.attach(t))
	go func() { _, _ = io.Copy(b, b) }()
	_ = a.SetDeadline(time.Now().Add(time.Minute))
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var stop atomic.Bool
	var injector sync.WaitGroup
	from, seen := p.wire.a.packetSocket(t), p.wire.b.packetSocket(t)
	injected := 0
	injector.Go(func() {
		r := rand.New(rand.NewPCG(seed, 1))
		frame := make([]byte, 2048)
		for !stop.Load() {
			_ = seen.file.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			n, err := seen.file.Read(frame) // one from A, whole
			if err != nil || n < 60 || r.IntN(4) > 0 {
				continue
			}
			switch r.IntN(3) {
			case 0: // cut short
				n = 14 + r.IntN(n-14)
			case 1: // a byte is another
				frame[14+r.IntN(n-14)] ^= byte(1 + r.IntN(255))
			case 2: // nonsense behind an Ethernet header
				for i := 14; i < n; i++ {
					frame[i] = byte(r.Uint32())
				}
			}
			if err := from.send(frame[:n]); err != nil {
				t.Error(err)
				return
			}
			injected++
		}
	})
	r := rand.New(rand.NewPCG(seed, 2))
	for range 1000 {
		sent := pattern(size(r, 64, 8192))
		sent[0] = byte(r.Uint32())
		got := bytes.Clone(sent)
		if pingPong(t, a, got); !bytes.Equal(got, sent) {
			t.Fatal("an echo differs from what was sent")
		}
	}
	stop.Store(true)
	injector.Wait()
	bad := 0
	c := p.b.counters(t)
	for name, n := range c {
		if name == "rx_short" || strings.HasPrefix(name, "rx_bad_") || strings.HasPrefix(name, "rx_other_") {
			bad += n
		}
	}
	// Some are taken for what they are not, or do no harm, such as those in which the sender's address is another.
	if injected < 200 || bad < injected*8/10 || bad > injected {
		t.Errorf("%d frames injected, %d refused, want most of them: %v", injected, bad, c)
	}
}
