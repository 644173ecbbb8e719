package vm

import (
	"fmt"
	"net/netip"
	"testing"
)

// Each engine of one guest talks to each of the other's, over NICs that hash by a key and a table that nobody tells them; and what was damaged on the way
// is found out, by the NIC or by the sidecar, whatever the NIC says of it.
func TestEnginesFindEachOthersQueues(t *testing.T) {
	for _, m := range models {
		t.Run(m.name, func(t *testing.T) {
			onModel(t, m.nic.Model)
			queues := m.nic.queues()
			guests := bootPair(t, Config{NICs: []NIC{m.nic}, QEMU: m.qemu})
			for _, offload := range []bool{true, false} {
				t.Run(fmt.Sprintf("checksum offload %t", offload), func(t *testing.T) {
					p := guests.with(t)
					a, b := p.sidecars(queues, "--checksum-offload", fmt.Sprint(offload))
					busy := p.busy(a, b, queues)
					p.settles(a, b, busy)
					t.Log(p.a.Do(fmt.Sprintf("guest pairs --engines %d --there %[1]d --to %s --size 1048576 --messages 2", queues, b.IP)))
					p.settles(a, b, busy)
					a.countsDamaged(p.net)
					for _, s := range []*Sidecar{a, b} {
						s.workedWell()
					}
				})
			}
		})
	}
}

// countsDamaged sends frames to the sidecar whose checksum is wrong, and waits until all of them are counted as such.
func (s *Sidecar) countsDamaged(network *Network) {
	s.g.t.Helper()
	const frames = 20
	before := s.Counters()["rx_bad_checksum"]
	if err := network.sendDamaged(frames, netip.MustParseAddr(s.IP), s.g.MAC(0)); err != nil {
		s.g.t.Fatal(err)
	}
	s.g.Until(fmt.Sprintf("%d more frames are counted as damaged", frames), func() bool { return s.Counters()["rx_bad_checksum"] >= before+frames })
	s.damaged += frames
}

// workedWell checks what the sidecar counts after an exchange in which nothing went wrong that the test did not do.
func (s *Sidecar) workedWell() {
	t := s.g.t
	t.Helper()
	stats := s.Stats()
	var frames []uint64
	for _, e := range stats.Engines {
		n, _ := e.Queue.Get("rx_frames")
		if frames = append(frames, n); n == 0 {
			t.Errorf("%s: nothing came in on queue %d", s.IP, e.Engine)
		}
	}
	counters := s.Counters()
	if bad := counters["rx_bad_checksum"]; bad != s.damaged {
		t.Errorf("%s counts %d frames with a wrong checksum, and %d were sent", s.IP, bad, s.damaged)
	}
	for _, name := range []string{"rx_bad_machnet", "rx_bad_ip", "rx_bad_tag", "searches_given_up", "channels_faulty", "flow_timeouts"} {
		if counters[name] != 0 {
			t.Errorf("%s counts %d %s", s.IP, counters[name], name)
		}
	}
	t.Logf("%s: %s, frames received by queue %v, misdirected %d, moved for want of answers %d", s.IP, stats.Port.Driver, frames, counters["misdirected"],
		counters["repathed"])
}
