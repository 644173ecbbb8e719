package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/machnet/machnet/cmd/netns"
	"github.com/machnet/machnet/go/machnet"
)

// Both ends of a link take more than what lies between: a bridge, a tunnel or a router. What is sent arrives all the same, soon, and where
// nothing can the application hears of it.

// middle is a namespace between two hosts, which passes frames on.
type middle struct {
	*netns.Namespace
}

// newMiddle is a wire whose ends take packets of mtu bytes, with a namespace between them that has a device to each, "a" and "b".
func newMiddle(t *testing.T, mtu int) (*wire, middle) {
	t.Helper()
	onAnyLink(t)
	needNamespaces(t)
	var n [3]*netns.Namespace
	var err error
	for i := range n {
		if err == nil {
			n[i], err = netns.New()
		}
	}
	t.Cleanup(func() {
		for _, n := range n {
			_ = n.Close()
		}
	})
	for i, name := range []string{"a", "b"} {
		if err == nil {
			err = netns.Veth(netns.End{Namespace: n[i], Device: device}, netns.End{Namespace: n[2], Device: name}, mtu)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return &wire{a: afPacket(n[0]), b: afPacket(n[1]), close: func() {}}, middle{n[2]}
}

// passes has frames pass that carry IP packets of so many bytes at most, in each direction, and says nothing of others.
func (m middle) passes(t *testing.T, fromA, fromB int) {
	t.Helper()
	rules := "add table netdev middle\ndelete table netdev middle\ntable netdev middle {\n"
	for _, way := range []struct {
		in, out string
		mtu     int
	}{{"a", "b", fromA}, {"b", "a", fromB}} {
		rules += fmt.Sprintf("chain %s {\n type filter hook ingress device %s priority 0\n ether type ip meta length > %d drop\n fwd to %s\n}\n",
			way.in, way.in, way.mtu, way.out)
	}
	file := filepath.Join(t.TempDir(), "rules")
	if err := os.WriteFile(file, []byte(rules+"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.Run("nft", "-f", file); err != nil {
		t.Fatal(err)
	}
}

// talk is a connection with an application of host B that sends back what it gets.
func talk(t *testing.T, p *pair) *machnet.Conn {
	t.Helper()
	l := listen(t, p.b.attach(t))
	t.Cleanup(func() { _ = l.Close() })
	go echoAll(l)
	return dial(t, p.a.attach(t), l.Addr())
}

// echo sends so many bytes and waits until they are back, unchanged.
func echo(t *testing.T, c *machnet.Conn, size int) time.Duration {
	t.Helper()
	sent, back := pattern(size), make([]byte, size)
	begun := time.Now()
	_ = c.SetDeadline(begun.Add(20 * time.Second))
	done := make(chan error, 1)
	go func() { _, err := c.Write(sent); done <- err }()
	_, err := io.ReadFull(c, back)
	if err := errors.Join(err, <-done); err != nil {
		t.Fatalf("%d bytes: %v", size, err)
	}
	if !bytes.Equal(sent, back) {
		t.Fatalf("%d bytes came back changed", size)
	}
	return time.Since(begun)
}

func TestAPathThatTakesShorterPacketsThanBothEnds(t *testing.T) {
	for name, tc := range map[string]struct{ mtu, fromA, fromB int }{
		"both directions":    {1500, 1400, 1400},
		"only to the peer":   {1500, 1400, 1500},
		"only from the peer": {1500, 1500, 1280},
		"the least":          {1500, 576, 576},
		"jumbo ends":         {9000, 1500, 1500},
	} {
		t.Run(name, func(t *testing.T) {
			w, m := newMiddle(t, tc.mtu)
			m.passes(t, tc.fromA, tc.fromB)
			p := newPairOn(t, shortTempDir(t), w, "--mtu", fmt.Sprint(tc.mtu))
			c := talk(t, p)
			for _, size := range []int{1000, 4000, 1 << 20} {
				if took := echo(t, c, size); took > 3*time.Second {
					t.Errorf("%d bytes took %v", size, took)
				}
			}
			a, b := p.a.counters(t), p.b.counters(t)
			until(t, "both sidecars have counted", func() error {
				a, b = p.a.counters(t), p.b.counters(t)
				for _, at := range []struct {
					name   string
					counts map[string]int
					narrow bool
				}{{"A", a, tc.fromA < tc.mtu}, {"B", b, tc.fromB < tc.mtu}} {
					if shrunk := at.counts["flow_pmtu_shrunk"] > 0; shrunk != at.narrow {
						return fmt.Errorf("%s: a path was found narrower: %t, want %t", at.name, shrunk, at.narrow)
					}
				}
				return nil
			})
			t.Logf("A sent %d probes and %d parts, B %d and %d", a["flow_pmtu_probes"], a["flow_parts_sent"], b["flow_pmtu_probes"], b["flow_parts_sent"])
			// Others begin with what is known: nothing more is lost or searched for.
			probes := a["flow_pmtu_probes"]
			echo(t, talk(t, p), 1<<20)
			time.Sleep(1100 * time.Millisecond) // what flows count is summed once a second
			if more := p.a.counters(t)["flow_pmtu_probes"] - probes; more > 0 && tc.fromB >= tc.mtu {
				t.Errorf("the next connection sent %d probes", more)
			}
		})
	}
}

func TestAPathThatNarrowsDuringATransfer(t *testing.T) {
	w, m := newMiddle(t, 1500)
	m.passes(t, 1500, 1500)
	p := newPairOn(t, shortTempDir(t), w)
	c := talk(t, p)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 8 {
			echo(t, c, 1<<20)
		}
	}()
	for _, mtu := range []int{1450, 1300, 700} {
		time.Sleep(100 * time.Millisecond)
		m.passes(t, mtu, mtu)
	}
	<-done
	// It widens: who asks later finds out, and goes on meanwhile.
	m.passes(t, 1500, 1500)
	if took := echo(t, c, 100_000); took > 3*time.Second {
		t.Errorf("100 kB took %v", took)
	}
}

func TestARouterSaysThatAPacketWasTooLong(t *testing.T) {
	w, m := newMiddle(t, 1500)
	for _, setting := range [][]string{
		{"ip", "address", "add", "10.0.1.254/24", "dev", "a"},
		{"ip", "address", "add", "10.0.2.254/24", "dev", "b"},
		{"ip", "route", "replace", "10.0.2.0/24", "dev", "b", "mtu", "lock", "1400"},
		{"ip", "route", "replace", "10.0.1.0/24", "dev", "a", "mtu", "lock", "1300"},
		{"sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"},
	} {
		if err := m.Run(setting[0], setting[1:]...); err != nil {
			t.Fatal(err)
		}
	}
	folder := shortTempDir(t)
	a, err := startSidecar(folder, "10.0.1.1", w.a, "--gateway", "10.0.1.254")
	if err != nil {
		t.Fatal(err)
	}
	b, err := startSidecar(folder, "10.0.2.1", w.b, "--gateway", "10.0.2.254")
	if err != nil {
		a.stop()
		t.Fatal(err)
	}
	p := &pair{a: a, b: b, wire: w}
	t.Cleanup(func() { p.stop(t) })
	c := talk(t, p)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("A: %v\nB: %v", p.a.counters(t), p.b.counters(t))
		}
	})
	for _, size := range []int{1000, 4000, 1 << 20} {
		if took := echo(t, c, size); took > 3*time.Second {
			t.Errorf("%d bytes took %v", size, took)
		}
	}
	until(t, "the router was heard", func() error {
		if n := p.a.counters(t)["icmp_hints"]; n == 0 {
			return errors.New("it was not")
		}
		return nil
	})
}

func TestWhereNothingPassesTheConnectionEnds(t *testing.T) {
	w, m := newMiddle(t, 1500)
	m.passes(t, 400, 1500)
	p := newPairOn(t, shortTempDir(t), w)
	c := talk(t, p)
	echo(t, c, 100)
	begun := time.Now()
	_ = c.SetDeadline(begun.Add(20 * time.Second))
	// What is short goes on being answered.
	if _, err := c.Write(make([]byte, 4000)); err != nil {
		t.Fatal(err)
	}
	_, err := io.ReadFull(c, make([]byte, 4000))
	if took := time.Since(begun); !errors.Is(err, syscall.ETIMEDOUT) || took > 8*time.Second {
		t.Errorf("%v after %v, want ETIMEDOUT in 5 s", err, took)
	}
	until(t, "it was counted", func() error {
		counts := p.a.counters(t)
		if counts["no_progress"]+counts["flow_timeouts"] == 0 {
			return errors.New("it was not")
		}
		return nil
	})
}
