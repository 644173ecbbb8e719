package core

import (
	"math"
	"runtime"
	"sync/atomic"
	"time"
)

// How long a goroutine looks at the rings before it sleeps. Giving the core to another thread that looks costs little
// (docs/performance.md), waking one that sleeps far more.
const (
	// YieldFor is the usual look.
	YieldFor = 50 * time.Microsecond
	// Where waits are longer than the usual look, but not longer than so many of it, looks become twice as long as the waits are.
	// Without this, one wait beyond the usual look would make all later ones as long: each end sleeps when the other's answer comes, and so its
	// own answer is late.
	longestLooks = 6
	// After longer waits a budget halves, so that idle connections cost next to nothing.
	leastYield = 2 * time.Microsecond
	// A wait that keeps succeeding keeps its P from Go's poller and from other goroutines; after so much of it, sleep once.
	streakLimit     = 10 * time.Millisecond
	streakLimitOneP = 300 * time.Microsecond
)

// patience is the budget of one channel. Only the goroutine that holds the reader role touches it.
type patience struct {
	usual    time.Duration // from the configuration; 0 never yields
	budget   time.Duration
	lookTook time.Duration // of the last look, if it found nothing: a part of the wait that goes on
	streak   time.Duration // spent looking since the last sleep
	guard    guard
}

func newPatience(usual time.Duration) patience {
	usual = min(usual, math.MaxInt64/longestLooks) // so that no product overflows
	return patience{usual: usual, budget: usual}
}

// allowed is how long to look this time; 0 means sleep at once.
func (p *patience) allowed(procs int, now time.Duration) time.Duration {
	limit := streakLimit
	if procs == 1 {
		limit = streakLimitOneP
	}
	if p.streak > limit || p.guard.hogged(now) {
		return 0
	}
	return p.budget
}

// looked accounts for one look.
func (p *patience) looked(took time.Duration, found bool) {
	p.streak += took
	p.lookTook = 0
	if found {
		p.waited(took)
	} else {
		p.lookTook = took
	}
}

// slept accounts for the sleep that followed a look, if there was one.
func (p *patience) slept(took time.Duration) {
	if took == 0 {
		return
	}
	p.streak = 0
	p.waited(p.lookTook + took)
	p.lookTook = 0
}

// waited learns from how long a wait was in all.
func (p *patience) waited(took time.Duration) {
	if took > p.usual*longestLooks {
		p.budget = max(min(p.budget, p.usual)/2, leastYield)
		return
	}
	want := p.usual
	if took > p.usual {
		want = min(took*2, p.usual*longestLooks)
	}
	p.budget = max(p.budget-p.budget/16, want)
}

// yielders counts the goroutines of the process that look at rings now: each keeps a P busy.
var yielders atomic.Int32

// runnable counts the goroutines of the process that were woken here and have not run since. They are in the queue of the P that woke them,
// which a goroutine that looks keeps to itself; another P that takes the last of them from there waits for some 50 us before.
var runnable atomic.Int32

// look gives the core away between looks at ready until ready, or until the time is up. It must not be entered when that
// would leave the process without a P for its other goroutines: at most GOMAXPROCS-1 look at once, or one if there is but
// one P, and then only when nothing else can run.
//
// Not by Gosched: with other Ps idle it finds nothing to run and wakes threads that search.
// slept is how long the last sleep took, if there was one since the last look.
func (p *patience) look(w interface{ found() bool }, slept time.Duration) bool {
	if p.usual == 0 {
		return w.found()
	}
	p.slept(slept)
	began := now()
	procs := gomaxprocs()
	left := p.allowed(procs, began)
	if left == 0 {
		return w.found()
	}
	if yielders.Add(1) > int32(max(procs-1, 1)) {
		yielders.Add(-1)
		return w.found()
	}
	if procs == 1 {
		for runnable.Load() > 0 && !w.found() {
			runtime.Gosched()
		}
		began = now()
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
		if runnable.Load() > 0 { // no part of the look: what they do takes as long as there are many
			runtime.Gosched()
			resumed := now()
			began, at = began+resumed-at, resumed
		}
		yieldCore()
		before := at
		at = now()
		if p.guard.yielded(before, at); p.guard.hogged(at) {
			found = w.found()
			break
		}
	}
	yielders.Add(-1)
	p.looked(at-began, found)
	return found
}

// giveWay gives the core away once, unless a hog would take it.
func (p *patience) giveWay() {
	before := now()
	if !p.guard.hogged(before) {
		yieldCore()
		p.guard.yielded(before, now())
	}
}

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
