package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// machnetCommand is where `make build` puts the command.
const machnetCommand = "../../bin/machnet"

// patience is how long a test waits for what should take a fraction of a second: the machine may be busy.
const patience = 20 * time.Second

// command is one running `machnet`. All its files, and its children's, go to a folder of its own, and by their
// environment its processes can be found even when it is gone.
type command struct {
	cmd       *exec.Cmd
	folder    string
	out, errs *lockedBuffer
	gone      chan struct{}
}

func startCommand(t *testing.T, args ...string) *command {
	t.Helper()
	c := &command{folder: shortTempDir(t), out: new(lockedBuffer), errs: new(lockedBuffer), gone: make(chan struct{})}
	c.cmd = exec.Command(machnetCommand, args...)
	c.cmd.Stdout, c.cmd.Stderr = c.out, c.errs
	c.start(t)
	return c
}

func (c *command) start(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(machnetCommand); err != nil {
		t.Fatalf("%s is missing: run `make build` first", machnetCommand)
	}
	c.cmd.Env = append(os.Environ(), "TMPDIR="+c.folder)
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = c.cmd.Wait()
		close(c.gone)
	}()
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill()
		<-c.gone
		if t.Failed() {
			t.Logf("machnet printed: %s\n%s", c.out, c.errs)
		}
	})
}

// exit waits for the end and returns the exit code; -1 means a signal.
func (c *command) exit(t *testing.T, within time.Duration) int {
	t.Helper()
	select {
	case <-c.gone:
		return c.cmd.ProcessState.ExitCode()
	case <-time.After(within):
		t.Fatalf("machnet has not ended in %v", within)
		return 0
	}
}

// process is what /proc says of a living process.
type process struct {
	pid  int
	args string
}

// children are all living processes of the command but itself.
func (c *command) children(t *testing.T) []process {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	var found []process
	for _, file := range files {
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		environ, err := os.ReadFile(file) // of a zombie it is empty
		if err != nil || pid == c.cmd.Process.Pid || !slices.Contains(strings.Split(string(environ), "\x00"), "TMPDIR="+c.folder) {
			continue
		}
		args, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "cmdline"))
		found = append(found, process{pid, strings.ReplaceAll(string(args), "\x00", " ")})
	}
	return found
}

// waitForChildren returns when so many processes run.
func (c *command) waitForChildren(t *testing.T, n int) []process {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		all := c.children(t)
		if len(all) >= n {
			return all
		}
		select {
		case <-c.gone:
			t.Fatalf("machnet ended with %d children of %d", len(all), n)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d processes after %v, want %d: %v", len(all), patience, n, all)
		}
	}
}

// leavesNothing checks that an ended command has left no process and no file.
func (c *command) leavesNothing(t *testing.T) {
	t.Helper()
	if all := c.children(t); len(all) > 0 {
		t.Errorf("processes left: %v", all)
	}
	files, err := os.ReadDir(c.folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		t.Errorf("file left: %s", file.Name())
	}
}

// demoProcesses is how many children the demo has when it measures: two sidecars, and client and server of Machnet
// and of TCP in two placements.
const demoProcesses = 8

func TestAnInterruptedDemoLeavesNothing(t *testing.T) {
	onAnyLink(t)
	moments := map[string]func(t *testing.T, c *command){
		"at once":                     func(*testing.T, *command) {},
		"when the first sidecar runs": func(t *testing.T, c *command) { c.waitForChildren(t, 1) },
		"when workers start":          func(t *testing.T, c *command) { c.waitForChildren(t, 3) },
		"in the middle": func(t *testing.T, c *command) {
			c.waitForChildren(t, demoProcesses)
			time.Sleep(500 * time.Millisecond)
		},
	}
	for moment, wait := range moments {
		for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
			t.Run(fmt.Sprintf("%s, %v", moment, signal), func(t *testing.T) {
				c := startCommand(t, "demo")
				wait(t, c)
				if err := c.cmd.Process.Signal(signal); err != nil {
					t.Fatal(err)
				}
				code := c.exit(t, patience)
				// Before the program's first lines run, the signal itself ends the process.
				if code != 130 && (moment != "at once" || code != -1) {
					t.Errorf("exit code %d, want 130", code)
				}
				c.leavesNothing(t)
			})
		}
	}
}

