package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/machnet/machnet/tests/internal/checks"
)

// mostMB is the promise of docs/container.md.
const mostMB = 120

// build does what `make container BASES=local` does.
func build(b *bench) (string, error) {
	start := time.Now()
	out, err := checks.Command(40*time.Minute, b.root, append(b.env, "BASES=local"), "container/image.sh", b.image)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s, in %.0f s", last(out), time.Since(start).Seconds()), nil
}

// drivers are those that docs/container.md names.
var drivers = strings.Fields("af_packet ena failsafe gve iavf idpf ixgbe mana memif mlx4 mlx5 netvsc tap vdev_netvsc virtio vmxnet3")

func content(b *bench) (string, error) {
	size, err := b.podman("image", "inspect", "--format", "{{.Size}}", b.image)
	if err != nil {
		return "", err
	}
	bytes, err := strconv.Atoi(strings.TrimSpace(size))
	if err != nil || bytes > mostMB*1_000_000 {
		return "", fmt.Errorf("the image has %d bytes, more than %d MB (%v)", bytes, mostMB, err)
	}
	folder, err := b.podman("image", "mount", b.image)
	if err != nil {
		return "", err
	}
	defer b.podman("image", "unmount", b.image)
	folder = strings.TrimSpace(folder)
	programs, err := filepath.Glob(filepath.Join(folder, "usr/bin/*"))
	for i, program := range programs {
		programs[i] = filepath.Base(program)
	}
	if want := []string{"machnet", "machnetd"}; err != nil || !slices.Equal(programs, want) {
		return "", fmt.Errorf("its programs are %v, want %v (%v)", programs, want, err)
	}
	for _, driver := range drivers {
		name := "usr/lib/*/dpdk/pmds-*/librte_net_" + driver + ".so"
		if found, err := filepath.Glob(filepath.Join(folder, name)); err != nil || len(found) != 1 {
			return "", fmt.Errorf("%s: found %v, want one (%v)", name, found, err)
		}
	}
	// DPDK loads every driver that it finds, with all that this needs, and goes on without one that it cannot load.
	if err := errors.Join(b.remove(), b.sidecar(one, nil), b.serves(one)); err != nil {
		return "", err
	}
	pid, err := b.pid(one)
	if err != nil {
		return "", err
	}
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return "", err
	}
	for _, driver := range drivers {
		if !strings.Contains(string(maps), "/librte_net_"+driver+".so") {
			return "", fmt.Errorf("a running sidecar has not loaded librte_net_%s.so", driver)
		}
	}
	version, err := b.once(unprivileged, "machnetd", "--version")
	return fmt.Sprintf("%.1f MB, %s", float64(bytes)/1e6, version), err
}

func demo(b *bench) (string, error) {
	out, err := b.podman("run", "--rm", "--name", b.called("demo"), quiet, "--user", "65534", "--cap-drop=ALL", "--read-only", "--network", "none", b.image)
	if err == nil && !strings.Contains(out, "machnet") || !strings.Contains(out, "p99") || !strings.Contains(out, "What the figures mean.") {
		err = fmt.Errorf("there is no table in it (%w): %s", err, out)
	}
	return "", err
}
