package setup

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// handing are the drivers that hand a PCI device to processes; vmbusDriver does so for those of Hyper-V.
var handing = []string{"vfio-pci", "uio_pci_generic", "igb_uio"}

const vmbusDriver = "uio_hv_generic"

// drivers makes the steps after which the kernel has the driver that hands the device to processes.
func (b *builder) drivers(w way) error {
	switch driver := b.o.Driver; {
	case w == netvsc:
		b.module(vmbusDriver, "/sys/bus/vmbus/drivers/")
	case w != taken:
	case !slices.Contains(handing, driver):
		return fmt.Errorf("--driver %q: use %s", driver, strings.Join(handing, ", "))
	default:
		if others := b.group(); driver == "vfio-pci" && len(others) > 0 {
			return fmt.Errorf("vfio-pci hands over whole groups of the IOMMU, and the kernel uses %s in this one's group; unbind that first, or use --xdp", strings.Join(others, ", "))
		}
		b.module(driver, "/sys/bus/pci/drivers/")
		if driver == "vfio-pci" && !b.nic.IOMMU {
			return b.withoutIOMMU()
		}
	}
	return nil
}

// bind makes the step in which the device's driver gives it up, and the other takes it. The PCI device behind one of Hyper-V's, if there is one,
// stays with its driver: DPDK's driver for the latter finds it by its MAC address, and uses it while it is there.
func (b *builder) bind(w way) error {
	var bus, name, driver string
	switch w {
	case taken:
		bus, name, driver = "pci", b.nic.PCI, b.o.Driver
	case netvsc:
		bus, name, driver = "vmbus", b.nic.Vmbus, vmbusDriver
	default:
		return nil
	}
	device := b.path("/sys/bus/" + bus + "/devices/" + name)
	again, err := b.again(device)
	if err != nil {
		return err
	}
	override := func(driver string) string { return fmt.Sprintf("echo %s > %s/driver_override", driver, device) }
	unbind := fmt.Sprintf("[ ! -e %[1]s/driver ] || echo %[2]s > %[1]s/driver/unbind", device, name)
	probe := fmt.Sprintf("echo %s > %s", name, b.path("/sys/bus/"+bus+"/drivers_probe"))
	b.step(Step{
		Why:  fmt.Sprintf("have %s give up %s, and %s take it", b.nic.Driver, name, driver),
		Done: bound(device, driver),
		Do:   lines(override(driver), unbind, probe, insist(device, driver)),
		Undo: lines(unused(device), strings.Replace(override(""), "  ", " ", 1),
			fmt.Sprintf("%s || { %s; %s; }", bound(device, b.nic.Driver), unbind, probe), insist(device, b.nic.Driver), again),
	})
	return nil
}

// module loads a driver, where it is not there yet.
func (b *builder) module(name, drivers string) {
	there := "[ -e " + b.path(drivers+name) + " ]"
	b.step(Step{
		Why:  "load the kernel's module " + name,
		Done: there,
		Do:   "modprobe " + name,
		Undo: fmt.Sprintf("modprobe -r %s 2>/dev/null || :", name), // stays if it is in use
	})
}

// withoutIOMMU has vfio hand over devices though nothing bounds what they read and write.
func (b *builder) withoutIOMMU() error {
	const file = "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode"
	const none = "this kernel's vfio does not work without an IOMMU, and there is none for this device; try --driver uio_pci_generic or igb_uio, or --xdp"
	if iommu := b.o.Root.IOMMU(); iommu.VFIO && !iommu.Possible {
		return fmt.Errorf("%s", none)
	}
	path := b.path(file)
	b.note("there is no IOMMU for this device: what programs it (machnetd alone) can have it read and write all of the machine's memory")
	b.step(Step{
		Why:  "let vfio hand over devices without an IOMMU",
		Done: fmt.Sprintf("grep -q '[Y1]' %s 2>/dev/null", path),
		Do:   fmt.Sprintf("[ -e %[1]s ] || { echo %[2]s >&2; exit 1; }\necho 1 > %[1]s", path, quote(none)),
		Undo: fmt.Sprintf("[ ! -e %[1]s ] || echo 0 > %[1]s", path),
	})
	return nil
}

