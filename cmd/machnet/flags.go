package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/machnet/machnet/go/control"
)

// socketHelp describes --socket.
const socketHelp = "the sidecar's control socket; by default $MACHNET_SOCKET or " + control.DefaultSocket

// errUsage marks what the user can mend on the command line.
var errUsage = errors.New("wrong usage")

func usagef(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errUsage, fmt.Sprintf(format, args...))
}

// parse reads flags, before and after what stands for itself; what is wrong with them is a usage error, in one line.
// positional describes the arguments beside flags; "" means that there are none. -h prints the flags to stdout.
func parse(fs *flag.FlagSet, args []string, stdout io.Writer, positional string) error {
	if len(args) == 1 && args[0] == describeFlag {
		return describeFlags(fs, positional, stdout)
	}
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	var rest []string
	for {
		if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
			fmt.Fprintf(stdout, "usage: %s\n\n", strings.TrimSpace("machnet "+fs.Name()+" [flags] "+positional))
			fs.SetOutput(stdout)
			fs.PrintDefaults()
			return err
		} else if err != nil {
			return usagef("%v; `machnet %s -h` lists the flags", err, fs.Name())
		}
		if fs.NArg() == 0 {
			break
		}
		rest, args = append(rest, fs.Arg(0)), fs.Args()[1:]
	}
	if positional == "" && len(rest) > 0 {
		return usagef("%q: this command takes flags only; `machnet %s -h` lists them", rest[0], fs.Name())
	}
	return fs.Parse(append([]string{"--"}, rest...)) // so that fs.Args() are these
}

// checkRounds refuses --rounds and --duration with which nothing could be measured.
func checkRounds(rounds int, duration time.Duration) error {
	switch {
	case rounds < 1:
		return usagef("--rounds %d: at least one round", rounds)
	case duration < 10*time.Millisecond:
		return usagef("--duration %v: a round lasts at least 10ms", duration)
	}
	return nil
}

// integers reads a list like 64,1024.
func integers(list string, low, high int) ([]int, error) {
	var all []int
	for _, word := range strings.Split(list, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(word))
		if err != nil || n < low || n > high {
			return nil, fmt.Errorf("%q: a list of numbers from %d to %d", list, low, high)
		}
		all = append(all, n)
	}
	return all, nil
}
