package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/machnet/machnet/cmd/netns"
	"github.com/machnet/machnet/cmd/netns/relay"
	"github.com/machnet/machnet/go/control"
)

func pathBreakages() []breakage {
	network := "what lies between loses, delays or mixes up packets"
	healed := func(w *world) { w.wire.pass(w.t) }
	return []breakage{
		{check: "gateway", how: "an address that nobody has", broken: wrongGateway, status: "fail"},
		{check: "peer", how: "nobody listens", broken: noEcho, status: "fail"},
		{check: "peer", how: "only replies get in", broken: repliesOnly, status: "fail"},
		{check: "udp-ports", how: "half of them dropped one way", broken: halfThere, status: "fail"},
		{check: "udp-ports", how: "half of them dropped both ways", broken: halfBothWays, status: "fail", mend: func(w *world) {
			w.execute(w.row("udp-ports"))
			back := w.row("udp-ports")
			if back.Status != "fail" || !strings.Contains(back.Found, "way back") {
				w.t.Fatalf("the way back is closed still, and the check says %+v", back)
			}
			w.peer.t = w.t
			w.peer.execute(w.peer.row("udp-ports"))
			w.peer.echoes()
		}},
		{check: "path-mtu", how: "a smaller one on the way", broken: narrow, status: "fail"},
		{check: "rtt", how: "far away", broken: far, status: "warn", alone: true, outside: network, mend: healed},
		{check: "loss", how: "one of ten", broken: lossy, status: "fail", alone: true, outside: network, mend: healed},
		{check: "reordering", how: "every fourth frame held back", broken: mixedUp, status: "warn", alone: true, outside: network, mend: healed},
	}
}

// wire joins two hosts by veth pairs to a namespace in the middle.
type wire struct {
	a, b, middle *netns.Namespace
	stop         func() // of what passes frames in user space
}

func newWire(t *testing.T) *wire {
	t.Helper()
	needRoot(t)
	w := &wire{stop: func() {}}
	for _, n := range []**netns.Namespace{&w.a, &w.b, &w.middle} {
		made, err := netns.New()
		must(t, err)
		*n = made
		t.Cleanup(func() { _ = made.Close() })
	}
	must(t, netns.Veth(netns.End{Namespace: w.a, Device: device}, netns.End{Namespace: w.middle, Device: "a"}, 1500))
	must(t, netns.Veth(netns.End{Namespace: w.b, Device: device}, netns.End{Namespace: w.middle, Device: "b"}, 1500))
	t.Cleanup(func() { w.stop() })
	return w
}

// rules pass frames both ways, but for those that rules of nftables treat otherwise: of what comes from a, and from b.
func (w *wire) rules(t *testing.T, sets, fromA, fromB string) {
	t.Helper()
	w.stop()
	w.stop = func() {}
	text := "table netdev wire\ndelete table netdev wire\ntable netdev wire {\n" + sets
	for _, way := range [][3]string{{"a", "b", fromA}, {"b", "a", fromB}} {
		text += fmt.Sprintf("chain from_%[1]s {\n type filter hook ingress device %[1]q priority 0\n %[3]s\n fwd to %[2]q\n}\n", way[0], way[1], way[2])
	}
	file := filepath.Join(t.TempDir(), "rules")
	write(t, file, text+"}\n")
	must(t, w.middle.Run("nft", "-f", file))
}

// relay passes frames in user space, as the path has it: the kernel can drop frames, and neither delay nor mix them up.
func (w *wire) relay(t *testing.T, path relay.Path) {
	t.Helper()
	r, err := relay.Start(w.middle, "a", "b", path, 1)
	must(t, err)
	w.stop = func() { must(t, r.Close()) }
}

// pass lets everything through.
func (w *wire) pass(t *testing.T) { w.rules(t, "", "", "") }

