package vm

import (
	"fmt"
	"strings"
	"testing"
)

// With AF_XDP the kernel keeps its NIC: two sidecars talk over the same devices that the kernels of their guests go on to use, under other addresses.
func TestTheKernelKeepsANICThatAFXDPUses(t *testing.T) {
	onModel(t, Virtio)
	// The kernel's driver has as many queues as there are CPUs.
	p := bootPair(t, Config{NICs: []NIC{{Model: Virtio, Queues: 2}}, CPUs: 2})
	for i, g := range []*Guest{p.a, p.b} {
		g.Do(fmt.Sprintf("modprobe virtio_net && ip link set eth0 up && ip address add 10.1.0.%d/24 dev eth0", i+1))
	}
	kernelsTalk := func(when string) {
		t.Helper()
		p.a.Until("the kernels talk "+when, func() bool {
			_, code := p.a.Run("ping -c 3 -i 0.2 -W 5 10.1.0.2")
			return code == 0
		})
	}
	kernelsTalk("before there are sidecars")
	flags := append([]string{"--xdp", "eth0", "--engines", "2"}, patient...)
	a, b := p.a.SidecarOver("10.0.0.1", flags...), p.b.SidecarOver("10.0.0.2", flags...)
	busy := p.busy(a, b, 2)
	p.settles(a, b, busy)
	kernelsTalk("while the sidecars do")
	t.Log(p.a.Do("guest pairs --engines 2 --there 2 --to 10.0.0.2 --size 1048576 --messages 2"))
	for _, s := range []*Sidecar{a, b} {
		s.workedWell()
		if driver := s.Stats().Port.Driver; !strings.HasPrefix(driver, "af_xdp-") {
			t.Errorf("%s uses %s", s.IP, driver)
		}
	}
	goesOn(busy, 20)
	busy.Stop()
	a.Stop()
	b.Stop()
	kernelsTalk("when the sidecars have ended")
}
