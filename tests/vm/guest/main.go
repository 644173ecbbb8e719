// Command guest is what runs in the guests of package vm beside the programs that are tested: the agent that runs commands for the test, and an application
// of the sidecar on each of its engines. `guest agent`, `guest serve`, `guest pairs` and `guest busy` are what it does.
package main

import (
	"fmt"
	"os"
)

func main() {
	modes := map[string]func(args []string) error{"agent": runAgent, "serve": runServe, "pairs": runPairs, "busy": runBusy}
	if len(os.Args) < 2 || modes[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: guest agent|serve|pairs|busy [flags]")
		os.Exit(2)
	}
	if err := modes[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintf(os.Stderr, "guest %s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
}
