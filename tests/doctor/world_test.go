package doctor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/machnet/machnet/cmd/netns"
	"github.com/machnet/machnet/go/control"
)

// row is one of doctor's findings.
type row struct {
	Check, Status, Found, Expected, Command, On, Advice string
}

// world is an environment in which doctor runs, and commands that mend.
type world struct {
	t     *testing.T
	flags []string // of doctor

	namespace *netns.Namespace // nil: this process's
	tree      *tree            // what stands in the place of parts of /sys, /proc, /dev and /etc; nil: nothing
	nobody    bool             // doctor runs as a user without rights
	sockets   []string         // of sidecars that commands may have started

	wire *wire // to the peer; nil: none

	peer       *world // where commands run that are for the other host
	peerSocket string
}

// bin is a folder with the programs that every user can execute.
func bin(t *testing.T) string {
	t.Helper()
	programs.once.Do(func() {
		folder, err := os.MkdirTemp("", "mnbin")
		if err == nil {
			err = os.Chmod(folder, 0o755)
		}
		for _, name := range []string{"machnet", "machnetd"} {
			if err == nil {
				err = exec.Command("install", "-m", "755", filepath.Join("../../bin", name), folder).Run()
			}
		}
		programs.folder, programs.err = folder, err
	})
	if programs.err != nil {
		t.Fatalf("copy machnet and machnetd: %v; run `make build` first", programs.err)
	}
	return programs.folder
}

// command is a process of the world.
func (w *world) command(ctx context.Context, nobody bool, words ...string) *exec.Cmd {
	if nobody {
		words = append([]string{"setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"}, words...)
	}
	if w.tree != nil {
		words = append([]string{"unshare", "--mount", "--propagation", "private", "sh", "-c", w.tree.mounts() + `exec "$@"`, "sh"}, words...)
	}
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	path := bin(w.t)
	if w.tree != nil {
		path = filepath.Join(w.tree.folder, "bin") + ":" + path
	}
	cmd.Env = append(os.Environ(), "PATH="+path+":"+os.Getenv("PATH"), "RUNTIME_DIRECTORY="+shortTempDir(w.t))
	return cmd
}

// doctor runs `machnet doctor`.
func (w *world) doctor() []row {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	cmd := w.command(ctx, w.nobody, append([]string{filepath.Join(bin(w.t), "machnet"), "doctor", "--json"}, w.flags...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	runErr := w.namespace.Do(cmd.Start)
	if runErr == nil {
		runErr = cmd.Wait()
	}
	var document struct {
		Version int
		Healthy bool
		Checks  []row
	}
	if err := json.Unmarshal(out.Bytes(), &document); err != nil || document.Version != 1 {
		w.t.Fatalf("doctor %q printed %q: %v; %v; %s", w.flags, out.String(), err, runErr, errs.String())
	}
	// The exit code and the document say the same, and both what the rows say.
	failed := 0
	for _, r := range document.Checks {
		if r.Status == "fail" {
			failed++
		}
	}
	want := map[bool]int{true: 0, false: 1}[failed == 0]
	code := 0
	if exit := (*exec.ExitError)(nil); errors.As(runErr, &exit) {
		code = exit.ExitCode()
	} else if runErr != nil {
		w.t.Fatal(runErr)
	}
	if code != want || document.Healthy != (failed == 0) {
		w.t.Errorf("%d checks failed, the document says healthy = %v, and the exit code is %d", failed, document.Healthy, code)
	}
	return document.Checks
}

func (w *world) row(check string) row {
	w.t.Helper()
	for _, r := range w.doctor() {
		if r.Check == check {
			return r
		}
	}
	w.t.Fatalf("there is no check %s", check)
	return row{}
}

// execute does what doctor says, as it says it.
func (w *world) execute(r row) {
	w.t.Helper()
	at := w
	if r.On != "" {
		if at = w.peer; at == nil {
			w.t.Fatalf("the command is for %s: %s", r.On, r.Command)
		}
		at.t = w.t
	}
	at.shell(r.Command)
	for _, socket := range at.sockets {
		at.serves(socket)
	}
}

// shell has `sh -c` execute a command, as root.
func (w *world) shell(command string) {
	w.t.Helper()
	cmd := w.command(context.Background(), false, "sh", "-c", command)
	if w.peerSocket != "" {
		cmd.Env = append(cmd.Env, "MACHNET_SOCKET="+w.peerSocket)
	}
	log, err := os.CreateTemp(w.t.TempDir(), "log")
	if err != nil {
		w.t.Fatal(err)
	}
	defer log.Close()
	// A file, since what goes on in the background would hold a pipe.
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := w.namespace.Do(cmd.Start); err != nil {
		w.t.Fatal(err)
	}
	group := cmd.Process.Pid
	w.t.Cleanup(func() { _ = syscall.Kill(-group, syscall.SIGKILL) }) // what it has started, and nothing else
	if err := cmd.Wait(); err != nil {
		said, _ := os.ReadFile(log.Name())
		w.t.Fatalf("%s: %v: %s", command, err, said)
	}
	if w.tree != nil {
		w.tree.react(w.t)
	}
}

// serves waits until a sidecar answers at a socket.
func (w *world) serves(socket string) {
	w.t.Helper()
	until(w.t, "a sidecar serves "+socket, func() error {
		ctx, cancel := context.WithTimeout(w.t.Context(), time.Second)
		defer cancel()
		_, err := control.Stats(ctx, socket)
		return err
	})
}

// until polls for a condition with a bound that only a fault reaches.
func until(t *testing.T, what string, condition func() error) {
	t.Helper()
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		err := condition()
		if err == nil {
			return
		}
		if time.Since(began) > 30*time.Second {
			t.Fatalf("waiting until %s: %v", what, err)
		}
	}
}

// shortTempDir is t.TempDir where paths stay short enough for Unix sockets, and where every user may look.
func shortTempDir(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "mn")
	if err == nil {
		err = os.Chmod(folder, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	return folder
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounts and network namespaces take root")
	}
	if err := netns.Available(); err != nil {
		t.Skip(err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func lines(text ...string) string { return strings.Join(text, "\n") + "\n" }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func words(format string, args ...any) []string { return strings.Fields(fmt.Sprintf(format, args...)) }
