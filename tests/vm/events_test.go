package vm

import "testing"

// A sidecar outlives what its NIC goes through, and so do its connections: docs/configuration.md, Device events.
func TestConnectionsOutliveWhatHappensToTheNIC(t *testing.T) {
	onModel(t, Virtio)
	guests := bootPair(t, Config{NICs: []NIC{{Model: Virtio, Queues: 2}}})
	a, b := guests.sidecars(2)
	busy := guests.busy(a, b, 2)
	goesOn(busy, 20)
	for _, sidecar := range []*Sidecar{a, b} {
		// One end has applications that dialled, the other those that accepted.
		for _, c := range []struct {
			name          string
			begin, end    func(*Guest)
			state         string
			said, saidEnd string
			counts        []string
		}{
			{"the link is lost", func(g *Guest) { g.SetLink(0, false) }, func(g *Guest) { g.SetLink(0, true) },
				"link-down", "link down", "link up", []string{"nic_link_downs", "nic_link_ups"}},
			{"the device is taken away", func(g *Guest) { g.Unplug(0) }, func(g *Guest) { g.Plug(0); g.Bind(0) },
				"gone", "the device was taken away", "the device is back and started",
				[]string{"nic_removals", "nic_returns", "nic_link_downs", "nic_link_ups"}},
			{"the device is taken away again", func(g *Guest) { g.Unplug(0) }, func(g *Guest) { g.Plug(0); g.Bind(0) },
				"gone", "the device was taken away", "the device is back and started",
				[]string{"nic_removals", "nic_returns", "nic_link_downs", "nic_link_ups"}},
		} {
			t.Run(sidecar.IP+", "+c.name, func(t *testing.T) {
				s, busy := sidecar.With(t), busy.With(t)
				before := s.Counters()
				logged := len(s.Log())
				c.begin(s.g)
				s.SaysAfter(logged, c.said)
				s.is(c.state)
				c.end(s.g)
				s.SaysAfter(logged, c.saidEnd)
				s.is("up")
				goesOn(busy, 20)
				after := s.Counters()
				for _, name := range c.counts {
					if after[name] != before[name]+1 {
						t.Errorf("%s was %d and is %d", name, before[name], after[name])
					}
				}
			})
		}
	}
	guests.settles(a, b, busy)
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
