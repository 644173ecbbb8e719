package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/machnet/machnet/cmd/netns"
	"github.com/machnet/machnet/cmd/netns/relay"
	"github.com/machnet/machnet/go/machnet"
)

// What is peculiar to AF_XDP, where the kernel keeps the device.

// xdpEnd is a device of the kernel's that machnetd shares with it.
func xdpEnd(n *netns.Namespace) wireEnd {
	return wireEnd{device: []string{"--xdp", device}, namespace: n}
}

// newXDPWire is a veth link whose kernels keep its ends, whatever the link of this run; the caller closes it.
func newXDPWire(t *testing.T, mtu int) *wire {
	t.Helper()
	w := newVethWire(t, mtu)
	w.a, w.b = xdpEnd(w.a.namespace), xdpEnd(w.b.namespace)
	return w
}

// printed is what a program prints in a namespace.
func printed(t *testing.T, n *netns.Namespace, program string, args ...string) string {
	t.Helper()
	var out []byte
	if err := n.Do(func() (err error) { out, err = exec.Command(program, args...).CombinedOutput(); return err }); err != nil {
		t.Fatalf("%s %v: %v: %s", program, args, err, out)
	}
	return string(out)
}

func TestTheKernelKeepsItsTrafficOnTheDevice(t *testing.T) {
	w := newXDPWire(t, 1500)
	for i, end := range []wireEnd{w.a, w.b} {
		if err := (netns.End{Namespace: end.namespace, Device: device}).Address(fmt.Sprintf("10.0.0.10%d/24", i+1)); err != nil {
			t.Fatal(err)
		}
	}
	p := newPairOn(t, shortTempDir(t), w)
	a, b := connect(t, p.a.attach(t), p.b.attach(t))
	go func() { _, _ = io.Copy(b, b) }()

	var server net.Listener
	if err := w.b.namespace.Do(func() (err error) { server, err = net.Listen("tcp", "10.0.0.102:0"); return err }); err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c) }()
		}
	}()
	var kernel net.Conn
	if err := w.a.namespace.Do(func() (err error) {
		kernel, err = net.DialTimeout("tcp", server.Addr().String(), patience)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer kernel.Close()
	// Both at once: frames of either are on the device among those of the other.
	over := make(chan error, 1)
	go func() {
		_ = kernel.SetDeadline(time.Now().Add(patience))
		sent := pattern(64 << 10)
		got := make([]byte, len(sent))
		for range 20 {
			go func() { _, _ = kernel.Write(sent) }()
			if _, err := io.ReadFull(kernel, got); err != nil || !bytes.Equal(got, sent) {
				over <- fmt.Errorf("an echo over the kernel's TCP: %w, or other bytes", err)
				return
			}
		}
		over <- nil
	}()
	_ = a.SetDeadline(time.Now().Add(patience))
	for range 200 {
		sent := pattern(4000)
		got := bytes.Clone(sent)
		if pingPong(t, a, got); !bytes.Equal(got, sent) {
			t.Fatal("an echo differs from what was sent")
		}
	}
	if err := <-over; err != nil {
		t.Error(err)
	}
	pingFromKernel(t, w.a.namespace, "10.0.0.101", "10.0.0.102")
	pingFromKernel(t, w.a.namespace, "10.0.0.101", p.b.ip)
	if driver := p.a.stats(t).Port.Driver; driver != "af_xdp-copy-native" {
		t.Errorf("driver %q, want to be told of copies", driver)
	}
	if said := p.a.out.String(); strings.Contains(said, "WARN") {
		t.Errorf("machnetd warns: %s", said)
	}
}

func TestMessagesOverXDP(t *testing.T) {
	w := newXDPWire(t, 3826)
	p := newPairOn(t, shortTempDir(t), w, "--mtu", "3826")
	a, b := connect(t, p.a.attach(t), p.b.attach(t))
	sizes := []int{0, 1, 3750, 3751, 1 << 20, 1 << 20, machnet.MaxMessage}
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
}

// Between the hosts a relay sends frames on by the kernel's hash of their flow, so that the engines have to find each other's queues.
func TestEnginesFindEachOthersQueuesOverXDP(t *testing.T) {
	onAnyLink(t)
	w, _ := relayedWire(t, relay.Path{}, 1)
	w.a, w.b = xdpEnd(w.a.namespace), xdpEnd(w.b.namespace)
	for _, end := range []wireEnd{w.a, w.b} {
		if err := end.namespace.Run("ethtool", "-L", device, "rx", "2", "tx", "2"); err != nil {
			t.Fatal(err)
		}
	}
	for _, towards := range []string{"a", "b"} {
		if err := w.middle.Run("ethtool", "-L", towards, "rx", "2", "tx", "2"); err != nil {
			t.Fatal(err)
		}
	}
	p := newPairOn(t, shortTempDir(t), w, "--engines", "2")
	conns := everyEngineToEveryEngine(t, p, 2, 2)
	settle(t, p, conns)
	for _, s := range []*sidecar{p.a, p.b} {
		if c := s.counters(t); c["pairs_verified"] == 0 || c["searches_given_up"] > 0 {
			t.Errorf("sidecar %s: %d pairs verified, %d searches given up", s.ip, c["pairs_verified"], c["searches_given_up"])
		}
		for engine, c := range s.countersOf(t) {
			if engine != "nic" && c["rx_frames"] < 100 {
				t.Errorf("%s of %s has received %d frames, want its share of thousands", engine, s.ip, c["rx_frames"])
			}
		}
	}
}

func TestASidecarThatIsKilledLeavesTheDeviceAsItWas(t *testing.T) {
	w := newXDPWire(t, 1500)
	p := newPairOn(t, shortTempDir(t), w)
	has := func() bool {
		return strings.Contains(printed(t, w.b.namespace, "ip", "link", "show", "dev", device), "prog/xdp")
	}
	if !has() {
		t.Fatal("ip shows no program on the device")
	}
	connect(t, p.a.attach(t), p.b.attach(t))
	for range 3 {
		p.b.kill()
		if has() {
			t.Error("the program of a sidecar that was killed is still on the device")
		}
		p.b = p.b.restart(t)
		a, b := connect(t, p.a.attach(t), p.b.attach(t))
		go func() { _, _ = io.Copy(b, b) }()
		_ = a.SetDeadline(time.Now().Add(patience))
		pingPong(t, a, make([]byte, 1000))
	}
}

func TestAnIdleEngineSleepsUntilAFrameComesOverXDP(t *testing.T) {
	anIdleEngineSleeps(t, newPairOn(t, shortTempDir(t), newXDPWire(t, 1500), "--idle", "adaptive", "--keepalive", "0"))
}

func TestADeviceThatGoesAndComesBack(t *testing.T) {
	w := newXDPWire(t, 1500)
	p := newPairOn(t, shortTempDir(t), w, "--idle", "adaptive", "--dead-peer", "60000", "--log", "info")
	a, b := connect(t, p.a.attach(t), p.b.attach(t))
	go func() { _, _ = io.Copy(b, b) }()
	_ = a.SetDeadline(time.Now().Add(2 * patience))
	pingPong(t, a, make([]byte, 1000))

	ends := []netns.End{{Namespace: w.a.namespace, Device: device}, {Namespace: w.b.namespace, Device: device}}
	var macs [2]string
	for i, end := range ends {
		if err := end.Namespace.Do(func() error {
			found, err := net.InterfaceByName(device)
			if err == nil {
				macs[i] = found.HardwareAddr.String()
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	states := func(want string) {
		t.Helper()
		for _, s := range []*sidecar{p.a, p.b} {
			for deadline := time.Now().Add(patience); s.stats(t).Port.State != want; time.Sleep(5 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("the NIC of %s is %q, want %q: %s", s.ip, s.stats(t).Port.State, want, s.out)
				}
			}
		}
	}
	states("up")
	if err := ends[0].Namespace.Run("ip", "link", "set", "dev", device, "down"); err != nil {
		t.Fatal(err)
	}
	states("link-down")
	if err := ends[0].Namespace.Run("ip", "link", "set", "dev", device, "up"); err != nil {
		t.Fatal(err)
	}
	states("up")
	pingPong(t, a, make([]byte, 1000))
	if err := ends[0].Namespace.Run("ip", "link", "del", "dev", device); err != nil {
		t.Fatal(err)
	}
	states("gone")
	began, before := time.Now(), p.a.counters(t)["rounds"]
	time.Sleep(300 * time.Millisecond)
	// One that does not sleep makes a hundred times as many.
	if rounds, took := p.a.counters(t)["rounds"]-before, time.Since(began); float64(rounds) > 1000*took.Seconds() {
		t.Errorf("with its device gone an idle engine made %d rounds in %v, want a few", rounds, took)
	}
	if err := netns.Veth(ends[0], ends[1], 1500); err != nil {
		t.Fatal(err)
	}
	// A device with another address is not the one that peers know.
	for deadline := time.Now().Add(patience); !strings.Contains(p.b.out.String(), "its MAC address is "); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no word of another MAC address: %s", p.b.out)
		}
	}
	for i, end := range ends {
		if err := end.Namespace.Run("ip", "link", "set", "dev", device, "address", macs[i]); err != nil {
			t.Fatal(err)
		}
	}
	states("up")
	pingPong(t, a, make([]byte, 1000))
	for _, s := range []*sidecar{p.a, p.b} {
		if c := s.counters(t); c["nic_removals"] != 1 || c["nic_returns"] != 1 || c["nic_link_downs"] < 2 || c["nic_link_ups"] < 3 {
			t.Errorf("%s counts %d removals, %d returns, %d links lost, %d up; want 1, 1, at least 2 and 3",
				s.ip, c["nic_removals"], c["nic_returns"], c["nic_link_downs"], c["nic_link_ups"])
		}
		for _, want := range []string{"the link is down", "the device is gone", "the device is back"} {
			if !strings.Contains(s.out.String(), want) {
				t.Errorf("no %q in what %s logs: %s", want, s.ip, s.out)
			}
		}
	}
}

func TestWhatCannotBeReachedByXDPIsRefusedWithTheNextStep(t *testing.T) {
	for name, c := range map[string]struct {
		mtu   int
		set   []string // a command that sets the device up so
		flags []string
		want  []string
	}{
		"packets that are too large for the device": {1400, nil, nil, []string{"at most 1400 bytes", "MTU of 1500", "ip link set dev " + device + " mtu 1500"}},
		"packets that are too large for a frame":    {9001, nil, []string{"--mtu", "9001"}, []string{"an MTU of 9001", "576 to 3826"}},
		"more engines than queues":                  {1500, nil, []string{"--engines", "2"}, []string{"1 receive queue for 2 engines", "--engines 1", "ethtool -L " + device}},
		"fewer engines than queues": {1500, []string{"ethtool", "-L", device, "rx", "2", "tx", "2"}, nil,
			[]string{"2 receive queues for 1 engine", "--engines 2", "ethtool -L " + device + " combined 1"}},
		"an address of the kernel's": {1500, []string{"ip", "address", "add", "10.0.0.1/24", "dev", device}, nil,
			[]string{"the kernel has 10.0.0.1 there", "secondary private address", "ip address del 10.0.0.1"}},
		"zero-copy on a driver without":      {1500, nil, []string{"--xdp-mode", "zero-copy"}, []string{"bind it to a queue: Operation not supported", `xdp_mode = "auto"`}},
		"settings of DPDK":                   {1500, nil, []string{"--hugepages", "false"}, []string{"of use to DPDK only"}},
		"DPDK's own driver, and whose it is": {1500, nil, []string{"--vdev", "net_af_xdp0,iface=" + device}, []string{"nic.xdp"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newXDPWire(t, c.mtu)
			defer w.close()
			if c.set != nil {
				if err := w.a.namespace.Run(c.set[0], c.set[1:]...); err != nil {
					t.Fatal(err)
				}
			}
			if strings.HasPrefix(name, "DPDK's") {
				w.a.device = nil
			}
			s, err := startSidecar(shortTempDir(t), "10.0.0.1", w.a, c.flags...)
			if err == nil {
				s.stop()
				t.Fatal("it started")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("no %q in %q", want, err)
				}
			}
		})
	}
}

func TestTwoSidecarsCannotHaveOneDeviceByXDP(t *testing.T) {
	w := newXDPWire(t, 1500)
	defer w.close()
	first, err := startSidecar(shortTempDir(t), "10.0.0.1", w.a)
	if err != nil {
		t.Fatal(err)
	}
	defer first.stop()
	second, err := startSidecar(shortTempDir(t), "10.0.0.3", w.a)
	if err == nil {
		second.stop()
		t.Fatal("a second sidecar started on the same device")
	}
	for _, want := range []string{"busy", "another XDP program", "ip link show dev " + device} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %q", want, err)
		}
	}
}

