package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/machnet/machnet/cmd/internal/load"
	"github.com/machnet/machnet/cmd/internal/procs"
)

// proxyBenchConfig says what to measure: what `machnet proxy` adds to a round trip.
type proxyBenchConfig struct {
	sizes    []int
	inflight int
	rounds   int
	duration time.Duration // of one measurement
	verbose  bool
}

// proxyArms are what is measured in turn: the same client and server, and what is between them.
var proxyArms = []struct {
	name                   string
	clientProxy, serverToo bool
}{
	{"tcp", false, false},
	{"machnet", false, false},
	{"tcp, proxy, machnet", true, false},
	{"tcp, proxy, machnet, proxy, tcp", true, true},
}

// proxyRow is what `bench proxy` found in one arm: medians over the rounds.
type proxyRow struct {
	Path      string  `json:"path"`
	Size      int     `json:"size"`     // bytes
	Inflight  int     `json:"inflight"` // messages
	Rounds    int     `json:"rounds"`
	P50       float64 `json:"p50_us"`
	P99       float64 `json:"p99_us"`
	Rate      float64 `json:"msgs_per_s"`
	AddedTCP  float64 `json:"p50_added_to_tcp_us"`     // the median of what the rounds give
	AddedOurs float64 `json:"p50_added_to_machnet_us"` // likewise
	Strangers float64 `json:"strangers_cpu_percent"`   // of one core, over all of the benchmark
}

func runBenchProxy(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var c proxyBenchConfig
	fs := flag.NewFlagSet("bench proxy", flag.ContinueOnError)
	sizes := fs.String("size", "64", "message sizes in bytes, 8 to 8388608")
	fs.IntVar(&c.inflight, "inflight", 1, "messages in flight")
	fs.IntVar(&c.rounds, "rounds", 9, "rounds; figures are medians over them")
	fs.DurationVar(&c.duration, "duration", 500*time.Millisecond, "length of one measurement")
	file := fs.String("json", "", "write an array of rows to this file; - is standard output")
	fs.BoolVar(&c.verbose, "verbose", false, "show what the sidecars log")
	if err := parse(fs, args, stdout, ""); err != nil {
		return err
	}
	var err error
	if c.sizes, err = integers(*sizes, load.MinSize, load.MaxSize); err != nil {
		return usagef("--size %v", err)
	}
	if err := checkRounds(c.rounds, c.duration); err != nil {
		return err
	}
	switch {
	case c.inflight < 1 || c.inflight > 1<<16:
		return usagef("--inflight %d: 1 to %d messages", c.inflight, 1<<16)
	}
	progress := newProgress(stderr)
	measure := func() ([]proxyRow, error) {
		return onRig(ctx, c.verbose, progress, func(ctx context.Context, r *rig) ([]proxyRow, error) { return r.proxies(ctx, c, progress) })
	}
	return reported(*file, stdout, measure, func(rows []proxyRow) { writeProxies(stdout, c, rows) })
}

func writeProxies(out io.Writer, c proxyBenchConfig, rows []proxyRow) {
	fmt.Fprintf(out, "Echo round trips over one connection, %d in flight, closed loop: two sidecars joined by memif, each with its host's programs on a core; TCP over\n"+
		"loopback. Medians of %d interleaved rounds of %v.\n\n", c.inflight, c.rounds, c.duration)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "size\tpath\tp50 us\tp99 us\techoes/s\tp50 - TCP's\tp50 - Machnet's\t")
	for i, r := range rows {
		if i > 0 && i%len(proxyArms) == 0 {
			fmt.Fprintln(w, "\t\t\t\t\t\t\t")
		}
		fmt.Fprintf(w, "%s\t%s\t%.1f\t%.1f\t%.0f\t%.1f\t%.1f\t\n", byteSize(r.Size), r.Path, r.P50, r.P99, r.Rate, r.AddedTCP, r.AddedOurs)
	}
	w.Flush()
	if len(rows) > 0 && rows[0].Strangers > tooBusy {
		fmt.Fprintf(out, "\nTHE MACHINE WAS BUSY: what has nothing to do with this measurement used %.0f %% of a core. Measure again when it is quiet.\n", rows[0].Strangers)
	}
}

