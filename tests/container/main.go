// Command container builds the image of container/Containerfile and runs it as docs/container.md tells: the demo, the compose scenario, programs
// that share nothing with their sidecar but the folder of its socket, and what goes wrong then. `make test-container` runs it.
//
// It prints a line for each check, and last how many of them passed.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"

	"github.com/machnet/machnet/tests/internal/checks"
)

type check = checks.Check[*bench]

// first are the steps without which there is nothing to check.
var first = []check{
	{Name: "the image is built from Debian's packages, crates and Go modules alone", Do: build},
}

// uses are what users do then, each by itself.
var uses = []check{
	{Name: "the image is small, and holds the programs, their libraries, the clouds' drivers, and no shell", Do: content},
	{Name: "podman run IMAGE shows the demo: as nobody, without capabilities, read-only", Do: demo},
	{Name: "the compose file: two sidecars, an echo server and a client", Do: compose},
	{Name: "a program with its own pid, ipc, user and network namespaces, without capabilities, read-only", Do: isolated},
	{Name: "a program is killed: its sidecar and other programs go on", Do: killed},
	{Name: "the sidecar starts again: a program whose folder is mounted has it back by itself", Do: restarted},
	{Name: "the sidecar starts again: a socket mounted as a file says to mount the folder", Do: file},
	{Name: "from the start of two sidecars to the first echo", Do: firstEcho},
	{Name: "SIGTERM ends the sidecar in good order", Do: ends},
	{Name: "orphans leave no zombies", Do: orphans},
	{Name: "the health check tells a sidecar from none", Do: health},
	{Name: "a core is taken from the container and given back, under --cores", Do: cpuset},
	{Name: "af_packet with two capabilities, as root of the container", Do: packets},
	{Name: "af_packet without its capabilities says which are missing", Do: noCapability},
	{Name: "XDP with its capabilities", Do: xdp},
}

func main() {
	keep := flag.Bool("keep", false, "keep the image, and print its name")
	image := flag.String("image", "", "this image, and not one that is built for it")
	only := flag.String("run", "", "run the checks whose names match this regular expression")
	flag.Parse()
	matching, err := regexp.Compile(*only)
	if err != nil {
		fatal("-run %q: %v", *only, err)
	}
	if reason := missing(); reason != "" {
		fmt.Printf("skip all: %s\ntest-container: 0/0\n", reason)
		return
	}
	b, err := newBench(*image)
	if err != nil {
		fatal("%v", err)
	}
	steps := first
	if b.given {
		steps = nil
	}
	passed, all := checks.Run(b, steps, uses, matching)
	b.close(*keep)
	checks.Score("test-container", passed, all)
}

func fatal(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "test-container: "+format+"\n", args...)
	os.Exit(1)
}

// missing is what this machine lacks; "" if it has everything.
func missing() string {
	if os.Geteuid() != 0 {
		return "containers with namespaces and devices of their own are made as root"
	}
	for _, program := range []string{"podman", "runc", "debootstrap"} {
		if _, err := exec.LookPath(program); err != nil {
			return program + " is not on this machine (Debian: apt-get install podman runc debootstrap)"
		}
	}
	return ""
}

// bench is an image, and what was started of it.
type bench struct {
	root   string   // of the repository
	folder string   // of ours, for configuration and helpers
	env    []string // by which podman finds its configuration
	name   string   // that all names of ours begin with
	image  string
	given  bool // the image is not ours to remove
}

func newBench(image string) (*bench, error) {
	root, err := filepath.Abs("..")
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(root, "container/Containerfile")); err != nil {
		return nil, fmt.Errorf("it runs in the folder tests of a clone: %w", err)
	}
	b := &bench{root: root, name: fmt.Sprintf("machnet-test-%d", os.Getpid()), image: image, given: image != ""}
	if !b.given {
		b.image = "localhost/" + b.name
	}
	if b.folder, err = os.MkdirTemp("", "machnet-container"); err != nil {
		return nil, err
	}
	// crun and systemd's cgroups are what a distribution chooses; these work where there is no systemd, too. Limits beyond ours could not be set.
	config := "[engine]\nruntime=\"runc\"\ncgroup_manager=\"cgroupfs\"\n" +
		"[containers]\ndefault_ulimits=[\"nofile=4096:4096\",\"nproc=4096:4096\"]\n"
	path := filepath.Join(b.folder, "containers.conf")
	b.env = append(os.Environ(), "CONTAINERS_CONF="+path, "MACHNET_IMAGE="+b.image)
	return b, os.WriteFile(path, []byte(config), 0o644)
}

// close removes all that is ours.
func (b *bench) close(keep bool) {
	failed := []error{b.remove()}
	switch {
	case keep:
		fmt.Printf("test-container: kept %s\n", b.image)
	case !b.given:
		_, err := b.podman("rmi", "--force", b.image)
		failed = append(failed, err)
	}
	if err := errors.Join(append(failed, os.RemoveAll(b.folder))...); err != nil {
		fmt.Printf("test-container: clean up: %v\n", err)
	}
}
