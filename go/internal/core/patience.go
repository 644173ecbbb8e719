package core

import (
	"runtime"
	"sync/atomic"
	"time"
)

// How long a goroutine looks at the rings before it sleeps. A handover between two threads that yield on one core takes
// 0.6 us, waking a sleeping one 26 to 59 us on a virtual machine; the figures behind these are in docs/performance.md.
const (
	// YieldFor is the longest look, and the budget after any success.
	YieldFor = 50 * time.Microsecond
	// A budget halves with each look that was in vain, so that idle connections cost next to nothing...
	leastYield = 2 * time.Microsecond
	// ...and a sleep that ends sooner than this shows that looking would have paid.
	soon = 2 * YieldFor
	// A sched_yield that takes this long met a thread that hogs the core: the kernel gave it a whole slice.
	hogYield = 2 * time.Millisecond
	// So long after meeting a hog, look without giving the core away.
	hogMemory = 100 * time.Millisecond
	// A wait that keeps succeeding keeps its P from Go's poller and from other goroutines; after so much of it, sleep once.
	streakLimit     = time.Millisecond
	streakLimitOneP = 300 * time.Microsecond
)

// patience is the budget of one channel. Only the goroutine that holds the reader role touches it.
type patience struct {
	most     time.Duration // the bound from the configuration; 0 never yields
	budget   time.Duration
	streak   time.Duration // spent looking since the last sleep
	hogUntil time.Duration // on the clock of now
}

func newPatience(most time.Duration) patience {
	return patience{most: most, budget: most}
}

// allowed is how long to look this time; 0 means sleep at once.
func (p *patience) allowed(procs int) time.Duration {
	limit := streakLimit
	if procs == 1 {
		limit = streakLimitOneP
	}
	if p.streak > limit {
		return 0
	}
	return p.budget
}

// looked accounts for one look.
func (p *patience) looked(took time.Duration, found bool) {
	p.streak += took
	switch {
	case found:
		p.budget = p.most
	case p.budget > leastYield:
		p.budget = max(p.budget/2, leastYield)
	}
}

// How long the last sleep was.
const (
	noSleep = iota
	shortSleep
	longSleep
)

// yielders counts the goroutines of the process that look at rings now: each keeps a P busy.
var yielders atomic.Int32

// look gives the core away between looks at ready until ready, or until the time is up. It must not be entered when that
// would leave the process without a P for its other goroutines: at most GOMAXPROCS-1 look at once, or one if there is but
// one P, and then only when nothing else can run.
//
// Not by Gosched: with other Ps idle it finds nothing to run and wakes threads that search (108 us a round trip).
func (p *patience) look(w interface{ found() bool }, slept int32) bool {
	if p.most == 0 {
		return w.found()
	}
	if slept != noSleep {
		p.streak = 0
	}
	if slept == shortSleep {
		p.budget = p.most
	}
	procs := gomaxprocs()
	left := p.allowed(procs)
	if left == 0 {
		return w.found()
	}
	if yielders.Add(1) > int32(max(procs-1, 1)) {
		yielders.Add(-1)
		return w.found()
	}
	began := now()
	if procs == 1 {
		runtime.Gosched()
		if now()-began > leastYield { // somebody else had work for the only P
			yielders.Add(-1)
			return w.found()
		}
	}
	found, at := false, began
	for {
		if found = w.found(); found || at-began >= left {
			break
		}
		if at < p.hogUntil {
			pause()
		} else {
			yieldCore()
		}
		before := at
		at = now()
		if at-before > hogYield && before >= p.hogUntil {
			p.hogUntil = at + hogMemory
		}
	}
	yielders.Add(-1)
	p.looked(at-began, found)
	return found
}

// pause passes some tens of nanoseconds on this core.
func pause() {
	for range 32 {
		_ = idle.Load()
	}
}

var idle atomic.Uint32

var clockStart = time.Now()

// now is a monotonic clock.
func now() time.Duration { return time.Since(clockStart) }

// gomaxprocs is runtime.GOMAXPROCS(0), which takes a lock of the scheduler, read again every 256 calls.
func gomaxprocs() int {
	if procsAge.Add(1)%256 == 1 {
		procs.Store(int32(runtime.GOMAXPROCS(0)))
	}
	return int(procs.Load())
}

var procs, procsAge atomic.Int32
