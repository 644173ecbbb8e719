package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/machnet/machnet/cmd/internal/load"
)

// goConfig says what to measure: what a Go program loses to one in C over the same sidecars.
type goConfig struct {
	link      string
	sizes     []int
	inflights []int
	rounds    int
	duration  time.Duration // of one measurement
	verbose   bool
}

// goPrograms are what is measured in turn. All are one client, one server and one connection.
var goPrograms = []struct {
	name     string
	c        bool
	messages bool
}{
	{"c", true, false},
	{"go", false, true},
	{"go stream", false, false},
}

// largestGoMessage is what one Write sends as one message.
const largestGoMessage = 64 << 10

func runBenchGo(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var c goConfig
	fs := flag.NewFlagSet("bench go", flag.ContinueOnError)
	fs.StringVar(&c.link, "link", linkMemif, "what joins the two hosts: memif (two sidecars), or local (both programs on one sidecar)")
	sizes := fs.String("size", "64,32768", "message sizes in bytes, 8 to 65536")
	inflights := fs.String("inflight", "1,8", "messages in flight")
	fs.IntVar(&c.rounds, "rounds", 9, "rounds; figures are medians over them, and ratios medians of the rounds' ratios")
	fs.DurationVar(&c.duration, "duration", 500*time.Millisecond, "length of one round of one program")
	file := fs.String("json", "", "write an array of rows to this file; - is standard output")
	fs.BoolVar(&c.verbose, "verbose", false, "show what the sidecars log")
	if err := parse(fs, args, stdout, ""); err != nil {
		return err
	}
	var err error
	if c.sizes, err = integers(*sizes, load.MinSize, largestGoMessage); err != nil {
		return usagef("--size %v", err)
	}
	if c.inflights, err = integers(*inflights, 1, load.LargestWindow/load.MinSize); err != nil {
		return usagef("--inflight %v", err)
	}
	for _, size := range c.sizes {
		for _, inflight := range c.inflights {
			if size*inflight > load.LargestWindow {
				return usagef("--size %d with --inflight %d: the programs write and read in one thread, so at most %d bytes are in flight", size, inflight, load.LargestWindow)
			}
		}
	}
	if err := checkRounds(c.rounds, c.duration); err != nil {
		return err
	}
	switch {
	case c.link != linkMemif && c.link != linkLocal:
		return usagef("--link %q: use memif or local", c.link)
	}
	progress := newProgress(stderr)
	measure := func() ([]goRow, error) {
		return onRig(ctx, c.verbose, progress, func(ctx context.Context, r *rig) ([]goRow, error) { return r.goBeside(ctx, c, progress) })
	}
	return reported(*file, stdout, measure, func(rows []goRow) { writeGo(stdout, c, rows) })
}

// goRow is one program in one case: medians over the rounds. Ratios are medians of what the rounds give, this program's figure divided by C's in
// the same round; the C program's own are 1.
type goRow struct {
	Program    string  `json:"program"`
	Link       string  `json:"link"`
	Size       int     `json:"size"`     // bytes
	Inflight   int     `json:"inflight"` // messages
	Rounds     int     `json:"rounds"`
	P50        float64 `json:"p50_us"`
	P99        float64 `json:"p99_us"`
	P999       float64 `json:"p999_us"`
	Rate       float64 `json:"msgs_per_s"`
	CPUApp     float64 `json:"cpu_us_per_msg_app"`
	CPUSidecar float64 `json:"cpu_us_per_msg_sidecar"`
	Strangers  float64 `json:"strangers_cpu_percent"` // of one core, over all of the benchmark
	RatioP50   float64 `json:"ratio_p50_vs_c"`
	RatioP99   float64 `json:"ratio_p99_vs_c"`
	RatioRate  float64 `json:"ratio_msgs_vs_c"`
}

