package doctor

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// checkCores asks whether the engines' cores can be had, and for how much of the time.
func checkCores(_ context.Context, e *Env) Result {
	if e.settings == nil {
		return skip("nobody says which cores the engines use: name --config FILE or machnetd's flags behind --")
	}
	cores := e.settings.Cores
	group := e.group()
	allowed, ofGroup := e.allowed(group)
	if limit, file := e.quota(group); limit > 0 && limit < float64(e.settings.Engines) {
		return Result{Status: Fail, Found: fmt.Sprintf("the cgroup may use %.2g cores' time (%s)", limit, file),
			Expected: fmt.Sprintf("%d, one for each engine: with less an engine stands still for tens of milliseconds", e.settings.Engines),
			Command:  unlimited(file), Advice: "in a container: no limit of processors, and in Kubernetes the static CPU manager with whole cores"}
	}
	var missing []int
	for _, core := range cores {
		if !slices.Contains(allowed, core) {
			missing = append(missing, core)
		}
	}
	sentences := e.mistakes(ofEngines)
	if len(missing) > 0 || len(sentences) > 0 {
		r := Result{Status: Fail, Found: strings.Join(sentences, "; "), Expected: fmt.Sprintf("cores %s", list(cores))}
		if len(missing) > 0 {
			r.Found = fmt.Sprintf("cores %s are not among those that the process may use, %s", list(missing), list(allowed))
		}
		if ofGroup != "" {
			r.Command = fmt.Sprintf("echo %s > %s", list(union(allowed, cores)), ofGroup)
			r.Advice = "in a container: the cpuset of its engine (podman --cpuset-cpus)"
		} else {
			r.Command, r.Advice = e.change(setCores, list(allowed[:min(len(allowed), len(cores))]))
		}
		return r
	}
	if len(cores) == 0 {
		return ok("engines are not pinned; the process may use cores %s", list(allowed))
	}
	return ok("cores %s of %s", list(cores), list(allowed))
}

// group is the cgroup whose limits the sidecar has: its own where it is seen, else this process's, in which it would be started.
func (e *Env) group() string {
	if p := e.process(); p != nil {
		if text := e.text(fmt.Sprintf("/proc/%d/cgroup", p.pid)); text != "" {
			return text
		}
	}
	return e.text("/proc/self/cgroup")
}

// hierarchy is the folder of a cgroup in version 2, or with a controller of version 1.
func hierarchy(group, controller string) (folder string, second bool) {
	for line := range strings.Lines(group) {
		number, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, at, _ := strings.Cut(rest, ":")
		switch {
		case slices.Contains(strings.Split(controllers, ","), controller):
			return path.Join("/sys/fs/cgroup", controller, at), false
		case number == "0" && controllers == "" && folder == "":
			folder = path.Join("/sys/fs/cgroup", at)
		}
	}
	return folder, true
}

// allowed are the cores that the cgroup may use, and the file that says so; "" where it is no cgroup's doing.
func (e *Env) allowed(group string) (cores []int, file string) {
	folder, second := hierarchy(group, "cpuset")
	file, effective := path.Join(folder, "cpuset.cpus"), "cpuset.effective_cpus"
	if second {
		effective = "cpuset.cpus.effective"
	}
	if cores = numbers(e.text(path.Join(folder, effective))); len(cores) > 0 {
		// That of the machine's root cannot be written, and has every core.
		if path.Dir(file) == "/sys/fs/cgroup" || path.Dir(file) == "/sys/fs/cgroup/cpuset" {
			file = ""
		}
		return cores, file
	}
	return numbers(e.text("/sys/devices/system/cpu/online")), ""
}

// quota is how many cores' time the cgroup may use, and the file that says so; 0: as much as there is.
func (e *Env) quota(group string) (float64, string) {
	folder, second := hierarchy(group, "cpu")
	for ; strings.HasPrefix(folder, "/sys/fs/cgroup/"); folder = path.Dir(folder) {
		file, words := path.Join(folder, "cpu.max"), []string(nil)
		if second {
			words = strings.Fields(e.text(file))
		} else {
			file = path.Join(folder, "cpu.cfs_quota_us")
			words = []string{e.text(file), e.text(path.Join(folder, "cpu.cfs_period_us"))}
		}
		if len(words) == 2 {
			quota, err := strconv.ParseFloat(words[0], 64)
			period, err2 := strconv.ParseFloat(words[1], 64)
			if err == nil && err2 == nil && quota > 0 && period > 0 {
				return quota / period, file
			}
		}
	}
	return 0, ""
}

func unlimited(file string) string {
	if path.Base(file) == "cpu.max" {
		return "echo max > " + file
	}
	return "echo -1 > " + file
}

// checkIsolation asks whether others may run on the cores of engines that never give theirs away.
func checkIsolation(_ context.Context, e *Env) Result {
	switch {
	case e.settings == nil:
		return skip("nobody says which cores the engines use: name --config FILE or machnetd's flags behind --")
	case !e.settings.Exclusive && e.settings.Idle != "spin":
		return ok("not needed: the engines give their cores away (engines.idle = %q)", e.settings.Idle)
	case len(e.settings.Cores) == 0:
		command, advice := e.change(setCores, list(lastOf(numbers(e.text("/sys/devices/system/cpu/online")), e.settings.Engines)))
		return Result{Status: Warn, Found: "engines that keep their cores, and are not pinned to any", Expected: "one core for each (engines.cores)", Command: command, Advice: advice}
	}
	isolated := numbers(e.text("/sys/devices/system/cpu/isolated"))
	var shared []int
	for _, core := range e.settings.Cores {
		if !slices.Contains(isolated, core) {
			shared = append(shared, core)
		}
	}
	if len(shared) == 0 {
		return ok("cores %s are isolated", list(e.settings.Cores))
	}
	all := list(union(isolated, e.settings.Cores))
	return Result{
		Status: Warn, Found: fmt.Sprintf("the kernel runs anything on cores %s", list(shared)),
		Expected: fmt.Sprintf("cores %s isolated, since their engines never give them away", list(e.settings.Cores)),
		Command: fmt.Sprintf(`mkdir -p /etc/default/grub.d && echo 'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX isolcpus=domain,managed_irq,%s nohz_full=%[1]s"' > /etc/default/grub.d/machnet.cfg && update-grub && reboot`,
			all),
		Advice: "without a reboot: engines.idle = \"adaptive\", which gives the core away",
	}
}

// numbers reads a list such as 0-3,7.
func numbers(text string) []int {
	var all []int
	for _, part := range strings.Split(strings.TrimSpace(text), ",") {
		first, last, _ := strings.Cut(part, "-")
		if last == "" {
			last = first
		}
		a, err := strconv.Atoi(first)
		b, err2 := strconv.Atoi(last)
		if err != nil || err2 != nil {
			return all
		}
		for ; a <= b; a++ {
			all = append(all, a)
		}
	}
	return all
}

// list writes numbers with commas between them.
func list(numbers []int) string {
	words := make([]string, len(numbers))
	for i, n := range numbers {
		words[i] = strconv.Itoa(n)
	}
	return strings.Join(words, ",")
}

func union(a, b []int) []int {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}

// lastOf are the last n: core 0 has the kernel's own work.
func lastOf(numbers []int, n int) []int { return numbers[max(0, len(numbers)-n):] }
