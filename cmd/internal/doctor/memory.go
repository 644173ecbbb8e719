package doctor

import (
	"context"
	"fmt"
	"strings"
)

// checkHugepages asks whether the packet buffers of all engines find room in huge pages.
func checkHugepages(_ context.Context, e *Env) Result {
	switch {
	case e.settings == nil:
		return skip("nobody says how much is needed: name --nic, --config FILE or machnetd's flags behind --")
	case !e.settings.Hugepages:
		return ok("not needed: packet buffers are in ordinary pages")
	case e.about != nil:
		return ok("the sidecar has its %d MiB", e.settings.MemoryMiB)
	}
	pages, err := e.Root.Hugepages()
	if err != nil {
		return skip("%v", err)
	}
	need := e.settings.MemoryMiB
	expected := fmt.Sprintf("%d MiB free for %d engines; no hugetlbfs has to be mounted, since they are the process's own", need, e.settings.Engines)
	if len(pages) == 0 {
		return Result{Status: Fail, Found: "a kernel without huge pages", Expected: expected, Advice: "boot a kernel with CONFIG_HUGETLBFS, as every distribution's has it"}
	}
	free := 0
	var found []string
	// The NIC's node counts: memory of another node costs every packet a way through the interconnect.
	best := pages[0]
	for _, p := range pages {
		if e.nic == nil || e.nic.NUMA < 0 || p.Node == e.nic.NUMA {
			free += p.Free * p.SizeKiB / 1024
			if p.SizeKiB == 2048 {
				best = p
			}
		}
		if p.Total > 0 {
			found = append(found, fmt.Sprintf("node %d: %d of %d pages of %d KiB free", p.Node, p.Free, p.Total, p.SizeKiB))
		}
	}
	if len(found) == 0 {
		found = []string{"none reserved"}
	}
	if free >= need {
		return Result{Status: OK, Found: strings.Join(found, "; "), Expected: expected}
	}
	missing := ((need-free)*1024 + best.SizeKiB - 1) / best.SizeKiB
	return Result{
		Status: Fail, Found: strings.Join(found, "; "), Expected: expected,
		Command: fmt.Sprintf("echo %d > %s", best.Total+missing, strings.TrimPrefix(best.Knob, string(e.Root))),
		Advice:  fmt.Sprintf("if the kernel finds fewer, memory is in pieces: reserve them early; for good: `echo vm.nr_hugepages = %d > /etc/sysctl.d/80-machnet.conf`", best.Total+missing),
	}
}
