package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
)

// row is one line of the results: medians over the rounds. Ratios are this row's figure divided by TCP's; null where
// TCP was not measured in that placement.
type row struct {
	Transport  string  `json:"transport"`
	Backend    string  `json:"backend"` // what moves the sidecars' frames, with --link veth
	Link       string  `json:"link"`
	Kernel     string  `json:"kernel"`       // the link of TCP and UDP
	Loss       float64 `json:"loss_percent"` // of the frames, dropped at random by the link
	Size       int     `json:"size"`         // bytes
	Conns      int     `json:"connections"`  // of one client process, a goroutine each at both ends
	Inflight   int     `json:"inflight"`     // messages on each; 0 in an open loop: as many as are due
	Batched    bool    `json:"batched"`      // several messages may go in one write
	Rounds     int     `json:"rounds"`
	Loop       string  `json:"loop"` // "closed", or "open at N/s"
	Wait       string  `json:"wait"`
	P50        float64 `json:"p50_us"`
	P99        float64 `json:"p99_us"`
	P999       float64 `json:"p999_us"`
	Rate       float64 `json:"msgs_per_s"` // completed round trips a second, all connections together
	Gbps       float64 `json:"gbps"`       // payload, one way
	CPUApp     float64 `json:"cpu_us_per_msg_app"`
	CPUSidecar float64 `json:"cpu_us_per_msg_sidecar"`
	Others     float64 `json:"others_cpu_percent"`    // of one core, all processes of the other transports together
	Strangers  float64 `json:"strangers_cpu_percent"` // of one core, what had nothing to do with the benchmark, over all of it
	Lost       int64   `json:"lost"`                  // messages given up (UDP), all rounds
	Placement  string  `json:"placement"`

	P50VsTCP      *float64 `json:"ratio_p50_vs_tcp"` // in the same placement (for link local: both processes on one core)
	P99VsTCP      *float64 `json:"ratio_p99_vs_tcp"`
	RateVsTCP     *float64 `json:"ratio_msgs_vs_tcp"`
	P50VsTCPBest  *float64 `json:"ratio_p50_vs_tcp_best"` // TCP with both processes on one core
	P99VsTCPBest  *float64 `json:"ratio_p99_vs_tcp_best"`
	RateVsTCPBest *float64 `json:"ratio_msgs_vs_tcp_best"`

	P50VsPacket  *float64 `json:"ratio_p50_vs_af_packet"` // Machnet with that back end
	RateVsPacket *float64 `json:"ratio_msgs_vs_af_packet"`
}

// makeRows turns the samples of one case, by arm, into rows.
func makeRows(c benchConfig, arms []*arm, p driveOrder, samples [][]sample) []row {
	var rows []row
	for i, a := range arms {
		if len(samples[i]) == 0 {
			continue
		}
		of := func(f func(sample) float64) float64 { return median(samples[i], f) }
		r := row{
			Transport: a.transport, Backend: a.backend, Link: c.link, Kernel: c.kernel, Loss: c.loss, Size: p.Size, Conns: p.Connections, Inflight: p.Inflight, Batched: p.Buffered, Rounds: c.rounds,
			Loop: "closed", Wait: a.wait, Placement: a.placement,
			P50: of(func(s sample) float64 { return s.p50 }), P99: of(func(s sample) float64 { return s.p99 }),
			P999: of(func(s sample) float64 { return s.p999 }), Rate: of(func(s sample) float64 { return s.rate }),
			CPUApp: of(func(s sample) float64 { return s.cpuApp }), CPUSidecar: of(func(s sample) float64 { return s.cpuSidecar }),
			Others: of(func(s sample) float64 { return s.others }),
		}
		if c.local != "" {
			r.Link, r.Kernel = "as configured", "as configured"
		}
		if p.Rate > 0 {
			r.Loop, r.Inflight = fmt.Sprintf("open at %g/s", p.Rate), 0
		}
		r.Gbps = r.Rate * float64(p.Size) * 8 / 1e9
		for _, s := range samples[i] {
			r.Lost += s.lost
		}
		rows = append(rows, r)
	}
	tcp := func(placement string) *row {
		for i := range rows {
			if rows[i].Transport == "tcp" && rows[i].Placement == placement {
				return &rows[i]
			}
		}
		return nil
	}
	packet := slices.IndexFunc(rows, func(r row) bool { return r.Backend == backendPacket })
	for i := range rows {
		r := &rows[i]
		if packet >= 0 && r.Transport == "machnet" {
			r.P50VsPacket, r.RateVsPacket = ratio(r.P50, rows[packet].P50), ratio(r.Rate, rows[packet].Rate)
		}
		beside := r.Placement
		if beside == placementEngine {
			beside = placementSame
		}
		if t := tcp(beside); t != nil {
			r.P50VsTCP, r.P99VsTCP, r.RateVsTCP = ratio(r.P50, t.P50), ratio(r.P99, t.P99), ratio(r.Rate, t.Rate)
		}
		if t := tcp(placementSame); t != nil {
			r.P50VsTCPBest, r.P99VsTCPBest, r.RateVsTCPBest = ratio(r.P50, t.P50), ratio(r.P99, t.P99), ratio(r.Rate, t.Rate)
		}
	}
	return rows
}

