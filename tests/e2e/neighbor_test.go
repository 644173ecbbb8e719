package e2e

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/machnet/machnet/cmd/netns"
	"github.com/machnet/machnet/go/machnet"
)

// hostNames are the hosts' devices in the namespace in the middle.
var hostNames = []string{"a", "b", "c"}

// around makes a namespace for each host, joined by veth pairs to one in the middle, which is returned first.
func around(t *testing.T, hosts int) (*netns.Namespace, []wireEnd) {
	t.Helper()
	needNamespaces(t)
	space := func() *netns.Namespace {
		n, err := netns.New()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = n.Close() })
		return n
	}
	middle := space()
	var ends []wireEnd
	for i := range hosts {
		n := space()
		if err := netns.Veth(netns.End{Namespace: n, Device: device}, netns.End{Namespace: middle, Device: hostNames[i]}, 1500); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, afPacket(n))
	}
	return middle, ends
}

// runs runs commands in a namespace.
func runs(t *testing.T, n *netns.Namespace, commands ...[]string) {
	t.Helper()
	for _, c := range commands {
		if err := n.Run(c[0], c[1:]...); err != nil {
			t.Fatal(err)
		}
	}
}

// bridged joins hosts by a bridge of the kernel.
func bridged(t *testing.T, hosts int) (*netns.Namespace, []wireEnd) {
	t.Helper()
	middle, ends := around(t, hosts)
	runs(t, middle, []string{"ip", "link", "add", "name", "switch", "type", "bridge"}, []string{"ip", "link", "set", "dev", "switch", "up"})
	for i := range hosts {
		runs(t, middle, []string{"ip", "link", "set", "dev", hostNames[i], "master", "switch"})
	}
	return middle, ends
}

// host starts a sidecar that is ended with the test.
func host(t *testing.T, folder, ip string, end wireEnd, flags ...string) *sidecar {
	t.Helper()
	s, err := startSidecar(folder, ip, end, flags...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.stop()
		if t.Failed() {
			t.Logf("machnetd %s printed: %s\n%v", ip, s.out, flags)
		}
	})
	return s
}

// reach dials port 1 of a host until that refuses, and returns how long it took. An unreachable one is dialled for up to half a second at a time.
func reach(t *testing.T, from *machnet.Stack, ip string) time.Duration {
	t.Helper()
	begun := time.Now()
	until(t, ip+" refuses", func() error {
		_, err := (&machnet.Dialer{Stack: from, Timeout: 500 * time.Millisecond}).Dial("machnet", ip+":1")
		if errors.Is(err, syscall.ECONNREFUSED) {
			return nil
		}
		return fmt.Errorf("dial %s: %v", ip, err)
	})
	took := time.Since(begun)
	t.Logf("%s is reached after %v", ip, took)
	return took
}

// recovery is far beyond what is promised, 1 s, and far below the 60 s after which an entry is looked at whatever happens.
const recovery = 10 * time.Second

func TestAPeerThatIsBackWithAnotherMACIsReachedSoon(t *testing.T) {
	onAnyLink(t)
	middle, ends := bridged(t, 2)
	folder := shortTempDir(t)
	a := host(t, folder, "10.0.0.1", ends[0]).attach(t)
	old := host(t, folder, "10.0.0.2", ends[1], "--set-mac", "02:00:00:00:00:b1")
	reach(t, a, "10.0.0.2")
	old.kill()
	// The switch delivers nothing to the old one.
	runs(t, middle, []string{"nft", "add table netdev t"},
		[]string{"nft", `add chain netdev t c { type filter hook ingress device "a" priority 0; }`},
		[]string{"nft", "add rule netdev t c ether daddr 02:00:00:00:00:b1 drop"})
	host(t, folder, "10.0.0.2", ends[1], "--set-mac", "02:00:00:00:00:b2")
	if took := reach(t, a, "10.0.0.2"); took > recovery {
		t.Fatalf("it took %v", took)
	}
}

func TestHostsThatSwapTheirAddressesAreReachedSoon(t *testing.T) {
	onAnyLink(t)
	_, ends := bridged(t, 3)
	folder := shortTempDir(t)
	a := host(t, folder, "10.0.0.1", ends[0]).attach(t)
	ips := []string{"10.0.0.2", "10.0.0.3"}
	var olds []*sidecar
	for i, ip := range ips {
		olds = append(olds, host(t, folder, ip, ends[1+i]))
		reach(t, a, ip)
	}
	for _, old := range olds {
		old.kill()
	}
	for i := range ips {
		host(t, shortTempDir(t), ips[1-i], ends[1+i])
	}
	for _, ip := range ips {
		if took := reach(t, a, ip); took > recovery {
			t.Fatalf("%s: it took %v", ip, took)
		}
	}
}

