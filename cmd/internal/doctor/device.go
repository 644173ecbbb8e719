package doctor

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// checkIOMMU asks whether vfio can give the device to a process.
func checkIOMMU(_ context.Context, e *Env) Result {
	if r := e.needsDevice(); r != nil {
		return *r
	}
	iommu := e.Root.IOMMU()
	switch {
	case e.nic.Vmbus != "" || e.settings.NIC[0] == "mac":
		return ok("not needed: the kernel's driver shares the device")
	case e.nic.IOMMU:
		return ok("the device is in a group of the IOMMU")
	case e.nic.Driver == "uio_pci_generic" || e.nic.Driver == "igb_uio":
		return ok("not needed: %s gives devices away without one", e.nic.Driver)
	case iommu.NoIOMMU:
		return ok("none, and vfio may do without: then the device can reach all memory, as in most clouds' machines")
	}
	r := Result{Status: Fail, Found: fmt.Sprintf("the device is in no group of an IOMMU (there are %d), and vfio may not do without one", iommu.Groups),
		Expected: "a group of an IOMMU, or vfio's no-IOMMU mode"}
	const mode = "echo 1 > /sys/module/vfio/parameters/enable_unsafe_noiommu_mode"
	switch {
	case iommu.Possible:
		r.Command = mode
	case iommu.VFIO:
		r.Command = e.setup("uio_pci_generic")
		r.Advice = "this kernel's vfio has no such mode (CONFIG_VFIO_NOIOMMU); uio_pci_generic needs none"
		return r
	default:
		// Whether vfio has the mode is known when it is loaded.
		r.Command = fmt.Sprintf("{ modprobe vfio && %s; } || %s", mode, e.setup("uio_pci_generic"))
	}
	r.Advice = "for good: `echo options vfio enable_unsafe_noiommu_mode=1 > /etc/modprobe.d/machnet.conf`; better, where the machine has one: intel_iommu=on or amd_iommu=on on the kernel's command line"
	return r
}

// setup is the command that gives the NIC to a process, by this driver; "" is the one that machnet setup chooses.
func (e *Env) setup(driver string) string {
	words := []string{"setup", "--nic", e.nic.PCI}
	if e.nic.PCI == "" {
		words[2] = e.nic.Name
	}
	if driver != "" {
		words = append(words, "--driver", driver)
	}
	if _, has := e.nic.IPv4(); !has && e.settings != nil && e.NIC == "" {
		words = append(words, "--ip", fmt.Sprintf("%s/%d", e.settings.IP, e.settings.Prefix))
		if e.settings.Gateway != nil {
			words = append(words, "--gateway", *e.settings.Gateway)
		}
	}
	if file := flagValue(e.Flags, "--config"); file != "" && file != DefaultConfig {
		words = append(words, "--config", file)
	}
	return quote("machnet", words...)
}

// needsDevice says why there is no device of the machine to look at; nil where there is one.
func (e *Env) needsDevice() *Result {
	var r Result
	switch {
	case e.nic == nil:
		r = skip("%s", e.noNIC)
	case e.settings != nil && !e.physical():
		r = ok("not needed: the kernel keeps %s, and the sidecar uses it beside it", e.nic)
	case e.nic.PCI == "" && e.nic.Vmbus == "":
		r = skip("%s is no PCI or Hyper-V device", e.nic)
	case e.settings == nil:
		r = skip("%s", e.noCheck)
	default:
		return nil
	}
	return &r
}

