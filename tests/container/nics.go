package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/machnet/machnet/cmd/netns"
	"github.com/machnet/machnet/tests/internal/checks"
)

// withDevice is how a sidecar gets a device of the kernel: podman is started in the device's network namespace, which the container takes over, and
// the container's root has these capabilities and no other.
func (b *bench) withDevice(network *netns.Namespace, name, ip string, options []string, capabilities []string, device ...string) error {
	args := append([]string{"run", "--detach", "--name", b.called(name), quiet, "--network", "host", "--read-only", "--user", "0:0", "--cap-drop", "all",
		"--volume", b.called(name) + ":/run/machnet"}, options...)
	for _, capability := range capabilities {
		args = append(args, "--cap-add", capability)
	}
	args = append(append(args, b.image, "machnetd", "--ip", ip+"/24", "--idle", "yield", "--mode", "0666"), device...)
	return network.Do(func() error {
		_, err := b.podman(args...)
		return err
	})
}

// overDevices is an echo between two sidecars, each with a device of the kernel.
func (b *bench) overDevices(capabilities []string, options []string, device ...string) (string, error) {
	if err := b.remove(); err != nil {
		return "", err
	}
	here, there, err := linked()
	if err != nil {
		return "", err
	}
	defer here.Close()
	defer there.Close()
	if err := errors.Join(b.withDevice(here, one, oneIP, options, capabilities, device...), b.withDevice(there, other, otherIP, options, capabilities, device...),
		b.serves(one), b.serves(other), b.start("echo", b.folderOf(other), "machnet", "echo")); err != nil {
		return "", err
	}
	return b.pings(b.folderOf(one), otherIP)
}

var packetDevice = []string{"--vdev", "net_af_packet0,iface=eth1"}

func packets(b *bench) (string, error) {
	return b.overDevices([]string{"NET_RAW", "NET_ADMIN"}, nil, packetDevice...)
}

func noCapability(b *bench) (string, error) {
	if err := b.remove(); err != nil {
		return "", err
	}
	here, there, err := linked()
	if err != nil {
		return "", err
	}
	defer here.Close()
	defer there.Close()
	if err := b.withDevice(here, one, oneIP, nil, nil, packetDevice...); err != nil {
		return "", err
	}
	code, err := b.podman("wait", b.called(one))
	if err != nil {
		return "", err
	}
	said, err := b.podman("logs", b.called(one))
	if err != nil || strings.TrimSpace(code) != "3" || !strings.Contains(said, "CAP_NET_RAW") {
		return "", fmt.Errorf("it ended with status %s (%w), want 3, and words of the capability: %s", code, err, said)
	}
	return last(said), nil
}

func xdp(b *bench) (string, error) {
	profile, err := b.bpfAllowed("/usr/share/containers/seccomp.json")
	if err != nil {
		return "", checks.Skipped(err.Error())
	}
	return b.overDevices([]string{"NET_RAW", "NET_ADMIN", "BPF", "IPC_LOCK"}, []string{"--security-opt", "seccomp=" + profile}, "--xdp", "eth1")
}

// bpfAllowed is podman's own list of system calls with bpf beside: an older one lets it through for CAP_SYS_ADMIN alone. It is what the command
// in docs/container.md makes.
func (b *bench) bpfAllowed(list string) (string, error) {
	text, err := os.ReadFile(list)
	if err != nil {
		return "", err
	}
	var profile map[string]any
	if err := json.Unmarshal(text, &profile); err != nil {
		return "", fmt.Errorf("%s: %w", list, err)
	}
	calls, _ := profile["syscalls"].([]any)
	for _, rule := range calls {
		rule, _ := rule.(map[string]any)
		names, _ := rule["names"].([]any)
		rule["names"] = slices.DeleteFunc(names, func(name any) bool { return name == "bpf" })
	}
	profile["syscalls"] = append(calls, map[string]any{"names": []string{"bpf"}, "action": "SCMP_ACT_ALLOW"})
	if text, err = json.Marshal(profile); err != nil {
		return "", err
	}
	path := filepath.Join(b.folder, "seccomp.json")
	return path, os.WriteFile(path, text, 0o644)
}
