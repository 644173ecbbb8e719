package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// pathsConfig says what to measure: throughput over paths that are not short and clean.
type pathsConfig struct {
	paths    []namedPath
	rounds   int
	duration time.Duration // of a measurement, where the path needs no longer one
	simulate bool          // the program machnet-sim is there
	verbose  bool
}

func runPaths(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var c pathsConfig
	fs := flag.NewFlagSet("bench paths", flag.ContinueOnError)
	names := fs.String("paths", "", "names of the paths to measure, with commas between; by default all:\n"+pathNames())
	fs.IntVar(&c.rounds, "rounds", 3, "rounds; figures are medians over them")
	fs.DurationVar(&c.duration, "duration", usualDuration, "length of one measurement; some paths take longer ones")
	file := fs.String("json", "", "write an array of rows to this file; - is standard output")
	fs.BoolVar(&c.verbose, "verbose", false, "show what the sidecars log")
	if err := parse(fs, args, stdout, ""); err != nil {
		return err
	}
	if err := checkRounds(c.rounds, c.duration); err != nil {
		return err
	}
	var err error
	if c.paths, err = choosePaths(*names); err != nil {
		return usagef("--paths %v", err)
	}
	_, err = programBeside(simulator)
	c.simulate = err == nil // it is not installed with this program, and what is measured stands without it
	return reported(*file, stdout, func() ([]pathRow, error) { return measurePaths(ctx, c, newProgress(stderr)) }, func(rows []pathRow) { writePaths(stdout, c, rows) })
}

// pathNames lists the table, some to a line.
func pathNames() string {
	var lines []string
	for group := range slices.Chunk(paths(), 6) {
		var names []string
		for _, p := range group {
			names = append(names, p.name)
		}
		lines = append(lines, strings.Join(names, ", "))
	}
	return strings.Join(lines, ",\n")
}

// pathRow is one line of the results. Rates are MB/s of payload one way, medians over the rounds; ratios are formed in each round, and of these the
// median is given. What was not measured is null.
type pathRow struct {
	Path     string  `json:"path"`
	Via      string  `json:"via"` // "relay", or "kernel"
	Cores    string  `json:"cores"`
	Delay    float64 `json:"delay_us"`
	Jitter   float64 `json:"jitter_us"`
	Tick     float64 `json:"tick_us"`
	Loss     float64 `json:"loss_percent"`
	Copies   float64 `json:"copies_percent"`
	Rate     float64 `json:"rate_mbit"` // of the line; 0: none
	MTU      int     `json:"mtu"`
	Units    int     `json:"units"`
	Ring     int     `json:"descriptors"`
	Load     string  `json:"load"`
	Rounds   int     `json:"rounds"`
	Duration float64 `json:"duration_s"`
	TCPKind  string  `json:"tcp"` // its congestion control

	Ours   float64  `json:"ours_mb_s"`
	Yield  float64  `json:"yield_mb_s"`
	TCP    float64  `json:"tcp_mb_s"`
	Direct float64  `json:"direct_mb_s"`
	Sim    *float64 `json:"sim_mb_s"`

	VsTCP   float64  `json:"ratio_vs_tcp"`
	Asked   float64  `json:"ratio_asked"`
	VsYield float64  `json:"ratio_yield"`
	VsSim   *float64 `json:"ratio_sim"`
	Factor  float64  `json:"asked_of_tcp"`

	OursSpread   [2]float64 `json:"ours_spread_mb_s"` // the least and the most of the rounds
	YieldSpread  [2]float64 `json:"yield_spread_mb_s"`
	TCPSpread    [2]float64 `json:"tcp_spread_mb_s"`
	DirectSpread [2]float64 `json:"direct_spread_mb_s"`

	OursEcho50 *float64 `json:"ours_echo_p50_us"`
	OursEcho99 *float64 `json:"ours_echo_p99_us"`
	TCPEcho50  *float64 `json:"tcp_echo_p50_us"`
	TCPEcho99  *float64 `json:"tcp_echo_p99_us"`

	Retransmitted float64 `json:"retransmitted"` // by ours, units
	Lost          float64 `json:"lost"`          // of ours, frames
	RelayPerFrame float64 `json:"relay_us_per_frame"`
	Strangers     float64 `json:"strangers_cpu_percent"`
}