// checkDriver asks whether the device is with a driver that lets a process have it, and whether the DPDK at hand drives it. machnetd judges.
func checkDriver(_ context.Context, e *Env) Result {
	if e.about != nil {
		return ok("%s drives it, of %s", e.about.NIC.Driver, e.about.DPDK)
	}
	if e.checked == nil {
		return skip("%s", e.noCheck)
	}
	if e.checked.Settings == nil {
		return skip("the settings are wrong")
	}
	sentences := e.mistakes(ofNIC)
	switch {
	case len(sentences) > 0:
	case e.nic == nil:
		return ok("not needed: %s %s is no device; %s", e.settings.NIC[0], e.settings.NIC[1], e.checked.DPDK)
	case !e.physical() && !e.nic.Up:
		return Result{Status: Warn, Found: e.nic.String() + " is down: nothing goes through it", Expected: "up", Command: "ip link set dev " + quoted(e.nic.Name) + " up"}
	case !e.physical():
		return ok("not needed: the kernel's driver keeps %s; %s", e.nic, e.checked.DPDK)
	default:
		return ok("%s is with %s; %s has drivers %s", e.nic, orNone(e.nic.Driver), e.checked.DPDK, strings.ReplaceAll(strings.Join(e.checked.Drivers, " "), "net_", ""))
	}
	r := Result{Status: Fail, Found: strings.Join(sentences, "; "), Expected: "a device that machnetd can open; it has " + e.checked.DPDK}
	if e.nic == nil || !e.physical() {
		r.Advice = "as the sentence says"
		return r
	}
	r.Advice = "as the sentence says"
	if !slices.Contains(processDrivers, e.nic.Driver) {
		switch iommu := e.Root.IOMMU(); {
		case e.nic.IOMMU || e.nic.Vmbus != "" || iommu.NoIOMMU || iommu.Possible:
			r.Command = e.setup("")
		case iommu.VFIO:
			r.Command = e.setup("uio_pci_generic")
		default:
			r.Command = e.setup("") + " || " + e.setup("uio_pci_generic")
		}
		r.Advice = "`machnet setup --undo` gives it back to the kernel; `--xdp` leaves it with the kernel from the beginning"
	}
	return r
}

// processDrivers give a PCI device to a process, or share it with one: where machnetd has something against such a device, it is not its kernel
// driver.
var processDrivers = []string{"vfio-pci", "uio_pci_generic", "igb_uio", "mlx4_core", "mlx5_core", "mana", "hv_netvsc"}

func orNone(driver string) string {
	if driver == "" {
		return "no driver"
	}
	return driver
}

// checkDevicePermissions asks whether this user may open what the device is given by.
func checkDevicePermissions(_ context.Context, e *Env) Result {
	if r := e.needsDevice(); r != nil {
		return *r
	}
	if e.about != nil {
		return ok("the sidecar has the device")
	}
	var files []string
	switch e.nic.Driver {
	case "vfio-pci":
		files = []string{"/dev/vfio/vfio", e.vfioGroup()}
	case "uio_pci_generic", "igb_uio":
		files = e.uio()
	default:
		return skip("%s is with %s: no file gives it to a process yet", e.nic, orNone(e.nic.Driver))
	}
	var refused, missing []string
	for _, file := range files {
		switch err := unix.Faccessat(unix.AT_FDCWD, e.Root.Path(file), unix.R_OK|unix.W_OK, unix.AT_EACCESS); {
		case err == unix.ENOENT || file == "":
			missing = append(missing, file)
		case err != nil:
			refused = append(refused, file)
		}
	}
	who := userName()
	expected := fmt.Sprintf("user %s may read and write them", who)
	switch {
	case len(missing) > 0:
		return Result{Status: Fail, Found: "no " + strings.Join(missing, " and no "), Expected: expected, Command: "modprobe " + e.nic.Driver,
			Advice: "in a container: give it these devices (podman --device)"}
	case len(refused) > 0:
		return Result{Status: Fail, Found: fmt.Sprintf("user %s may not open %s", who, strings.Join(refused, ", ")), Expected: expected,
			Command: "chown " + who + " " + strings.Join(refused, " "),
			Advice:  "for good: a rule of udev, or run machnetd as root or by its unit"}
	}
	return ok("user %s may open %s", who, strings.Join(files, ", "))
}

// vfioGroup is the file by which vfio gives the device away.
func (e *Env) vfioGroup() string {
	group, err := os.Readlink(e.Root.Path("/sys/bus/pci/devices/" + e.nic.PCI + "/iommu_group"))
	if err != nil {
		return ""
	}
	group = filepath.Base(group)
	if name := e.text("/sys/kernel/iommu_groups/" + group + "/name"); name == "vfio-noiommu" {
		group = "noiommu-" + group
	}
	return "/dev/vfio/" + group
}

// uio are the files by which uio gives the device away.
func (e *Env) uio() []string {
	entries, err := os.ReadDir(e.Root.Path("/sys/bus/pci/devices/" + e.nic.PCI + "/uio"))
	if err != nil {
		return []string{""}
	}
	var all []string
	for _, entry := range entries {
		all = append(all, "/dev/"+entry.Name())
	}
	return all
}

func userName() string {
	if u, err := user.LookupId(fmt.Sprint(os.Geteuid())); err == nil {
		return u.Username
	}
	return fmt.Sprint(os.Geteuid())
}
