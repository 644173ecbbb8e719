// Command goget proves what docs/packaging.md promises: it packs the modules as a proxy serves them, and then does in an empty
// folder what a user does who has Go and a C compiler, and neither Rust nor, as root, a network. `make test-goget` runs it.
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
	"runtime"
	"strings"
	"syscall"

	"github.com/machnet/machnet/tests/internal/checks"
)

// inside is set in the process that has no network.
const inside = "MACHNET_GOGET_INSIDE"

func main() {
	keep := flag.Bool("keep", false, "keep the folder of the user's module and of what was packed, and print where it is")
	only := flag.String("run", "", "run the checks whose names match this regular expression, and what comes before all of them")
	flag.Parse()
	matching, err := regexp.Compile(*only)
	if err != nil {
		fatal("-run %q: %v", *only, err)
	}
	if os.Geteuid() == 0 && os.Getenv(inside) == "" {
		os.Exit(withoutNetwork())
	}
	if os.Getenv(inside) == "" {
		fmt.Println("goget: not root, so the network is there; only GOPROXY keeps builds from it")
	}
	// Built packages of Go itself are taken from the cache that is there: they are the same in every folder.
	b, err := newBench()
	if err != nil {
		fatal("%v", err)
	}
	passed, all := checks.Run(b, first, uses, matching)
	b.close(*keep)
	checks.Score("goget", passed, all)
}

func fatal(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "goget: "+format+"\n", args...)
	os.Exit(1)
}

// withoutNetwork runs this program again in a network namespace of its own, where there is not even a loopback device.
func withoutNetwork() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // the child dies with the thread that made it
	if err := cmd.Run(); err != nil {
		if exit := new(exec.ExitError); errors.As(err, &exit) {
			return 1
		}
		fatal("a network namespace: %v", err)
	}
	return 0
}

// bench is the folder in which all happens, and two sidecars.
type bench struct {
	root    string // of the repository
	folder  string // empty at first
	user    string // the user's module, below it
	goTool  string
	cache   string // GOCACHE
	version string // of the modules
	sidecar []*exec.Cmd
}

// check is one thing that a user does.
type check = checks.Check[*bench]

func newBench() (*bench, error) {
	root, err := filepath.Abs("..")
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(root, "rust-toolchain.toml")); err != nil {
		return nil, fmt.Errorf("it runs in the folder tests of a clone: %w", err)
	}
	b := &bench{root: root}
	for name, into := range map[string]*string{"GOROOT": &b.goTool, "GOCACHE": &b.cache} {
		out, err := exec.Command("go", "env", name).Output()
		if err != nil {
			return nil, fmt.Errorf("go env %s: %w", name, err)
		}
		*into = strings.TrimSpace(string(out))
	}
	b.goTool = filepath.Join(b.goTool, "bin", "go")
	if b.folder, err = os.MkdirTemp("", "goget"); err != nil {
		return nil, err
	}
	b.user = filepath.Join(b.folder, "user")
	return b, nil
}

func (b *bench) close(keep bool) {
	for _, cmd := range b.sidecar {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	if keep {
		fmt.Printf("goget: kept %s\n", b.folder)
		return
	}
	if err := os.RemoveAll(b.folder); err != nil {
		fmt.Printf("goget: remove %s: %v\n", b.folder, err)
	}
}
