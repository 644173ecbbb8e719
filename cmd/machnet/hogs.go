package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/machnet/machnet/cmd/internal/load"
	"github.com/machnet/machnet/cmd/netns"
)

// hogsConfig says what to measure: an echo by Machnet and by TCP on cores that busy loops share with them.
type hogsConfig struct {
	links    []string
	sizes    []int
	hogs     []int // busy loops on each core
	gap      time.Duration
	rounds   int
	duration time.Duration // of one round of one arm
	verbose  bool
}

// mostHogs bounds the busy loops of a core: with a hundred each message waits for seconds.
const mostHogs = 16

func runHogs(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var c hogsConfig
	fs := flag.NewFlagSet("bench hogs", flag.ContinueOnError)
	hogs := fs.String("hogs", "0,1,4", "busy loops on each core, 0 to 16; each number is measured")
	links := fs.String("link", "", "what joins the two hosts: memif, veth (root), local, or several with a comma between; by default all, without veth where that\ncannot be had")
	sizes := fs.String("size", "64,4096", "message sizes in bytes, 8 to 65536")
	fs.DurationVar(&c.gap, "gap", 0, "how long the client sleeps between an echo and its next message")
	fs.IntVar(&c.rounds, "rounds", 5, "rounds; figures are medians over them")
	fs.DurationVar(&c.duration, "duration", 2*time.Second, "length of one round of one arm; with four loops on a core TCP returns 80 messages a second")
	file := fs.String("json", "", "write an array of rows to this file; - is standard output")
	fs.BoolVar(&c.verbose, "verbose", false, "show what the sidecars log")
	if err := parse(fs, args, stdout, ""); err != nil {
		return err
	}
	var err error
	if c.hogs, err = integers(*hogs, 0, mostHogs); err != nil {
		return usagef("--hogs %v", err)
	}
	if c.sizes, err = integers(*sizes, load.MinSize, largestGoMessage); err != nil {
		return usagef("--size %v", err)
	}
	if c.links, err = readLinks(*links); err != nil {
		return err
	}
	if err := checkRounds(c.rounds, c.duration); err != nil {
		return err
	}
	if c.gap < 0 || c.gap > c.duration {
		return usagef("--gap %v: 0s to the --duration of a round", c.gap)
	}
	if c.links == nil {
		c.links = []string{linkMemif, linkVeth, linkLocal}
		if err := netns.Available(); err != nil {
			fmt.Fprintf(stderr, "nothing over veth: %v\n", err)
			c.links = []string{linkMemif, linkLocal}
		}
	}
	progress := newProgress(stderr)
	measure := func() ([]hogsRow, error) { return hogsOverLinks(ctx, c, progress) }
	return reported(*file, stdout, measure, func(rows []hogsRow) { writeHogs(stdout, c, rows) })
}

// readLinks reads the flag's list; nil is the default.
func readLinks(list string) ([]string, error) {
	if list == "" {
		return nil, nil
	}
	links := strings.Split(list, ",")
	for i, link := range links {
		if link != linkMemif && link != linkVeth && link != linkLocal || slices.Contains(links[:i], link) {
			return nil, usagef("--link %q: use memif, veth, local or several of them with a comma between", list)
		}
	}
	return links, nil
}

