// Command orphan leaves a child behind that ends a moment later: in a container that is the first process's then.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"time"
)

func main() {
	if len(os.Args) > 1 {
		time.Sleep(2 * time.Second)
		return
	}
	if err := exec.Command("/proc/self/exe", "child").Start(); err != nil {
		fmt.Fprintf(os.Stderr, "orphan: start a child: %v\n", err)
		os.Exit(1)
	}
}
