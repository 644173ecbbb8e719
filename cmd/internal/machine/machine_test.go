package machine

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/machnet/machnet/cmd/netns"
)

// tree is a folder with these files; a value that begins with -> makes a symbolic link.
func tree(t *testing.T, files map[string]string) Root {
	t.Helper()
	root := t.TempDir()
	for path, text := range files {
		at := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if to, link := strings.CutPrefix(text, "->"); link {
			err = os.Symlink(to, at)
		} else {
			err = os.WriteFile(at, []byte(text+"\n"), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return Root(root)
}

// device adds a PCI device, as /sys has it, to the files of a tree.
func device(files map[string]string, address, class, driver string) {
	real := "/sys/devices/pci0000:00/" + address
	files["/sys/bus/pci/devices/"+address] = "->../../../devices/pci0000:00/" + address
	files[real+"/class"], files[real+"/vendor"], files[real+"/device"] = class, "0x1d0f", "0xec20"
	files[real+"/numa_node"] = "1"
	if driver != "" {
		files[real+"/driver"] = "->../../../bus/pci/drivers/" + driver
	}
}

// inside runs f in a network namespace of its own that `ip` has set up with these commands.
func inside(t *testing.T, commands []string, f func() error) {
	t.Helper()
	if err := netns.Available(); err != nil {
		t.Skipf("not tested: %v", err)
	}
	n, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	for _, command := range commands {
		if err := n.Run("ip", strings.Fields(command)...); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.Do(f); err != nil {
		t.Fatal(err)
	}
}

func TestAnInterfaceIsReadWithItsDeviceAddressesAndGateway(t *testing.T) {
	inside(t, []string{
		"link add eth7 index 70 address 02:00:00:00:00:07 mtu 9001 type bridge",
		"link add eth8 index 80 type bridge",
		"link set eth7 up", "link set eth8 up",
		"address add 10.1.7.7/24 dev eth7 scope link", "address add 10.1.8.8/24 dev eth7",
		"address add 10.1.2.3/24 brd + dev eth7 label eth7:a",
		"address add 10.1.2.4/24 dev eth7",
		"address add 10.9.0.1 peer 10.9.0.2/32 dev eth8 valid_lft 600 preferred_lft 300",
		"route add default via 10.1.2.254 dev eth7 metric 200",
		"route add default via 10.1.2.1 dev eth7 metric 100",
		"route add default via 10.9.0.2 dev eth8 metric 300 onlink",
		"route add default via 10.9.0.2 dev eth8 table 9 onlink", // of which only some packets know
	}, func() error {
		files := map[string]string{
			"/sys/class/net/eth7/ifindex": "70", "/sys/class/net/eth7/address": "02:00:00:00:00:07",
			"/sys/class/net/eth7/device":        "->../../../devices/pci0000:00/0000:00:07.0",
			"/sys/class/net/eth7/queues/rx-0/x": "", "/sys/class/net/eth7/queues/rx-1/x": "",
			"/sys/class/net/eth7/queues/tx-0/x": "",
			"/sys/class/net/eth8/ifindex":       "81", // another namespace's
			"/sys/class/net/eth8/device":        "->../../../devices/pci0000:00/0000:00:09.0",
		}
		device(files, "0000:00:07.0", "0x020000", "ena")
		device(files, "0000:00:09.0", "0x020000", "vfio-pci")
		device(files, "0000:00:0a.0", "0x010802", "nvme")
		root := tree(t, files)

		nic, err := root.Find("eth7")
		if err != nil {
			return err
		}
		got := fmt.Sprintln(nic.MAC, nic.MTU, nic.Up, nic.Gateway, nic.PCI, nic.Driver, nic.Vendor, nic.NUMA, nic.IOMMU, nic.RxQueues, nic.TxQueues, nic.Kind)
		if want := "02:00:00:00:00:07 9001 true 10.1.2.1 0000:00:07.0 ena 7439 1 false 2 1 \n"; got != want {
			return fmt.Errorf("eth7 is %q, want %q", got, want)
		}
		address, ok := nic.IPv4()
		if !ok || address.Prefix != netip.MustParsePrefix("10.1.2.3/24") || address.Label != "eth7:a" || address.Valid != Forever {
			return fmt.Errorf("eth7 has the address %+v", address)
		}
		for _, word := range []string{"00:07.0", "0000:00:07.0", "02:00:00:00:00:07"} {
			if same, err := root.Find(word); err != nil || same.Name != "eth7" {
				return fmt.Errorf("find %s: %v, %v", word, same, err)
			}
		}
		other, err := root.Find("eth8")
		if err != nil || other.PCI != "" || other.Kind != "bridge" {
			return fmt.Errorf("eth8 is no device's: %+v, %v", other, err)
		}
		address = other.Addresses[0]
		if address.Peer != netip.MustParsePrefix("10.9.0.2/32") || address.Valid > 600 || address.Valid < 500 || address.Preferred > 300 {
			return fmt.Errorf("eth8 has the address %+v", address)
		}
		unnamed, err := root.Find("00:09.0")
		if err != nil || unnamed.Name != "" || unnamed.Driver != "vfio-pci" {
			return fmt.Errorf("the device of vfio-pci is %+v, %v", unnamed, err)
		}
		name, gateway, err := root.DefaultRoute()
		if err != nil || name != "eth7" || gateway != netip.MustParseAddr("10.1.2.1") {
			return fmt.Errorf("the default route is by %s, %v, %v", name, gateway, err)
		}
		_, err = root.Find("eth9")
		if want := "no interface eth9; this machine's NICs are eth7 (0000:00:07.0), eth8, 0000:00:09.0"; err == nil || err.Error() != want {
			return fmt.Errorf("eth9: %v, want %s", err, want)
		}
		return nil
	})
}

func TestAHyperVDeviceIsReadWithItsVF(t *testing.T) {
	inside(t, []string{
		"link add eth0 index 20 address 02:00:00:00:00:20 type bridge", // what may be a master
		"link add enP1 index 21 address 02:00:00:00:00:20 type veth peer name far",
		"link set enP1 master eth0",
	}, func() error {
		const guid = "000d3a6e-0000-4000-8000-000d3a6e0000"
		files := map[string]string{
			"/sys/class/net/eth0/ifindex": "20", "/sys/class/net/eth0/address": "02:00:00:00:00:20",
			"/sys/class/net/eth0/device":                "->../../../bus/vmbus/devices/" + guid,
			"/sys/bus/vmbus/devices/" + guid:            "->../../../devices/vmbus/" + guid,
			"/sys/devices/vmbus/" + guid + "/driver":    "->../../../bus/vmbus/drivers/hv_netvsc",
			"/sys/devices/vmbus/" + guid + "/subsystem": "->../../../bus/vmbus",
			"/sys/class/net/enP1/ifindex":               "21", "/sys/class/net/enP1/address": "02:00:00:00:00:20",
			"/sys/class/net/enP1/device": "->../../../devices/pci0000:00/0001:00:02.0",
		}
		device(files, "0001:00:02.0", "0x020000", "mlx5_core")
		nic, err := tree(t, files).Find("02:00:00:00:00:20")
		if err != nil {
			return err
		}
		if nic.Name != "eth0" || nic.Vmbus != guid || nic.Driver != "hv_netvsc" || nic.VF != "enP1" || nic.PCI != "" {
			return fmt.Errorf("eth0 is %+v", nic)
		}
		return nil
	})
}

func TestQueuesAreThoseThatAreInUse(t *testing.T) {
	inside(t, []string{"link add v0 numrxqueues 4 numtxqueues 4 type veth peer name v1 numrxqueues 4 numtxqueues 4"}, func() error {
		if out, err := exec.Command("ethtool", "-L", "v0", "rx", "3", "tx", "2").CombinedOutput(); err != nil {
			t.Skipf("not tested: ethtool -L v0 rx 3 tx 2: %v: %s; `make deps` installs it", err, out)
		}
		nic, err := Root("").ByName("v0")
		if err != nil || nic.RxQueues != 3 || nic.TxQueues != 2 {
			return fmt.Errorf("v0 has %d and %d queues (%v), want 3 and 2", nic.RxQueues, nic.TxQueues, err)
		}
		return nil
	})
}

func TestHugePagesAreCountedForEachNode(t *testing.T) {
	const node = "/sys/devices/system/node/node"
	root := tree(t, map[string]string{
		node + "0/hugepages/hugepages-2048kB/nr_hugepages":       "16",
		node + "0/hugepages/hugepages-2048kB/free_hugepages":     "7",
		node + "1/hugepages/hugepages-1048576kB/nr_hugepages":    "2",
		node + "1/hugepages/hugepages-1048576kB/free_hugepages":  "2",
		"/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": "99",
		"/proc/self/mounts": "none / overlay rw 0 0\nhugetlbfs /dev/hugepages hugetlbfs rw,pagesize=2M 0 0",
	})
	all, err := root.Hugepages()
	if err != nil || len(all) != 2 {
		t.Fatal(all, err)
	}
	for i := range all {
		all[i].Knob = strings.TrimPrefix(all[i].Knob, string(root))
	}
	want := []Hugepages{
		{0, 2048, 16, 7, node + "0/hugepages/hugepages-2048kB/nr_hugepages"},
		{1, 1048576, 2, 2, node + "1/hugepages/hugepages-1048576kB/nr_hugepages"},
	}
	if all[0] != want[0] || all[1] != want[1] {
		t.Errorf("read %+v, want %+v", all, want)
	}
	if mounts := root.HugepageMounts(); len(mounts) != 1 || mounts[0] != "/dev/hugepages" {
		t.Errorf("mounted at %q", mounts)
	}
}

func TestTheIOMMUIsToldFromItsAbsence(t *testing.T) {
	none := tree(t, map[string]string{"/sys/module/vfio/parameters/enable_unsafe_noiommu_mode": "Y"}).IOMMU()
	if want := (IOMMU{VFIO: true, NoIOMMU: true, Possible: true}); none != want {
		t.Errorf("without groups: %+v", none)
	}
	if some := tree(t, map[string]string{"/sys/kernel/iommu_groups/0/type": "DMA"}).IOMMU(); some != (IOMMU{Groups: 1}) {
		t.Errorf("with a group: %+v", some)
	}
}

func TestTheInterfaceOfAnSSHSessionIsFound(t *testing.T) {
	inside(t, []string{
		"link set lo up",
		"link add eth1 type bridge", "link set eth1 up", "address add 10.1.0.1/24 dev eth1",
		"link add eth2 type veth peer name far", "link set eth2 up", "link set far up", "address add 10.2.0.1/24 dev eth2", "address add fd00::2/64 dev eth2 nodad",
		"address add 10.9.0.1/32 dev lo", "rule add from 10.9.0.1 lookup 9", "route add default dev eth2 table 9", "route add default dev eth1",
	}, func() error {
		found := func(want string) error {
			sessions, err := Root("").SSHSessions()
			var all []string
			for _, s := range sessions {
				all = append(all, fmt.Sprint(s.Interfaces, " ", s.Why))
			}
			if found := strings.Join(all, "; "); err != nil || found != want {
				return fmt.Errorf("found %s (%v), want %s", found, err, want)
			}
			return nil
		}
		t.Setenv("SSH_CONNECTION", "")
		if err := found(""); err != nil {
			return err
		}
		t.Setenv("SSH_CONNECTION", "192.0.2.1 50000 10.1.0.1 22")
		if err := found("[eth1] SSH_CONNECTION is from 192.0.2.1 to 10.1.0.1"); err != nil {
			return err
		}
		// The address is one of loopback's, and a rule says by which interface packets leave that are from it.
		t.Setenv("SSH_CONNECTION", "192.0.2.1 50000 10.9.0.1 2222")
		if err := found("[eth2] SSH_CONNECTION is from 192.0.2.1 to 10.9.0.1"); err != nil {
			return err
		}
		t.Setenv("SSH_CONNECTION", "")
		// This process is an sshd for a moment.
		name, err := os.ReadFile("/proc/self/comm")
		if err != nil {
			return err
		}
		if err := os.WriteFile("/proc/self/comm", []byte("sshd"), 0); err != nil {
			return err
		}
		defer os.WriteFile("/proc/self/comm", name, 0)
		for address, want := range map[string]string{
			"10.2.0.1:2022": "[eth2] a connection from 10.2.0.1 to port 2022 of 10.2.0.1 is open",
			"10.2.0.1:22":   "[eth2] a connection from 10.2.0.1 to port 22 of 10.2.0.1 is open",
			"[fd00::2]:22":  "[eth2] a connection from fd00::2 to port 22 of fd00::2 is open",
		} {
			ln, err := net.Listen("tcp", address)
			if err != nil {
				return err
			}
			// On this thread: Go makes the socket where it is called. The kernel has a route to the address of IPv6 soon after the link is up.
			conn, err := net.DialTimeout("tcp", address, time.Second)
			for began := time.Now(); err != nil && time.Since(began) < 10*time.Second; time.Sleep(10 * time.Millisecond) {
				conn, err = net.DialTimeout("tcp", address, time.Second)
			}
			if err != nil {
				return err
			}
			if err := found(want); err != nil {
				return err
			}
			conn.Close()
			if server, err := ln.Accept(); err == nil {
				server.Close()
			}
			ln.Close()
		}
		return nil
	})
}

func TestPCIAddressesAreCompletedAndChecked(t *testing.T) {
	for text, want := range map[string]string{"00:05.0": "0000:00:05.0", "0000:AF:00.1": "0000:af:00.1"} {
		if got, err := PCIAddress(text); err != nil || got != want {
			t.Errorf("%s is %s, %v", text, got, err)
		}
	}
	for _, bad := range []string{"", "eth0", "0000:00:05", "00:05.0,x", "00:05.9", "0000:00:05.0.0", "zz:05.0", "02:00:00:00:00:07"} {
		if got, err := PCIAddress(bad); err == nil {
			t.Errorf("%q is taken for %s", bad, got)
		}
	}
}
