package main

import (
	"os"
	"time"

	"github.com/machnet/machnet/cmd/internal/procs"
)

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

func (t cpuTimes) since(before cpuTimes) cpuTimes {
	d := cpuTimes{}
	for p, spent := range t {
		d[p] = spent - before[p]
	}
	return d
}
