// Package netns makes network namespaces, lays links between them, and starts processes in them: two hosts on one
// machine for the benchmark and for the tests of tests/e2e. It needs root and the programs of iproute2; only Forward
// needs nftables.
//
// A namespace has no name. It lives as long as a process in it or a file of ours that holds it, so whatever ends, in
// order or by a signal, the kernel takes namespaces and links with it, and nothing stale is ever left to be swept.
package netns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Namespace is a network of its own. It begins with nothing but a loopback device that is down.
type Namespace struct {
	file *os.File
}

// own is the namespace of the calling thread. (/proc/self would be that of the process's first thread.)
const own = "/proc/thread-self/ns/net"

// New makes a namespace.
func New() (*Namespace, error) {
	var n *Namespace
	err := onThread(func() error { return unix.Unshare(unix.CLONE_NEWNET) }, func() error {
		file, err := os.Open(own)
		n = &Namespace{file}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make a network namespace: %w; it takes root (CAP_SYS_ADMIN and CAP_NET_ADMIN)", err)
	}
	return n, nil
}

// Available says in one sentence why no namespaces can be made here, or nil.
func Available() error {
	n, err := New()
	if err != nil {
		return err
	}
	return errors.Join(n.Run("ip", "link"), n.Close())
}

// Do runs f on a thread that is in the namespace; a process that f starts is in it, too. Goroutines that f starts are not.
// The nil namespace is that of this process.
func (n *Namespace) Do(f func() error) error {
	if n == nil {
		return f()
	}
	return onThread(func() error { return os.NewSyscallError("setns", unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET)) }, f)
}

// onThread moves the goroutine's thread to another namespace, runs f there, and brings the thread back.
func onThread(move, f func() error) error {
	runtime.LockOSThread()
	home, err := os.Open(own)
	if err == nil {
		defer home.Close()
		err = move()
	}
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	err = f()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		// The thread stays bound, so that it ends with its goroutine and no other goroutine gets it.
		return errors.Join(err, fmt.Errorf("leave a network namespace: %w", back))
	}
	runtime.UnlockOSThread()
	return err
}

// Run runs a program in the namespace until it ends. An error holds what it printed.
func (n *Namespace) Run(program string, args ...string) error {
	return n.run("", program, args...)
}

func (n *Namespace) run(input, program string, args ...string) error {
	cmd := exec.Command(program, args...)
	cmd.Stdin = strings.NewReader(input)
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	err := n.Do(cmd.Start)
	if err == nil {
		err = cmd.Wait()
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, exec.ErrNotFound):
		return fmt.Errorf("%s is not on this machine; `make deps` installs it", program)
	}
	return fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, strings.Join(strings.Fields(said.String()), " "))
}

// Close lets go of the namespace. It is gone, with its links, when the last process in it is. Closing nil does nothing.
func (n *Namespace) Close() error {
	if n == nil {
		return nil
	}
	return n.file.Close()
}

// path is where another process finds the namespace.
func (n *Namespace) path() string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.file.Fd())
}
