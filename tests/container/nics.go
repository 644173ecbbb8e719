package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/machnet/machnet/cmd/netns"
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
		return "", errors.Join(err, b.logged(one, "serving"))
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
	return b.overDevices([]string{"NET_RAW", "NET_ADMIN", "BPF", "IPC_LOCK"}, nil, "--xdp", "eth1")
}
