package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/machnet/machnet/cmd/internal/load"
)

// isolationConfig says what to measure: how much a quiet application is slowed down by noisy ones, on an engine of its own and on theirs.
type isolationConfig struct {
	size     int
	noisy    int // pairs of noisy applications
	inflight int // messages of each of them
	rounds   int
	duration time.Duration // of one measurement
	verbose  bool
}

// isolationArms are what is measured in turn.
var isolationArms = []struct {
	name   string
	engine int  // of the quiet pair
	noise  bool // whether the others are at work
}{
	{"unloaded", 1, false},
	{"dedicated", 1, true},
	{"shared", 0, true},
}

// isolationRow is what `bench isolation` found in one arm: medians over the rounds.
type isolationRow struct {
	Arm   string  `json:"arm"`
	P50   float64 `json:"p50_us"` // of the quiet pair
	P99   float64 `json:"p99_us"`
	P999  float64 `json:"p999_us"`
	Noisy float64 `json:"noisy_per_s"` // echoes of all noisy pairs
}

func runIsolation(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var c isolationConfig
	fs := flag.NewFlagSet("bench isolation", flag.ContinueOnError)
	fs.IntVar(&c.size, "size", 64, "message size in bytes, 8 to 8388608")
	fs.IntVar(&c.noisy, "noisy", 3, "pairs of noisy applications")
	fs.IntVar(&c.inflight, "inflight", 128, "messages in flight of each of them")
	fs.IntVar(&c.rounds, "rounds", 5, "rounds; figures are medians over them")
	fs.DurationVar(&c.duration, "duration", time.Second, "length of one measurement")
	file := fs.String("json", "", "write an array of rows to this file; - is standard output")
	fs.BoolVar(&c.verbose, "verbose", false, "show what the sidecar logs")
	if err := parse(fs, args, stdout, ""); err != nil {
		return err
	}
	if err := checkRounds(c.rounds, c.duration); err != nil {
		return err
	}
	switch {
	case c.size < load.MinSize || c.size > load.MaxSize:
		return usagef("--size %d: a message is %d to %d bytes", c.size, load.MinSize, load.MaxSize)
	case c.noisy < 1 || c.noisy > 64:
		return usagef("--noisy %d: 1 to 64 pairs", c.noisy)
	case c.inflight < 1 || c.inflight > 1<<16:
		return usagef("--inflight %d: 1 to %d messages", c.inflight, 1<<16)
	}
	progress := newProgress(stderr)
	measure := func() ([]isolationRow, error) {
		return onRig(ctx, c.verbose, progress, func(ctx context.Context, r *rig) ([]isolationRow, error) { return r.isolation(ctx, c, progress) })
	}
	return reported(*file, stdout, measure, func(rows []isolationRow) { writeIsolation(stdout, c, rows) })
}

func writeIsolation(out io.Writer, c isolationConfig, rows []isolationRow) {
	fmt.Fprintf(out, "Echo round trips of %s of a quiet pair within one sidecar of two engines, and %d noisy pairs with %d messages in flight each. Medians of %d interleaved rounds of %v.\n\n",
		byteSize(c.size), c.noisy, c.inflight, c.rounds, c.duration)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tp50 us\tp99 us\tp99.9 us\tnoisy echoes/s\t")
	for _, row := range rows {
		fmt.Fprintf(w, "%s\t%.1f\t%.1f\t%.1f\t%.0f\t\n", row.Arm, row.P50, row.P99, row.P999, row.Noisy)
	}
	w.Flush()
}

// isolation runs the rounds. The first engine and the noisy pairs share the first core, the second and the quiet pairs the last, so that
// the quiet ones meet the others in the engine that they share, or nowhere.
func (r *rig) isolation(ctx context.Context, c isolationConfig, progress *progress) ([]isolationRow, error) {
	a, first, last, err := r.localHost("two engines would share it, and nothing could be isolated")
	if err != nil {
		return nil, err
	}
	a.device = append(a.device, "--engines", "2", "--cores", fmt.Sprintf("%d,%d", first, last))
	s, err := r.startSidecar(ctx, a)
	if err != nil {
		return nil, err
	}
	pair := func(engine, core int) (*arm, error) {
		e := endpoint{transport: "machnet", socket: s.socket, engine: engine + 1}
		pair := &arm{transport: "machnet", placement: placementSame}
		return pair, r.startArm(ctx, pair, e, e, s.ip+":0", "", core, core)
	}
	var noisy []*arm
	for range c.noisy {
		one, err := pair(0, first)
		if err != nil {
			return nil, err
		}
		noisy = append(noisy, one)
	}
	var quiet [2]*arm
	for engine := range quiet {
		if quiet[engine], err = pair(engine, last); err != nil {
			return nil, err
		}
	}
	p := driveOrder{Params: load.Params{Size: c.size, Inflight: 1, Warmup: c.duration / 10, Duration: c.duration}, Connections: 1}
	noise := p
	noise.Inflight = c.inflight
	samples := make([][]sample, len(isolationArms))
	for round := range c.rounds {
		for turn := range isolationArms {
			i := (round + turn) % len(isolationArms)
			now := isolationArms[i]
			progress.show(round*len(isolationArms)+turn, c.rounds*len(isolationArms), now.name)
			figures, err := beside(ctx, quiet[now.engine], p, map[bool][]*arm{true: noisy}[now.noise], noise)
			if err != nil {
				return nil, err
			}
			samples[i] = append(samples[i], figures)
		}
	}
	var rows []isolationRow
	for i, now := range isolationArms {
		rows = append(rows, isolationRow{
			Arm: now.name,
			P50: median(samples[i], func(s sample) float64 { return s.p50 }), P99: median(samples[i], func(s sample) float64 { return s.p99 }),
			P999: median(samples[i], func(s sample) float64 { return s.p999 }), Noisy: median(samples[i], func(s sample) float64 { return s.others }),
		})
	}
	return rows, nil
}

// beside measures a quiet pair while the noisy ones are at work; others of the sample are their echoes a second.
func beside(ctx context.Context, quiet *arm, p driveOrder, noisy []*arm, noise driveOrder) (sample, error) {
	for _, one := range noisy {
		if err := one.client.in.Encode(noise); err != nil {
			return sample{}, errors.Join(err, context.Cause(ctx))
		}
	}
	result, err := quiet.runOnce(ctx, p)
	if err != nil {
		return sample{}, err
	}
	figures, err := newSample(quiet, result, nil, p.Duration)
	if err != nil {
		return sample{}, err
	}
	for _, one := range noisy {
		line, err := one.client.next(ctx)
		if err != nil {
			return sample{}, err
		}
		if line.Result == nil {
			return sample{}, fmt.Errorf("%s: answered without a result", one.client.Name)
		}
		figures.others += float64(line.Result.Messages) / line.Result.Seconds
	}
	return figures, nil
}