func ratio(a, b float64) *float64 {
	r := a / b
	return &r
}

// columns is what the table shows of a row beside its first five columns: latencies, or with --throughput rates.
func (c benchConfig) columns() (heads []string, of func(r row) []string) {
	heads, of = c.usualColumns()
	if len(c.backends) < 2 {
		return heads, of
	}
	usual := of
	return append(heads, "p50/af_packet", "echoes/af_packet"), func(r row) []string {
		return append(usual(r), times(r.P50VsPacket), times(r.RateVsPacket))
	}
}

func (c benchConfig) usualColumns() (heads []string, of func(r row) []string) {
	number := func(decimals int, n float64) string { return strconv.FormatFloat(n, 'f', decimals, 64) }
	if c.throughput {
		heads = []string{"Gb/s", "echoes/s", "p50 us", "CPU us", "Gb/s / TCP", "Gb/s / TCP best"}
		return heads, func(r row) []string {
			return []string{number(3, r.Gbps), number(0, r.Rate), number(0, r.P50), number(1, r.CPUApp+r.CPUSidecar), times(r.RateVsTCP), times(r.RateVsTCPBest)}
		}
	}
	heads = []string{"p50 us", "p99 us", "p99.9 us", "echoes/s", "Gb/s", "CPU us", "p50/TCP", "p99/TCP", "echoes/TCP", "p50/TCP best"}
	return heads, func(r row) []string {
		return []string{
			number(1, r.P50), number(1, r.P99), number(1, r.P999), number(0, r.Rate), number(2, r.Gbps), number(2, r.CPUApp+r.CPUSidecar),
			times(r.P50VsTCP), times(r.P99VsTCP), times(r.RateVsTCP), times(r.P50VsTCPBest),
		}
	}
}

