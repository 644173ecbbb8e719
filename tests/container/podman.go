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

	"github.com/machnet/machnet/cmd/netns"
	"github.com/machnet/machnet/tests/internal/checks"
)

// podman runs it, and gives what it printed.
func (b *bench) podman(args ...string) (string, error) {
	return checks.Command(5*time.Minute, b.root, b.env, "podman", args...)
}

// unprivileged is how everything runs that needs no NIC: no network, no capability, nothing to write but what is mounted.
var unprivileged = []string{"--network", "none", "--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges"}

// quiet leaves out the health check, whose timer podman would ask systemd for.
const quiet = "--no-healthcheck"

// once runs a command in a container of its own until it ends.
func (b *bench) once(options []string, command ...string) (string, error) {
	args := append([]string{"run", "--rm", "--name", b.called("once"), quiet}, append(options, b.image)...)
	return b.podman(append(args, command...)...)
}

// start starts a container that goes on.
func (b *bench) start(name string, options []string, command ...string) error {
	args := append([]string{"run", "--detach", "--name", b.called(name), quiet}, append(options, b.image)...)
	_, err := b.podman(append(args, command...)...)
	return err
}

// called is the whole name of what the tests call so.
func (b *bench) called(name string) string { return b.name + "-" + name }

// folderOf mounts the folder of a sidecar's socket.
func (b *bench) folderOf(sidecar string) []string {
	return append(slices.Clone(unprivileged), "--volume", b.called(sidecar)+":/run/machnet")
}

// Names and addresses of the two sidecars.
const (
	one, oneIP     = "one", "10.0.0.1"
	other, otherIP = "other", "10.0.0.2"
)

// sidecar starts one of the two, with more options of podman's and flags of machnetd's. It returns before the socket is there.
func (b *bench) sidecar(name string, options []string, flags ...string) error {
	ip, role := oneIP, "server"
	if name == other {
		ip, role = otherIP, "client"
	}
	options = append(append(b.folderOf(name), "--volume", b.called("link")+":/run/memif"), options...)
	// Other users of the machine may attach: a user namespace makes another user of every one.
	return b.start(name, options, append([]string{"machnetd", "--ip", ip + "/24", "--memif", role + ":/run/memif/link.sock",
		"--idle", "yield", "--mode", "0666"}, flags...)...)
}

// pair starts both, and an echo server at the other one; remove ends all containers and volumes.
func (b *bench) pair() error {
	if err := b.remove(); err != nil {
		return err
	}
	return errors.Join(b.sidecar(one, nil), b.sidecar(other, nil), b.serves(other), b.start("echo", b.folderOf(other), "machnet", "echo"))
}

// serves waits until a sidecar can be attached to.
func (b *bench) serves(sidecar string) error {
	return until(func() error {
		_, err := b.ctl(sidecar, "health")
		if err != nil && strings.Contains(err.Error(), "running containers") {
			said, _ := b.podman("logs", b.called(sidecar))
			return ended{fmt.Errorf("%s has ended: %s", sidecar, said)}
		}
		return err
	})
}

// ended is why there is nothing to wait for.
type ended struct{ error }

// ctl asks a sidecar, in its own container.
func (b *bench) ctl(sidecar string, question ...string) (string, error) {
	return b.podman(append([]string{"exec", b.called(sidecar), "machnet", "ctl"}, question...)...)
}

// pings asks the echo server at the other sidecar from a container beside the first, until it answers.
func (b *bench) pings(options []string, peer string) (string, error) {
	var out string
	err := until(func() (err error) {
		out, err = b.once(options, "machnet", "ping", "-c", "3", "-i", "1ms", peer)
		return err
	})
	return last(out), err
}

// remove ends and removes all containers and volumes.
func (b *bench) remove() error {
	names, err := b.podman("ps", "--all", "--format", "{{.Names}}")
	if err != nil {
		return err
	}
	var ours []string
	for name := range strings.Lines(names) {
		if name = strings.TrimSpace(name); strings.HasPrefix(name, b.called("")) {
			ours = append(ours, name)
		}
	}
	if len(ours) > 0 {
		if _, err := b.podman(append([]string{"rm", "--force", "--time", "0"}, ours...)...); err != nil {
			return err
		}
	}
	for _, volume := range []string{one, other, "link"} {
		if _, err := b.podman("volume", "rm", "--force", b.called(volume)); err != nil && !strings.Contains(err.Error(), "no such volume") {
			return err
		}
	}
	return nil
}

// pid is the container's first process, as this machine counts.
func (b *bench) pid(name string) (int, error) {
	out, err := b.podman("inspect", "--format", "{{.State.Pid}}", b.called(name))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(out))
}

// socketOf is the socket of a sidecar as this machine sees it.
func (b *bench) socketOf(sidecar string) (string, error) {
	out, err := b.podman("volume", "inspect", "--format", "{{.Mountpoint}}", b.called(sidecar))
	return filepath.Join(strings.TrimSpace(out), "machnet.sock"), err
}

// logged waits until a container has said all of this.
func (b *bench) logged(name string, want ...string) error {
	return until(func() error {
		out, err := b.podman("logs", b.called(name))
		for _, words := range want {
			if err == nil && !strings.Contains(out, words) {
				err = fmt.Errorf("%q is not in what %s says: %s", words, name, out)
			}
		}
		return err
	})
}

// linked are two network namespaces joined by Ethernet devices, eth1 in each.
func linked() (here, there *netns.Namespace, err error) {
	if err := netns.Available(); err != nil {
		return nil, nil, checks.Skipped(err.Error())
	}
	if here, err = netns.New(); err == nil {
		there, err = netns.New()
	}
	if err == nil {
		err = netns.Veth(netns.End{Namespace: here, Device: "eth1"}, netns.End{Namespace: there, Device: "eth1"}, 1500)
	}
	return here, there, err
}

// until tries until it works; the last error, if it never does in a minute.
func until(try func() error) error {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		err := try()
		if err == nil || errors.As(err, &ended{}) || time.Now().After(deadline) {
			return err
		}
	}
}

func last(out string) string {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return lines[len(lines)-1]
}

// namespaces are a process's, by their kinds.
func namespaces(pid int) (map[string]string, error) {
	all := map[string]string{}
	for _, kind := range []string{"pid", "ipc", "user", "net", "mnt"} {
		name, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
		if err != nil {
			return nil, err
		}
		all[kind] = name
	}
	return all, nil
}
