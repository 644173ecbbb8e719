package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

func machineBreakages() []breakage {
	return []breakage{
		{check: "processor", how: "an old one", broken: oldProcessor, status: "fail",
			outside: "the hypervisor chooses what a guest sees", mend: func(w *world) { w.tree = nil }},
		{check: "clock-source", how: "acpi_pm", broken: slowClock, status: "fail"},
		{check: "cores", how: "a cpuset without them", broken: smallCPUSet, status: "fail"},
		{check: "cores", how: "a limit of processor time", broken: limitedTime, status: "fail"},
		{check: "core-isolation", how: "a spinning engine among others", broken: sharedCore, status: "warn"},
		{check: "hugepages", how: "none", broken: noHugepages, status: "fail"},
		{check: "steal", how: "a greedy neighbour", broken: greedyNeighbour, status: "fail",
			outside: "the hypervisor takes it", mend: func(w *world) { w.tree = nil }},
	}
}

// offline are machnetd's flags of a sidecar that is not started: nothing of it is looked at but the settings.
func offline(t *testing.T, flags string) []string {
	return append([]string{"--"}, words("--ip 10.0.0.1/24 --memif server:%s/l --socket %[1]s/s %s", shortTempDir(t), flags)...)
}

func oldProcessor(t *testing.T) *world {
	tr := newTree(t)
	text, err := os.ReadFile("/proc/cpuinfo")
	must(t, err)
	last := map[string]string{"amd64": " sse4_2", "arm64": " crc32"}[runtime.GOARCH]
	tr.file(t, "/proc/cpuinfo", strings.ReplaceAll(string(text), last, ""))
	return &world{tree: tr}
}

func slowClock(t *testing.T) *world {
	tr := newTree(t)
	write(t, tr.sys(t)+"/devices/system/clocksource/clocksource0/current_clocksource", "acpi_pm\n")
	return &world{tree: tr}
}

// inGroup has the processes of the world be in a cgroup of version 2.
func inGroup(t *testing.T, tr *tree, sys string) (folder string) {
	tr.file(t, "/proc/self/cgroup", "0::/machnet.slice/machnetd.service\n")
	folder = sys + "/fs/cgroup/machnet.slice/machnetd.service"
	write(t, folder+"/cpuset.cpus", "0-1\n")
	write(t, folder+"/cpu.max", "max 100000\n")
	must(t, os.Symlink("cpuset.cpus", folder+"/cpuset.cpus.effective"))
	return folder
}

func smallCPUSet(t *testing.T) *world {
	tr := newTree(t)
	write(t, inGroup(t, tr, tr.sys(t))+"/cpuset.cpus", "0\n")
	return &world{tree: tr, flags: offline(t, "--cores 1")}
}

func limitedTime(t *testing.T) *world {
	tr := newTree(t)
	write(t, inGroup(t, tr, tr.sys(t))+"/cpu.max", "50000 100000\n")
	return &world{tree: tr, flags: offline(t, "--cores 1")}
}

// sharedCore's command writes a piece of GRUB's settings and reboots: the programs here do what Debian's do with it, on files.
func sharedCore(t *testing.T) *world {
	tr := newTree(t)
	tr.sys(t)
	must(t, os.MkdirAll(filepath.Join(tr.folder, "default"), 0o755))
	tr.binds = append(tr.binds, [2]string{filepath.Join(tr.folder, "default"), "/etc/default"})
	line := filepath.Join(tr.folder, "cmdline")
	tr.program(t, "update-grub", fmt.Sprintf(`for file in /etc/default/grub.d/*.cfg; do . "$file"; done; echo "$GRUB_CMDLINE_LINUX" > %s`, line))
	tr.program(t, "reboot", fmt.Sprintf(`sed -n 's/.*isolcpus=[a-z_,]*,\([0-9,-]*\).*/\1/p' %s > /sys/devices/system/cpu/isolated`, line))
	return &world{tree: tr, flags: offline(t, "--cores 1 --idle spin")}
}

func noHugepages(t *testing.T) *world {
	tr := newTree(t)
	folder := tr.sys(t) + "/devices/system/node/node0/hugepages/hugepages-2048kB"
	write(t, folder+"/nr_hugepages", "0\n")
	must(t, os.Symlink("nr_hugepages", folder+"/free_hugepages"))
	return &world{tree: tr, flags: offline(t, "--hugepages true")}
}

// greedyNeighbour takes every second tick.
func greedyNeighbour(t *testing.T) *world {
	tr := newTree(t)
	at := tr.file(t, "/proc/stat", "cpu 100 0 100 1000 0 0 0 100 0 0\n")
	stop, stopped := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(stop); <-stopped })
	go func() {
		defer close(stopped)
		for n := 1; ; n++ {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
			text := fmt.Sprintf("cpu %d 0 100 1000 0 0 0 %d 0 0\n", 1000+n, 1000+n)
			if file, err := os.OpenFile(at, os.O_WRONLY, 0); err == nil {
				_, _ = file.WriteAt([]byte(text), 0) // never shorter, so that no reader sees a piece
				_ = file.Close()
			}
		}
	}()
	return &world{tree: tr}
}