func TestXDPTakesThreeCapabilitiesAndNamesThoseThatAreMissing(t *testing.T) {
	w := newXDPWire(t, 1500)
	defer w.close()
	folder, program := machnetdForAnybody(t)
	start := func(caps ...uintptr) (*exec.Cmd, *lockedBuffer) {
		cmd := exec.CommandContext(t.Context(), program, append([]string{"--ip", "10.0.0.1/24", "--socket", filepath.Join(folder, "s.sock")}, w.a.device...)...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}, AmbientCaps: caps}
		out := new(lockedBuffer)
		cmd.Stdout, cmd.Stderr = out, out
		if err := w.a.namespace.Do(cmd.Start); err != nil {
			t.Fatal(err)
		}
		return cmd, out
	}
	all := []uintptr{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW, unix.CAP_BPF}
	for i, name := range []string{"CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF"} {
		cmd, out := start(all[:i]...)
		err := cmd.Wait()
		if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 3 || !strings.Contains(out.String(), "this process lacks "+name+"; ") {
			t.Errorf("machnetd with %d of the capabilities: %v, %q; want exit code 3 and %s", i, err, out, name)
		}
	}
	cmd, out := start(all...)
	for deadline := time.Now().Add(patience); !strings.Contains(out.String(), "serving applications"); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("machnetd with all three does not serve: %s", out)
		}
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("machnetd ended with %v: %s", err, out)
	}
}
