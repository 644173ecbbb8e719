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
					for _, s := range []*Sidecar{a, b} {
						counters := s.Counters()
						t.Log(s.IP, counters)
						if bad := counters["rx_bad_checksum"]; bad != 0 {
							t.Errorf("%s: %d frames with a wrong checksum", s.IP, bad)
						}
					}
				})
			}
		})
	}
}
