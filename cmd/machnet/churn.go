package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/machnet/machnet/cmd/internal/load"
)

// churnConfig says what to measure: how much an application is slowed down while another one attaches and leaves.
type churnConfig struct {
	size     int
	units    int // of a channel
	flows    int
	rounds   int
	duration time.Duration // of one round without churn, and of one with
	pause    time.Duration // of the process that attaches and leaves, while attached and again after leaving
	idle     int           // channels that are attached all the time and do nothing
	verbose  bool
}

// runChurn measures a pair of applications on one sidecar, alone and while another process attaches to it and leaves in a loop.
func runChurn(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var c churnConfig
	fs := flag.NewFlagSet("bench churn", flag.ContinueOnError)
	fs.IntVar(&c.size, "size", 64, "message size in bytes, 8 to 8388608")
	fs.IntVar(&c.units, "units", 1024, "packets in flight per channel and direction, as machnetd's --units")
	fs.IntVar(&c.flows, "flows", 256, "connections per channel, as machnetd's --flows")
	fs.IntVar(&c.rounds, "rounds", 5, "rounds, each without and with churn; figures are medians over them")
	fs.DurationVar(&c.duration, "duration", time.Second, "length of one measurement")
	fs.DurationVar(&c.pause, "pause", 0, "how long the other process stays attached, and stays away")
	fs.IntVar(&c.idle, "idle", 0, "channels that another process keeps attached all the time and does nothing with")
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
	case c.idle < 0 || c.idle > 60000:
		return usagef("--idle %d: 0 to 60000 channels", c.idle)
	case c.pause < 0:
		return usagef("--pause %v: a pause cannot be negative", c.pause)
	}
	measure := func() ([]churnRow, error) {
		row, err := churn(ctx, c, newProgress(stderr))
		if err != nil {
			return nil, err
		}
		return []churnRow{*row}, nil
	}
	return reported(*file, stdout, measure, func(rows []churnRow) { rows[0].write(stdout, c) })
}

// churnRow is what `bench churn` found: medians over the rounds; ratios are of these medians.
type churnRow struct {
	Size      int     `json:"size"` // bytes
	Units     int     `json:"units"`
	Flows     int     `json:"flows"`
	Idle      int     `json:"idle_channels"`
	Rounds    int     `json:"rounds"`
	P50       float64 `json:"p50_us"` // of the pair alone
	P99       float64 `json:"p99_us"`
	Max       float64 `json:"max_us"`
	ChurnP50  float64 `json:"churn_p50_us"` // of the pair while another attaches and leaves
	ChurnP99  float64 `json:"churn_p99_us"`
	ChurnMax  float64 `json:"churn_max_us"`
	RatioP50  float64 `json:"ratio_p50"`
	RatioP99  float64 `json:"ratio_p99"`
	Attaches  float64 `json:"attaches_per_s"`
	AttachP50 float64 `json:"attach_p50_us"` // of the process that attaches
	AttachP99 float64 `json:"attach_p99_us"`
	Churner   float64 `json:"churner_cpu_percent"` // of one core: that process
	Sidecar   float64 `json:"sidecar_cpu_percent"` // of one core: the sidecar, beyond what it used without churn
}

func (r *churnRow) write(out io.Writer, c churnConfig) {
	fmt.Fprintf(out, "Echo round trips of %s over one connection within one sidecar, closed loop, alone and while another process attaches and leaves in a loop.\n", byteSize(r.Size))
	fmt.Fprintf(out, "Channels of %d units and %d connections, %d more of them attached and idle. Medians of %d interleaved rounds of %v.\n\n", r.Units, r.Flows, r.Idle, r.Rounds, c.duration)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	number := func(n float64) string { return strconv.FormatFloat(n, 'f', 1, 64) }
	ratio := func(n float64) string { return strconv.FormatFloat(n, 'f', 2, 64) }
	fmt.Fprintln(w, strings.Join([]string{"", "p50 us", "p99 us", "longest us"}, "\t")+"\t")
	fmt.Fprintln(w, strings.Join([]string{"alone", number(r.P50), number(r.P99), number(r.Max)}, "\t")+"\t")
	fmt.Fprintln(w, strings.Join([]string{"with churn", number(r.ChurnP50), number(r.ChurnP99), number(r.ChurnMax)}, "\t")+"\t")
	fmt.Fprintln(w, strings.Join([]string{"ratio", ratio(r.RatioP50), ratio(r.RatioP99), ratio(r.ChurnMax / r.Max)}, "\t")+"\t")
	w.Flush()
	fmt.Fprintf(out, "\n%.0f attaches a second, p50 %.0f us, p99 %.0f us; processor time of a core: that process %.1f %%, the sidecar for it %.1f %%\n",
		r.Attaches, r.AttachP50, r.AttachP99, r.Churner, r.Sidecar)
}

// churnRounds are the figures of the rounds, by what they are medians of.
type churnRounds struct {
	alone, beside []sample
	churner       []sample // p50 and p99 of attaching; rate of attaches; cpuApp of the process, cpuSidecar of the sidecar, percent of a core
}

