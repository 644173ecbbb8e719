package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/machnet/machnet/go/control"
	"github.com/machnet/machnet/go/machnet"
)

// checkSettings shows what machnetd itself says of its settings, where no other check has the sentence.
func checkSettings(_ context.Context, e *Env) Result {
	if e.checked == nil {
		if e.about != nil {
			return ok("those of the running sidecar")
		}
		return skip("%s", e.noCheck)
	}
	var wrong []string
	for _, m := range e.checked.Mistakes {
		if m.Code != ofNIC && m.Code != ofEngines {
			wrong = append(wrong, m.Text)
		}
	}
	switch {
	case len(wrong) > 0:
		return Result{Status: Fail, Found: strings.Join(wrong, "; "), Expected: "what docs/configuration.md allows", Advice: "as the sentence says; then `machnetd --check`"}
	case len(e.checked.Warnings) > 0:
		return Result{Status: Warn, Found: strings.Join(e.checked.Warnings, "; "), Expected: "no warning of `machnetd --check`", Advice: "as the sentence says"}
	}
	return ok("machnetd has nothing against them")
}

// checkSocket asks whether a sidecar serves this user.
func checkSocket(_ context.Context, e *Env) Result {
	socket := e.socket()
	expected := "a sidecar that serves this user"
	mounted := e.mounted(socket)
	switch err := e.aboutErr; {
	case err == nil && mounted:
		return Result{Status: Warn, Found: socket + " is mounted as a file", Expected: "its folder mounted: a sidecar that is started again makes another file, which this mount will never show",
			Advice: fmt.Sprintf("start the container with -v %[1]s:%[1]s instead of the socket", filepath.Dir(socket))}
	case err == nil:
		return ok("machnetd %s, process %d, serves %s", e.about.Machnetd, e.about.PID, socket)
	case mounted:
		return Result{Status: Fail, Found: socket + " is mounted as a file, whose sidecar has ended: its successor's is another file", Expected: "its folder mounted",
			Command: fmt.Sprintf("umount %s", quoted(socket)), Advice: fmt.Sprintf("and start the container with -v %[1]s:%[1]s instead of the socket", filepath.Dir(socket))}
	case errors.Is(err, fs.ErrPermission):
		return Result{Status: Fail, Found: fmt.Sprintf("user %s may not connect to %s", userName(), socket), Expected: expected,
			Command: fmt.Sprintf("chgrp %d %s", os.Getegid(), quoted(socket)),
			Advice:  fmt.Sprintf("for good: control.group = \"%d\" in the sidecar's settings, or `usermod -aG` with the socket's group and a new login", os.Getegid())}
	case errors.Is(err, control.ErrNoSidecar):
		r := Result{Status: Fail, Found: "no socket " + socket, Expected: expected, Command: e.start()}
		if _, gone := os.Stat(socket); gone == nil {
			r.Found = "nobody serves " + socket + ": its sidecar has ended"
		} else if e.Flags != nil && !e.usual {
			// Somebody names settings, or a NIC, to know what will come of it before the start.
			r.Status = Skipped
		}
		if r.Command == "" {
			r.Advice = "start machnetd (docs/configuration.md), or name its socket by --socket"
		}
		return r
	default:
		return Result{Status: Fail, Found: err.Error(), Expected: expected, Advice: "as the sentence says"}
	}
}

// mounted says whether a file is a mount of its own.
func (e *Env) mounted(file string) bool {
	for line := range strings.Lines(e.text("/proc/self/mountinfo")) {
		if fields := strings.Fields(line); len(fields) > 4 && fields[4] == file {
			return true
		}
	}
	return false
}

// checkVersions attaches, as every application does.
func checkVersions(ctx context.Context, e *Env) Result {
	if e.about == nil {
		return skip("no sidecar to compare with")
	}
	expected := "sidecar, client and machnetd of one release"
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	stack, err := machnet.Attach(ctx, machnet.Config{Socket: e.socket()})
	if err == nil {
		err = stack.Close()
	}
	switch {
	case errors.Is(err, machnet.ErrVersion):
		r := Result{Status: Fail, Found: err.Error(), Expected: expected, Command: e.restart(), Advice: "where that does not help, install the client and machnetd of one release"}
		return r
	case err != nil:
		return Result{Status: Fail, Found: "attaching: " + err.Error(), Expected: expected, Advice: "as the sentence says"}
	}
	if installed := e.checked; installed != nil && installed.Machnetd != e.about.Machnetd {
		return Result{Status: Warn, Found: fmt.Sprintf("machnetd %s runs, and %s is installed", e.about.Machnetd, installed.Machnetd), Expected: expected, Command: e.restart()}
	}
	return ok("machnetd %s, channel version %d, %s", e.about.Machnetd, e.about.Channel, e.about.DPDK)
}

// checkEngines asks for the sidecar's health.
func checkEngines(ctx context.Context, e *Env) Result {
	if e.about == nil {
		return skip("no sidecar to ask")
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	health, err := control.Health(ctx, e.socket())
	expected := "all engines running or asleep, and the NIC up"
	if err != nil {
		return Result{Status: Fail, Found: err.Error(), Expected: expected, Command: e.restart()}
	}
	if !health.Healthy {
		var stalled []string
		for _, engine := range health.Engines {
			if engine.State == "stalled" {
				stalled = append(stalled, fmt.Sprintf("engine %d stands still for %v", engine.Engine, time.Duration(engine.Late).Round(time.Millisecond)))
			}
		}
		return Result{Status: Fail, Found: strings.Join(stalled, ", "), Expected: expected, Command: e.restart(),
			Advice: "if it stands still again: look at the checks cores and steal, and at the sidecar's log"}
	}
	// The NIC's state is what its driver says; that of af_packet says nothing of the kernel's device, on which no packet goes then.
	if health.NIC.State == "up" && e.nic != nil && !e.physical() && !e.nic.Running {
		r := Result{Status: Warn, Found: fmt.Sprintf("the engines are alive, and %s has no carrier: nothing goes through it", e.nic), Expected: "a NIC that is up",
			Advice: "look at its other end: the cable, the switch, the other interface of the pair"}
		if !e.nic.Up {
			r.Found, r.Command = fmt.Sprintf("the engines are alive, and %s is down: nothing goes through it", e.nic), "ip link set dev "+quoted(e.nic.Name)+" up"
		}
		return r
	}
	if state := health.NIC.State; state != "up" {
		r := Result{Status: Warn, Found: fmt.Sprintf("the engines are alive, and the NIC is %s", state), Expected: "a NIC that is up",
			Advice: "the sidecar goes on by itself when it is back; look at the other end (of a memif: the other sidecar), or at what the cloud's console says of the device"}
		if state == "gone" {
			r.Status = Fail
		}
		if e.nic != nil && e.nic.Name != "" && !e.nic.Up {
			r.Command = "ip link set dev " + quoted(e.nic.Name) + " up"
		}
		return r
	}
	return ok("%d engines, none stalled; the NIC is up", len(health.Engines))
}