// group are the other devices of the IOMMU group that a driver of the kernel uses, and that stand in the way therefore.
func (b *builder) group() []string {
	paths, _ := filepath.Glob(b.path("/sys/bus/pci/devices/" + b.nic.PCI + "/iommu_group/devices/*")) // a pattern without mistakes
	var others []string
	for _, path := range paths {
		driver, err := filepath.EvalSymlinks(filepath.Join(path, "driver"))
		// Bridges and devices with vfio-pci are no obstacle.
		name := filepath.Base(driver)
		if err == nil && filepath.Base(path) != b.nic.PCI && name != "pcieport" && name != "vfio-pci" {
			others = append(others, fmt.Sprintf("%s (%s)", filepath.Base(path), name))
		}
	}
	return others
}

// path is where a file of the machine is found, as the shell takes it.
func (b *builder) path(path string) string { return quote(b.o.Root.Path(path)) }

// bound succeeds where the driver has the device.
func bound(device, driver string) string {
	return fmt.Sprintf(`[ "$(basename "$(readlink %s/driver)")" = %s ]`, device, driver)
}

// insist waits until the driver has the device, and says so if it does not come to that.
func insist(device, driver string) string {
	return fmt.Sprintf("bound() { %s; }\nretry bound || { echo \"%s does not take the device; the kernel's log may say why (dmesg | tail)\" >&2; exit 1; }", bound(device, driver), driver)
}

// unused refuses to take a device from a process that has it open: the kernel would wait for that one to end.
func unused(device string) string {
	return fmt.Sprintf("files=\"$(basename \"$(readlink %[1]s/iommu_group)\")\\|noiommu-$(basename \"$(readlink %[1]s/iommu_group)\")\"\n"+
		"files=\"/dev/vfio/\\($files\\)\\|/dev/\\($(ls %[1]s/uio 2>/dev/null || echo none)\\)\"\n"+
		"! ls -l /proc/[0-9]*/fd 2>/dev/null | grep -q -- \"-> \\($files\\)$\" || { echo 'a process has the device open (machnetd?); end it first' >&2; exit 1; }", device)
}

// hugepages makes the step that reserves as many huge pages as machnetd will take, on the NIC's node.
func (b *builder) hugepages(settings map[string]any) error {
	if huge, said := value(settings, "dpdk", "hugepages"); said && huge == false {
		return nil
	}
	engines := int64(1)
	if n, said := value(settings, "engines", "count"); said {
		engines, _ = n.(int64)
	} else if cores, said := value(settings, "engines", "cores"); said {
		list, _ := cores.([]any)
		engines = int64(len(list))
	}
	mib := 32 + 32*engines
	if n, said := value(settings, "dpdk", "memory_mib"); said {
		mib, _ = n.(int64)
	}
	all, err := b.o.Root.Hugepages()
	if err != nil {
		return err
	}
	for _, h := range all {
		if h.SizeKiB != 2048 || h.Node != max(b.nic.NUMA, 0) {
			continue
		}
		need := int((mib + 1) / 2)
		want := h.Total - h.Free + need
		where := ""
		if b.nic.NUMA >= 0 {
			where = fmt.Sprintf(" on node %d", h.Node)
		}
		knob := quote(h.Knob)
		free := quote(filepath.Join(filepath.Dir(h.Knob), "free_hugepages"))
		b.step(Step{
			Why: fmt.Sprintf("reserve %d huge pages of 2 MiB for machnetd%s", need, where),
			// A sidecar that runs has taken them.
			Done: fmt.Sprintf("[ \"$(cat %s)\" -ge %d ] || [ \"$(cat %s)\" -ge %d ]", knob, want, free, need),
			Do: lines(fmt.Sprintf("echo %d > %s", want, knob),
				fmt.Sprintf("[ \"$(cat %[1]s)\" -ge %[2]d ] || { echo \"the kernel gives $(cat %[1]s) of %[2]d huge pages: memory is scarce or in pieces; try right after a reboot\" >&2; exit 1; }", knob, want)),
			// Others may have reserved more since.
			Undo: fmt.Sprintf("n=$(($(cat %[1]s) - %[2]d))\n[ $n -ge %[3]d ] || n=%[3]d\necho $n > %[1]s", knob, want-h.Total, h.Total),
		})
		return nil
	}
	return fmt.Errorf("this kernel has no huge pages of 2 MiB on node %d, in which DPDK's drivers need their buffers; use --xdp or --af-packet", max(b.nic.NUMA, 0))
}
