package vm

import (
	"slices"
	"testing"
)

// A sidecar outlives what its NIC goes through, and so do its connections: docs/configuration.md, Device events.
func TestConnectionsOutliveWhatHappensToTheNIC(t *testing.T) {
	for _, m := range models {
		t.Run(m.name, func(t *testing.T) {
			onModel(t, m.nic.Model)
			guests := bootPair(t, Config{NICs: []NIC{m.nic}, QEMU: m.qemu})
			a, b := guests.sidecars(m.nic.queues())
			busy := guests.busy(a, b, m.nic.queues())
			goesOn(busy, 20)
			// At one end are the applications that dialled, at the other those that accepted.
			for _, sidecar := range []*Sidecar{a, b} {
				// What can be done once can be done again.
				for _, h := range slices.Concat(happenings, happenings[1:]) {
					if !t.Run(sidecar.IP+", "+h.name, func(t *testing.T) { h.to(sidecar.With(t), busy.With(t)) }) {
						t.Fatal("what comes next is not tried")
					}
				}
			}
			guests.settles(a, b, busy)
		})
	}
}

// happening is something that happens to a NIC and is over later.
type happening struct {
	name          string
	begin, end    func(*Guest)
	state         string // of the NIC meanwhile
	said, saidEnd string // in the log
	counts        []string
}

var happenings = []happening{
	{
		name:  "the link is lost",
		begin: func(g *Guest) { g.SetLink(0, false) }, end: func(g *Guest) { g.SetLink(0, true) },
		state: "link-down", said: "link down", saidEnd: "link up",
		counts: []string{"nic_link_downs", "nic_link_ups"},
	},
	{
		name:  "the device is taken away",
		begin: func(g *Guest) { g.Unplug(0) }, end: func(g *Guest) { g.Plug(0); g.Bind(0) },
		state: "gone", said: "the device was taken away", saidEnd: "the device is back and started",
		counts: []string{"nic_removals", "nic_returns", "nic_link_downs", "nic_link_ups"},
	},
}

// to has it happen to the NIC of a sidecar, and checks what the sidecar tells of it, and that connections go on.
func (h happening) to(s *Sidecar, busy *Process) {
	t := s.g.t
	t.Helper()
	before, logged := s.Counters(), len(s.Log())
	h.begin(s.g)
	s.SaysAfter(logged, h.said)
	s.is(h.state)
	h.end(s.g)
	s.SaysAfter(logged, h.saidEnd)
	s.is("up")
	goesOn(busy, 20)
	after := s.Counters()
	for _, name := range h.counts {
		if after[name] != before[name]+1 {
			t.Errorf("%s was %d and is %d", name, before[name], after[name])
		}
	}
}

// is waits until the NIC is in this state and the engines are alive.
func (s *Sidecar) is(state string) {
	s.g.t.Helper()
	s.g.Until("the NIC is "+state, func() bool { return s.Stats().Port.State == state })
	s.g.Until("the engines are alive while the NIC is "+state, func() bool {
		_, code := s.g.Run("machnet ctl health --timeout 60s")
		return code == 0
	})
}
