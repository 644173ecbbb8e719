package setup

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/machnet/machnet/cmd/internal/machine"
	"github.com/machnet/machnet/cmd/netns"
)

// kernel is a tree like /sys in which what is written to bind and unbind drivers has its effect: the files are pipes, and whoever reads them
// moves the links.
type kernel struct {
	t    *testing.T
	root machine.Root

	mu       sync.Mutex
	writes   []string
	override string
	stage    int // how many of the three writes there were, that move a device
}

// newKernel has one device of a bus, that interface eth7 (index 70) belongs to; home is its driver there.
func newKernel(t *testing.T, bus, device, home string, drivers ...string) *kernel {
	t.Helper()
	k := &kernel{t: t, root: machine.Root(t.TempDir())}
	real := "/sys/devices/" + bus + "0/" + device
	k.link("/sys/bus/"+bus+"/devices/"+device, real)
	k.link(real+"/subsystem", "/sys/bus/"+bus)
	k.link("/sys/class/net/eth7/device", real)
	k.file("/sys/class/net/eth7/ifindex", "70")
	k.file("/sys/class/net/eth7/address", "02:00:00:00:00:07")
	k.file(real+"/net/eth7/ifindex", "70")
	if bus == "vmbus" { // and its fast path
		k.link("/sys/class/net/enP1/device", "/sys/devices/pci0/0001:00:02.0")
		k.link("/sys/devices/pci0/0001:00:02.0/driver", "/sys/bus/pci/drivers/mlx5_core")
		k.link("/sys/bus/pci/devices/0001:00:02.0", "/sys/devices/pci0/0001:00:02.0")
		k.file("/sys/class/net/enP1/ifindex", "71")
		k.file("/sys/class/net/enP1/address", "02:00:00:00:00:07")
	}
	k.file(real+"/class", "0x020000")
	k.file("/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages", "10")
	k.file("/sys/devices/system/node/node0/hugepages/hugepages-2048kB/free_hugepages", "4")
	k.file("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "N")
	k.bound(real, home)
	k.pipe(real+"/driver_override", 0, func(word string) { k.override = word })
	k.pipe("/sys/bus/"+bus+"/drivers_probe", 2, func(string) {
		if k.driver(real) == "" {
			if driver := k.override; driver != "" {
				k.bound(real, driver)
			} else {
				k.bound(real, home)
			}
		}
	})
	for _, driver := range append(drivers, home) {
		k.pipe("/sys/bus/"+bus+"/drivers/"+driver+"/unbind", 1, func(string) {
			if err := os.Remove(k.root.Path(real + "/driver")); err != nil {
				t.Error(err)
			}
		})
	}
	return k
}

func (k *kernel) file(path, text string) {
	k.t.Helper()
	if err := os.MkdirAll(filepath.Dir(k.root.Path(path)), 0o755); err != nil {
		k.t.Fatal(err)
	}
	if err := os.WriteFile(k.root.Path(path), []byte(text+"\n"), 0o644); err != nil {
		k.t.Fatal(err)
	}
}

func (k *kernel) link(path, to string) {
	k.t.Helper()
	if err := os.MkdirAll(filepath.Dir(k.root.Path(path)), 0o755); err != nil {
		k.t.Fatal(err)
	}
	if err := os.Symlink(k.root.Path(to), k.root.Path(path)); err != nil {
		k.t.Fatal(err)
	}
}

func (k *kernel) bound(device, driver string) {
	k.link(device+"/driver", strings.Replace(device[:strings.LastIndex(device, "/")], "/sys/devices/", "/sys/bus/", 1)[:len("/sys/bus/")]+bus(device)+"/drivers/"+driver)
}

// bus is the one that a device is on: /sys/devices/pci0/... is on pci.
func bus(device string) string {
	return strings.TrimSuffix(strings.Split(device, "/")[3], "0")
}

func (k *kernel) driver(device string) string {
	to, err := os.Readlink(k.root.Path(device + "/driver"))
	if err != nil {
		return ""
	}
	return filepath.Base(to)
}

// pipe makes a file of which each line that is written has an effect. Whoever writes does not wait for that, as a real kernel has him wait: so
// the effect of one waits for those that come before it, and only a second if these never come.
func (k *kernel) pipe(path string, stage int, effect func(word string)) {
	k.t.Helper()
	at := k.root.Path(path)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		k.t.Fatal(err)
	}
	if err := syscall.Mkfifo(at, 0o644); err != nil {
		k.t.Fatal(err)
	}
	ended := make(chan struct{})
	var last sync.Once
	go func() {
		defer close(ended)
		for {
			text, err := os.ReadFile(at) // until the writer closes it
			word := strings.TrimSpace(string(text))
			if err != nil || word == "end" {
				return
			}
			k.mu.Lock()
			for began := time.Now(); k.stage != stage && time.Since(began) < time.Second; {
				k.mu.Unlock()
				time.Sleep(time.Millisecond)
				k.mu.Lock()
			}
			k.stage = (stage + 1) % 3
			k.writes = append(k.writes, fmt.Sprintf("%s > %s", word, path))
			effect(word)
			k.mu.Unlock()
		}
	}()
	k.t.Cleanup(func() {
		last.Do(func() {
			if err := os.WriteFile(at, []byte("end\n"), 0o644); err != nil {
				k.t.Error(err)
			}
			<-ended
		})
	})
}