func TestAGatewayThatIsReplacedIsFoundSoon(t *testing.T) {
	onAnyLink(t)
	router, ends := around(t, 2)
	runs(t, router, []string{"sysctl", "-qw", "net.ipv4.ip_forward=1"},
		[]string{"ip", "address", "add", "10.0.0.254/24", "dev", "a"},
		[]string{"ip", "address", "add", "10.0.1.254/24", "dev", "b"})
	folder := shortTempDir(t)
	a := host(t, folder, "10.0.0.1", ends[0], "--gateway", "10.0.0.254").attach(t)
	host(t, folder, "10.0.1.2", ends[1], "--gateway", "10.0.1.254")
	reach(t, a, "10.0.1.2")
	// On both of its links, without a word.
	runs(t, router, []string{"ip", "link", "set", "dev", "a", "address", "02:00:00:00:00:fa"},
		[]string{"ip", "link", "set", "dev", "b", "address", "02:00:00:00:00:fb"})
	if took := reach(t, a, "10.0.1.2"); took > recovery {
		t.Fatalf("it took %v", took)
	}
}

// injector is a device of a namespace, by which frames are sent as from nowhere.
func injector(t *testing.T, n *netns.Namespace, device string) func(frame []byte) error {
	t.Helper()
	var fd int
	err := n.Do(func() (err error) {
		link, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: link.Index})
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return func(frame []byte) error {
		_, err := unix.Write(fd, frame)
		return err
	}
}

// gratuitous is an unasked ARP reply to everybody.
func gratuitous(mac net.HardwareAddr, ip string) []byte {
	address := netip.MustParseAddr(ip).As4()
	frame := append(net.HardwareAddr{255, 255, 255, 255, 255, 255}, mac...)
	frame = append(frame, 8, 6, 0, 1, 8, 0, 6, 4, 0, 2)
	for range 2 {
		frame = append(append(frame, mac...), address[:]...)
	}
	return append(frame, make([]byte, 60-len(frame))...)
}

