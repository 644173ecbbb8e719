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
	for _, name := range []string{"hugepages", "iommu", "nic-driver"} {
		before := checks()[name]
		if before.Status != "fail" || before.Command == "" {
			t.Errorf("%s before anything is mended: %+v", name, before)
			continue
		}
		out, code := g.Run(before.Command)
		if after := checks()[name]; after.Status != "ok" {
			t.Errorf("%s was %+v; its command printed %q with status %d, and now it is %+v", name, before, out, code, after)
		}
	}
}

func firstLine(text string) string {
	first, _, _ := strings.Cut(text, "\n")
	return first
}

// diagnosis is a row of `machnet doctor --json`.
type diagnosis struct{ Check, Status, Found, Expected, Command, Advice string }
