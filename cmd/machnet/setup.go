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

	"github.com/machnet/machnet/cmd/netns"
)

// setupConfig says what to measure: how long it takes to connect.
type setupConfig struct {
	link        string
	engines     []enginePair
	connections int           // of the pooled phase and of TCP's, each; of the simulation both phases
	first       int           // first contacts, each between two new sidecars
	rounds      int           // that the pooled phase and TCP's are cut into
	open        int           // connections beside those that are measured, idle
	pause       time.Duration // before each connection but the first contacts
	idle        string        // how the engines wait, but for first contacts
	paper       bool
	verbose     bool
}

// enginePair is how many engines the server's sidecar and the client's have.
type enginePair struct{ server, client int }

func (e enginePair) String() string { return fmt.Sprintf("%dx%d", e.server, e.client) }

// linkSim is no link: the engines run in virtual time, in the program machnet-sim.
const linkSim = "sim"

// Phases of a measurement of set-ups.
const (
	phaseFirst  = "first"  // nothing is known of the peer
	phasePooled = "pooled" // an earlier connection has found which ports lead where
	phaseTCP    = "tcp"
)

// runSetup measures how long a Dial takes, beside TCP's connect.
func runSetup(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var c setupConfig
	fs := flag.NewFlagSet("bench setup", flag.ContinueOnError)
	fs.StringVar(&c.link, "link", linkMemif, "what joins the two hosts: memif, veth (network namespaces, Ethernet devices of the kernel; root), or\nsim (engines in virtual time)")
	pairs := fs.String("engines", "", "engines of the server's sidecar and of the client's, as `SxC,...`; by default 1x1,2x2, with --link sim 1x1,2x2,4x4,8x8")
	fs.IntVar(&c.connections, "connections", 10000, "connections of each phase but the first contacts of --link memif and veth")
	fs.IntVar(&c.first, "first", 30, "first contacts, each between two new sidecars (with --link memif or veth); 0: none")
	fs.IntVar(&c.rounds, "rounds", 10, "rounds in which pooled connections and TCP's take turns; figures are medians over them (with --link memif or veth)")
	fs.IntVar(&c.open, "open", 0, "connections that are open and idle meanwhile, in phases pooled and tcp (with --link memif or veth)")
	fs.DurationVar(&c.pause, "pause", 0, "how long all is quiet before each connection but the first contacts (with --link memif or veth)")
	fs.StringVar(&c.idle, "idle", "adaptive", "how engines wait for work in phase pooled, as machnetd's --idle: adaptive, yield or spin (with --link memif or veth)")
	fs.BoolVar(&c.paper, "paper", false, "set up as the Machnet paper does, without hand-over and pool, to compare")
	file := fs.String("json", "", "write an array of rows to this file; - is standard output")
	fs.BoolVar(&c.verbose, "verbose", false, "show what the sidecars log")
	if err := parse(fs, args, stdout, ""); err != nil {
		return err
	}
	given := map[string]bool{}
	fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if err := c.check(pairs, given); err != nil {
		return err
	}
	measure := func() ([]setupRow, error) { return setups(ctx, c, newProgress(stderr)) }
	return reported(*file, stdout, measure, func(rows []setupRow) { writeSetups(stdout, c, rows) })
}

// The bounds of --connections, and of --open: over a link TCP has one of its 28 000 ports fewer for a minute after each.
const (
	mostConnections    = 20000
	mostSimConnections = 1000000
)

func (c *setupConfig) check(pairs *string, given map[string]bool) error {
	most := mostConnections
	switch c.link {
	case linkMemif, linkVeth:
		if *pairs == "" {
			*pairs = "1x1,2x2"
		}
	case linkSim:
		if *pairs == "" {
			*pairs = "1x1,2x2,4x4,8x8"
		}
		most = mostSimConnections
		for _, name := range []string{"first", "rounds", "open", "pause", "idle", "verbose"} {
			if given[name] {
				return usagef("--%s with --link sim: its first contacts are as many as --connections, and nobody else uses its time; leave it out", name)
			}
		}
	default:
		return usagef("--link %q: use sim, memif or veth", c.link)
	}
	var err error
	if c.engines, err = enginePairs(*pairs); err != nil {
		return usagef("--engines %v", err)
	}
	switch {
	case c.connections < 1 || c.connections > most:
		return usagef("--connections %d: 1 to %d with --link %s", c.connections, most, c.link)
	case c.first < 0 || c.first > 10000:
		return usagef("--first %d: 0 to 10000 first contacts", c.first)
	case c.idle != "adaptive" && c.idle != "yield" && c.idle != "spin":
		return usagef("--idle %q: use adaptive, yield or spin", c.idle)
	case c.open < 0 || c.open > mostConnections:
		return usagef("--open %d: 0 to %d", c.open, mostConnections)
	case c.pause < 0:
		return usagef("--pause %v: a pause cannot be negative", c.pause)
	case c.rounds < 1 || c.rounds > c.connections && c.link != linkSim:
		return usagef("--rounds %d: 1 to as many as --connections, %d", c.rounds, c.connections)
	}
	return nil
}