// measurePaths measures row by row: rows that need the same processes share them.
func measurePaths(ctx context.Context, c pathsConfig, progress *progress) ([]pathRow, error) {
	rows := []pathRow{}
	for begin := 0; begin < len(c.paths); {
		end := begin + 1
		for end < len(c.paths) && c.paths[end].shape() == c.paths[begin].shape() {
			end++
		}
		some, err := onRig(ctx, c.verbose, progress, func(ctx context.Context, r *rig) ([]pathRow, error) {
			return r.paths(ctx, c, c.paths[begin:end], func(n int, what string) { progress.show(begin+n, len(c.paths), what) })
		})
		if err != nil {
			return nil, err
		}
		rows, begin = append(rows, some...), end
	}
	return rows, nil
}

// paths measures rows of one shape. In each round the arms take turns, and each round begins with another one.
func (r *rig) paths(ctx context.Context, c pathsConfig, some []namedPath, show func(n int, what string)) ([]pathRow, error) {
	p, err := r.newPathRig(ctx, some[0].shape())
	if err != nil {
		return nil, err
	}
	var rows []pathRow
	for n, row := range some {
		strangers, err := r.watchStrangers()
		if err != nil {
			return nil, err
		}
		samples := map[string][]pathSample{}
		for round := range c.rounds {
			for turn := range p.arms {
				arm := p.arms[(round+turn)%len(p.arms)]
				show(n, row.name+", "+arm.name)
				duration := row.lasts(c.duration)
				if arm.name == armDirect { // which has no long path to fill
					duration = c.duration
				}
				s, err := p.measurePath(ctx, arm, row, duration)
				if err != nil {
					return nil, fmt.Errorf("path %s, %s: %w", row.name, arm.name, err)
				}
				samples[arm.name] = append(samples[arm.name], s)
			}
		}
		made := makePathRow(c, row, samples)
		made.TCPKind = p.tcp
		if made.Strangers, err = strangers.share(); err != nil {
			return nil, err
		}
		if c.simulate {
			show(n, row.name+", in virtual time")
			if made.Sim, err = simulate(ctx, row, made.Ours*1e6*made.Duration, made.RelayPerFrame); err != nil {
				return nil, err
			}
		}
		if made.Sim != nil {
			made.VsSim = ratio(*made.Sim, made.Ours)
		}
		rows = append(rows, made)
	}
	return rows, nil
}

// makePathRow turns the rounds of one path into a row.
func makePathRow(c pathsConfig, row namedPath, samples map[string][]pathSample) pathRow {
	us := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
	r := pathRow{
		Path: row.name, Via: "relay", Cores: "any", Delay: us(row.path.Delay), Jitter: us(row.path.Jitter), Tick: us(row.path.Tick),
		Loss: 100 * row.path.Loss, Copies: 100 * row.path.Copies, Rate: float64(row.path.Rate) / 1e6, MTU: pathMTU, Units: row.units, Ring: row.descriptors, Load: "stream",
		Rounds: c.rounds, Duration: row.lasts(c.duration).Seconds(), Factor: row.asked,
	}
	if row.kernel {
		r.Via = "kernel"
	}
	if row.shared {
		r.Cores = "shared"
	}
	if row.messages > 0 {
		r.Load = fmt.Sprintf("echo of 8 MiB, %d in flight", row.messages)
	}
	of := func(arm string, f func(pathSample) float64) (values []float64) {
		for _, s := range samples[arm] {
			values = append(values, f(s))
		}
		slices.Sort(values)
		return values
	}
	rate := func(s pathSample) float64 { return s.rate }
	for _, arm := range []struct {
		name   string
		rate   *float64
		spread *[2]float64
	}{{armOurs, &r.Ours, &r.OursSpread}, {armYield, &r.Yield, &r.YieldSpread}, {armTCP, &r.TCP, &r.TCPSpread}, {armDirect, &r.Direct, &r.DirectSpread}} {
		all := of(arm.name, rate)
		*arm.rate, *arm.spread = middle(all), [2]float64{all[0], all[len(all)-1]}
	}
	// A round's arms ran within seconds, so that a machine that is busier for a while changes its ratios less than its rates.
	ratios := func(f func(ours, yield, tcp, direct float64) float64) float64 {
		var values []float64
		for i := range samples[armOurs] {
			values = append(values, f(samples[armOurs][i].rate, samples[armYield][i].rate, samples[armTCP][i].rate, samples[armDirect][i].rate))
		}
		slices.Sort(values)
		return middle(values)
	}
	r.VsTCP = ratios(func(ours, _, tcp, _ float64) float64 { return ours / tcp })
	r.VsYield = ratios(func(ours, yield, _, _ float64) float64 { return yield / ours })
	r.Asked = ratios(func(ours, _, tcp, direct float64) float64 {
		return ours / math.Min(row.asked*tcp, askedOfDirect*direct)
	})
	if row.echo {
		for _, e := range []struct {
			arm string
			to  **float64
			of  func(pathSample) float64
		}{
			{armOurs, &r.OursEcho50, func(s pathSample) float64 { return s.echo50 }}, {armOurs, &r.OursEcho99, func(s pathSample) float64 { return s.echo99 }},
			{armTCP, &r.TCPEcho50, func(s pathSample) float64 { return s.echo50 }}, {armTCP, &r.TCPEcho99, func(s pathSample) float64 { return s.echo99 }},
		} {
			value := middle(of(e.arm, e.of))
			*e.to = &value
		}
	}
	r.Retransmitted = middle(of(armOurs, func(s pathSample) float64 { return s.retransmitted }))
	r.Lost = middle(of(armOurs, func(s pathSample) float64 { return s.lost }))
	// TCP's relay has the most to do, and so spends the least on waking for each frame.
	r.RelayPerFrame = middle(of(armTCP, func(s pathSample) float64 { return us(s.perFrame) }))
	return r
}

