package load

import (
	"syscall"
	"time"
)

// yield gives the rest of the processor to whoever waits for it. The raw call keeps the Go scheduler out of it.
func yield() { syscall.RawSyscall(syscall.SYS_SCHED_YIELD, 0, 0, 0) }

// sleep is as exact as the kernel's timers, some 50 us late; time.Sleep may be late by a millisecond, with what Go's poller counts in.
func sleep(d time.Duration) {
	left := syscall.NsecToTimespec(d.Nanoseconds())
	for syscall.Nanosleep(&left, &left) == syscall.EINTR {
	}
}
