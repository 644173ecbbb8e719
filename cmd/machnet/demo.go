package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"time"
)

// runDemo is the benchmark in half a minute: what `make demo` shows.
func runDemo(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	fs := flag.NewFlagSet("demo", flag.ContinueOnError)
	if err := parse(fs, args, stdout, ""); err != nil {
		return err
	}
	c := benchConfig{
		link: linkMemif, kernel: kernelLoopback, transports: []string{"machnet", "tcp"}, sizes: []int{64, 1024, 32768}, conns: []int{1}, inflights: []int{1, 32},
		buffered: true, rounds: 3, duration: 300 * time.Millisecond,
	}
	fmt.Fprintln(stdout, "Two machnetd sidecars as two hosts joined by memif (no root, no hugepages, no NIC):")
	fmt.Fprintln(stdout, "a Go echo server on host B, a Go client on host A, beside the same program over kernel TCP on loopback.")
	rows, err := bench(ctx, c, newProgress(stderr))
	if err != nil {
		return err
	}
	fmt.Fprintln(stdout)
	writeTable(stdout, c, rows)
	fmt.Fprint(stdout, meaning)
	return nil
}

// meaning is what a reader of the demo's table should know of it.
const meaning = `
What the figures mean. Both hosts are this one machine, and each of Machnet's has two processes, an application and its sidecar, on one
core: four threads that all want to run share two cores, whatever the machine has. An echo therefore waits four times for the kernel to
give a core from one process to the other, which is most of its latency, while TCP has two processes and, in "own", a core for each. That is
the worst case for Machnet. On two machines, where a sidecar has a core of its own, those waits are gone and the wire is added;
"machnet bench --link local" shows a sidecar alone on its core. In return no echo enters the kernel, which a NIC's driver would make dearer
for TCP than loopback is. The ratio columns are Machnet's figure divided by TCP's: below 1 is better for latencies, above 1 for echoes.
`
