package setup

import (
	"os"
	"strings"
	"testing"

	"github.com/machnet/machnet/tests/vm"
)

// newGuest boots a virtual machine with two NICs of virtio's on one network, that the kernel drives: lan0, with all kinds of things on it, and eth1.
func newGuest(t *testing.T) *vm.Guest {
	t.Helper()
	chosen(t)
	if os.Getenv("MACHNET_SETUP") == "namespaces" {
		t.Skip("not chosen: there is nothing to boot a guest with")
	}
	network := vm.NewNetwork(t)
	g := vm.Start(t, vm.Config{NICs: []vm.NIC{{Model: vm.Virtio, Queues: 2, Network: network}, {Model: vm.Virtio, Queues: 2, Network: network}}})
	g.Do("modprobe virtio_net")
	g.Until("the kernel has both interfaces", func() bool {
		_, code := g.Run("test -e /sys/class/net/eth0 && test -e /sys/class/net/eth1")
		return code == 0
	})
	for _, command := range []string{
		"ip link set dev eth0 name lan0", "ip link set dev lan0 mtu 1450 txqueuelen 500 alias ours", "ip link set dev lan0 up", "ip link set dev eth1 up",
		"echo 1 > /proc/sys/net/ipv4/conf/lan0/forwarding", "echo 0 > /proc/sys/net/ipv6/conf/lan0/accept_ra",
		"ip address add 10.1.2.3/24 broadcast + dev lan0", "ip address add 10.1.2.4/24 dev lan0 label lan0:two",
		"ip address add fd00:1::3/64 dev lan0 nodad", "ip address add 10.1.2.8/24 dev eth1",
		"ip route add 10.20.0.0/16 via 10.1.2.2 dev lan0 metric 7 initcwnd 20", "ip -6 route add fd00:9::/64 via fd00:1::1 dev lan0 src fd00:1::3",
		"ip rule add from 10.1.2.3 lookup 101 priority 3000", "ip route add default via 10.1.2.1 dev lan0 table 101",
		"ip neighbour add 10.1.2.77 lladdr 02:00:00:00:00:77 nud permanent dev lan0",
	} {
		g.Do(command)
	}
	g.Until("the kernel finds its addresses of IPv6 to be free", func() bool { return !strings.Contains(g.Do("ip -6 address"), "tentative") })
	return g
}

// machineState is all that the setup may change in a guest: the network, drivers, modules, huge pages and files.
func machineState(t *testing.T, g *vm.Guest) string {
	t.Helper()
	return network(t, g) + g.Do(`for d in /sys/bus/pci/devices/*; do echo "$d $(basename "$(readlink $d/driver)") $(cat $d/driver_override)"; done
		echo modules $(cut -d ' ' -f 1 /proc/modules | sort); echo pages $(cat /sys/devices/system/node/node*/hugepages/*/nr_hugepages /proc/sys/vm/nr_hugepages)
		find /etc /var /root -type f ! -name '*tmp' 2>/dev/null | sort | xargs md5sum`)
}

func TestARealNICGoesToMachnetdAndBack(t *testing.T) {
	g := newGuest(t)
	before := machineState(t, g)
	const first = " --config /etc/machnet/a.toml --state /var/lib/machnet/a.json"
	const second = " --config /etc/machnet/b.toml --state /var/lib/machnet/b.json"

	// Debian's cloud kernel has no VFIO without an IOMMU: that is said, and nothing remains of the attempt.
	out, code := g.Run("machnet setup --nic lan0" + first)
	if want := "this kernel's vfio does not work without an IOMMU, and there is none for this device; try --driver uio_pci_generic"; code != 1 || !strings.Contains(out, want) {
		t.Errorf("with vfio-pci it ended with status %d and said %q, not %q", code, out, want)
	}
	same(t, "after a setup that failed, the machine", before, func() string { return machineState(t, g) })

	const uio = "machnet setup --nic lan0 --driver uio_pci_generic" + first
	script := g.Do(uio + " --dry-run")
	same(t, "after --dry-run, the machine", before, func() string { return machineState(t, g) })
	g.Do(uio)
	if driver := g.Do("basename $(readlink /sys/bus/pci/devices/" + g.PCI(0) + "/driver)"); driver != "uio_pci_generic" {
		t.Fatalf("its driver is %s", driver)
	}
	if again := g.Do(uio); !strings.Contains(again, "nothing to do") {
		t.Errorf("the second time it says %q", again)
	}
	// Another sidecar, over the other NIC, which the kernel keeps.
	g.Do("machnet setup --nic eth1 --af-packet" + second)
	itself := machineState(t, g)

	a := g.Start("machnetd-a", "machnetd --config /etc/machnet/a.toml --socket /tmp/a.sock --idle yield")
	b := g.Start("machnetd-b", "machnetd --config /etc/machnet/b.toml --socket /tmp/b.sock --idle yield")
	a.Says("10.1.2.3/24 on net_virtio, MTU 1450")
	b.Says("10.1.2.8/24 on net_af_packet")
	g.Until("both sidecars have their sockets", func() bool {
		if !a.Running() || !b.Running() {
			t.Fatalf("machnetd ended: %s\n%s", a.Log(), b.Log())
		}
		_, code := g.Run("test -S /tmp/a.sock && test -S /tmp/b.sock")
		return code == 0
	})
	// The kernel would wait for the process that has the device, and so would whoever took it away.
	if out, code := g.Run("machnet setup --undo" + first); code != 1 || !strings.Contains(out, "a process has the device open (machnetd?); end it first") {
		t.Errorf("--undo under a running machnetd ended with status %d: %s", code, out)
	}
	a.Stop()
	b.Stop()

	g.Do("machnet setup --undo" + second)
	g.Do("machnet setup --undo" + first)
	same(t, "after --undo, the machine", before, func() string { return machineState(t, g) })

	// What --dry-run printed does the same as what was done.
	g.Put("/tmp/script", []byte(script+"\n"), 0o755)
	g.Do("sh /tmp/script")
	g.Do("machnet setup --nic eth1 --af-packet" + second)
	records := func(state string) string {
		var kept []string
		for _, line := range strings.Split(state, "\n") {
			if !strings.Contains(line, "a.json") && !strings.Contains(line, "b.json") {
				kept = append(kept, line)
			}
		}
		return strings.Join(kept, "\n")
	}
	same(t, "after the printed commands, the machine", records(itself), func() string { return records(machineState(t, g)) })
}