// askedOfDirect is how much of its own rate without a relay Machnet is asked for, where that is less than what is asked of TCP's.
const askedOfDirect = 0.9

// middle is the median of sorted values.
func middle(sorted []float64) float64 {
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// writePaths prints the rows for people.
func writePaths(out io.Writer, c pathsConfig, rows []pathRow) {
	fmt.Fprintf(out, "MB/s of payload one way between two hosts, over paths that a relay in user space makes: medians of %d interleaved rounds, and the least and the most. TCP sends\n"+
		"frames of the same size. Asked: Machnet's rate / the lesser of what is asked of TCP's and 0.9 of Machnet's without a relay; again/lost: units sent again, frames lost.\n\n", c.rounds)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, strings.Join([]string{"path", "machnet", "", "yield", "TCP", "", "direct", "simulated", "/TCP", "/asked", "yield/machnet", "sim/machnet", "again/lost", "64 B p50/p99 us", "TCP's"}, "\t")+"\t")
	rate := func(mbs float64) string { return fmt.Sprintf("%.1f", mbs) }
	spread := func(s [2]float64) string { return fmt.Sprintf("%.0f..%.0f", s[0], s[1]) }
	echo := func(p50, p99 *float64) string {
		if p50 == nil {
			return "-"
		}
		return fmt.Sprintf("%.0f/%.0f", *p50, *p99)
	}
	var busiest float64
	for _, r := range rows {
		busiest = max(busiest, r.Strangers)
		fmt.Fprintln(w, strings.Join([]string{
			r.Path, rate(r.Ours), spread(r.OursSpread), rate(r.Yield), rate(r.TCP), spread(r.TCPSpread), rate(r.Direct), decimals(r.Sim, 1), times(&r.VsTCP), times(&r.Asked), times(&r.VsYield), times(r.VsSim),
			fmt.Sprintf("%.0f/%.0f", r.Retransmitted, r.Lost), echo(r.OursEcho50, r.OursEcho99), echo(r.TCPEcho50, r.TCPEcho99),
		}, "\t")+"\t")
	}
	w.Flush()
	if len(rows) > 0 {
		fmt.Fprintf(out, "\nTCP's congestion control: %s\n", rows[0].TCPKind)
	}
	if !c.simulate {
		fmt.Fprintf(out, "nothing was simulated: %s is neither beside this program nor on the PATH\n", simulator)
	}
	fmt.Fprintf(out, "what has nothing to do with the measurement used %.0f %% of a core at most while a path was measured\n", busiest)
}