// hosts starts a sidecar at each end of a wire, and the echo at b.
func hosts(t *testing.T, w *wire, flagsA string, echo bool) *world {
	t.Helper()
	flags := func(ip, more string) []string {
		return words("--ip %s/24 --vdev net_af_packet0,iface=%s %s", ip, device, more)
	}
	a := sidecar(t, w.a, flags("10.0.0.1", flagsA)...)
	b := sidecar(t, w.b, flags("10.0.0.2", strings.ReplaceAll(flagsA, "--gateway 10.0.0.254", ""))...)
	peer := &world{t: t, namespace: w.b, flags: words("--socket %s --peer 10.0.0.1", b), sockets: []string{b}, peerSocket: b}
	if echo {
		serveEcho(t, w.a, a)
		serveEcho(t, w.b, b)
	}
	return &world{t: t, namespace: w.a, flags: words("--socket %s --peer 10.0.0.2", a), sockets: []string{a}, peer: peer, wire: w}
}

func serveEcho(t *testing.T, n *netns.Namespace, socket string) {
	t.Helper()
	cmd := exec.Command(filepath.Join(bin(t), "machnet"), "echo", "--socket", socket)
	out := filepath.Join(t.TempDir(), "echo")
	file, err := os.Create(out)
	must(t, err)
	defer file.Close()
	cmd.Stdout, cmd.Stderr = file, file
	withTest(t, n, cmd)
	until(t, "the echo has printed where it listens", func() error {
		if text, err := os.ReadFile(out); err != nil || !strings.Contains(string(text), "echo over machnet") {
			return fmt.Errorf("it has printed %q: %v", text, err)
		}
		return nil
	})
}

// echoes waits until the echo listens, which attaches by itself to a sidecar that was started again.
func (w *world) echoes() {
	w.t.Helper()
	until(w.t, "the echo listens", func() error {
		ctx, cancel := context.WithTimeout(w.t.Context(), time.Second)
		defer cancel()
		listeners, err := control.Listeners(ctx, w.sockets[0])
		if err == nil && !slices.ContainsFunc(listeners, func(l control.Listener) bool { return l.Port == 7000 }) {
			err = errors.New("nobody listens")
		}
		return err
	})
}

// wrongGateway's right one is b, which the kernel's own default route names.
func wrongGateway(t *testing.T) *world {
	w := newWire(t)
	w.pass(t)
	for _, command := range []string{
		"ip link add d0 type veth peer name d1", "ip link set d0 up", "ip link set d1 up",
		"ip address add 10.0.0.9/24 dev d0", "ip route add default via 10.0.0.2 dev d0",
	} {
		must(t, w.a.Run("sh", "-c", command))
	}
	return hosts(t, w, "--gateway 10.0.0.254", false)
}

func noEcho(t *testing.T) *world {
	w := newWire(t)
	w.pass(t)
	h := hosts(t, w, "", false)
	h.peer.sockets = nil // nothing is started there but the echo
	return h
}

// repliesOnly lets in to a what answers something that a has sent, as a stateful firewall does.
func repliesOnly(t *testing.T) *world {
	w := newWire(t)
	w.rules(t, "set sent { type inet_service . inet_service; flags dynamic; size 65536; }\n",
		"ip protocol udp add @sent { udp dport . udp sport }",
		"ip protocol udp udp sport . udp dport != @sent drop")
	return hosts(t, w, "", true)
}

const lowerHalf = "udp dport 31580-32091 drop"

func halfThere(t *testing.T) *world {
	w := newWire(t)
	w.rules(t, "", lowerHalf, "")
	return hosts(t, w, "", true)
}

func halfBothWays(t *testing.T) *world {
	w := newWire(t)
	w.rules(t, "", lowerHalf, lowerHalf)
	return hosts(t, w, "", true)
}

func narrow(t *testing.T) *world {
	w := newWire(t)
	w.rules(t, "", "ip length > 1400 drop", "ip length > 1400 drop")
	return hosts(t, w, "", true)
}

func lossy(t *testing.T) *world {
	w := newWire(t)
	some := "numgen random mod 10 == 0 drop"
	w.rules(t, "", some, some)
	return hosts(t, w, "", true)
}

func far(t *testing.T) *world {
	w := newWire(t)
	w.relay(t, relay.Path{Delay: 15 * time.Millisecond})
	return hosts(t, w, "", true)
}

func mixedUp(t *testing.T) *world {
	w := newWire(t)
	w.relay(t, relay.Path{Reorder: 0.25, ReorderBy: 2 * time.Millisecond})
	return hosts(t, w, "", true)
}
