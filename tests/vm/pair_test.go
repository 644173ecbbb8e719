package vm

import (
	"fmt"
	"testing"
	"time"
)

// pair is two guests on one network.
type pair struct {
	t    *testing.T
	net  *Network
	a, b *Guest
}

// bootPair boots two guests of this kind, with their NICs on one network, and memory for a sidecar.
func bootPair(t *testing.T, c Config) *pair {
	t.Helper()
	network := NewNetwork(t)
	for i := range c.NICs {
		c.NICs[i].Network = network
	}
	c.Hugepages = 96
	a, b := c, c
	a.Name, b.Name = "a", "b"
	guests := StartAll(t, a, b)
	return &pair{t, network, guests[0], guests[1]}
}

func (p *pair) with(t *testing.T) *pair { return &pair{t, p.net, p.a.With(t), p.b.With(t)} }

// patient are the settings of a sidecar in a guest: its emulated CPU, and that of its peer, may have no turn on the machine's cores for long.
var patient = []string{"--dead-peer", "180000", "--rss-retry", "200"}

// sidecars starts machnetd in both, over the first NIC, and ends it with the test.
func (p *pair) sidecars(engines int, flags ...string) (a, b *Sidecar) {
	p.t.Helper()
	flags = append(flags, patient...)
	a, b = p.a.Sidecar(0, "10.0.0.1", engines, flags...), p.b.Sidecar(0, "10.0.0.2", engines, flags...)
	p.t.Cleanup(func() {
		if !p.t.Failed() {
			a.Stop()
			b.Stop()
		}
	})
	return a, b
}

// busy has applications on b's engines echo, and others on a's engines call all of them, again and again, until the test ends.
func (p *pair) busy(a, b *Sidecar, engines int) *Process {
	p.t.Helper()
	serve := p.b.Start("serve"+b.pid, fmt.Sprintf("guest serve --engines %d", engines))
	serve.Says("ready")
	busy := p.a.Start("busy"+a.pid, fmt.Sprintf("guest busy --engines %d --there %[1]d --to %s", engines, b.IP))
	p.t.Cleanup(func() {
		if !p.t.Failed() {
			busy.Stop()
			serve.Stop()
		}
	})
	return busy
}

// echoes is how often the pair of engines has had its message back that has had it least often.
func echoes(busy *Process) int {
	busy.g.t.Helper()
	if !busy.Running() {
		busy.g.t.Fatalf("%s: a connection has ended: %s", busy.g.name, lastLine(busy.Log()))
	}
	var least, total int
	if _, err := fmt.Sscanf(lastLine(busy.Log()), "least %d total %d", &least, &total); err != nil {
		return 0
	}
	return least
}

// goesOn waits until each pair of engines has had as many more echoes.
func goesOn(busy *Process, more int) {
	busy.g.t.Helper()
	least := echoes(busy)
	busy.g.Until(fmt.Sprintf("each pair of engines has %d more echoes", more), func() bool { return echoes(busy) >= least+more })
}

// settles waits until the engines know each other's queues: while each pair of engines has 20 more echoes, three times in a row, nothing comes in on a
// queue of another engine.
func (p *pair) settles(a, b *Sidecar, busy *Process) {
	p.t.Helper()
	wrong := func() int64 { return a.Counters()["misdirected"] + b.Counters()["misdirected"] }
	last := wrong()
	for still, deadline := 0, time.Now().Add(patience); still < 3; {
		goesOn(busy, 20)
		now := wrong()
		if still++; now != last {
			still = 0
		}
		if last = now; time.Now().After(deadline) {
			p.t.Fatalf("packets still come in on wrong queues: %d by now", now)
		}
	}
}