func (k *kernel) written() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := strings.Join(k.writes, "\n")
	k.writes = nil
	return all
}

// inNamespace runs f where the kernel has an interface eth7 that is up, with an address.
func inNamespace(t *testing.T, f func() error, more ...string) {
	t.Helper()
	if err := netns.Available(); err != nil {
		t.Skipf("not tried: %v", err)
	}
	n, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	for _, command := range append([]string{
		"link add eth7 index 70 address 02:00:00:00:00:07 mtu 9500 type bridge", "link set eth7 addrgenmode none", "link set eth7 up",
		"link add enP1 index 71 address 02:00:00:00:00:07 mtu 9500 type veth peer name far", "link set enP1 master eth7", "link set enP1 up",
		"address add 10.1.2.3/24 dev eth7", "route add default via 10.1.2.1 dev eth7 table 9",
	}, more...) {
		if err := n.Run("ip", strings.Fields(command)...); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.Do(f); err != nil {
		t.Fatal(err)
	}
}

// fastPath looks whether the interface is as it should be by which packets of the Hyper-V device go.
func fastPath(up bool) error {
	out, err := exec.Command("ip", "-o", "link", "show", "dev", "enP1", "up").CombinedOutput()
	if err != nil || (len(out) > 0) != up {
		return fmt.Errorf("enP1 is up: %q (%v), want %v", out, err, up)
	}
	return nil
}

func TestADeviceGoesToAnotherDriverAndBack(t *testing.T) {
	const sys = "/sys/bus/"
	for name, tc := range map[string]struct {
		bus, device, home, driver, to string
		mtu, chosen, there, back      string
	}{
		"PCI, vfio-pci": {bus: "pci", device: "0000:00:07.0", home: "ena", driver: "vfio-pci", to: "vfio-pci",
			chosen: `pci = "0000:00:07.0"`,
			there:  "vfio-pci > DEVICE/driver_override\n0000:00:07.0 > " + sys + "pci/drivers/ena/unbind\n0000:00:07.0 > " + sys + "pci/drivers_probe",
			back:   " > DEVICE/driver_override\n0000:00:07.0 > " + sys + "pci/drivers/vfio-pci/unbind\n0000:00:07.0 > " + sys + "pci/drivers_probe"},
		"PCI, uio": {bus: "pci", device: "0000:00:07.0", home: "virtio-pci", driver: "uio_pci_generic", to: "uio_pci_generic",
			chosen: `pci = "0000:00:07.0"`,
			there:  "uio_pci_generic > DEVICE/driver_override\n0000:00:07.0 > " + sys + "pci/drivers/virtio-pci/unbind\n0000:00:07.0 > " + sys + "pci/drivers_probe",
			back:   " > DEVICE/driver_override\n0000:00:07.0 > " + sys + "pci/drivers/uio_pci_generic/unbind\n0000:00:07.0 > " + sys + "pci/drivers_probe"},
		"Hyper-V": {bus: "vmbus", device: "000d3a6e-0000-4000-8000-000d3a6e0000", home: "hv_netvsc", driver: "vfio-pci", to: "uio_hv_generic",
			chosen: `mac = "02:00:00:00:00:07"`,
			there:  "uio_hv_generic > DEVICE/driver_override\nNAME > " + sys + "vmbus/drivers/hv_netvsc/unbind\nNAME > " + sys + "vmbus/drivers_probe",
			back:   " > DEVICE/driver_override\nNAME > " + sys + "vmbus/drivers/uio_hv_generic/unbind\nNAME > " + sys + "vmbus/drivers_probe"},
	} {
		t.Run(name, func(t *testing.T) {
			var more []string
			if tc.bus == "pci" { // what has a port is a bridge, which no PCI device is
				more = []string{"link set enP1 nomaster", "link set eth7 mtu 9500"}
			}
			inNamespace(t, func() error {
				k := newKernel(t, tc.bus, tc.device, tc.home, tc.to)
				real := "/sys/devices/" + tc.bus + "0/" + tc.device
				folder := t.TempDir()
				o := Options{NIC: "eth7", Backend: DPDK, Driver: tc.driver, Engines: 2, Root: k.root, Config: "/m.toml", State: folder + "/s.json", AtBoot: "/usr/bin/machnet"}
				plan, err := New(o)
				if err != nil {
					return err
				}
				want := func(words string) string {
					return strings.ReplaceAll(strings.ReplaceAll(words, "DEVICE", real), "NAME", tc.device)
				}
				if err := plan.Apply(context.Background(), new(strings.Builder)); err != nil {
					return err
				}
				if got := k.written(); got != want(tc.there) || k.driver(real) != tc.to {
					return fmt.Errorf("written was\n%s\nwant\n%s", got, want(tc.there))
				}
				settings, err := os.ReadFile(k.root.Path("/m.toml"))
				if err != nil || !strings.Contains(string(settings), "[nic]\n"+tc.chosen+"\nmtu = 9001\n") {
					return fmt.Errorf("the settings are %s (%v), without %s and the most that machnetd takes", settings, err, tc.chosen)
				}
				service, err := os.ReadFile(k.root.Path(dropIn))
				if want := "\nExecStartPre=+/usr/bin/machnet setup --nic eth7 --driver " + tc.driver + " --engines 2 --config /m.toml --state " + o.State + "\n"; err != nil || !strings.Contains(string(service), want) {
					return fmt.Errorf("the service has %s (%v), without %s", service, err, want)
				}
				// 32 + 2 x 32 MiB, and 6 pages that others have.
				const pages = "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages"
				if text, err := os.ReadFile(k.root.Path(pages)); err != nil || string(text) != "54\n" {
					return fmt.Errorf("there are %s huge pages (%v), want 54", text, err)
				}
				noIOMMU := "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode"
				if text, err := os.ReadFile(k.root.Path(noIOMMU)); err != nil || (tc.to == "vfio-pci") != (string(text) == "1\n") {
					return fmt.Errorf("vfio without an IOMMU: %q, %v", text, err)
				}
				if err := fastPath(tc.bus != "vmbus"); err != nil {
					return err
				}
				if out, err := exec.Command("ip", "-o", "address", "show", "dev", "eth7", "up").CombinedOutput(); err != nil || len(out) > 0 {
					return fmt.Errorf("the kernel still has %s (%v)", out, err)
				}

				o.AtBoot = "" // as the service calls it
				again, err := New(o)
				if err != nil {
					return err
				}
				if left := again.Pending(context.Background()); len(left) > 0 {
					return fmt.Errorf("the second time there is left %v", left)
				}
				// After a reboot it is the kernel's again.
				if err := os.Remove(k.root.Path(real + "/driver")); err != nil {
					return err
				}
				k.bound(real, tc.home)
				if left := again.Pending(context.Background()); len(left) != 1 {
					return fmt.Errorf("after a reboot there is left %v", left)
				}
				if err := again.Apply(context.Background(), new(strings.Builder)); err != nil {
					return err
				}
				if got := k.written(); got != want(tc.there) {
					return fmt.Errorf("after a reboot written was\n%s\nwant\n%s", got, want(tc.there))
				}

				// Somebody else reserves 20 more.
				k.file(pages, "74")
				if err := again.Undo(new(strings.Builder)); err != nil {
					return err
				}
				if got := k.written(); got != want(tc.back) || k.driver(real) != tc.home {
					return fmt.Errorf("written was\n%s\nwant\n%s, and the driver is %s", got, want(tc.back), k.driver(real))
				}
				if err := fastPath(true); err != nil {
					return err
				}
				if text, _ := os.ReadFile(k.root.Path(pages)); string(text) != "30\n" {
					return fmt.Errorf("there are %s huge pages, want 30: ours are gone, and those of others are not", text)
				}
				for _, path := range []string{o.State, k.root.Path("/m.toml"), k.root.Path(dropIn), k.root.Path(filepath.Dir(dropIn))} {
					if exists(path) {
						return fmt.Errorf("%s is still there", path)
					}
				}
				return nil
			}, more...)
		})
	}
}

func TestANICThatOthersHangOnIsNotTaken(t *testing.T) {
	for name, tc := range map[string]struct{ command, want string }{
		"VLAN":      {"link add link eth7 name eth7.5 type vlan id 5", "eth7.5 (vlan) would end with it"},
		"macvlan":   {"link add link eth7 name mac7 type macvlan", "mac7 (macvlan) would end with it"},
		"bond":      {"link set enP1 down", "it is a port of bond0, which would lose it; take it out first (ip link set dev eth7 nomaster)"},
		"IPv6 only": {"-6 route add default dev eth7", "the default route is by it"},
		"two equal": {"route add default nexthop dev enP1 nexthop dev eth7", "the default route is by it"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := os.Stat("/proc/net/vlan"); name == "VLAN" && err != nil {
				t.Skipf("not tried: this kernel has no VLANs: %v; load its module 8021q", err)
			}
			more := []string{"link set enP1 nomaster", tc.command}
			if name == "bond" { // no bridge can be a port, so eth7 is another
				more = []string{"link del eth7", "link add eth7 index 70 address 02:00:00:00:00:07 type veth peer name far7", "link add bond0 type bridge", "link set eth7 master bond0"}
			}
			inNamespace(t, func() error {
				k := newKernel(t, "pci", "0000:00:07.0", "ena", "vfio-pci")
				o := Options{NIC: "eth7", Backend: DPDK, Root: k.root, Config: "/m.toml", State: t.TempDir() + "/s.json", IP: netip.MustParsePrefix("10.1.2.3/24")}
				if _, err := New(o); err == nil || !strings.Contains(err.Error(), tc.want) {
					return fmt.Errorf("it says %v, not %q", err, tc.want)
				}
				return nil
			}, more...)
		})
	}
}
