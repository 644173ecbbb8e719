package setup

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// Step is one thing that a setup does.
type Step struct {
	Why  string `json:"why"`            // for people: what it does
	Done string `json:"done,omitempty"` // a shell command that succeeds where there is nothing left to do
	Kept string `json:"kept,omitempty"` // the same, once the step was done: what others change since is theirs; "": as Done
	Do   string `json:"do"`             // the shell command that does it; once more changes nothing
	Undo string `json:"undo,omitempty"` // the one that takes it back, also where Do came halfway or Undo itself; "": nothing remains of it

	// What a step does is gone after a reboot, and what the machine has then is nothing of ours: Boot is the boot in which it was done. Files last.
	Lasts bool   `json:"lasts,omitempty"`
	Boot  string `json:"boot,omitempty"`
}

// prelude stands before each command. What the kernel and udev do behind a command's back takes a moment: they are asked for up to ten seconds.
const prelude = `retry() { n=0; until "$@" 2>/dev/null; do n=$((n+1)); if [ $n -ge 100 ]; then "$@"; return; fi; sleep 0.1; done; }
`

// Script is a shell script that does steps; whoever reads it knows all that is done.
func Script(title string, steps []Step, command func(Step) string) string {
	text := new(strings.Builder)
	fmt.Fprintf(text, "#!/bin/sh\n# %s\nset -eu\n%s", title, prelude)
	for _, s := range steps {
		if c := command(s); c != "" {
			fmt.Fprintf(text, "\n# %s\n%s\n", s.Why, c)
		}
	}
	return text.String()
}

// run runs a command, and gives what it said on its standard output where it went well. It has a process group of its own: who interrupts us does not interrupt it, and when the context ends it does.
func run(ctx context.Context, command string) (string, error) {
	if command == "" {
		return "", nil
	}
	cmd := exec.CommandContext(ctx, "sh", "-euc", prelude+command)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	said, complaint := new(strings.Builder), new(strings.Builder)
	cmd.Stdout, cmd.Stderr = said, complaint
	err := cmd.Run()
	switch text := strings.Join(strings.Fields(said.String()+" "+complaint.String()), " "); {
	case err == nil:
		return said.String(), nil
	case ctx.Err() != nil:
		return "", errors.New("interrupted")
	case text != "":
		return "", errors.New(text)
	}
	return "", fmt.Errorf("`%s` ended with %w", command, err)
}

// quote makes a word that the shell takes as it is.
func quote(word string) string {
	if plain.MatchString(word) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

var plain = regexp.MustCompile(`^[A-Za-z0-9_./:@%+=,-]+$`)

// lines joins commands, one on each line.
func lines(commands ...string) string {
	var all []string
	for _, c := range commands {
		if c != "" {
			all = append(all, c)
		}
	}
	return strings.Join(all, "\n")
}
