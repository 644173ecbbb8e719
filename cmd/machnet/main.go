// Command machnet measures and demonstrates Machnet (demo, ping, echo and bench), lets programs of TCP use it (proxy), and asks running
// sidecars (ctl).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

// command is one subcommand. run gets its arguments, and writes results to stdout and everything else to stderr.
type command struct {
	name, summary string
	run           func(ctx context.Context, args []string, stdout, stderr io.Writer) error
}

func commands() []command {
	return []command{
		{"demo", "two sidecars, a Go echo between them, beside kernel TCP", runDemo},
		{"ping", "round-trip time to a peer's echo", runPing},
		{"echo", "serve the echo that ping and bench --remote talk to", runEcho},
		{"bench", "latency and throughput beside kernel TCP and UDP; bench go: of Go beside C; bench hogs: on busy cores; bench paths: over delay, noise and losses; bench proxy: what a proxy adds; bench setup: of connecting; bench churn and bench isolation: what neighbours feel of each other", runBench},
		{"proxy", "let programs that know TCP or Unix sockets use Machnet: --listen tcp://:6379 --to machnet://10.0.0.2:6379, or the other way round", runProxy},
		{"ctl", "ask a running sidecar: stats, channels, listeners, connections, peers; drain a channel, set its log level", runCtl},
		{"doctor", "what is wrong with this machine, its sidecar and the path to a peer, and the command that mends it", runDoctor},
		{"setup", "give a NIC to machnetd: its settings, huge pages, driver; --dry-run shows the commands, --undo takes all back", runNICSetup},
		{"version", "print the version", runVersion},
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	// A reader that goes away (`| head`) must be an error of the write: the signal would end us before our processes.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	out, running := newOutput(ctx, stdout)
	defer out.stop(nil)
	name, err := dispatch(running, args, out, stderr)
	refused := out.refused()
	switch {
	case errors.Is(refused, syscall.EPIPE):
		return 1 // whoever read has enough, and needs no words
	case refused != nil:
		fmt.Fprintf(stderr, "%s: %v\n", name, refused)
		return 1
	case err == nil || errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errUsage):
		fmt.Fprintf(stderr, "%s: %v\n", name, err)
		return 2
	case ctx.Err() != nil:
		fmt.Fprintf(stderr, "%s: interrupted\n", name)
		return 130
	}
	fmt.Fprintf(stderr, "%s: %v\n", name, err)
	return 1
}

// dispatch runs the command that the arguments name; it returns what to call the program in a message.
func dispatch(ctx context.Context, args []string, stdout, stderr io.Writer) (string, error) {
	if len(args) == 0 || args[0] == "help" || args[0] == "-h" || args[0] == "--help" {
		usage(stdout)
		return "machnet", nil
	}
	for _, c := range append(commands(), command{name: workerCommand, run: runWorker}, command{name: describeCommand, run: runDescribe}) {
		if c.name == args[0] {
			return "machnet " + c.name, c.run(ctx, args[1:], stdout, stderr)
		}
	}
	return "machnet", usagef("%q is no command; `machnet help` lists them", args[0])
}

// summary is the program in one line.
const summary = "measure and demonstrate Machnet connections, and ask running sidecars"

func usage(w io.Writer) {
	fmt.Fprint(w, "machnet: "+summary+"\n\nusage: machnet COMMAND [flags]\n\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-9s%s\n", c.name, c.summary)
	}
	fmt.Fprint(w, "\n`machnet COMMAND -h` prints the flags of a command.\n")
}

func runVersion(_ context.Context, _ []string, stdout, _ io.Writer) error {
	version := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		version = info.Main.Version
		for _, setting := range info.Settings {
			if setting.Key == "vcs.revision" && version == "(devel)" {
				version = setting.Value
			}
		}
	}
	_, err := fmt.Fprintf(stdout, "machnet %s\n", version)
	return err
}
