// Package procs starts the processes of a benchmark on named cores, reads their CPU time, and ends them.
package procs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/machnet/machnet/cmd/netns"
)

// Process is a child that dies with this process.
type Process struct {
	Name   string
	cmd    *exec.Cmd
	done   chan struct{}
	err    error // of Wait; valid once done is closed
	stderr *tail
	in     io.Closer // our ends of the child's pipes
	out    io.Closer
}

// Spec says what to start.
type Spec struct {
	Name string
	Path string
	Args []string
	Env  []string // beside this process's own
	Core int      // the one core it may use; -1 for any
	Log  io.Writer

	Namespace *netns.Namespace // the network it runs in; nil for this process's own
}

// Start starts the process. The calling thread takes on the child's cores for the moment of the fork, since a
// child inherits them and a Go program cannot move threads that run already.
func Start(s Spec) (*Process, io.WriteCloser, io.ReadCloser, error) {
	p := &Process{Name: s.Name, done: make(chan struct{}), stderr: &tail{to: s.Log}}
	p.cmd = exec.Command(s.Path, s.Args...)
	p.cmd.Env = append(os.Environ(), s.Env...)
	p.cmd.Stderr = p.stderr
	// A process group of its own keeps a terminal's Ctrl-C from it: we end it in order. If we are killed, the kernel ends it.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	in, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, nil, nil, err
	}
	// Not StdoutPipe: Wait closes that, and what a process says last, why it ends, could be lost.
	out, childOut, err := os.Pipe()
	if err != nil {
		return nil, nil, nil, errors.Join(err, in.Close())
	}
	p.cmd.Stdout = childOut
	p.in, p.out = in, out
	started := make(chan error)
	go p.run(s, started)
	err = <-started
	_ = childOut.Close()
	if err != nil {
		_, _ = in.Close(), out.Close()
		return nil, nil, nil, fmt.Errorf("start %s: %w", s.Name, err)
	}
	return p, in, out, nil
}

// run lives as long as the child: Pdeathsig is bound to the thread that forked.
func (p *Process) run(s Spec, started chan<- error) {
	runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine, after the child
	if s.Core >= 0 {
		var set unix.CPUSet
		set.Set(s.Core)
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			started <- fmt.Errorf("core %d: %w", s.Core, err)
			return
		}
	}
	if err := s.Namespace.Do(p.cmd.Start); err != nil {
		started <- err
		return
	}
	started <- nil
	p.err = p.cmd.Wait()
	close(p.done)
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Ended says whether the process has ended.
func (p *Process) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Killed says whether the process was ended by a signal.
func (p *Process) Killed() bool {
	if !p.Ended() {
		return false
	}
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && status.Signaled()
}

// Exit describes how the process ended, with the last lines it printed on standard error.
func (p *Process) Exit() error {
	<-p.done
	status := "exit status 0"
	if p.err != nil {
		status = p.err.Error()
	}
	if last := p.stderr.String(); last != "" {
		return fmt.Errorf("%s ended (%s): %s", p.Name, status, last)
	}
	return fmt.Errorf("%s ended (%s)", p.Name, status)
}

// Stop asks the process to end and, after the grace, kills it. It returns when the process is gone.
func (p *Process) Stop(grace time.Duration) {
	defer p.out.Close()
	_ = p.in.Close()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	p.Resume() // what is paused takes no signal but SIGKILL
	select {
	case <-p.done:
	case <-time.After(grace):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// Pause stops the process where it is, until Resume. It uses no processor time meanwhile.
func (p *Process) Pause() { _ = p.cmd.Process.Signal(syscall.SIGSTOP) }

// Resume lets a paused process go on.
func (p *Process) Resume() { _ = p.cmd.Process.Signal(syscall.SIGCONT) }

// PID is the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// CPU is the processor time of all the process's threads so far, in the kernel's nanoseconds.
func (p *Process) CPU() (time.Duration, error) { return CPU(p.PID()) }

// CPU is the processor time of all living threads of a process so far.
func CPU(pid int) (time.Duration, error) {
	ns, err := sumOfThreads(pid, "schedstat", func(text string) string {
		ran, _, _ := strings.Cut(text, " ")
		return ran
	})
	return time.Duration(ns), err
}

// Sleeps is how often the threads of the process that live have gone to sleep so far: given up their core with nothing to do, not for
// another thread's sake.
func (p *Process) Sleeps() (int64, error) {
	return sumOfThreads(p.PID(), "status", func(text string) string {
		_, rest, _ := strings.Cut(text, "\nvoluntary_ctxt_switches:")
		number, _, _ := strings.Cut(rest, "\n")
		return strings.TrimSpace(number)
	})
}

// sumOfThreads adds up a number over the living threads of a process: what number finds in the file of this name that the kernel has of each.
func sumOfThreads(pid int, name string, number func(text string) string) (int64, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/%s", pid, name))
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, file := range files {
		text, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // the thread has just ended
		}
		if err != nil {
			return 0, err
		}
		n, err := strconv.ParseInt(number(string(text)), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", file, err)
		}
		sum += n
	}
	return sum, nil
}

// Cores lists the cores this process may use, in order.
func Cores() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("read the cores of this process: %w", err)
	}
	var cores []int
	for core := 0; len(cores) < set.Count(); core++ {
		if set.IsSet(core) {
			cores = append(cores, core)
		}
	}
	return cores, nil
}

// tail keeps the last lines that a process printed, and passes all of them on to a writer if there is one.
type tail struct {
	mu    sync.Mutex
	to    io.Writer
	lines []byte
}

const tailBytes = 2048

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines = append(t.lines, p...)
	if over := len(t.lines) - tailBytes; over > 0 {
		t.lines = append(t.lines[:0], t.lines[over:]...)
	}
	if t.to != nil {
		return t.to.Write(p)
	}
	return len(p), nil
}

// String is the last four lines, joined.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := bytes.Split(bytes.TrimSpace(t.lines), []byte("\n"))
	if len(lines) > 4 {
		lines = lines[len(lines)-4:]
	}
	return string(bytes.Join(lines, []byte(" | ")))
}