func TestTheChildrenOfAKilledDemoDie(t *testing.T) {
	onAnyLink(t)
	for name, args := range map[string][]string{"demo": {"demo"}, "in namespaces": {"bench", "--link", "veth"}} {
		t.Run(name, func(t *testing.T) {
			if name == "in namespaces" {
				needNamespaces(t)
			}
			c := startCommand(t, args...)
			c.waitForChildren(t, demoProcesses)
			if err := c.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			<-c.gone
			for deadline := time.Now().Add(patience); len(c.children(t)) > 0; time.Sleep(5 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("still running: %v", c.children(t))
				}
			}
		})
	}
}

func TestTheDeathOfAPartEndsTheBenchAndIsNamed(t *testing.T) {
	onAnyLink(t)
	for name, tc := range map[string]struct {
		victim string   // words of its command line
		want   []string // in what is said
	}{
		"sidecar of host A": {"machnetd A.sock", []string{"machnetd of host A ended (signal: killed)", "network is down"}},
		"sidecar of host B": {"machnetd B.sock", []string{"machnetd of host B ended (signal: killed)", "network is down"}},
		"server":            {"worker serve", []string{"machnet server (own) ended (signal: killed)"}},
		"client":            {"worker drive", []string{"machnet client (own) ended (signal: killed)"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := startCommand(t, "bench", "--transport", "machnet", "--rounds", "1000", "--duration", "100ms", "--size", "64", "--inflight", "1")
			all := c.waitForChildren(t, 4) // two sidecars, a server, a client
			time.Sleep(300 * time.Millisecond)
			victim := slices.IndexFunc(all, func(p process) bool {
				for _, word := range strings.Fields(tc.victim) {
					if !strings.Contains(p.args, word) {
						return false
					}
				}
				return true
			})
			if victim < 0 {
				t.Fatalf("no %q among %v", tc.victim, all)
			}
			if err := syscall.Kill(all[victim].pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if code := c.exit(t, patience); code != 1 {
				t.Errorf("exit code %d, want 1", code)
			}
			for _, want := range tc.want {
				if !strings.Contains(c.errs.String(), want) {
					t.Errorf("machnet said %q, want %q in it", c.errs, want)
				}
			}
			c.leavesNothing(t)
		})
	}
}

func TestProgressShowsOnATerminalAndTheTableInAPipe(t *testing.T) {
	onAnyLink(t)
	screen, terminal := openTerminal(t)
	c := &command{folder: shortTempDir(t), out: new(lockedBuffer), errs: new(lockedBuffer), gone: make(chan struct{})}
	c.cmd = exec.Command(machnetCommand, "bench", "--transport", "tcp", "--rounds", "2", "--duration", "20ms", "--size", "64,1024", "--inflight", "1")
	c.cmd.Stdout, c.cmd.Stderr = c.out, terminal
	c.start(t)
	if code := c.exit(t, patience); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	for _, want := range []string{"p50 us", "echoes/s", "64 B", "1 KiB", "tcp", "closed loop"} {
		if !strings.Contains(c.out.String(), want) {
			t.Errorf("no %q in the table", want)
		}
	}
	terminal.Close() // the last one that has it open, so reading ends with EIO
	shown, err := io.ReadAll(screen)
	if !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	if !bytes.Contains(shown, []byte(" %  tcp, 64 B, 1 in flight")) || !bytes.HasSuffix(shown, []byte("\r\x1b[K")) {
		t.Errorf("the terminal shows %q, want progress, and a clear line at the end", shown)
	}
}

// openTerminal makes a pseudoterminal: what is written to the terminal can be read from the screen.
func openTerminal(t *testing.T) (screen, terminal *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		t.Skip("no pseudoterminals here")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { screen.Close() })
	if err := unix.IoctlSetPointerInt(int(screen.Fd()), unix.TIOCSPTLCK, 0); err != nil { // unlock it
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(screen.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close() })
	return screen, terminal
}
