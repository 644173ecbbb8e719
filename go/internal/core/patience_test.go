package core

import (
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

type condition func() bool

func (c condition) found() bool { return c() }

// A look keeps its P, and who was woken by it waits in the queue of that P. Other Ps, of which there is none here, would take long to come.
func TestALookLetsThoseRunThatWereWoken(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	procs.Store(2) // so that the look does not care for a single P
	procsAge.Store(1)
	defer procsAge.Store(0) // read it again
	var ran atomic.Bool
	runnable.Add(1)
	go func() {
		runnable.Add(-1)
		ran.Store(true)
	}()
	p := newPatience(2 * time.Millisecond) // less than what a goroutine may run before the runtime takes its P
	if !p.look(condition(ran.Load), 0) {
		t.Error("the goroutine that was woken did not run while another looked")
	}
}
