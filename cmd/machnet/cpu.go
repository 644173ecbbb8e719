package main

import (
	"errors"
	"os"
	"time"

	"github.com/machnet/machnet/cmd/internal/procs"
)

// strangers watches what everything but this benchmark takes of the cores, over all rounds: one may be as short as the ticks in which the
// machine's time is counted.
type strangers struct {
	rig    *rig
	began  time.Time
	before time.Duration
}

func (r *rig) watchStrangers() (strangers, error) {
	before, err := r.strangers()
	return strangers{r, time.Now(), before}, err
}

// share is what they have taken since then, in percent of a core.
func (s strangers) share() (float64, error) {
	now, err := s.rig.strangers()
	return 100 * max(0, now-s.before).Seconds() / time.Since(s.began).Seconds(), err
}

// strangers is the processor time that the machine has spent on anything but this benchmark, in ticks of 10 ms.
func (r *rig) strangers() (time.Duration, error) {
	all, err := procs.MachineCPU()
	if err != nil {
		return 0, err
	}
	ours, err := r.cpu()
	if err != nil {
		return 0, err
	}
	for _, spent := range ours {
		all -= spent
	}
	own, err := procs.CPU(os.Getpid())
	return all - own, err
}

// cpuTimes is processor time by process.
type cpuTimes map[*procs.Process]time.Duration

func (r *rig) cpu() (cpuTimes, error) {
	times := cpuTimes{}
	for _, p := range append(r.sidecarProcesses(), r.workerProcesses()...) {
		spent, err := p.CPU()
		if err != nil {
			return nil, err
		}
		times[p] = spent
	}
	return times, nil
}

// sleeps is how often the processes of an arm have slept so far: the client and the server together, and the sidecars.
func (a *arm) sleeps() (apps, sidecars int64, err error) {
	count := func(sum *int64, p *procs.Process) {
		n, failed := p.Sleeps()
		*sum += n
		err = errors.Join(err, failed)
	}
	count(&apps, a.client.Process)
	if a.server != nil {
		count(&apps, a.server.Process)
	}
	for _, s := range a.sidecars {
		count(&sidecars, s.Process)
	}
	return apps, sidecars, err
}

func (t cpuTimes) since(before cpuTimes) cpuTimes {
	d := cpuTimes{}
	for p, spent := range t {
		d[p] = spent - before[p]
	}
	return d
}
