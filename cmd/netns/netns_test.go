package netns

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func need(t *testing.T) {
	t.Helper()
	if err := Available(); err != nil {
		t.Skip(err)
	}
}

func newNamespace(t *testing.T) *Namespace {
	t.Helper()
	n, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

// devices lists the devices of the calling thread's namespace.
func devices(t *testing.T) string {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, d := range all {
		names = append(names, d.Name)
	}
	return strings.Join(names, " ")
}

func pair(t *testing.T) (a, b End) {
	t.Helper()
	a, b = End{newNamespace(t), "left"}, End{newNamespace(t), "right"}
	if err := Veth(a, b, 1500); err != nil {
		t.Fatal(err)
	}
	return a, b
}

func TestWhatRunsInANamespaceSeesItsDevicesAndOthersDoNot(t *testing.T) {
	need(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := devices(t)
	a, b := pair(t)
	for _, e := range []End{a, b} {
		err := e.Namespace.Do(func() error {
			if got := devices(t); got != "lo "+e.Device {
				t.Errorf("devices %q, want lo and %s", got, e.Device)
			}
			out, err := exec.Command("ip", "-brief", "link").Output()
			if !strings.Contains(string(out), e.Device) {
				t.Errorf("a process in the namespace sees %q, want %s", out, e.Device)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	if after := devices(t); after != before {
		t.Errorf("devices here %q, before %q", after, before)
	}
}

func TestAFailureInANamespaceComesBackAndSoDoesTheThread(t *testing.T) {
	need(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := os.Readlink(own)
	if err != nil {
		t.Fatal(err)
	}
	wrong := errors.New("wrong")
	if err := newNamespace(t).Do(func() error { return wrong }); !errors.Is(err, wrong) {
		t.Errorf("Do = %v, want %v", err, wrong)
	}
	if after, _ := os.Readlink(own); after != before {
		t.Errorf("the thread is in %s, was in %s", after, before)
	}
}

func TestALinkGoesWithItsNamespaces(t *testing.T) {
	need(t)
	a, b := pair(t)
	if err := b.Namespace.Close(); err != nil {
		t.Fatal(err)
	}
	// The kernel clears a namespace away in its own time.
	for deadline := time.Now().Add(20 * time.Second); a.Namespace.Run("ip", "link", "show", "dev", a.Device) == nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the link is still there, 20 s after its other end")
		}
	}
}

func TestTheKernelIsSilentOnALink(t *testing.T) {
	need(t)
	_, b := pair(t)
	var socket int
	err := b.Namespace.Do(func() (err error) {
		socket, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_ALL)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(socket)
	// IPv6 would speak in its first second: its check for duplicates, then its search for routers.
	if err := unix.SetsockoptTimeval(socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1, Usec: 500_000}); err != nil {
		t.Fatal(err)
	}
	frame := make([]byte, 2048)
	if n, _, err := unix.Recvfrom(socket, frame, 0); !errors.Is(err, unix.EAGAIN) {
		t.Fatalf("a frame on an idle link: % x, %v", frame[:max(n, 0)], err)
	}
}

func TestForwardDropsItsShare(t *testing.T) {
	need(t)
	a, m, b := newNamespace(t), newNamespace(t), newNamespace(t)
	ends := []End{{a, "tcp0"}, {b, "tcp0"}}
	for i, e := range ends {
		if err := Veth(e, End{m, []string{"a", "b"}[i]}, 1500); err != nil {
			t.Fatal(err)
		}
		if err := e.Address([]string{"10.1.1.1/24", "10.1.1.2/24"}[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Forward("a", "b", 0.25); err != nil {
		t.Fatal(err)
	}
	var from, to net.PacketConn
	err := errors.Join(
		a.Do(func() (err error) { from, err = net.ListenPacket("udp", "10.1.1.1:0"); return err }),
		b.Do(func() (err error) { to, err = net.ListenPacket("udp", "10.1.1.2:0"); return err }),
	)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	defer to.Close()
	// ARP is lost as well, and asked again after a second; then every datagram is sent at once.
	buffer, datagram := make([]byte, 16), []byte("knock")
	for deadline := time.Now().Add(20 * time.Second); ; {
		_, _ = from.WriteTo(datagram, to.LocalAddr())
		_ = to.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if _, _, err := to.ReadFrom(buffer); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("nothing is forwarded")
		}
	}
	const sent = 4000
	arrived := 0
	for i := range sent {
		if _, err := from.WriteTo([]byte{1}, to.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		if i%100 != 99 { // in batches, so that no buffer overflows
			continue
		}
		for _ = to.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); ; {
			n, _, err := to.ReadFrom(buffer)
			if err != nil {
				break
			}
			if n == 1 { // not one of the knocks
				arrived++
			}
		}
	}
	if arrived < sent*70/100 || arrived > sent*80/100 {
		t.Errorf("%d of %d datagrams passed where the kernel drops a quarter", arrived, sent)
	}
}

func TestAProgramThatIsMissingOrFailsIsNamed(t *testing.T) {
	need(t)
	n := newNamespace(t)
	if err := n.Run("nosuchprogram"); err == nil || !strings.Contains(err.Error(), "nosuchprogram is not on this machine") {
		t.Errorf("Run = %v", err)
	}
	if err := n.Run("ip", "link", "show", "dev", "none"); err == nil || !strings.Contains(err.Error(), `ip link show dev none: exit status 1: Device "none" does not exist`) {
		t.Errorf("Run = %v", err)
	}
}

func htons(n uint16) uint16 { return n<<8 | n>>8 }