// hogsRow is one case: medians over the rounds. Ratios are Machnet's figure divided by TCP's.
type hogsRow struct {
	Link      string  `json:"link"`
	Placement string  `json:"placement"` // of Machnet; TCP's is own
	Size      int     `json:"size"`      // bytes
	Hogs      int     `json:"hogs"`      // busy loops on each core
	Gap       float64 `json:"gap_us"`    // that the client slept between messages
	Rounds    int     `json:"rounds"`
	P50       float64 `json:"p50_us"`
	P99       float64 `json:"p99_us"`
	Rate      float64 `json:"msgs_per_s"`
	TCPP50    float64 `json:"tcp_p50_us"`
	TCPP99    float64 `json:"tcp_p99_us"`
	TCPRate   float64 `json:"tcp_msgs_per_s"`
	RatioP50  float64 `json:"ratio_p50_vs_tcp"`
	RatioP99  float64 `json:"ratio_p99_vs_tcp"`

	AskedP50 *float64 `json:"asked_p50"` // the largest ratio that is right; null where none is named
	AskedP99 float64  `json:"asked_p99"`

	SleepsApp     float64 `json:"sleeps_per_msg_app"` // of threads of client and server together, for one echo
	SleepsSidecar float64 `json:"sleeps_per_msg_sidecar"`
	SleepsTCP     float64 `json:"tcp_sleeps_per_msg"`
	Strangers     float64 `json:"strangers_cpu_percent"` // of one core, over all cases of the link; hogs are none
}

// askedOfHogs are the largest ratios to TCP that are right beside so many hogs: without any Machnet's median is to be what it was before, which
// no run can tell; beside some it may be somewhat more than TCP's, and beside a crowd it must be less.
func askedOfHogs(hogs int) (p50 *float64, p99 float64) {
	some, crowd := 1.5, 1.0
	switch {
	case hogs >= 4:
		return &crowd, 1.2
	case hogs >= 1:
		return &some, 1.2
	}
	return nil, 1.2
}

func newHogsRow(c hogsConfig, link, placement string, size, hogs int, machnet, tcp []sample) hogsRow {
	p50, p99 := func(s sample) float64 { return s.p50 }, func(s sample) float64 { return s.p99 }
	rate, sleeps := func(s sample) float64 { return s.rate }, func(s sample) float64 { return s.sleepsApp }
	r := hogsRow{
		Link: link, Placement: placement, Size: size, Hogs: hogs, Gap: float64(c.gap.Nanoseconds()) / 1e3, Rounds: c.rounds,
		P50: median(machnet, p50), P99: median(machnet, p99), Rate: median(machnet, rate),
		TCPP50: median(tcp, p50), TCPP99: median(tcp, p99), TCPRate: median(tcp, rate),
		SleepsApp: median(machnet, sleeps), SleepsSidecar: median(machnet, func(s sample) float64 { return s.sleepsSidecar }), SleepsTCP: median(tcp, sleeps),
	}
	r.RatioP50, r.RatioP99 = r.P50/r.TCPP50, r.P99/r.TCPP99
	r.AskedP50, r.AskedP99 = askedOfHogs(hogs)
	return r
}

func writeHogs(out io.Writer, c hogsConfig, rows []hogsRow) {
	fmt.Fprintln(out, "Echo round trips over one connection, closed loop, by Machnet and by TCP on the same cores, with so many busy loops on each.")
	if c.gap > 0 {
		fmt.Fprintf(out, "The client sleeps %v between messages.\n", c.gap)
	}
	fmt.Fprintf(out, "Medians of %d interleaved rounds of %v; sleeps are of all threads of client and server, and of the sidecars, for one echo.\n\n", c.rounds, c.duration)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "link\tsize\thogs\tp50 us\tp99 us\tTCP p50 us\tTCP p99 us\tp50/TCP\tasked\tp99/TCP\tasked\tsleeps apps\tsidecars\tTCP\t")
	for i, r := range rows {
		if i > 0 && (r.Link != rows[i-1].Link || r.Hogs != rows[i-1].Hogs) {
			fmt.Fprintln(w, strings.Repeat("\t", 14))
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%.1f\t%.1f\t%.1f\t%.1f\t%.2f\t%s\t%.2f\t%.1f\t%.2f\t%.2f\t%.2f\t\n", r.Link, byteSize(r.Size), r.Hogs, r.P50, r.P99, r.TCPP50, r.TCPP99,
			r.RatioP50, times(r.AskedP50), r.RatioP99, r.AskedP99, r.SleepsApp, r.SleepsSidecar, r.SleepsTCP)
	}
	w.Flush()
	var strangers float64
	for _, r := range rows {
		strangers = max(strangers, r.Strangers)
	}
	if strangers > tooBusy {
		fmt.Fprintf(out, "\nTHE MACHINE WAS BUSY: what has nothing to do with this measurement used %.0f %% of a core. Measure again when it is quiet.\n", strangers)
	}
}

