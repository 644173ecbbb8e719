package doctor

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// processorFlags are those that machnetd and DPDK are compiled for: DPDK's generic build for amd64 is of -march=corei7, that for arm64 of
// armv8-a with CRC. A processor without them ends the process by SIGILL, or DPDK refuses to start.
var processorFlags = map[string]struct {
	line  string // of /proc/cpuinfo
	flags []string
}{
	"amd64": {"flags", []string{"sse2", "pni", "ssse3", "sse4_1", "sse4_2", "cx16", "popcnt"}},
	"arm64": {"Features", []string{"fp", "asimd", "crc32"}},
}

func checkProcessor(_ context.Context, e *Env) Result {
	want, known := processorFlags[runtime.GOARCH]
	if !known {
		return skip("nothing is known of %s", runtime.GOARCH)
	}
	var has []string
	for line := range strings.Lines(e.text("/proc/cpuinfo")) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == want.line {
			has = strings.Fields(value)
			break
		}
	}
	if has == nil {
		return skip("/proc/cpuinfo has no line %q", want.line)
	}
	var missing []string
	for _, flag := range want.flags {
		if !slices.Contains(has, flag) {
			missing = append(missing, flag)
		}
	}
	r := ok("all of %s", strings.Join(want.flags, ", "))
	if len(missing) > 0 {
		r = Result{Status: Fail, Found: "no " + strings.Join(missing, ", "), Expected: strings.Join(want.flags, ", "),
			Advice: "show the guest its host's processor: `-cpu host` of QEMU, `<cpu mode='host-passthrough'/>` of libvirt; or take a newer machine type"}
	}
	return r
}

// Clock sources that are read without a system call and without the hypervisor; the others cost a microsecond and more each time, and an engine
// reads the clock in every round.
var fastClocks = []string{"tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter"}

const clocks = "/sys/devices/system/clocksource/clocksource0/"

func checkClock(_ context.Context, e *Env) Result {
	now := e.text(clocks + "current_clocksource")
	if now == "" {
		return skip("the kernel does not say")
	}
	if slices.Contains(fastClocks, now) {
		return ok("%s", now)
	}
	r := Result{Status: Fail, Found: now, Expected: "one that needs no system call: " + strings.Join(fastClocks, ", ")}
	for _, other := range strings.Fields(e.text(clocks + "available_clocksource")) {
		if slices.Contains(fastClocks, other) {
			r.Command = fmt.Sprintf("echo %s > %scurrent_clocksource", other, clocks)
			r.Advice = "for good: clocksource=" + other + " on the kernel's command line"
			return r
		}
	}
	r.Status, r.Advice = Warn, "this machine offers none; each look at the clock costs an engine a microsecond or more"
	return r
}

// sample is what /proc/stat says of the processors so far, in ticks of 10 ms.
type sample struct {
	at          time.Time
	all, stolen int64
	unreadable  string
}

// sample is as of now.
func (e *Env) sample() sample {
	s := sample{at: time.Now()}
	line, _, _ := strings.Cut(e.text("/proc/stat"), "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		s.unreadable = fmt.Sprintf("/proc/stat begins with %q", line)
		return s
	}
	for i, field := range fields[1:9] { // user nice system idle iowait irq softirq steal; guest time is in user
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			s.unreadable = "/proc/stat: " + err.Error()
			return s
		}
		s.all += n
		if i == 7 {
			s.stolen = n
		}
	}
	return s
}

// The time over which the hypervisor's theft is measured, and how much of it is too much.
const (
	stealTime  = time.Second
	stealTells = 1.0 // percent
	stealHurts = 10.0
)

// checkSteal compares with the sample of the beginning; it comes last, so that it rarely waits.
func checkSteal(ctx context.Context, e *Env) Result {
	if wait := stealTime - time.Since(e.stolen.at); wait > 0 {
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
	before, now := e.stolen, e.sample()
	if reason := before.unreadable + now.unreadable; reason != "" {
		return skip("%s", reason)
	}
	if now.all <= before.all {
		return skip("/proc/stat counts nothing")
	}
	percent := 100 * float64(now.stolen-before.stolen) / float64(now.all-before.all)
	r := Result{Status: OK, Found: fmt.Sprintf("%.1f %% of all processors' time in %.1f s", percent, now.at.Sub(before.at).Seconds()),
		Expected: fmt.Sprintf("at most %.0f %%", stealTells)}
	if percent > stealTells {
		r.Status = Warn
		r.Advice = "the hypervisor gives this machine's processors to others: take a machine type with processors of its own (no burstable or shared-core type), or a dedicated host"
	}
	if percent > stealHurts {
		r.Status = Fail
	}
	return r
}