func writeGo(out io.Writer, c goConfig, rows []goRow) {
	fmt.Fprintln(out, "Echo round trips over one connection, closed loop, by programs in C and in Go over the same sidecars. \"go\" reads messages as the C program")
	fmt.Fprintln(out, "does, \"go stream\" a stream through a buffer of 64 KiB.")
	fmt.Fprintf(out, "Medians of %d interleaved rounds of %v; ratios are medians of the rounds' ratios to C.\n\n", c.rounds, c.duration)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "size\tin flight\tprogram\tp50 us\tp99 us\tp99.9 us\techoes/s\tCPU us\tp50/C\tp99/C\techoes/C\t")
	for i, r := range rows {
		if i > 0 && i%len(goPrograms) == 0 {
			fmt.Fprintln(w, "\t\t\t\t\t\t\t\t\t\t\t")
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%.1f\t%.1f\t%.1f\t%.0f\t%.2f\t%.3f\t%.3f\t%.3f\t\n", byteSize(r.Size), r.Inflight, r.Program, r.P50, r.P99, r.P999, r.Rate,
			r.CPUApp+r.CPUSidecar, r.RatioP50, r.RatioP99, r.RatioRate)
	}
	w.Flush()
	if len(rows) > 0 && rows[0].Strangers > tooBusy {
		fmt.Fprintf(out, "\nTHE MACHINE WAS BUSY: what has nothing to do with this measurement used %.0f %% of a core. Measure again when it is quiet.\n", rows[0].Strangers)
	}
}

// goBeside runs the rounds. Placement is that of `machnet bench`: own with two sidecars, engine alone with one.
func (r *rig) goBeside(ctx context.Context, c goConfig, progress *progress) ([]goRow, error) {
	a, b, err := r.hosts(benchConfig{link: c.link, kernel: kernelLoopback})
	if err != nil {
		return nil, err
	}
	sa, sb, placement, clientCore, err := r.startSidecars(ctx, c.link, a, b)
	if err != nil {
		return nil, err
	}
	arms := make([]*arm, len(goPrograms))
	for i, p := range goPrograms {
		client := endpoint{transport: "machnet", socket: sa.socket, c: p.c, messages: p.messages}
		server := client
		server.socket = sb.socket
		arms[i] = &arm{transport: "machnet", placement: p.name + ", " + placement}
		if err := r.startArm(ctx, arms[i], server, client, fmt.Sprintf("%s:%d", sb.ip, 7000+i), "", b.core, clientCore); err != nil {
			return nil, err
		}
	}
	strangers, err := r.watchStrangers()
	if err != nil {
		return nil, err
	}
	cases := len(c.sizes) * len(c.inflights)
	total, done := cases*c.rounds*len(arms), 0
	var rows []goRow
	for _, size := range c.sizes {
		for _, inflight := range c.inflights {
			samples := make([][]sample, len(arms))
			for round := range c.rounds {
				for turn := range arms {
					i := (round + turn) % len(arms)
					progress.show(done, total, fmt.Sprintf("%s, %s, %d in flight", goPrograms[i].name, byteSize(size), inflight))
					p := load.Params{Size: size, Inflight: inflight, Warmup: c.duration / 10, Duration: c.duration, Messages: goPrograms[i].messages}
					s, err := r.measure(ctx, arms[i], driveOrder{Params: p, Connections: 1})
					if err != nil {
						return nil, err
					}
					samples[i] = append(samples[i], s)
					done++
				}
			}
			rows = append(rows, goRows(c, size, inflight, samples)...)
		}
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

// goRows turns the samples of one case, by program, into rows.
func goRows(c goConfig, size, inflight int, samples [][]sample) []goRow {
	var rows []goRow
	for i, p := range goPrograms {
		of := func(f func(sample) float64) float64 { return median(samples[i], f) }
		toC := func(f func(sample) float64) float64 {
			ratios := make([]sample, len(samples[i]))
			for round := range ratios {
				ratios[round].p50 = f(samples[i][round]) / f(samples[0][round])
			}
			return median(ratios, func(s sample) float64 { return s.p50 })
		}
		p50, p99 := func(s sample) float64 { return s.p50 }, func(s sample) float64 { return s.p99 }
		rate := func(s sample) float64 { return s.rate }
		rows = append(rows, goRow{
			Program: p.name, Link: c.link, Size: size, Inflight: inflight, Rounds: c.rounds,
			P50: of(p50), P99: of(p99), P999: of(func(s sample) float64 { return s.p999 }), Rate: of(rate),
			CPUApp: of(func(s sample) float64 { return s.cpuApp }), CPUSidecar: of(func(s sample) float64 { return s.cpuSidecar }),
			RatioP50: toC(p50), RatioP99: toC(p99), RatioRate: toC(rate),
		})
	}
	return rows
}
