package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/machnet/machnet/go/control"
)

// question is one thing that `machnet ctl` can ask a running sidecar, or tell it to do.
type question struct {
	name       string
	positional string // names of the arguments beside flags
	summary    string
	query      func(args []string) (control.Query, error) // from the arguments, of which there are as many as allowed
	least      int                                        // how many arguments there are at least; at most as many as positional names
	// table asks, and writes the answer for people.
	table func(ctx context.Context, a asked, out io.Writer) error
	// counters are part of the answer.
	counters bool
	// verdict is an error where the answer, a document, says that something is wrong.
	verdict func(document json.RawMessage, a asked) error
}

func questions() []question {
	return []question{
		{name: "stats", summary: "counters of the engines, their queues and the NIC",
			query: plain("stats"), table: statsTable, counters: true},
		{name: "about", summary: "settings in force, and the NIC as it was opened",
			query: plain("about"), table: aboutTable},
		{name: "health", summary: "whether the engines are alive, and the NIC: exit code 0 or 1, for probes",
			query: plain("health"), table: healthLine, verdict: unhealthy},
		{name: "channels", summary: "attached applications",
			query: plain("channels"), table: channelsTable},
		{name: "listeners", summary: "ports listened on, and who waits there to be accepted",
			query: plain("listeners"), table: listenersTable},
		{name: "connections", positional: "[CHANNEL]", summary: "connections, of one channel or of all",
			query: connectionsQuery, table: connectionsTable},
		{name: "connection", positional: "ENGINE ID", least: 2, summary: "all about one connection, named as `connections` names it",
			query: connectionQuery, table: connectionTable, counters: true},
		{name: "peers", summary: "other hosts: their addresses, and whether they answer",
			query: plain("peers"), table: peersTable},
		{name: "drain", positional: "CHANNEL", least: 1, summary: "end a channel once what its application sent is delivered (root, or machnetd's user)",
			query: drainQuery, table: drainLine},
		{name: "log", positional: "LEVEL", least: 1, summary: "log at off, error, warn, info, debug or trace from now on (root, or machnetd's user)",
			query: logQuery, table: logLine},
	}
}

func runCtl(ctx context.Context, args []string, stdout, _ io.Writer) error {
	var q *question
	if len(args) > 0 {
		for _, known := range questions() {
			if known.name == args[0] {
				q = &known
				break
			}
		}
	}
	switch {
	case q != nil:
		return q.run(ctx, args[1:], stdout)
	case len(args) == 0:
		return usagef("say what to ask; `machnet ctl -h` lists the questions")
	case args[0] == "help" || args[0] == "-h" || args[0] == "-help" || args[0] == "--help":
		ctlUsage(stdout)
		return nil
	case strings.HasPrefix(args[0], "-"):
		return usagef("%q: first what to ask, then flags; `machnet ctl -h` lists the questions", args[0])
	}
	return usagef("%q is no question; `machnet ctl -h` lists them", args[0])
}

func ctlUsage(w io.Writer) {
	fmt.Fprint(w, "usage: machnet ctl QUESTION [flags] [arguments]\n\n")
	for _, q := range questions() {
		fmt.Fprintf(w, "  %-23s%s\n", strings.TrimSpace(q.name+" "+q.positional), q.summary)
	}
	fmt.Fprint(w, "\n`machnet ctl QUESTION -h` prints the flags of a question. What the columns mean: docs/control.md.\n")
}

func (q *question) run(ctx context.Context, args []string, stdout io.Writer) error {
	a := asked{}
	fs := flag.NewFlagSet("ctl "+q.name, flag.ContinueOnError)
	fs.StringVar(&a.socket, "socket", "", socketHelp)
	asJSON := fs.Bool("json", false, "print the sidecar's answer as it is, a JSON document")
	timeout := fs.Duration("timeout", 10*time.Second, "wait for the whole answer at most so long")
	if q.counters {
		fs.BoolVar(&a.all, "all", false, "show also counters that are zero, and those that this NIC's driver does not count")
	}
	if q.verdict != nil {
		fs.BoolVar(&a.ready, "ready", false, "the NIC must be up, too")
	}
	if err := parse(fs, args, stdout, q.positional); err != nil {
		return err
	}
	if *timeout <= 0 {
		return usagef("--timeout %v: wait for some time, like 10s", *timeout)
	}
	if most := len(strings.Fields(q.positional)); fs.NArg() < q.least || fs.NArg() > most {
		return usagef("arguments %q: write `machnet ctl %s %s`", fs.Args(), q.name, q.positional)
	}
	var err error
	if a.query, err = q.query(fs.Args()); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, *timeout, fmt.Errorf("machnetd has not answered in %v (--timeout); is it stopped?", *timeout))
	defer cancel()
	if !*asJSON {
		return q.table(ctx, a, stdout)
	}
	document, err := control.Ask(ctx, a.socket, a.query)
	if err != nil {
		return err
	}
	if err := writeDocument(stdout, document); err != nil || q.verdict == nil {
		return err
	}
	return q.verdict(document, a)
}

func writeDocument(out io.Writer, document json.RawMessage) error {
	_, err := fmt.Fprintf(out, "%s\n", strings.TrimSuffix(string(document), "\n"))
	return err
}

// plain is a query without arguments.
func plain(name string) func([]string) (control.Query, error) {
	return func([]string) (control.Query, error) { return control.Query{Name: name}, nil }
}

func connectionsQuery(args []string) (q control.Query, err error) {
	q.Name = "connections"
	if len(args) == 1 {
		q.Channel, err = channelNumber(args[0])
	}
	return q, err
}

func drainQuery(args []string) (q control.Query, err error) {
	q.Name = "drain"
	q.Channel, err = channelNumber(args[0])
	return q, err
}

func channelNumber(word string) (*uint64, error) {
	n, err := strconv.ParseUint(word, 10, 64)
	if err != nil {
		return nil, usagef("channel %q: a number, as `machnet ctl channels` lists it", word)
	}
	return &n, nil
}

func connectionQuery(args []string) (control.Query, error) {
	engine, err := strconv.ParseUint(args[0], 10, 16)
	if err != nil {
		return control.Query{}, usagef("engine %q: a number, as `machnet ctl connections` lists it", args[0])
	}
	number := int(engine)
	return control.Query{Name: "connection", Engine: &number, Connection: args[1]}, nil
}

func logQuery(args []string) (control.Query, error) {
	return control.Query{Name: "log", Level: args[0]}, nil
}

func drainLine(ctx context.Context, a asked, out io.Writer) error {
	if err := control.Drain(ctx, a.socket, *a.query.Channel); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "channel %d is draining\n", *a.query.Channel)
	return err
}

func logLine(ctx context.Context, a asked, out io.Writer) error {
	if err := control.SetLogLevel(ctx, a.socket, a.query.Level); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "machnetd at %s logs at level %s\n", control.Socket(a.socket), a.query.Level)
	return err
}
