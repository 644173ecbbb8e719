package machine

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Hugepages are the huge pages of one size on one NUMA node.
type Hugepages struct {
	Node    int // 0 on a machine that has no nodes
	SizeKiB int
	Total   int    // reserved now
	Free    int    // of these, in nobody's use
	Knob    string // the file that the number is written to
}

// Hugepages are those of all nodes and sizes. There are none on a kernel without them.
func (r Root) Hugepages() ([]Hugepages, error) {
	knobs, err := filepath.Glob(r.Path("/sys/devices/system/node/node[0-9]*/hugepages/hugepages-*kB/nr_hugepages"))
	if err != nil {
		return nil, err
	}
	if len(knobs) == 0 { // a kernel without NUMA
		if knobs, err = filepath.Glob(r.Path("/sys/kernel/mm/hugepages/hugepages-*kB/nr_hugepages")); err != nil {
			return nil, err
		}
	}
	var all []Hugepages
	for _, knob := range knobs {
		dir := filepath.Dir(knob)
		h := Hugepages{Knob: knob}
		if _, err := fmt.Sscanf(filepath.Base(dir), "hugepages-%dkB", &h.SizeKiB); err != nil {
			return nil, fmt.Errorf("read the size of huge pages from the name %s: %w", dir, err)
		}
		fmt.Sscanf(filepath.Base(filepath.Dir(filepath.Dir(dir))), "node%d", &h.Node) // no node: 0
		if h.Total, err = count(knob); err != nil {
			return nil, err
		}
		if h.Free, err = count(filepath.Join(dir, "free_hugepages")); err != nil {
			return nil, err
		}
		all = append(all, h)
	}
	return all, nil
}

func count(path string) (int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("read how many huge pages there are: %w", err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, fmt.Errorf("read how many huge pages there are: %s: %w", path, err)
	}
	return n, nil
}

// Boot names the boot of the kernel that we are in.
func (r Root) Boot() string { return r.text("/proc/sys/kernel/random/boot_id") }

// HugepageMounts are the folders at which a hugetlbfs is mounted.
func (r Root) HugepageMounts() []string {
	var all []string
	for line := range strings.Lines(r.text("/proc/self/mounts")) {
		if fields := strings.Fields(line); len(fields) > 2 && fields[2] == "hugetlbfs" {
			all = append(all, fields[1])
		}
	}
	return all
}

// IOMMU is what stands between devices and memory.
type IOMMU struct {
	Groups   int  // of devices that it keeps apart; 0: there is none, or it is off
	VFIO     bool // the kernel's module vfio is loaded or built in
	NoIOMMU  bool // vfio gives devices to processes without one (enable_unsafe_noiommu_mode)
	Possible bool // vfio knows that mode
}

// IOMMU is this machine's.
func (r Root) IOMMU() IOMMU {
	mode := r.text("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode")
	return IOMMU{
		Groups:   len(r.names("/sys/kernel/iommu_groups/*")),
		VFIO:     r.exists("/sys/module/vfio"),
		NoIOMMU:  mode == "Y" || mode == "1",
		Possible: mode != "",
	}
}