func churn(ctx context.Context, c churnConfig, progress *progress) (*churnRow, error) {
	rounds, err := onRig(ctx, c.verbose, progress, func(ctx context.Context, r *rig) (*churnRounds, error) { return r.churn(ctx, c, progress) })
	if err != nil {
		return nil, err
	}
	p50, p99 := func(s sample) float64 { return s.p50 }, func(s sample) float64 { return s.p99 }
	longest := func(s sample) float64 { return s.longest }
	row := &churnRow{
		Size: c.size, Units: c.units, Flows: c.flows, Idle: c.idle, Rounds: c.rounds,
		P50: median(rounds.alone, p50), P99: median(rounds.alone, p99),
		ChurnP50: median(rounds.beside, p50), ChurnP99: median(rounds.beside, p99),
		Max: median(rounds.alone, longest), ChurnMax: median(rounds.beside, longest),
		AttachP50: median(rounds.churner, p50), AttachP99: median(rounds.churner, p99),
		Attaches: median(rounds.churner, func(s sample) float64 { return s.rate }),
		Churner:  median(rounds.churner, func(s sample) float64 { return s.cpuApp }),
		Sidecar:  median(rounds.churner, func(s sample) float64 { return s.cpuSidecar }),
	}
	row.RatioP50, row.RatioP99 = row.ChurnP50/row.P50, row.ChurnP99/row.P99
	return row, nil
}

// churn runs the rounds. Engine and pair share the first core; the sidecar's other threads keep off it, and the process that attaches has
// the last, so that what is measured is what the sidecar does to its applications, and not what a busy machine does to all.
func (r *rig) churn(ctx context.Context, c churnConfig, progress *progress) (*churnRounds, error) {
	a, first, last, err := r.localHost("the process that attaches would be measured with the pair")
	if err != nil {
		return nil, err
	}
	a.device = append(a.device, "--cores", strconv.Itoa(first), "--units", strconv.Itoa(c.units), "--flows", strconv.Itoa(c.flows), "--max-channels", strconv.Itoa(c.idle+256))
	s, err := r.startSidecar(ctx, a)
	if err != nil {
		return nil, err
	}
	e := endpoint{transport: "machnet", socket: s.socket}
	pair := &arm{transport: "machnet", placement: placementSame}
	if err := r.startArm(ctx, pair, e, e, s.ip+":7000", "", first, first); err != nil {
		return nil, err
	}
	other, err := r.startWorker("churn", fmt.Sprintf("machnet churn (%s)", placementAsIs), e, fmt.Sprint(c.pause, " ", c.idle), last)
	if err != nil {
		return nil, err
	}
	if _, err := other.next(ctx); err != nil {
		return nil, err
	}
	p := driveOrder{Params: load.Params{Size: c.size, Inflight: 1, Warmup: c.duration / 10, Duration: c.duration}, Connections: 1}
	all := &churnRounds{}
	for round := range c.rounds {
		var spent [2]cpuTimes
		var took [2]time.Duration
		for turn := range 2 {
			with := (round+turn)%2 == 1
			progress.show(2*round+turn, 2*c.rounds, map[bool]string{false: "alone", true: "with churn"}[with])
			if with {
				if err := other.in.Encode(churnOrder{For: p.Warmup + p.Duration + 100*time.Millisecond}); err != nil {
					return nil, err
				}
			}
			before, err := r.cpu()
			if err != nil {
				return nil, err
			}
			began := time.Now()
			result, err := pair.runOnce(ctx, p)
			if err != nil {
				return nil, err
			}
			i := map[bool]int{true: 1}[with]
			took[i] = time.Since(began)
			after, err := r.cpu()
			if err != nil {
				return nil, err
			}
			spent[i] = after.since(before)
			figures, err := newSample(pair, result, spent[i], took[i])
			if err != nil {
				return nil, err
			}
			if !with {
				all.alone = append(all.alone, figures)
				continue
			}
			all.beside = append(all.beside, figures)
			line, err := other.next(ctx)
			if err != nil {
				return nil, err
			}
			attaches, err := newChurnSample(line.Result)
			if err != nil {
				return nil, err
			}
			attaches.cpuApp = 100 * spent[i][other.Process].Seconds() / took[i].Seconds()
			all.churner = append(all.churner, attaches)
		}
		share := func(i int) float64 { return 100 * spent[i][s.Process].Seconds() / took[i].Seconds() }
		all.churner[len(all.churner)-1].cpuSidecar = share(1) - share(0)
	}
	return all, nil
}

// newChurnSample are the figures of one round of attaching and leaving.
func newChurnSample(result *workResult) (sample, error) {
	if result == nil || result.Messages == 0 {
		return sample{}, fmt.Errorf("nobody could attach and leave within a round; use a longer --duration")
	}
	h, err := result.histogram()
	if err != nil {
		return sample{}, err
	}
	return sample{
		p50: float64(h.ValueAtQuantile(50)) / 1e3, p99: float64(h.ValueAtQuantile(99)) / 1e3,
		rate: float64(result.Messages) / result.Seconds,
	}, nil
}
