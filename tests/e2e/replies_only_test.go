package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/machnet/machnet/cmd/netns"
	"github.com/machnet/machnet/go/machnet"
)

// repliesOnlyWire joins two hosts by a router that lets b's packets in only where they answer a's: addresses and ports are the same, exchanged.
func repliesOnlyWire(t *testing.T) (w *wire, router *netns.Namespace) {
	t.Helper()
	needNamespaces(t)
	var n [3]*netns.Namespace
	var err error
	for i := range n {
		if err == nil {
			n[i], err = netns.New()
		}
	}
	a, b, router := n[0], n[1], n[2]
	w = &wire{a: afPacket(a), b: afPacket(b), close: func() {
		for _, n := range n {
			_ = n.Close()
		}
	}}
	if err == nil {
		err = errors.Join(
			netns.Veth(netns.End{Namespace: a, Device: device}, netns.End{Namespace: router, Device: "a"}, 1500),
			netns.Veth(netns.End{Namespace: b, Device: device}, netns.End{Namespace: router, Device: "b"}, 1500))
	}
	if err == nil {
		// Each host finds the other at the router's hardware address, so that both are in one network.
		err = router.Do(func() error {
			for path, value := range map[string]string{
				"ip_forward": "1", "conf/a/proxy_arp": "1", "conf/b/proxy_arp": "1", "neigh/a/proxy_delay": "0", "neigh/b/proxy_delay": "0",
			} {
				if err := os.WriteFile("/proc/sys/net/ipv4/"+path, []byte(value), 0o644); err != nil {
					return err
				}
			}
			return nil
		})
	}
	for _, args := range [][]string{
		{"ip", "address", "add", "10.0.0.254/32", "dev", "lo"},
		{"ip", "route", "add", "10.0.0.1/32", "dev", "a"},
		{"ip", "route", "add", "10.0.0.2/32", "dev", "b"},
		{"nft", "add table ip firewall; add chain ip firewall forward { type filter hook forward priority 0; }; add counter ip firewall refused; " +
			"add rule ip firewall forward iifname a accept; add rule ip firewall forward ct state established accept; " +
			"add rule ip firewall forward counter name refused drop"},
	} {
		if err == nil {
			err = router.Run(args[0], args[1:]...)
		}
	}
	if err != nil {
		w.close()
		t.Fatal(err)
	}
	return w, router
}

// Where only replies get in, connections that are dialled with answers on the mirrors of their pairs work, and no others.
func TestMirroredPairsPassWhatLetsOnlyRepliesIn(t *testing.T) {
	onAnyLink(t)
	for form, connects := range map[string]bool{"own": false, "mirrored": true} {
		t.Run(form, func(t *testing.T) {
			w, router := repliesOnlyWire(t)
			w.a.device = append(w.a.device, "--reverse", form)
			p := newPairOn(t, shortTempDir(t), w, "--engines", "2")
			var servers []*machnet.Listener
			for engine := range 2 {
				l := listen(t, p.b.attachTo(t, engine))
				go echoEach(l)
				servers = append(servers, l)
			}
			if !connects {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				d := machnet.Dialer{Stack: p.a.attach(t)}
				if _, err := d.DialContext(ctx, "machnet", servers[0].Addr().String()); err == nil || refused(t, router) == 0 {
					t.Errorf("connected (%v), %d packets refused: so this network proves nothing", err, refused(t, router))
				}
				return
			}
			var conns []*machnet.Conn
			for engine := range 2 {
				from := p.a.attachTo(t, engine)
				for _, l := range servers {
					conns = append(conns, dial(t, from, l.Addr()))
				}
			}
			echoOnAll(t, conns, 50)
			for _, c := range conns {
				if err := endBothWays(c); err != nil {
					t.Error(err)
				}
			}
			if refused := refused(t, router); refused != 0 {
				t.Errorf("%d packets were no reply, want none", refused)
			}
		})
	}
}

// endBothWays closes a connection after its other end.
func endBothWays(c *machnet.Conn) error {
	if err := c.CloseWrite(); err != nil {
		return err
	}
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		return fmt.Errorf("read %v at the end, want EOF", err)
	}
	return c.Close()
}

// refused is how many packets the router has let pass neither way.
func refused(t *testing.T, router *netns.Namespace) (packets int) {
	t.Helper()
	cmd := exec.Command("nft", "list", "counter", "ip", "firewall", "refused")
	var out strings.Builder
	cmd.Stdout = &out
	if err := errors.Join(router.Do(cmd.Start), cmd.Wait()); err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(out.String(), "packets ")
	if _, err := fmt.Sscan(after, &packets); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	return packets
}
