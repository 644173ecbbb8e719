package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/machnet/machnet/tests/internal/checks"
)

func ends(b *bench) (string, error) {
	if err := b.pair(); err != nil {
		return "", err
	}
	if _, err := b.pings(b.folderOf(one), otherIP); err != nil {
		return "", err
	}
	pid, err := b.pid(other)
	if err != nil {
		return "", err
	}
	began := time.Now()
	if _, err := b.podman("kill", "--signal", "TERM", b.called(other)); err != nil {
		return "", err
	}
	if err := until(func() error {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err == nil {
			return errors.New("it is still there")
		}
		return nil
	}); err != nil {
		return "", err
	}
	took := time.Since(began)
	code, err := b.podman("wait", b.called(other))
	if err == nil && strings.TrimSpace(code) != "0" {
		err = fmt.Errorf("it ended with status %s", code)
	}
	return fmt.Sprintf("%.2f s after podman kill began", took.Seconds()), err
}

// orphans runs a program in the sidecar's container that leaves a child behind, which ends a little later.
func orphans(b *bench) (string, error) {
	program := filepath.Join(b.folder, "orphan")
	build := append(b.env, "CGO_ENABLED=0")
	if _, err := checks.Command(5*time.Minute, filepath.Join(b.root, "tests"), build, "go", "build", "-o", program, "./container/orphan"); err != nil {
		return "", err
	}
	if err := errors.Join(b.remove(), b.sidecar(one, []string{"--volume", program + ":/orphan"}), b.serves(one)); err != nil {
		return "", err
	}
	pid, err := b.pid(one)
	if err != nil {
		return "", err
	}
	if _, err := b.podman("exec", b.called(one), "/orphan"); err != nil {
		return "", err
	}
	if children(pid) == "" {
		return "", errors.New("the orphan is not the sidecar's child, so nothing is proven")
	}
	return "", until(func() error {
		if left := children(pid); left != "" {
			return fmt.Errorf("the sidecar has children: %s", left)
		}
		return nil
	})
}

// children are the names and states of a process's children.
func children(pid int) string {
	var found []string
	all, _ := filepath.Glob("/proc/[0-9]*/status")
	for _, name := range all {
		status, err := os.ReadFile(name)
		if err == nil && strings.Contains(string(status), fmt.Sprintf("\nPPid:\t%d\n", pid)) {
			lines := strings.SplitN(string(status), "\n", 4)
			found = append(found, strings.Join(lines[:3], " "))
		}
	}
	return strings.Join(found, "; ")
}

func health(b *bench) (string, error) {
	if err := errors.Join(b.remove(), b.sidecar(one, nil), b.serves(one)); err != nil {
		return "", err
	}
	// As the image has it, asked by podman, which needs systemd for nothing but the time between two.
	asked, err := b.podman("image", "inspect", "--format", "{{json .Config.Healthcheck.Test}}", b.image)
	if want := `["CMD","machnet","ctl","health"]`; err != nil || strings.TrimSpace(asked) != want {
		return "", fmt.Errorf("the image's health check is %s, want %s (%w)", asked, want, err)
	}
	said, err := b.ctl(one, "health")
	if err != nil {
		return "", err
	}
	if out, err := b.once(unprivileged, "machnet", "ctl", "health"); err == nil || !strings.Contains(out, "no sidecar") {
		return "", fmt.Errorf("where there is no sidecar: %v, %s", err, out)
	}
	return said, nil
}

func cpuset(b *bench) (string, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return "", err
	}
	var cores []int
	for core := range 1024 {
		if set.IsSet(core) {
			cores = append(cores, core)
		}
	}
	if len(cores) < 2 {
		return "", checks.Skipped("one core only, so none can be taken away")
	}
	keeps, taken := cores[0], cores[len(cores)-1]
	both := fmt.Sprintf("%d,%d", keeps, taken)
	if err := errors.Join(b.remove(), b.sidecar(one, []string{"--cpuset-cpus", both}, "--cores", fmt.Sprint(taken)), b.serves(one)); err != nil {
		return "", err
	}
	for _, step := range []struct{ cores, runs, says string }{
		{fmt.Sprint(keeps), fmt.Sprint(keeps), fmt.Sprintf("core %d was taken from this process", taken)},
		{both, fmt.Sprint(taken), ""},
	} {
		if _, err := b.podman("update", "--cpuset-cpus", step.cores, b.called(one)); err != nil {
			return "", err
		}
		if err := b.logged(one, step.says); err != nil {
			return "", err
		}
		if err := until(func() error { return b.engineRuns(step.runs) }); err != nil {
			return "", err
		}
	}
	stats, err := b.ctl(one, "stats")
	for line := range strings.Lines(stats) {
		if strings.Contains(line, "pins_lost") && strings.HasSuffix(strings.TrimSpace(line), " 1") {
			return strings.TrimSpace(line), nil
		}
	}
	return "", fmt.Errorf("pins_lost is not 1 (%w): %s", err, stats)
}

// engineRuns checks the cores that the engine of the sidecar may use.
func (b *bench) engineRuns(cores string) error {
	pid, err := b.pid(one)
	if err != nil {
		return err
	}
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	for _, thread := range threads {
		status, err := os.ReadFile(thread)
		if err != nil || !strings.HasPrefix(string(status), "Name:\tengine0\n") {
			continue
		}
		if !strings.Contains(string(status), "\nCpus_allowed_list:\t"+cores+"\n") {
			return fmt.Errorf("engine 0 may use other cores than %s: %s", cores, status)
		}
		return nil
	}
	return errors.New("there is no engine 0")
}
