package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// allowDescriptors makes room for the descriptors that so many connections of TCP take in each process that this one starts. Machnet's take
// a few for every 256.
func allowDescriptors(connections int) error {
	const others = 100 // files, pipes, channels
	need := uint64(connections + others)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("read the limit on open files: %w", err)
	}
	if limit.Cur >= need || limit.Max >= need { // a Go program raises its own to what it may have
		return nil
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: need, Max: need}); err != nil {
		return fmt.Errorf("--connections %d: TCP takes %d open files in a process, and the limit is %d; raise it with `ulimit -Hn %d` as root, or measure fewer", connections, need, limit.Max, need)
	}
	return nil
}
