package core

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Where each look finds messages for several goroutines, a channel is crowded. One of those goroutines that looks for all of them pays for that with
// its own message: it has to leave the role to read it, others sleep meanwhile, and so the doorbell is armed and disarmed for every batch. Besides,
// at most GOMAXPROCS-1 goroutines look at once, so that of several crowded channels the others live by their doorbells. So there nobody looks but
// the attendant: the watcher that the doorbell of one of them has woken, which looks at the rings of all crowded channels of the process as long as
// something keeps coming, and leaves reading to those who are woken.

const (
	// crowdOf is how many goroutines a poll must wake to count as one of a crowd.
	crowdOf = 2
	// crowdAfter is how many more such polls than others make a channel crowded; as many more others end that.
	crowdAfter = 8
	// mostTurns bounds how often the attendant stands back for those that it has woken: each time the runtime runs some sixty of them.
	mostTurns = 8
	// enough is how many goroutines are woken before the engine may have the core: it is late for its own timers where it waits for thousands.
	enough = 64
)

// polled accounts for a poll that woke so many goroutines. rx is held.
func (h *hub) polled(awoken int32) {
	switch {
	case awoken >= crowdOf:
		h.crowd = min(h.crowd+1, 2*crowdAfter)
	case h.crowd > 0:
		h.crowd--
	default:
		return
	}
	if crowded := h.crowd >= crowdAfter; crowded || h.crowd == 0 {
		h.crowded.Store(crowded && h.patience.usual > 0)
	}
}

// pollRings empties the rings and wakes whom it concerns. rx is held.
func (h *hub) pollRings() {
	before := h.sleepers.Load()
	h.rings.poll()
	awoken := before - h.sleepers.Load()
	if awoken > 0 {
		h.recall() // there is more than one reader after all
	}
	h.polled(awoken)
}

// attendant looks for all crowded channels of the process. There is one at most: the watcher that has set busy.
type attendant struct {
	busy     atomic.Bool
	patience patience
	held     []*hub        // whose role it has
	next     int           // the one before that whose turn it is
	left     time.Duration // when it last ended, on the clock of now
}

var attending attendant

// hubs are those of the process; replaced as a whole, under hubsMu.
var (
	hubs   atomic.Pointer[[]*hub]
	hubsMu sync.Mutex
)

// enter makes a hub one of those that an attendant may look at, until exit.
func (h *hub) enter() {
	hubsMu.Lock()
	defer hubsMu.Unlock()
	all := append(slices.Clone(allHubs()), h)
	hubs.Store(&all)
}

func (h *hub) exit() {
	hubsMu.Lock()
	defer hubsMu.Unlock()
	all := slices.DeleteFunc(slices.Clone(allHubs()), func(other *hub) bool { return other == h })
	hubs.Store(&all)
}

func allHubs() []*hub {
	if all := hubs.Load(); all != nil {
		return *all
	}
	return nil
}

// attend looks at the rings of all crowded channels until nothing comes any more, unless another watcher does.
func (h *hub) attend() {
	a := &attending
	if !a.busy.CompareAndSwap(false, true) {
		return
	}
	defer a.busy.Store(false)
	if a.patience.usual != h.patience.usual {
		a.patience = newPatience(h.patience.usual)
	}
	slept := time.Duration(0)
	if a.left != 0 {
		slept = now() - a.left
	}
	for {
		for _, other := range allHubs() {
			if other.crowded.Load() && !other.dead.Load() && other.takeRole() {
				a.held = append(a.held, other)
			}
		}
		if h.dead.Load() || len(a.held) == 0 || !a.patience.look(a, slept) {
			break // a channel that has ended keeps no goroutine
		}
		slept = 0
		a.serve()
		// Whoever has been woken sends before the core is the engine's: what comes next, comes for many.
		for turns := 0; runnable.Load() > 0 && turns < mostTurns; turns++ {
			runtime.Gosched()
		}
		a.patience.giveWay()
	}
	for _, h := range a.held {
		h.giveBack()
	}
	clear(a.held)
	a.held = a.held[:0]
	a.left = now()
}

// found is what the attendant's look looks for.
func (a *attendant) found() bool {
	for _, h := range a.held {
		if h.dead.Load() || h.rings.ready(h.tokens.Load() > 0) {
			return true
		}
	}
	return false
}

// serve polls channels that have something, until it has woken enough, and leaves those that are not crowded any more. Where several channels
// share what comes, it is their sum that makes a crowd.
func (a *attendant) serve() {
	sum := int32(0)
	for i := 0; i < len(a.held) && sum < enough; i++ {
		a.next = (a.next + 1) % len(a.held)
		if h := a.held[a.next]; !h.dead.Load() && h.rings.ready(h.tokens.Load() > 0) {
			h.rx.Lock()
			before := h.sleepers.Load()
			h.rings.poll()
			sum += before - h.sleepers.Load()
			h.rx.Unlock()
		}
	}
	a.held = slices.DeleteFunc(a.held, func(h *hub) bool {
		h.rx.Lock()
		defer h.rx.Unlock()
		h.polled(sum)
		if stays := h.crowded.Load() && !h.dead.Load(); stays {
			return false
		}
		h.leave()
		return true
	})
}

func (h *hub) giveBack() {
	h.rx.Lock()
	defer h.rx.Unlock()
	h.leave()
}
