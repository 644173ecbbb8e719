package vm

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/machnet/machnet/go/control"
)

// Sidecar is a machnetd in a guest, at the socket where applications look by default.
type Sidecar struct {
	*Process
	IP string

	damaged int64 // frames that a test has sent to it with a wrong checksum
}

// With is the same sidecar for another test.
func (s *Sidecar) With(t testing.TB) *Sidecar {
	other := *s
	other.Process = s.Process.With(t)
	return &other
}

// PCI is the address of a NIC.
func (g *Guest) PCI(nic int) string { return fmt.Sprintf("0000:%02x:00.0", nic+1) }

// Bind gives a NIC to the driver that hands it to processes. Debian's cloud kernel has no vfio-pci without an IOMMU.
func (g *Guest) Bind(nic int) {
	g.t.Helper()
	device := "/sys/bus/pci/devices/" + g.PCI(nic)
	g.Do(fmt.Sprintf(`modprobe uio_pci_generic && echo uio_pci_generic > %[1]s/driver_override &&
		{ [ ! -e %[1]s/driver ] || echo %[2]s > %[1]s/driver/unbind; } && echo %[2]s > /sys/bus/pci/drivers_probe && [ -e %[1]s/driver ]`,
		device, g.PCI(nic)))
}

// Sidecar starts machnetd over a NIC that DPDK drives, with this address in a network of 24 bits, and waits until applications may attach.
func (g *Guest) Sidecar(nic int, ip string, engines int, flags ...string) *Sidecar {
	g.t.Helper()
	g.Bind(nic)
	return g.SidecarOver(ip, append([]string{"--pci", g.PCI(nic), "--engines", fmt.Sprint(engines)}, flags...)...)
}

// SidecarOver starts machnetd with the NIC that flags name, and with this address; "": the one that flags name.
func (g *Guest) SidecarOver(ip string, flags ...string) *Sidecar {
	g.t.Helper()
	g.sidecars++
	if ip != "" {
		flags = append(flags, "--ip", ip+"/24")
	}
	p := g.Start(fmt.Sprintf("machnetd%d", g.sidecars), strings.Join(append([]string{"machnetd"}, flags...), " "))
	g.Until("machnetd makes its socket", func() bool {
		_, code := g.Run("test -S /var/run/machnet/machnet.sock")
		if code != 0 && !p.Running() {
			g.t.Fatalf("%s: machnetd ended: %s", g.name, p.Log())
		}
		return code == 0
	})
	return &Sidecar{Process: p, IP: ip}
}

// Stats asks the sidecar for its counters.
func (s *Sidecar) Stats() *control.Statistics {
	s.g.t.Helper()
	var stats control.Statistics
	text := s.g.Do("machnet ctl stats --json --timeout 60s")
	if err := json.Unmarshal([]byte(text), &stats); err != nil {
		s.g.t.Fatalf("%s: %v: %s", s.g.name, err, text)
	}
	return &stats
}

// Counters are the sums of its engines' counters, and those of its queues and of the NIC with "queue_" and "nic_" before their names. What the NIC's
// driver cannot count is left out.
func (s *Sidecar) Counters() map[string]int64 {
	s.g.t.Helper()
	sums := map[string]int64{}
	add := func(prefix string, counters control.Counters) {
		for name := range counters {
			if n, counts := counters.Get(name); counts {
				sums[prefix+name] += int64(n)
			}
		}
	}
	stats := s.Stats()
	for _, e := range stats.Engines {
		add("", e.Counters)
		add("queue_", e.Queue)
	}
	add("nic_", stats.Port.Counters)
	return sums
}