func TestUnaskedRepliesOfAThirdStationDoNoHarm(t *testing.T) {
	onAnyLink(t)
	middle, ends := bridged(t, 2)
	folder := shortTempDir(t)
	a, b := host(t, folder, "10.0.0.1", ends[0]), host(t, folder, "10.0.0.2", ends[1])
	l := listen(t, b.attach(t))
	c, err := (&machnet.Dialer{Stack: a.attach(t), Timeout: patience}).Dial("machnet", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	third := net.HardwareAddr{2, 0, 0, 0, 9, 9}
	for host, ip := range map[string]string{"a": "10.0.0.2", "b": "10.0.0.1"} {
		send := injector(t, middle, host)
		for range 7 {
			if err := send(gratuitous(third, ip)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, s := range []*sidecar{a, b} {
		until(t, "the claims are seen", func() error {
			if n := s.counters(t)["arp_claims"]; n != 7 {
				return fmt.Errorf("%d", n)
			}
			return nil
		})
	}
	for i := range 50 {
		for _, ends := range [][2]net.Conn{{c, far}, {far, c}} {
			_ = ends[0].SetDeadline(time.Now().Add(patience))
			_ = ends[1].SetDeadline(time.Now().Add(patience))
			if _, err := fmt.Fprintf(ends[0], "%04d", i); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 4)
			if _, err := ends[1].Read(got); err != nil || string(got) != fmt.Sprintf("%04d", i) {
				t.Fatalf("message %d: %q, %v", i, got, err)
			}
		}
	}
	for _, peer := range []*sidecar{a, b} {
		if n := peer.counters(t)["flow_timeouts"]; n != 0 {
			t.Errorf("%s: %d timeouts", peer.ip, n)
		}
	}
}

// forgedSYN is the first packet of a call from an address that nobody has: docs/wire.md.
func forgedSYN(n uint32, to net.HardwareAddr, ip string, port uint16) []byte {
	be := binary.BigEndian
	address := netip.MustParseAddr(ip).As4()
	packet := append(make([]byte, 0, 88), 0x31, 0, 0, 0)
	packet = be.AppendUint16(packet, 40000)
	packet = be.AppendUint16(packet, port)
	packet = be.AppendUint32(packet, 0) // tag
	packet = be.AppendUint32(packet, n) // unit
	packet = be.AppendUint32(packet, n) // tx
	packet = append(packet, make([]byte, 48-len(packet))...)
	packet = be.AppendUint32(packet, n|1<<31) // the caller's tag
	packet = be.AppendUint64(packet, 77)      // epoch
	packet = be.AppendUint16(packet, 1500)
	packet = append(packet, 0, 1, 0, 0) // queues, queue
	packet = append(packet, make([]byte, 48+27-len(packet))...)
	packet = append(packet, 1) // lanes
	packet = append(packet, make([]byte, 88-len(packet))...)

	source := [4]byte{10, 0x10 | byte(n>>16&15), byte(n >> 8), byte(n)}
	frame := append(net.HardwareAddr{}, to...)
	frame = append(frame, 2, 0, 0, 0, 9, 9, 8, 0)
	header := append([]byte{0x45, 0}, be.AppendUint16(nil, uint16(28+len(packet)))...)
	header = append(header, 0, 0, 0x40, 0, 64, 17, 0, 0)
	header = append(append(header, source[:]...), address[:]...)
	be.PutUint16(header[10:], ^sum(0, header))
	udp := be.AppendUint16(nil, 31580+uint16(n%1000))
	udp = be.AppendUint16(udp, 31580)
	udp = be.AppendUint16(udp, uint16(8+len(packet)))
	udp = append(append(udp, 0, 0), packet...)
	pseudo := sum(17+uint32(len(udp)), header[12:])
	be.PutUint16(udp[6:], ^sum(uint32(pseudo), udp))
	return append(append(frame, header...), udp...)
}

// sum is the ones' complement sum of big-endian words, and of what there was.
func sum(start uint32, b []byte) uint16 {
	for i := 0; i+1 < len(b); i += 2 {
		start += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for start > 0xffff {
		start = start>>16 + start&0xffff
	}
	return uint16(start)
}

// 20 000 forged SYNs a second to a port, or as many as this machine can send, keep nobody else from it.
func TestAFloodOfForgedSYNsKeepsNobodyFromThePort(t *testing.T) {
	onAnyLink(t)
	middle, ends := bridged(t, 2)
	folder := shortTempDir(t)
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 0xb1}
	a, b := host(t, folder, "10.0.0.1", ends[0]), host(t, folder, "10.0.0.2", ends[1], "--set-mac", mac.String(), "--gateway", "10.0.0.1")
	server, client := b.attach(t), a.attach(t)
	lc := machnet.ListenConfig{Stack: server}
	l, err := lc.Listen(context.Background(), "machnet", ":7000")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				got := make([]byte, 64)
				n, _ := c.Read(got)
				_, _ = c.Write(got[:n])
				_, _ = c.Read(got)
			}()
		}
	}()
	send, stop, flooded := injector(t, middle, "b"), make(chan struct{}), make(chan error)
	go func() {
		for n, begun := uint32(0), time.Now(); ; {
			select {
			case <-stop:
				t.Logf("%d forged SYNs in %v", n, time.Since(begun))
				flooded <- nil
				return
			default:
			}
			for due := uint32(time.Since(begun).Seconds() * 20_000); n < due; n++ {
				if err := send(forgedSYN(n, mac, "10.0.0.2", 7000)); err != nil && !errors.Is(err, unix.ENOBUFS) {
					<-stop
					flooded <- err
					return
				}
			}
			time.Sleep(time.Millisecond)
		}
	}()
	until(t, "the flood is on", func() error {
		if n := b.counters(t)["cookies_sent"]; n < 1000 {
			return fmt.Errorf("%d cookies", n)
		}
		return nil
	})
	var slowest time.Duration
	for i := range 100 {
		begun := time.Now()
		c, err := (&machnet.Dialer{Stack: client, Timeout: 5 * time.Second}).Dial("machnet", "10.0.0.2:7000")
		if err == nil {
			slowest = max(slowest, time.Since(begun))
			err = request(c)
		}
		if err != nil {
			t.Errorf("dial %d: %v", i, err)
		}
		time.Sleep(20 * time.Millisecond) // so that the flood has two seconds
	}
	close(stop)
	if err := <-flooded; err != nil {
		t.Fatal(err)
	}
	counters := b.counters(t)
	t.Logf("100 dials, the slowest in %v; %d cookies sent, %d accepted, %d refused", slowest,
		counters["cookies_sent"], counters["cookies_accepted"], counters["cookies_refused"])
	if counters["cookies_accepted"] == 0 || counters["accepts"] != 100 {
		t.Errorf("%v", counters)
	}
}
