package doctor

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/machnet/machnet/cmd/netns"
)

func deviceBreakages() []breakage {
	return []breakage{
		{check: "iommu", how: "none, and vfio may not do without", broken: noIOMMU, status: "fail"},
		{check: "nic-driver", how: "DPDK has none", broken: noDriver, status: "fail",
			outside: "another DPDK has to be installed, or another NIC chosen", mend: func(w *world) { w.tree.react(w.t) }},
		{check: "nic-driver", how: "a device that is down", broken: deviceDown, status: "warn"},
		{check: "device-permissions", how: "another user's", broken: closedDevice, status: "fail"},
		{check: "mtu", how: "a device with a smaller one", broken: smallMTU, status: "fail"},
		{check: "queues", how: "more engines than processors", broken: manyEngines, status: "warn"},
	}
}

const address = "0000:00:05.0"

func noIOMMU(t *testing.T) *world {
	tr := newTree(t)
	sys := tr.sys(t)
	tr.nic(t, sys, address, "0x1d0f", "0xec20", "vfio-pci")
	write(t, sys+"/module/vfio/parameters/enable_unsafe_noiommu_mode", "N\n")
	return &world{tree: tr, flags: []string{"--nic", address}}
}

// noDriver is a MANA device, for which Debian 12's DPDK has no driver, with the plugins of whatever DPDK is here hidden if it has one.
func noDriver(t *testing.T) *world {
	tr := newTree(t)
	sys := tr.sys(t)
	nic := tr.nic(t, sys, address, "0x1414", "0x00ba", "mana")
	for _, plugin := range glob(t, "/usr/lib/*/dpdk/pmds-*/librte_net_mana.so*") {
		t.Skipf("this DPDK has a driver for MANA: %s", plugin)
	}
	tr.react = func(t *testing.T) {
		write(t, nic+"/vendor", "0x1d0f\n")
		write(t, nic+"/device", "0xec20\n")
	}
	return &world{tree: tr, flags: []string{"--nic", address}}
}

func glob(t *testing.T, pattern string) []string {
	found, err := filepath.Glob(pattern)
	must(t, err)
	return found
}

func closedDevice(t *testing.T) *world {
	tr := newTree(t)
	sys := tr.sys(t)
	nic := tr.nic(t, sys, address, "0x1d0f", "0xec20", "vfio-pci")
	must(t, os.MkdirAll(sys+"/kernel/iommu_groups/7", 0o755))
	must(t, os.Symlink("../../../../kernel/iommu_groups/7", nic+"/iommu_group"))
	dev := tr.dev(t)
	for _, name := range []string{"vfio", "7"} {
		write(t, dev+"/vfio/"+name, "")
		must(t, os.Chmod(dev+"/vfio/"+name, 0o600))
	}
	return &world{tree: tr, nobody: true, flags: []string{"--nic", address}}
}

// veth is a device of a namespace of its own; its other end is in another.
func veth(t *testing.T, mtu int) *netns.Namespace {
	needRoot(t)
	near, err := netns.New()
	must(t, err)
	t.Cleanup(func() { _ = near.Close() })
	far, err := netns.New()
	must(t, err)
	t.Cleanup(func() { _ = far.Close() })
	must(t, netns.Veth(netns.End{Namespace: near, Device: device}, netns.End{Namespace: far, Device: "far"}, mtu))
	return near
}

const device = "v0"

func onDevice(t *testing.T) []string {
	return append([]string{"--"}, words("--ip 10.0.0.1/24 --vdev net_af_packet0,iface=%s --socket %s/s", device, shortTempDir(t))...)
}

func deviceDown(t *testing.T) *world {
	n := veth(t, 1500)
	must(t, n.Run("ip", "link", "set", "dev", device, "down"))
	return &world{namespace: n, flags: onDevice(t)}
}

func smallMTU(t *testing.T) *world {
	return &world{namespace: veth(t, 1400), flags: onDevice(t)}
}

func manyEngines(t *testing.T) *world {
	tr := newTree(t)
	inGroup(t, tr, tr.sys(t))
	write(t, tr.folder+"/sys/fs/cgroup/machnet.slice/machnetd.service/cpuset.cpus", "0\n")
	folder := shortTempDir(t)
	config := filepath.Join(folder, "machnetd.toml")
	write(t, config, lines("[host]", `ip = "10.0.0.1/24"`, "[nic]", `memif = "server:`+folder+`/l"`, "[engines]", "count = 2", `[control]`, `socket = "`+folder+`/s"`))
	return &world{tree: tr, flags: []string{"--config", config}}
}
