package vm

import (
	"fmt"
	"testing"
)

// Each engine of one guest talks to each of the other's, over NICs that hash by a key and a table that nobody tells them.
func TestEnginesFindEachOthersQueues(t *testing.T) {
	for name, c := range map[string]struct {
		model  string
		queues int
		qemu   QEMU
	}{
		"virtio, 2 queues": {Virtio, 2, Installed},
		"igb, 2 queues":    {Igb, 2, Backports},
		"vmxnet3, 1 queue": {Vmxnet3, 1, Installed},
		"e1000e, 1 queue":  {E1000e, 1, Installed},
	} {
		t.Run(name, func(t *testing.T) {
			onModel(t, c.model)
			guests := bootPair(t, NIC{Model: c.model, Queues: c.queues}, c.qemu)
			for _, offload := range []bool{true, false} {
				t.Run(fmt.Sprintf("checksum offload %t", offload), func(t *testing.T) {
					p := guests.with(t)
					a, b := p.sidecars(c.queues, "--checksum-offload", fmt.Sprint(offload))
					busy := p.busy(a, b, c.queues)
					p.settles(a, b, busy)
					t.Log(p.a.Do(fmt.Sprintf("guest pairs --engines %d --there %[1]d --to %s --size 1048576 --messages 2", c.queues, b.IP)))
					p.settles(a, b, busy)
					for _, s := range []*Sidecar{a, b} {
						s.usedWell(c.queues)
					}
				})
			}
		})
	}
}

// usedWell checks what the sidecar counts after an exchange in which nothing went wrong.
func (s *Sidecar) usedWell(engines int) {
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
	for _, name := range []string{"rx_bad_checksum", "rx_bad_machnet", "rx_bad_ip", "rx_bad_tag", "searches_given_up", "channels_faulty", "flow_timeouts"} {
		if counters[name] != 0 {
			t.Errorf("%s counts %d %s", s.IP, counters[name], name)
		}
	}
	t.Logf("%s: %s, frames received by queue %v, misdirected %d, moved for want of answers %d", s.IP, stats.Port.Driver, frames, counters["misdirected"],
		counters["repathed"])
	if len(frames) != engines {
		t.Errorf("%s has %d engines, want %d", s.IP, len(frames), engines)
	}
}