// enginePairs reads a list like 1x1,2x4.
func enginePairs(list string) ([]enginePair, error) {
	var all []enginePair
	for _, word := range strings.Split(list, ",") {
		server, client, both := strings.Cut(strings.TrimSpace(word), "x")
		n, err := strconv.Atoi(server)
		m, err2 := strconv.Atoi(client)
		if !both || err != nil || err2 != nil || n < 1 || m < 1 || n > mostEngines || m > mostEngines {
			return nil, fmt.Errorf("%q: a list of pairs such as 1x1,2x4, of 1 to %d engines each", list, mostEngines)
		}
		all = append(all, enginePair{n, m})
	}
	return all, nil
}

// mostEngines is the most that machnetd takes.
const mostEngines = 64

// setupRow is one line of the results. Over a link the times of the phases pooled and tcp are medians over the rounds.
type setupRow struct {
	Link        string   `json:"link"`
	Engines     string   `json:"engines"` // the server's and the client's
	Phase       string   `json:"phase"`
	Connections int      `json:"connections"`
	FirstBatch  *float64 `json:"first_batch"`     // share of set-ups whose ends both knew ports that lead to the right engine before any timer ran
	Packets     *float64 `json:"packets"`         // of a set-up, both ways: SYN and SYN-ACK; in virtual time all until Dial returns
	Settled     *float64 `json:"packets_settled"` // and probes and reports, until both ends knew such ports
	P50         float64  `json:"p50_us"`
	P99         float64  `json:"p99_us"`
	P999        float64  `json:"p999_us"`
}

func setups(ctx context.Context, c setupConfig, progress *progress) ([]setupRow, error) {
	if c.link == linkSim {
		return simulateSetups(ctx, c, progress)
	}
	rows := []setupRow{} // an array in JSON, whatever happens
	tcpBeside := c.link == linkVeth || netns.Available() == nil
	for _, engines := range c.engines {
		some, err := measureSetups(ctx, c, engines, tcpBeside, progress)
		if err != nil {
			return nil, err
		}
		rows = append(rows, some...)
	}
	return rows, nil
}

// simulateSetups has machnet-sim do it.
func simulateSetups(ctx context.Context, c setupConfig, progress *progress) ([]setupRow, error) {
	defer progress.clear()
	rows := []setupRow{}
	for i, engines := range c.engines {
		progress.show(i, len(c.engines), "in virtual time, "+engines.String())
		args := []string{"setup", "--engines", engines.String(), "--connections", strconv.Itoa(c.connections)}
		if c.paper {
			args = append(args, "--paper")
		}
		some, err := simulated[setupRow](ctx, args...)
		if err != nil {
			return nil, err
		}
		rows = append(rows, some...)
	}
	return rows, nil
}

// writeSetups prints the rows for people.
func writeSetups(out io.Writer, c setupConfig, rows []setupRow) {
	fmt.Fprintln(out, "Time until Dial returns a connection, one after the other, each closed by both ends before the next.")
	if c.paper {
		fmt.Fprintln(out, "Set-up as in the Machnet paper: no hand-over between engines, no pool of ports.")
	}
	if c.link == linkSim {
		fmt.Fprintf(out, "Engines in virtual time, %d connections of each phase.\n\n", c.connections)
	} else {
		fmt.Fprintf(out, "Phase first: %d first contacts, each between two new sidecars, whose engines wait without sleeping. Phases pooled and tcp: %d connections each, in %d interleaved\n"+
			"rounds, medians over these; TCP over veth, each host's processes on a core of their own.\n", c.first, c.connections, c.rounds)
		if c.open > 0 {
			fmt.Fprintf(out, "Beside these %d connections are open and idle.\n", c.open)
		}
		if c.pause > 0 {
			fmt.Fprintf(out, "Before each of these all is quiet for %v.\n", c.pause)
		}
		fmt.Fprintln(out)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, strings.Join([]string{"link", "engines", "phase", "in the first batch", "packets", "until settled", "p50 us", "p99 us", "p99.9 us", "p50 / TCP"}, "\t")+"\t")
	number := func(n float64) string { return strconv.FormatFloat(n, 'f', 1, 64) }
	tcp := map[string]float64{}
	for _, r := range rows {
		if r.Phase == phaseTCP {
			tcp[r.Engines] = r.P50
		}
	}
	for i, r := range rows {
		if i > 0 && r.Engines != rows[i-1].Engines {
			fmt.Fprintln(w, strings.Repeat("\t", 10))
		}
		beside := "-"
		if t := tcp[r.Engines]; t > 0 {
			beside = times(ratio(r.P50, t))
		}
		fmt.Fprintln(w, strings.Join([]string{
			r.Link, r.Engines, r.Phase, decimals(r.FirstBatch, 4), decimals(r.Packets, 2), decimals(r.Settled, 2), number(r.P50), number(r.P99), number(r.P999), beside,
		}, "\t")+"\t")
	}
	w.Flush()
}

func decimals(n *float64, digits int) string {
	if n == nil {
		return "-"
	}
	return strconv.FormatFloat(*n, 'f', digits, 64)
}
