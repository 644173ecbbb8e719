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

func TestWithoutACapabilityTheSidecarSaysWhatItNeeds(t *testing.T) {
	w := newVethWire(t, 1500)
	defer w.close()
	folder := shortTempDir(t)
	program := filepath.Join(folder, "machnetd")
	text, err := os.ReadFile(machnetd)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(program, text, 0o755), os.Chmod(folder, 0o777)); err != nil {
		t.Fatal(err)
	}
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
	err = cmd.Wait()
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
