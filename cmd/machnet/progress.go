package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// progress shows how far a run is: a bar on a terminal; in a pipe nothing.
type progress struct {
	out      io.Writer
	terminal bool
}

func newProgress(out io.Writer) *progress {
	p := &progress{out: out}
	if file, ok := out.(*os.File); ok {
		_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
		p.terminal = err == nil
	}
	return p
}

const clearLine = "\r\x1b[K"

func (p *progress) step(what string) {
	if p.terminal {
		fmt.Fprint(p.out, clearLine, what)
	}
}

func (p *progress) show(done, total int, what string) {
	const width = 30
	full := width * done / total
	p.step(fmt.Sprintf("[%s%s] %3d %%  %s", strings.Repeat("#", full), strings.Repeat(".", width-full), 100*done/total, what))
}

func (p *progress) clear() {
	if p.terminal {
		fmt.Fprint(p.out, clearLine)
	}
}