// writeTable prints the rows for people.
func writeTable(out io.Writer, c benchConfig, rows []row) {
	loop := "closed loop: a message goes when an echo has come back"
	if c.rate > 0 {
		loop = fmt.Sprintf("open loop at %g messages/s: latency counts from when a message was due", c.rate)
	}
	many := c.mostConns() > 1
	if many {
		fmt.Fprintf(out, "Echo round trips over connections with a goroutine each at both ends, %s.\n", loop)
	} else {
		fmt.Fprintf(out, "Echo round trips over one connection, %s.\n", loop)
	}
	switch {
	case c.kernel == kernelFrames:
		fmt.Fprintln(out, "TCP and UDP: over veth without segmentation offload.")
	case c.kernel == kernelVeth && c.link != linkVeth:
		fmt.Fprintln(out, "TCP and UDP: over veth.")
	}
	if c.loss > 0 {
		fmt.Fprintf(out, "Every link drops %g %% of its frames at random, each way.\n", c.loss)
	}
	fmt.Fprintf(out, "Medians of %d interleaved rounds of %v; CPU is client + server + sidecars for one echo; Gb/s are the messages' bytes, one way.\n\n", c.rounds, c.duration)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	heads, of := c.columns()
	heads = append([]string{"size", "in flight", "writes", "transport", "placement"}, heads...)
	if many {
		heads = append([]string{"connections"}, heads...)
	}
	fmt.Fprintln(w, strings.Join(heads, "\t")+"\t")
	for i, r := range rows {
		if i > 0 && (r.Size != rows[i-1].Size || r.Conns != rows[i-1].Conns || r.Inflight != rows[i-1].Inflight || r.Batched != rows[i-1].Batched) {
			fmt.Fprintln(w, strings.Repeat("\t", len(heads)))
		}
		writes := "each"
		if r.Batched {
			writes = "buffered"
		}
		inflight := strconv.Itoa(r.Inflight)
		if r.Inflight == 0 {
			inflight = "open"
		}
		cells := append([]string{byteSize(r.Size), inflight, writes, transportName(r.Transport, r.Backend), r.Placement}, of(r)...)
		if many {
			cells = append([]string{strconv.Itoa(r.Conns)}, cells...)
		}
		fmt.Fprintln(w, strings.Join(cells, "\t")+"\t")
	}
	w.Flush()
	fmt.Fprintln(out)
	for _, line := range []struct{ placement, meaning string }{
		{placementOwn, "host A's processes on the first core, host B's on the last"},
		{placementSame, "client and server on one core: TCP's best placement (\"TCP best\")"},
		{placementEngine, "the sidecar alone on the first core, client and server on the last; TCP beside it is in \"same\""},
	} {
		for _, r := range rows {
			if r.Placement == line.placement {
				fmt.Fprintf(out, "placement %q: %s\n", line.placement, line.meaning)
				break
			}
		}
	}
	var worst float64
	for _, r := range rows {
		worst = max(worst, r.Others)
	}
	fmt.Fprintf(out, "while one transport ran, the processes of all others used at most %.2f %% of a core\n", worst)
	if len(rows) > 0 && rows[0].Strangers > tooBusy {
		fmt.Fprintf(out, "\nTHE MACHINE WAS BUSY: what has nothing to do with this measurement used %.0f %% of a core. These figures show that more than any\n"+
			"transport: latencies are those of waiting for a core. The columns beside TCP suffer less, since the arms take turns; measure again\n"+
			"when the machine is quiet (see `top`).\n", rows[0].Strangers)
	}
}

// tooBusy is what strangers may use of a core, in percent, before the figures are theirs.
const tooBusy = 15

func times(r *float64) string {
	if r == nil {
		return "-"
	}
	return fmt.Sprintf("%.2f", *r)
}

func byteSize(n int) string {
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10 && n%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d B", n)
}

// reported has measure make the rows, shows them, and writes them as JSON to a file; "" is none, and "-" is standard output, where they are not
// shown then. A file that cannot be written is an error before anything is measured, which may take minutes.
func reported[T any](file string, stdout io.Writer, measure func() ([]T, error), show func([]T)) error {
	to := stdout
	if file != "" && file != "-" {
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE, 0o644) // what is in it stays until there are rows
		if err != nil {
			return fmt.Errorf("--json: %w", err)
		}
		defer f.Close()
		to = f
	}
	rows, err := measure()
	if err != nil {
		return err
	}
	if file != "-" {
		show(rows)
	}
	if file == "" {
		return nil
	}
	text, err := json.MarshalIndent(rows, "", "  ")
	if err != nil {
		return err
	}
	if f, ok := to.(*os.File); ok && file != "-" {
		if err := f.Truncate(0); err != nil && !errors.Is(err, syscall.EINVAL) { // a pipe or a device has no length
			return fmt.Errorf("--json: %w", err)
		}
	}
	if _, err := to.Write(append(text, '\n')); err != nil {
		return fmt.Errorf("--json: %w", err)
	}
	return nil
}
