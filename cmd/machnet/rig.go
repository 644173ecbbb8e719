package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/machnet/machnet/cmd/internal/procs"
	"github.com/machnet/machnet/cmd/netns"
)

// stopGrace is how long a process may take to end in order.
const stopGrace = 2 * time.Second

// rig is what a benchmark runs on: a folder of its own, and the processes that it has started, which end with it.
type rig struct {
	folder   string
	networks []*netns.Namespace
	sidecars []*sidecar
	workers  []*worker
	log      io.Writer // what sidecars print, or nil
	failed   context.CancelCauseFunc
	closing  chan struct{} // closed by close: from then on processes may end
}

// host is one of the two hosts of a benchmark.
type host struct {
	name     string
	ip       string           // Machnet's
	kernelIP string           // of the kernel's transports
	device   []string         // flags of machnetd
	backend  string           // that they choose, with --link veth
	network  *netns.Namespace // nil: this machine's
	core     int
}

// sidecarName, and the host's, is what a sidecar is called in messages.
const sidecarName = "machnetd of host "

type sidecar struct {
	*procs.Process
	ip     string
	socket string
}

type worker struct {
	*procs.Process
	in    *json.Encoder
	lines chan workerLine
}

// onRig runs a measurement on a rig of its own, which is gone when it returns. What the sidecars log is shown where verbose.
func onRig[T any](ctx context.Context, verbose bool, progress *progress, measure func(context.Context, *rig) (T, error)) (T, error) {
	progress.step("starting")
	r, ctx, err := newRig(ctx, map[bool]io.Writer{true: progress.out}[verbose])
	if err != nil {
		return *new(T), err
	}
	defer r.close()
	defer progress.clear()
	result, err := measure(ctx, r)
	if err != nil && !interrupted(ctx) {
		err = r.explain(err)
	}
	return result, err
}

// newRig makes the folder. The context it returns ends with ctx, or when a process ends before its time; its cause says which.
func newRig(ctx context.Context, log io.Writer) (*rig, context.Context, error) {
	folder, err := os.MkdirTemp("", "machnet-bench-")
	if err != nil {
		return nil, nil, err
	}
	ctx, failed := context.WithCancelCause(ctx)
	return &rig{folder: folder, log: log, failed: failed, closing: make(chan struct{})}, ctx, nil
}

// close ends every process, in twice stopGrace at most, and removes the folder.
func (r *rig) close() {
	close(r.closing)
	for _, s := range r.sidecars {
		s.Resume() // workers that close a connection want its sidecar
	}
	stop(r.workerProcesses())
	stop(r.sidecarProcesses())
	for _, n := range r.networks {
		_ = n.Close()
	}
	_ = os.RemoveAll(r.folder)
	r.failed(nil)
}

// stop ends processes side by side.
func stop(all []*procs.Process) {
	var gone sync.WaitGroup
	for _, p := range all {
		gone.Go(func() { p.Stop(stopGrace) })
	}
	gone.Wait()
}

func (r *rig) workerProcesses() []*procs.Process {
	var all []*procs.Process
	for _, w := range r.workers {
		all = append(all, w.Process)
	}
	return all
}

func (r *rig) sidecarProcesses() []*procs.Process {
	var all []*procs.Process
	for _, s := range r.sidecars {
		all = append(all, s.Process)
	}
	return all
}

// explain tells a failure from its cause: a process that dies makes others fail, and any of them may be heard first.
// The cause is the sidecar that ended, or what was killed; what the workers say about it follows.
func (r *rig) explain(err error) error {
	var causes, others []string
	// The deaths and last words that belong together come within a moment, and on a busy machine within the time that a process takes to end.
	for deadline := time.Now().Add(stopGrace); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		causes, others = nil, nil
		for _, p := range append(r.sidecarProcesses(), r.workerProcesses()...) {
			switch {
			case !p.Ended():
			case p.Killed() || strings.HasPrefix(p.Name, sidecarName):
				causes = append(causes, p.Exit().Error())
			default:
				others = append(others, p.Exit().Error())
			}
		}
		if len(causes) > 0 && len(others) > 0 {
			break
		}
	}
	if len(causes) == 0 {
		return err
	}
	return errors.New(strings.Join(append(causes, others...), "; "))
}

// watch reports a process that ends before the rig is closed.
func (r *rig) watch(p *procs.Process) {
	go func() {
		select {
		case <-r.closing:
		case <-p.Done():
			select {
			case <-r.closing:
			default:
				r.failed(p.Exit())
			}
		}
	}()
}

