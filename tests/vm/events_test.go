package vm

import "testing"

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
				for _, h := range happenings {
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
	state         string   // of the NIC meanwhile
	said, saidEnd string   // in the log
	counts        []string // counters that it has grow by one
}

var happenings = []happening{
	{
		name:  "the link is lost",
		begin: func(g *Guest) { g.SetLink(0, false) }, end: func(g *Guest) { g.SetLink(0, true) },
		state: "link-down", said: "link down", saidEnd: "link up",
	},
	taken("taken away"),
	taken("taken away again"),
}

// taken is a device that is pulled out and plugged in again.
func taken(what string) happening {
	return happening{
		name:  "the device is " + what,
		begin: func(g *Guest) { g.Unplug(0) }, end: func(g *Guest) { g.Plug(0); g.Bind(0) },
		state: "gone", said: "the device was taken away", saidEnd: "the device is back and started",
		counts: []string{"nic_removals", "nic_returns"},
	}
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
		if n := after[name] - before[name]; n != 1 {
			t.Errorf("%s was %d and is %d", name, before[name], after[name])
		}
	}
	// A NIC that negotiates its speed may have its link twice meanwhile, as QEMU's igb has.
	for _, name := range []string{"nic_link_downs", "nic_link_ups"} {
		if after[name] <= before[name] {
			t.Errorf("%s was and is %d", name, after[name])
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
