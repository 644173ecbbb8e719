package vm

import (
	"encoding/json"
	"strings"
	"testing"
)

// Whoever stands in front of a VM whose kernel has the NIC gets to an echo by what `machnet doctor` prints, and back by `machnet setup --undo`.
func TestDoctorLeadsFromAFreshMachineToASidecar(t *testing.T) {
	onModel(t, Virtio)
	network := NewNetwork(t)
	nics := []NIC{{Model: Virtio, Queues: 2, Network: network}}
	guests := StartAll(t, Config{Name: "fresh", NICs: nics, CPUs: 2}, Config{Name: "peer", NICs: nics, Hugepages: 96})
	g, peer := guests[0], guests[1]
	g.Do("modprobe virtio_net && ip link set eth0 up && ip address add 10.0.0.1/24 dev eth0")
	echo := peer.Sidecar(0, "10.0.0.2", 2, patient...)
	peer.Start("echo", "machnet echo").Says("echo over machnet")
	defer echo.Stop()

	const ask = "machnet doctor --json --nic 0000:01:00.0 -- --ip 10.0.0.1/24 --pci 0000:01:00.0 --engines 2"
	checks := func() map[string]diagnosis {
		t.Helper()
		out, _ := g.Run(ask)
		var document struct{ Checks []diagnosis }
		if err := json.Unmarshal([]byte(firstLine(out)), &document); err != nil {
			t.Fatalf("%s: %v: %s", ask, err, out)
		}
		by := map[string]diagnosis{}
		for _, c := range document.Checks {
			by[c.Check] = c
		}
		return by
	}
	broken := []string{"hugepages", "iommu", "nic-driver"}
	for _, name := range broken {
		if found := checks()[name]; found.Status != "fail" || found.Command == "" {
			t.Errorf("%s, before anything is mended: %+v", name, found)
		}
	}
	for _, name := range broken {
		found := checks()[name] // what mended another may have mended it, too
		// A command may lead to the next: what a module is able to do shows when it is loaded.
		for range 3 {
			if found.Status != "fail" || found.Command == "" {
				break
			}
			out, code := g.Run(found.Command)
			t.Logf("%s: %s; %s: status %d, %q", name, found.Found, found.Command, code, out)
			found = checks()[name]
		}
		if found.Status != "ok" {
			t.Errorf("%s, after its commands: %+v", name, found)
		}
	}
	// The setup has written what the kernel knew into the settings.
	s := g.SidecarOver("", "--config", "/etc/machnet/machnetd.toml", "--engines", "2")
	if out, code := g.Run("machnet ping -c 3 -W 60s 10.0.0.2"); code != 0 {
		t.Errorf("machnet ping ends with status %d: %s", code, out)
	}
	if engines := checks()["engines"]; engines.Status != "ok" {
		t.Errorf("with the sidecar: %+v", engines)
	}
	s.Stop() // it has the device open until it is gone, and nobody takes it away then
	g.Do("machnet setup --undo")
	if out := g.Do("ip address show dev eth0"); !strings.Contains(out, "inet 10.0.0.1/24") {
		t.Errorf("the kernel has its NIC back with %s", out)
	}
}

func firstLine(text string) string {
	first, _, _ := strings.Cut(text, "\n")
	return first
}

// diagnosis is a row of `machnet doctor --json`.
type diagnosis struct{ Check, Status, Found, Expected, Command, Advice string }