// startSidecar starts machnetd for one host, its engine on the host's core.
func (r *rig) startSidecar(ctx context.Context, h *host) (*sidecar, error) {
	program, err := programBeside("machnetd")
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(r.folder, h.name+h.backend+".sock")
	args := append([]string{"--ip", h.ip + "/24", "--socket", socket, "--log", "warn"}, h.device...)
	if h.backend != backendXDP { // which needs no DPDK
		args = append(args, "--file-prefix", filepath.Base(r.folder)+h.name)
	}
	p, _, out, err := procs.Start(procs.Spec{
		Name: sidecarName + h.name, Path: program, Args: args, Core: h.core, Namespace: h.network, Log: r.log,
		Env: []string{"RUNTIME_DIRECTORY=" + r.folder},
	})
	if err != nil {
		return nil, err
	}
	go io.Copy(io.Discard, out)
	s := &sidecar{Process: p, ip: h.ip, socket: socket}
	r.sidecars = append(r.sidecars, s)
	r.watch(p)
	return s, waitForSocket(ctx, socket)
}

// waitForSocket returns when the sidecar's socket is there: it is made when everything else is ready.
func waitForSocket(ctx context.Context, path string) error {
	const patience = 20 * time.Second
	for deadline := time.Now().Add(patience); ; {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("machnetd has not made %s in %v; run it by hand to see why", path, patience)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// programBeside is the path of another of our programs: beside this one, or on the PATH.
func programBeside(name string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	beside := filepath.Join(filepath.Dir(self), name)
	if _, err := os.Stat(beside); err == nil {
		return beside, nil
	}
	for _, folder := range filepath.SplitList(os.Getenv("PATH")) {
		path := filepath.Join(folder, name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is neither beside %s nor on the PATH; `make build` puts both into bin/", name, self)
}

// startWorker starts a process that serves, drives, connects, churns or hogs, as role says. Core -1 leaves it unbound.
func (r *rig) startWorker(role, name string, e endpoint, addr string, core int) (*worker, error) {
	path, args, err := e.program(role, addr)
	if err != nil {
		return nil, err
	}
	p, in, out, err := procs.Start(procs.Spec{
		Name: name, Path: path, Args: args, Core: core, Namespace: e.network,
		// Bound to one core, the runtime would choose one P, with which the goroutine that polls holds up all others.
		Env: []string{"GOMAXPROCS=2"},
	})
	if err != nil {
		return nil, err
	}
	w := &worker{Process: p, in: json.NewEncoder(in), lines: make(chan workerLine)}
	go func() {
		defer close(w.lines)
		for lines := json.NewDecoder(out); ; {
			var line workerLine
			if lines.Decode(&line) != nil {
				return
			}
			select {
			case w.lines <- line:
			case <-r.closing:
				return
			}
		}
	}()
	r.workers = append(r.workers, w)
	r.watch(p)
	return w, nil
}

// program is what to start for an endpoint.
func (e endpoint) program(role, addr string) (path string, args []string, err error) {
	if e.c {
		ip, port, err := net.SplitHostPort(addr)
		if err != nil {
			return "", nil, err
		}
		path, err = programBeside("machnet-load-c")
		return path, []string{role, e.socket, ip, port}, err
	}
	path, err = os.Executable()
	if role == roleRelay { // which is no endpoint of anything
		return path, []string{workerCommand, role, "--addr", addr}, err
	}
	return path, []string{
		workerCommand, role, "--transport", e.transport, "--socket", e.socket, "--engine", strconv.Itoa(e.engine), "--addr", addr,
		"--buffer", strconv.Itoa(e.buffer), fmt.Sprintf("--messages=%v", e.messages), fmt.Sprintf("--stream=%v", e.stream),
	}, err
}

// next waits for the worker's next line.
func (w *worker) next(ctx context.Context) (workerLine, error) {
	select {
	case line, ok := <-w.lines:
		switch {
		case !ok:
			// It has closed its output, so it is ending, or it is no worker of ours.
			select {
			case <-w.Done():
				return line, w.Exit()
			case <-time.After(stopGrace):
				return line, fmt.Errorf("%s: its answers have stopped making sense", w.Name)
			}
		case line.Error != "":
			return line, fmt.Errorf("%s: %s", w.Name, line.Error)
		}
		return line, nil
	case <-ctx.Done():
		return workerLine{}, context.Cause(ctx)
	}
}

// interrupted says whether ctx ended because the user wanted it, not because a process of the rig failed.
func interrupted(ctx context.Context) bool {
	return errors.Is(context.Cause(ctx), context.Canceled)
}
