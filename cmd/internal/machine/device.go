package machine

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
)

// PCIAddress completes an address with its domain, and lowers its case: 0000:00:05.0.
func PCIAddress(text string) (string, error) {
	full := strings.ToLower(text)
	if strings.Count(full, ":") == 1 {
		full = "0000:" + full
	}
	if !pciForm.MatchString(full) {
		return "", fmt.Errorf("PCI address %q: expected a form such as 0000:00:05.0", text)
	}
	return full, nil
}

var pciForm = regexp.MustCompile(`^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$`)

// place says which device an interface belongs to, what is known of it, and how many queues it has. Since Linux 5.14 netlink names it; earlier, and in a test's
// tree, /sys does, if it shows this interface (it shows those of the network namespace in which it was mounted). It is false for an
// interface that is no device's.
func (r Root) place(n *NIC, bus, name string) bool {
	class := "/sys/class/net/" + n.Name
	shown := r.number(class+"/ifindex", 0) == int64(n.Index) && strings.EqualFold(r.text(class+"/address"), n.MAC.String())
	var device string
	switch {
	case bus != "":
		device = "/sys/bus/" + bus + "/devices/" + name
	case shown:
		device = class + "/device"
	}
	n.RxQueues, n.TxQueues = queues(n.Index)
	if n.RxQueues+n.TxQueues == 0 && shown {
		n.RxQueues, n.TxQueues = len(r.names(class+"/queues/rx-*")), len(r.names(class+"/queues/tx-*"))
	}
	if device == "" || !r.exists(device) {
		return false
	}
	// An interface's parent may be a step away from the PCI device: virtio's is on a bus of its own, and so is MANA's.
	real, err := filepath.EvalSymlinks(r.Path(device))
	if err != nil {
		return false
	}
	for dir := real; len(dir) > len(r.Path("/sys")); dir = filepath.Dir(dir) {
		at := strings.TrimPrefix(dir, string(r))
		if address, err := PCIAddress(filepath.Base(dir)); err == nil {
			n.PCI = address
			r.pci(n)
			return true
		}
		if r.link(at+"/subsystem") == "vmbus" && r.link(at+"/driver") == "hv_netvsc" {
			n.Vmbus, n.Driver = filepath.Base(dir), "hv_netvsc"
			n.NUMA = int(r.number(at+"/numa_node", -1))
			return true
		}
	}
	n.Driver = r.link(device + "/driver")
	return true
}

// pci reads what /sys says of the PCI device.
func (r Root) pci(n *NIC) {
	at := "/sys/bus/pci/devices/" + n.PCI
	n.Driver = r.link(at + "/driver")
	n.Vendor, n.Device = uint16(r.number(at+"/vendor", 0)), uint16(r.number(at+"/device", 0))
	n.NUMA = int(r.number(at+"/numa_node", -1))
	n.IOMMU = r.exists(at + "/iommu_group")
}

// unnamed are the PCI devices of class network that none of these interfaces belongs to.
func (r Root) unnamed(named []NIC) []NIC {
	taken := map[string]bool{}
	for _, n := range named {
		taken[n.PCI] = true
	}
	var all []NIC
	for _, address := range r.names("/sys/bus/pci/devices/*") {
		// 0x020000: Ethernet, 0x020700: InfiniBand, 0x028000: another network controller.
		class := r.number("/sys/bus/pci/devices/"+address+"/class", 0)
		if class>>16 != 2 || taken[address] {
			continue
		}
		n := NIC{PCI: address}
		r.pci(&n)
		all = append(all, n)
	}
	return all
}
