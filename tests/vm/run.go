package vm

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// Run has the guest's shell (busybox) run a command, and gives what it printed and its exit code.
func (g *Guest) Run(command string) (out string, code int) {
	g.t.Helper()
	out, code, err := g.agent.run(command, nil, runTime)
	if err != nil {
		g.t.Fatalf("%s: run %q: %v", g.name, command, err)
	}
	return out, code
}

// Do runs a command that must succeed, and gives what it printed.
func (g *Guest) Do(command string) string {
	g.t.Helper()
	out, code := g.Run(command)
	if code != 0 {
		g.t.Fatalf("%s: %q ended with status %d: %s", g.name, command, code, out)
	}
	return strings.TrimSpace(out)
}

// Put writes a file into the guest. Folders are made.
func (g *Guest) Put(path string, content []byte, mode uint32) {
	g.t.Helper()
	command := fmt.Sprintf("mkdir -p $(dirname %[1]s) && cat > %[1]s && chmod %[2]o %[1]s", path, mode)
	out, code, err := g.agent.run(command, content, runTime)
	if err != nil || code != 0 {
		g.t.Fatalf("%s: write %s: %v, status %d: %s", g.name, path, err, code, out)
	}
}

// Process is a program that runs in the guest beside others.
type Process struct {
	g         *Guest
	name, log string
	pid       string
}

// Start runs a program in the background. What it prints goes to a file, which a failed test prints. The name must be new in this guest.
func (g *Guest) Start(name, command string) *Process {
	g.t.Helper()
	p := &Process{g: g, name: name, log: "/tmp/" + name + ".log"}
	// The shell becomes the program, so that the number is the program's.
	p.pid = g.Do(fmt.Sprintf("sh -c 'exec %s' > %s 2>&1 < /dev/null & echo $!", command, p.log))
	g.mu.Lock()
	defer g.mu.Unlock()
	g.logs = append(g.logs, p.log)
	return p
}

// With is the same process for another test.
func (p *Process) With(t testing.TB) *Process {
	other := *p
	other.g = p.g.With(t)
	return &other
}

// Log is what it has printed so far.
func (p *Process) Log() string {
	p.g.t.Helper()
	return p.g.Do("cat " + p.log)
}

// Running tells whether it is there.
func (p *Process) Running() bool {
	p.g.t.Helper()
	_, code := p.g.Run("kill -0 " + p.pid)
	return code == 0
}

// Signal sends a signal, like "TERM".
func (p *Process) Signal(name string) {
	p.g.t.Helper()
	p.g.Do("kill -" + name + " " + p.pid)
}

// Stop ends it in order, and waits until it is gone. One that has ended is no fault.
func (p *Process) Stop() {
	p.g.t.Helper()
	_, _ = p.g.Run("kill " + p.pid)
	p.g.Until(fmt.Sprintf("%s has ended after SIGTERM", p.name), func() bool { return !p.Running() })
}

// Says waits until it has printed this text.
func (p *Process) Says(text string) {
	p.g.t.Helper()
	p.SaysAfter(0, text)
}

// SaysAfter waits until it has printed this text behind so many bytes of its log.
func (p *Process) SaysAfter(begin int, text string) {
	p.g.t.Helper()
	p.g.Until(fmt.Sprintf("%s says %q", p.name, text), func() bool {
		if log := p.Log(); strings.Contains(log[min(begin, len(log)):], text) {
			return true
		}
		if !p.Running() {
			p.g.t.Fatalf("%s: %s ended before it said %q: %s", p.g.name, p.name, text, lastLine(p.Log()))
		}
		return false
	})
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// patience is how long a test waits for something that comes by itself. It passes in full only where the test fails.
const patience = 3 * time.Minute

// Until waits for a condition.
func (g *Guest) Until(what string, condition func() bool) {
	g.t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			g.t.Fatalf("%s: not in %v: %s", g.name, patience, what)
		}
	}
}