// proxies runs the rounds.
func (r *rig) proxies(ctx context.Context, c proxyBenchConfig, progress *progress) ([]proxyRow, error) {
	a, b, err := r.hosts(benchConfig{link: linkMemif, kernel: kernelLoopback})
	if err != nil {
		return nil, err
	}
	sa, sb, _, clientCore, err := r.startSidecars(ctx, linkMemif, a, b)
	if err != nil {
		return nil, err
	}
	tcp := endpoint{transport: "tcp"}
	client, server := endpoint{transport: "machnet", socket: sa.socket}, endpoint{transport: "machnet", socket: sb.socket}
	arms := make([]*arm, len(proxyArms))
	for i, path := range proxyArms {
		// The sidecars rest while the kernel's transport alone runs.
		arms[i] = &arm{transport: "machnet", placement: path.name}
		ends := [2]endpoint{server, client}
		listen := sb.ip + ":0"
		if path.serverToo || i == 0 {
			ends[0], listen = tcp, "127.0.0.1:0"
		}
		if path.clientProxy || i == 0 {
			ends[1] = tcp
		}
		if i == 0 {
			arms[i].transport = "tcp"
		}
		if err := r.startProxied(ctx, arms[i], ends, listen, path.clientProxy, path.serverToo, sa, sb, clientCore, b.core); err != nil {
			return nil, err
		}
	}
	strangers, err := r.watchStrangers()
	if err != nil {
		return nil, err
	}
	var rows []proxyRow
	for n, size := range c.sizes {
		order := driveOrder{Params: load.Params{Size: size, Inflight: c.inflight, Warmup: c.duration / 10, Duration: c.duration}, Connections: 1}
		samples := make([][]sample, len(arms))
		for round := range c.rounds {
			for turn := range arms {
				i := (round + turn) % len(arms)
				progress.show((n*c.rounds+round)*len(arms)+turn, len(c.sizes)*c.rounds*len(arms), proxyArms[i].name)
				s, err := r.measure(ctx, arms[i], order)
				if err != nil {
					return nil, err
				}
				samples[i] = append(samples[i], s)
			}
		}
		rows = append(rows, proxyRows(c, size, samples)...)
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

// proxyRows turns the samples of one size, by arm, into rows.
func proxyRows(c proxyBenchConfig, size int, samples [][]sample) []proxyRow {
	var rows []proxyRow
	for i, path := range proxyArms {
		added := func(to int) float64 {
			more := make([]sample, len(samples[i]))
			for round := range more {
				more[round].p50 = samples[i][round].p50 - samples[to][round].p50
			}
			return median(more, func(s sample) float64 { return s.p50 })
		}
		rows = append(rows, proxyRow{
			Path: path.name, Size: size, Inflight: c.inflight, Rounds: c.rounds,
			P50: median(samples[i], func(s sample) float64 { return s.p50 }), P99: median(samples[i], func(s sample) float64 { return s.p99 }),
			Rate: median(samples[i], func(s sample) float64 { return s.rate }), AddedTCP: added(0), AddedOurs: added(1),
		})
	}
	return rows
}

// startProxied is startArm with the proxies between the two.
func (r *rig) startProxied(ctx context.Context, a *arm, ends [2]endpoint, listen string, clientProxy, serverToo bool, sa, sb *sidecar, clientCore, serverCore int) error {
	w, err := r.startWorker("serve", "server of "+a.placement, ends[0], listen, serverCore)
	if err != nil {
		return err
	}
	a.server = w
	line, err := w.next(ctx)
	if err != nil {
		return err
	}
	at := line.Addr
	if serverToo {
		if at, err = r.startProxy(ctx, sb, "machnet://:0", "tcp://"+at, serverCore); err != nil {
			return err
		}
	}
	if clientProxy {
		if at, err = r.startProxy(ctx, sa, "tcp://127.0.0.1:0", "machnet://"+at, clientCore); err != nil {
			return err
		}
	}
	return r.startArm(ctx, a, endpoint{}, ends[1], "", at, -1, clientCore)
}

// startProxy starts `machnet proxy` at a sidecar and returns where it listens.
func (r *rig) startProxy(ctx context.Context, at *sidecar, listen, to string, core int) (address string, err error) {
	program, err := os.Executable()
	if err != nil {
		return "", err
	}
	p, _, out, err := procs.Start(procs.Spec{
		Name: "machnet proxy at " + at.Name, Path: program, Core: core, Log: r.log, Env: []string{"GOMAXPROCS=2"}, // as startWorker's
		Args: []string{"proxy", "--socket", at.socket, "--listen", listen, "--to", to, "--grace", "0", "--log", "warn"},
	})
	if err != nil {
		return "", err
	}
	r.workers = append(r.workers, &worker{Process: p})
	r.watch(p)
	said := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(out).ReadString('\n')
		said <- line
		_, _ = io.Copy(io.Discard, out)
	}()
	select {
	case line := <-said:
		url, _, _ := strings.Cut(line, " -> ")
		if _, address, ok := strings.Cut(url, "://"); ok {
			return address, nil
		}
		return "", errors.Join(fmt.Errorf("%s says %q and not where it listens", p.Name, line), context.Cause(ctx))
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}
