package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/machnet/machnet/tests/internal/checks"
)

// podmanCompose is pinned: Debian's of its release 12 joins every container to a network, also where the file says that there is none.
const podmanCompose = "podman-compose==1.5.0"

// compose runs the file as it is.
func compose(b *bench) (_ string, err error) {
	if err := b.remove(); err != nil {
		return "", err
	}
	packages := filepath.Join(b.folder, "python")
	if _, err := checks.Command(5*time.Minute, b.root, b.env, "python3", "-m", "pip", "install", "--quiet", "--target", packages, podmanCompose); err != nil {
		return "", checks.Skipped("pip cannot install " + podmanCompose + ": " + err.Error())
	}
	run := func(args ...string) (string, error) {
		return checks.Command(2*time.Minute, b.root, append(b.env, "PYTHONPATH="+packages), "python3",
			append([]string{"-m", "podman_compose", "--file", "container/compose.yaml", "--project-name", b.name}, args...)...)
	}
	defer func() {
		_, down := run("down", "--volumes", "--timeout", "5")
		err = errors.Join(err, down)
	}()
	if _, err := run("up", "--detach"); err != nil {
		return "", err
	}
	// podman-compose joins the project's name and the service's by an underscore, docker compose by a dash.
	out := ""
	return "two echoes seen", until(func() (err error) {
		out, err = b.podman("logs", b.name+"_client_1")
		if err == nil && !strings.Contains(out, "64 B from "+otherIP+":7000: seq=2 ") {
			err = fmt.Errorf("the client says %q", out)
		}
		return err
	})
}

// aliens are the options of a program whose users are none of its sidecar's.
var aliens = []string{"--uidmap", "0:200000:70000", "--gidmap", "0:200000:70000", "--ipc", "private", "--pid", "private"}

func isolated(b *bench) (string, error) {
	if err := b.pair(); err != nil {
		return "", err
	}
	if err := b.start("alien", append(b.folderOf(one), aliens...), "machnet", "ping", "-c", "0", "-i", "10ms", otherIP); err != nil {
		return "", err
	}
	if err := b.logged("alien", "seq=5 "); err != nil {
		return "", err
	}
	all := map[string]map[string]string{}
	for _, name := range []string{"alien", one} {
		pid, err := b.pid(name)
		if err != nil {
			return "", err
		}
		if all[name], err = namespaces(pid); err != nil {
			return "", err
		}
	}
	for kind, name := range all["alien"] {
		if name == all[one][kind] {
			return "", fmt.Errorf("program and sidecar share the %s namespace %s", kind, name)
		}
	}
	return "", nil
}

func killed(b *bench) (string, error) {
	if err := errors.Join(b.pair(), b.start("victim", b.folderOf(other), "machnet", "echo", "--addr", ":7001")); err != nil {
		return "", err
	}
	for _, port := range []string{":7000", ":7001"} {
		if _, err := b.pings(b.folderOf(one), otherIP+port); err != nil {
			return "", err
		}
	}
	if _, err := b.podman("kill", "--signal", "KILL", b.called("victim")); err != nil {
		return "", err
	}
	// Its sidecar has noticed when its port is free; the other program answers as before.
	if err := b.logged(other, "left"); err != nil {
		return "", err
	}
	out, err := b.once(b.folderOf(one), "machnet", "ping", "-c", "1", otherIP+":7001")
	if err == nil || !strings.Contains(out, "refused") {
		return "", fmt.Errorf("the killed program's port should refuse: %v, %s", err, out)
	}
	return b.pings(b.folderOf(one), otherIP+":7000")
}

func restarted(b *bench) (string, error) {
	if err := b.pair(); err != nil {
		return "", err
	}
	if _, err := b.pings(b.folderOf(one), otherIP); err != nil {
		return "", err
	}
	// First the one that the server is attached to, then the other, which made the memif's socket.
	for _, name := range []string{other, one} {
		if _, err := b.podman("restart", "--time", "5", b.called(name)); err != nil {
			return "", err
		}
		if _, err := b.pings(b.folderOf(one), otherIP); err != nil {
			return "", fmt.Errorf("after %s started again: %w", name, err)
		}
	}
	return "", b.logged("echo", "echo over machnet at "+otherIP+":7000")
}

func file(b *bench) (string, error) {
	if err := b.pair(); err != nil {
		return "", err
	}
	socket, err := b.socketOf(one)
	if err != nil {
		return "", err
	}
	mount := append(slices.Clone(unprivileged), "--volume", socket+":/run/machnet/machnet.sock")
	if err := b.start("file", mount, "machnet", "ping", "-c", "0", "-i", "10ms", otherIP); err != nil {
		return "", err
	}
	if err := b.logged("file", "seq=1 "); err != nil {
		return "", err
	}
	// A program of the container that goes on when its sidecar has gone.
	if err := b.start("beside", mount, "machnet", "echo", "--addr", ":7009"); err != nil {
		return "", err
	}
	if err := b.logged("beside", "echo over machnet"); err != nil {
		return "", err
	}
	if _, err := b.podman("restart", "--time", "5", b.called(one)); err != nil {
		return "", err
	}
	if err := b.serves(one); err != nil {
		return "", err
	}
	const want = "mounted as a file"
	for _, command := range [][]string{{"ping", "-c", "1", otherIP}, {"ctl", "stats"}} {
		out, err := b.podman(append([]string{"exec", b.called("beside"), "machnet"}, command...)...)
		if err == nil || !strings.Contains(out, want) {
			return "", fmt.Errorf("machnet %s says nothing of %q: %v, %s", command[0], want, err, out)
		}
	}
	return "", nil
}

// firstEcho is a figure: nothing is asked of it, since machines differ.
func firstEcho(b *bench) (string, error) {
	if err := b.remove(); err != nil {
		return "", err
	}
	began := time.Now()
	if err := errors.Join(b.sidecar(one, nil), b.sidecar(other, nil)); err != nil {
		return "", err
	}
	started := time.Since(began)
	if err := b.serves(other); err != nil {
		return "", err
	}
	if err := b.start("echo", b.folderOf(other), "machnet", "echo"); err != nil {
		return "", err
	}
	said, err := b.pings(b.folderOf(one), otherIP)
	return fmt.Sprintf("%.1f s, of which podman took %.1f s to start the sidecars; %s", time.Since(began).Seconds(), started.Seconds(), said), err
}
