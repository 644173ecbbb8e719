// Package doctor looks for what can be wrong with a machine, a sidecar and the path to a peer. Every check says what it found, what it
// expects, and the command that mends it; what the sidecar knows about its own settings and devices is asked of machnetd (`machnetd --check
// --json`, and the query "about"), so that nothing is judged by two rules.
package doctor

import (
	"context"
	"fmt"
)

// Status is what came of a check.
type Status string

// The statuses.
const (
	OK      Status = "ok"
	Warn    Status = "warn"        // it works, and hardly as it was meant
	Fail    Status = "fail"        // it does not, or not for long
	Skipped Status = "not checked" // Found says why
)

// Result is what one check found.
type Result struct {
	Status   Status
	Found    string
	Expected string
	// Command mends it when `sh -c` executes it as root; "" where nothing has to be, or where no command of this machine can.
	Command string
	// On names the host where Command is to be executed, where that is not this one.
	On string
	// Advice is what Command does not do: for good, elsewhere, or by hand.
	Advice string
}

// Check is one thing that can be wrong.
type Check struct {
	Name string
	// Reads is where it looks, and Fails when it is not ok; both for docs/doctor.md.
	Reads, Fails string
	run          func(context.Context, *Env) Result
}

// Row is a check and what it found.
type Row struct {
	Check string
	Result
}

// Checks are all, in the order in which they are made and shown: the machine, its NIC, the sidecar, and the path to a peer.
func Checks() []Check {
	var all []Check
	for _, part := range [][]Check{machineChecks(), deviceChecks(), sidecarChecks(), nicChecks(), pathChecks(), endChecks()} {
		all = append(all, part...)
	}
	return all
}

// Run makes all checks. Those that have nothing to look at say so.
func Run(ctx context.Context, env *Env) ([]Row, error) {
	if err := env.begin(ctx); err != nil {
		return nil, err
	}
	defer env.end()
	var rows []Row
	for _, check := range Checks() {
		if err := ctx.Err(); err != nil {
			return rows, context.Cause(ctx)
		}
		rows = append(rows, Row{check.Name, check.run(ctx, env)})
	}
	return rows, nil
}

// Healthy says whether no check failed.
func Healthy(rows []Row) bool {
	for _, row := range rows {
		if row.Status == Fail {
			return false
		}
	}
	return true
}

func ok(format string, args ...any) Result {
	return Result{Status: OK, Found: fmt.Sprintf(format, args...)}
}

// skip says why there was nothing to check.
func skip(format string, args ...any) Result {
	return Result{Status: Skipped, Found: fmt.Sprintf(format, args...)}
}
