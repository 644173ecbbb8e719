package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/machnet/machnet/cmd/internal/load"
)

// benches are what bench measures beside connections in use.
func benches() []command {
	return []command{
		{"churn", "what applications that come and go cost those that stay", runChurn},
		{"go", "Go beside the C program on the same sidecars", runBenchGo},
		{"hogs", "Machnet and TCP on cores that others keep busy", runHogs},
		{"isolation", "what a neighbour that takes all it can get costs the others", runIsolation},
		{"paths", "throughput over paths with delay, ticks and losses", runPaths},
		{"proxy", "what a proxy adds", runBenchProxy},
		{"setup", "how long connecting takes", runSetup},
	}
}

func runBench(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) > 0 {
		for _, b := range benches() {
			if b.name == args[0] {
				return b.run(ctx, args[1:], stdout, stderr)
			}
		}
	}
	var c benchConfig
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.StringVar(&c.link, "link", linkMemif, "what joins the two hosts: memif (two sidecars), local (two processes on one sidecar), or\nveth (a network namespace for each host, Ethernet devices of the kernel between them; root)")
	fs.StringVar(&c.kernel, "kernel", "", "what joins them for TCP and UDP: loopback, veth, or frames (veth without segmentation offload: packets of\nthe MTU, as through a NIC that cannot cut segments; root); by default loopback, veth with --link veth, frames with --loss")
	fs.Float64Var(&c.loss, "loss", 0, "`percent` of the frames to drop at random, for every transport alike, 0, or 0.0001 to 50 (with --link veth, not for udp)")
	backends := fs.String("backend", backendPacket, "with --link veth, how sidecars reach their devices: af_packet, af_xdp, or both with a comma between, a pair of\nsidecars each, which take turns")
	fs.BoolVar(&c.throughput, "throughput", false, "measure throughput: 8 messages in flight, of 64 B to 8 MiB; --size and --inflight choose others")
	names := fs.String("transport", "machnet,tcp", "transports to measure: machnet, tcp, udp")
	sizes := fs.String("size", "64,1024,32768", "message sizes in bytes, 8 to 8388608")
	conns := fs.String("connections", "1", "connections of the one client, with a goroutine for each at both ends; with more than one, one message is in flight on each\nunless --inflight says otherwise")
	inflights := fs.String("inflight", "1,32", "messages in flight on each connection")
	fs.BoolVar(&c.buffered, "buffered", true, "give rows with several in flight a second time, through a buffered writer")
	fs.IntVar(&c.rounds, "rounds", 5, "rounds; figures are medians over them")
	fs.DurationVar(&c.duration, "duration", time.Second, "length of one round of one arm")
	fs.Float64Var(&c.rate, "rate", 0, "open loop: messages a second, latencies counted from when each was due; 0 is a closed loop")
	fs.StringVar(&c.local, "local", "", "control socket of a running sidecar (with --remote)")
	fs.StringVar(&c.remote, "remote", "", "`IP:port` of machnet echo behind another running sidecar (with --local)")
	fs.StringVar(&c.remoteIP, "remote-kernel", "", "`IP:port` of machnet echo --transport tcp (or udp) to measure beside it")
	file := fs.String("json", "", "write an array of rows to this file; - is standard output")
	fs.BoolVar(&c.verbose, "verbose", false, "show what the sidecars log")
	if err := parse(fs, args, stdout, ""); err != nil {
		return err
	}
	given := map[string]bool{}
	fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if c.throughput {
		if !given["size"] {
			*sizes = "64,512,2048,8192,32768,131072,1048576,8388608"
		}
		if !given["inflight"] {
			*inflights = "8"
		}
		c.buffered = c.buffered && given["buffered"]
	}
	if given["connections"] && !c.throughput {
		if !given["inflight"] {
			*inflights = "1"
		}
		if !given["size"] {
			*sizes = "64"
		}
	}
	c.transports = strings.Split(*names, ",")
	for _, name := range c.transports {
		if err := checkTransport(name); err != nil {
			return usagef("--%v", err)
		}
	}
	var err error
	if c.sizes, err = integers(*sizes, load.MinSize, load.MaxSize); err != nil {
		return usagef("--size %v", err)
	}
	if c.conns, err = integers(*conns, 1, mostBenchConnections); err != nil {
		return usagef("--connections %v", err)
	}
	if c.inflights, err = integers(*inflights, 1, 1<<16); err != nil {
		return usagef("--inflight %v", err)
	}
	if given["backend"] {
		if c.backends, err = readBackends(*backends); err != nil {
			return err
		}
	}
	if err := c.check(given["link"]); err != nil {
		return err
	}
	if c.kernel == "" {
		switch {
		case c.loss > 0:
			c.kernel = kernelFrames // a frame is what is lost, as on a wire, and not 64 KiB of TCP
		case c.link == linkVeth:
			c.kernel = kernelVeth
		default:
			c.kernel = kernelLoopback
		}
	}
	if err := allowDescriptors(c.mostConns()); err != nil {
		return err
	}
	return reported(*file, stdout, func() ([]row, error) { return bench(ctx, c, newProgress(stderr)) }, func(rows []row) { writeTable(stdout, c, rows) })
}

// bench runs the rounds: for each row of the table the arms take turns, and each round begins with another arm.
func bench(ctx context.Context, c benchConfig, progress *progress) ([]row, error) {
	return onRig(ctx, c.verbose, progress, func(ctx context.Context, r *rig) ([]row, error) { return r.rounds(ctx, c, progress) })
}

func (r *rig) rounds(ctx context.Context, c benchConfig, progress *progress) ([]row, error) {
	arms, err := r.build(ctx, c)
	if err != nil {
		return nil, err
	}
	strangers, err := r.watchStrangers()
	if err != nil {
		return nil, err
	}
	cases := c.cases()
	total, done := len(cases)*c.rounds*len(arms), 0
	rows := []row{} // an array in JSON, whatever happens
	for _, p := range cases {
		samples := make([][]sample, len(arms))
		for round := range c.rounds {
			for turn := range arms {
				i := (round + turn) % len(arms)
				if arms[i].skips(p) {
					done++
					continue
				}
				what := fmt.Sprintf("%s, %s, %d in flight", arms[i].name(), byteSize(p.Size), p.Inflight)
				if p.Connections > 1 {
					what += fmt.Sprintf(", %d connections", p.Connections)
				}
				progress.show(done, total, what)
				s, err := r.measure(ctx, arms[i], p)
				if err != nil {
					return nil, err
				}
				samples[i] = append(samples[i], s)
				done++
			}
		}
		rows = append(rows, makeRows(c, arms, p, samples)...)
	}
	share, err := strangers.share()
	if err != nil {
		return nil, err
	}
	for i := range rows {
		rows[i].Strangers = share
	}
	return rows, nil
}
