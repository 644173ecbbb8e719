package procs

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

// MachineCPU is the processor time that all processes of the machine have used so far, and what a hypervisor took from it meanwhile.
// Interrupts are left out: the kernel counts them here, and again with the process that they met.
func MachineCPU() (time.Duration, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	return parseMachineCPU(text)
}

func parseMachineCPU(stat []byte) (time.Duration, error) {
	line, _, _ := bytes.Cut(stat, []byte("\n"))
	fields := bytes.Fields(line) // cpu user nice system idle iowait irq softirq steal ...
	if len(fields) < 9 || string(fields[0]) != "cpu" {
		return 0, fmt.Errorf("/proc/stat begins with %q, not with the times of all processors", line)
	}
	var ticks int64
	for _, i := range []int{1, 2, 3, 8} {
		n, err := strconv.ParseInt(string(fields[i]), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * tick, nil
}

// tick is the unit of /proc/stat: USER_HZ is 100 on every Linux.
const tick = time.Second / 100
