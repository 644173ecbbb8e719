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
		link: linkMemif, kernel: kernelLoopback, transports: []string{"machnet", "tcp"}, sizes: []int{64, 1024, 32768}, inflights: []int{1, 32},
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
	return nil
}