// hogsOverLinks measures one link after the other, each on a rig of its own.
func hogsOverLinks(ctx context.Context, c hogsConfig, progress *progress) ([]hogsRow, error) {
	rows := []hogsRow{}
	for _, link := range c.links {
		more, err := onRig(ctx, c.verbose, progress, func(ctx context.Context, r *rig) ([]hogsRow, error) { return r.hogs(ctx, c, link, progress) })
		if err != nil {
			return nil, err
		}
		rows = append(rows, more...)
	}
	return rows, nil
}

// hogs measures over one link. Machnet's and TCP's processes have the same two cores, and as many hogs beside them.
func (r *rig) hogs(ctx context.Context, c hogsConfig, link string, progress *progress) ([]hogsRow, error) {
	bench := benchConfig{link: link, kernel: kernelLoopback, sizes: c.sizes, conns: []int{1}, inflights: []int{1}}
	if link == linkVeth {
		bench.kernel = kernelVeth
	}
	a, b, err := r.hosts(bench)
	if err != nil {
		return nil, err
	}
	machnet, err := r.buildMachnet(ctx, bench, a, b)
	if err != nil {
		return nil, err
	}
	tcp, err := r.buildKernel(ctx, bench, "tcp", placementOwn, a, b)
	if err != nil {
		return nil, err
	}
	pen, err := r.startHogs(ctx, slices.Max(c.hogs), a.core, b.core)
	if err != nil {
		return nil, err
	}
	strangers, err := r.watchStrangers()
	if err != nil {
		return nil, err
	}
	arms := []*arm{machnet, tcp}
	var rows []hogsRow
	done, total := 0, len(c.hogs)*len(c.sizes)*c.rounds*len(arms)
	for _, hogs := range c.hogs {
		pen.let(hogs)
		for _, size := range c.sizes {
			p := driveOrder{Params: load.Params{Size: size, Inflight: 1, Gap: c.gap, Warmup: c.duration / 10, Duration: c.duration}, Connections: 1}
			samples := make([][]sample, len(arms))
			for round := range c.rounds {
				for turn := range arms {
					i := (round + turn) % len(arms)
					progress.show(done, total, fmt.Sprintf("%s over %s, %s, %d hogs", arms[i].name(), link, byteSize(size), hogs))
					s, err := r.measure(ctx, arms[i], p)
					if err != nil {
						return nil, err
					}
					samples[i] = append(samples[i], s)
					done++
				}
			}
			rows = append(rows, newHogsRow(c, link, machnet.placement, size, hogs, samples[0], samples[1]))
		}
	}
	share, err := strangers.share()
	for i := range rows {
		rows[i].Strangers = share
	}
	return rows, err
}

// pen holds the hogs, by core. They are paused but for as many as are let loose.
type pen [][]*worker

// startHogs starts so many hogs on each of the cores, and pauses them.
func (r *rig) startHogs(ctx context.Context, each int, cores ...int) (pen, error) {
	slices.Sort(cores)
	var all pen
	for _, core := range slices.Compact(cores) {
		var here []*worker
		for i := range each {
			w, err := r.startWorker("hog", fmt.Sprintf("hog %d on core %d", i+1, core), endpoint{transport: "tcp"}, "", core)
			if err != nil {
				return nil, err
			}
			if _, err := w.next(ctx); err != nil {
				return nil, err
			}
			w.Pause()
			here = append(here, w)
		}
		all = append(all, here)
	}
	return all, nil
}

// let has so many hogs of each core run, and the others not.
func (p pen) let(loose int) {
	for _, core := range p {
		for i, w := range core {
			if i < loose {
				w.Resume()
			} else {
				w.Pause()
			}
		}
	}
}
