package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// tree is a machine made up of files: each process of the world sees them in a mount namespace of its own, in the place of the kernel's.
type tree struct {
	folder string
	binds  [][2]string // what stands in the place of what
	// react does what a kernel or a reboot does with what was written.
	react func(t *testing.T)
}

var programs struct {
	once   sync.Once
	folder string
	err    error
}

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && filepath.Base(os.Args[0]) == "machnetd" {
		os.Exit(standIn(os.Args[1:]))
	}
	code := m.Run()
	if programs.folder != "" {
		_ = os.RemoveAll(programs.folder)
	}
	os.Exit(code)
}

func newTree(t *testing.T) *tree {
	t.Helper()
	needRoot(t)
	tr := &tree{folder: shortTempDir(t), react: func(*testing.T) {}}
	must(t, os.MkdirAll(filepath.Join(tr.folder, "bin"), 0o755))
	return tr
}

// sys puts a folder of ours in the place of /sys. Processors and clock are those of a good machine.
func (tr *tree) sys(t *testing.T) string {
	t.Helper()
	at := filepath.Join(tr.folder, "sys")
	write(t, at+"/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n")
	write(t, at+"/devices/system/clocksource/clocksource0/available_clocksource", "tsc acpi_pm\n")
	write(t, at+"/devices/system/cpu/online", "0-1\n")
	write(t, at+"/devices/system/cpu/isolated", "\n")
	tr.binds = append(tr.binds, [2]string{at, "/sys"})
	return at
}

// file puts a file of ours in the place of one of the machine.
func (tr *tree) file(t *testing.T, place, text string) string {
	t.Helper()
	at := filepath.Join(tr.folder, "files", place)
	write(t, at, text)
	tr.binds = append(tr.binds, [2]string{at, place})
	return at
}

// dev puts a folder of ours in the place of /dev, with what every process needs.
func (tr *tree) dev(t *testing.T) string {
	t.Helper()
	at := filepath.Join(tr.folder, "dev")
	for _, name := range []string{"null", "zero", "random", "urandom"} {
		write(t, filepath.Join(at, name), "")
		tr.binds = append(tr.binds, [2]string{"/dev/" + name, filepath.Join(at, name)})
	}
	tr.binds = append(tr.binds, [2]string{at, "/dev"})
	return at
}

// program puts a script before all programs of that name.
func (tr *tree) program(t *testing.T, name, script string) {
	t.Helper()
	at := filepath.Join(tr.folder, "bin", name)
	write(t, at, "#!/bin/sh\nset -e\n"+script)
	must(t, os.Chmod(at, 0o755))
}

// nic makes a PCI device, bound to a driver.
func (tr *tree) nic(t *testing.T, sys, address, vendor, device, driver string) string {
	t.Helper()
	at := filepath.Join(sys, "bus/pci/devices", address)
	for name, text := range map[string]string{"vendor": vendor, "device": device, "class": "0x020000", "numa_node": "-1", "driver_override": "(null)"} {
		write(t, filepath.Join(at, name), text+"\n")
	}
	must(t, os.MkdirAll(filepath.Join(sys, "bus/pci/drivers", driver), 0o755))
	must(t, os.Symlink("../../drivers/"+driver, filepath.Join(at, "driver")))
	return at
}

// mounts are the shell's commands that put everything in its place. Those below another come first as they stand.
func (tr *tree) mounts() string {
	var script string
	for _, bind := range tr.binds {
		// The process is the shell, not mount.
		script += fmt.Sprintf("mount --rbind %s %s && ", bind[0], strings.Replace(bind[1], "/proc/self/", "/proc/$$/", 1))
	}
	return script
}
