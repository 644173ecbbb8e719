// Package checks does what a list of checks says, prints a line for each, and counts those that passed: for what is tried as its users would, step
// by step on one bench.
package checks

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// Check is one thing that a user does on a bench. It returns what it found worth telling, or why it could not be tried (Skipped), or an error.
type Check[Bench any] struct {
	Name string
	Do   func(Bench) (string, error)
}

// Skipped is why a check could not be tried on this machine.
type Skipped string

func (s Skipped) Error() string { return string(s) }

// Run does the checks that match, after the steps without which no other is possible: when one of these fails, all that follows counts as failed, and
// when one cannot be tried, nothing is.
func Run[Bench any](b Bench, steps, checks []Check[Bench], matching *regexp.Regexp) (passed, all int) {
	for i, c := range append(steps[:len(steps):len(steps)], checks...) {
		if i >= len(steps) && !matching.MatchString(c.Name) {
			continue
		}
		start := time.Now()
		said, err := c.Do(b)
		took := time.Since(start).Seconds()
		if reason := Skipped(""); errors.As(err, &reason) {
			if i < len(steps) {
				fmt.Printf("skip all: %s: %s\n", c.Name, reason)
				return 0, 0
			}
			fmt.Printf("skip %s: %s\n", c.Name, reason)
			continue
		}
		all++
		if err != nil {
			fmt.Printf("FAIL %s (%.1f s): %v\n", c.Name, took, err)
			if i < len(steps) {
				return passed, len(steps) + len(checks)
			}
			continue
		}
		passed++
		if said = strings.TrimSpace(said); said != "" {
			said = ": " + strings.Join(strings.Fields(strings.ReplaceAll(said, "\n", "; ")), " ")
		}
		fmt.Printf("ok   %s (%.1f s)%s\n", c.Name, took, said)
	}
	return passed, all
}

// Score prints how many of a program's checks passed, as its last line, and ends it with status 1 unless all did.
func Score(program string, passed, all int) {
	fmt.Printf("%s: %d/%d\n", program, passed, all)
	if passed != all {
		os.Exit(1)
	}
}

// Command runs a command to its end, which is bounded, and gives what it printed; an error carries the end of that.
func Command(patience time.Duration, folder string, env []string, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = folder, env
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		said := string(out)
		if most := 2000; len(said) > most {
			said = "..." + said[len(said)-most:]
		}
		return string(out), fmt.Errorf("%s %s: %w\n%s", filepath.Base(name), strings.Join(args, " "), err, said)
	}
	return string(out), nil
}
