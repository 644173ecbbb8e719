package core

import (
	"sync"
	"sync/atomic"
	"time"
)

// A channel serves many goroutines, and somebody has to watch its rings for all of them. That is the reader role:
//
//   - A goroutine that has to wait takes the role if it is free and looks at the rings itself: usually for 50 us, up to
//     300 us where waits are that long, less where they are longer (patience). What it finds for others it hands to them.
//   - Everybody else sleeps on a Go channel of its own.
//   - When no goroutine has the role, the watcher has it: one goroutine per channel, parked in Go's poller on the
//     doorbell. Whoever leaves the role while others sleep arms the doorbell, which is how the role is handed on.
//   - Where the watcher wakes the same one reader each time, it retires: a reader that has looked in vain then keeps the role and
//     listens, that is, parks on the doorbell itself (listen.go).
//
// Handing the role to a sleeping goroutine instead would wake one for every message that the leaving goroutine reads; a
// server's Accept would take part in every echo.

// rings is what the hub needs of a channel. ready may be called by anybody at any time, the others with rx held.
type rings interface {
	ready(tokens bool) bool // something is in the rings; tokens: also look at the ring that returns them
	arm(tokens bool) bool   // ask for the doorbell; false: something is in the rings, and the doorbell will not ring
	disarm()
	poll() // take everything out of the rings and wake the goroutines that wait for it

	// await waits for the doorbell, which one goroutine at a time may do: true after it has rung, false after interrupt, or for nothing. An error
	// means that there is no doorbell any more.
	await() (rung bool, err error)
	interrupt()
}

type hub struct {
	rings rings
	// rx is held for every call of the receive direction, and never while waiting.
	rx sync.Mutex

	role     atomic.Bool   // a goroutine watches the rings itself
	sleepers atomic.Int32  // waiters that sleep, and events that nobody waits for
	tokens   atomic.Int32  // waiters, asleep or not, that need send tokens
	armed    atomic.Bool   // the doorbell will ring; written with rx held
	sleeps   atomic.Uint32 // how often a waiter went to sleep for tokens, ever
	dead     atomic.Bool   // nothing will come any more; nobody may sleep
	patience patience      // belongs to the role
	slept    atomic.Int64  // nanoseconds of the last sleep, 0 if there was none since the last look

	// A doorbell that wakes the watcher for nothing costs a thread switch here and a system call in the sidecar. After one, the next
	// departures leave the doorbell alone, and the guard, a timer, arms it should the role stay free.
	lazy    int // departures left; under rx
	crowd   int // under rx, like the writes of crowded
	crowded atomic.Bool
	guarded atomic.Bool
	guard   *time.Timer

	left, leftAtGuard uint // departures that left the doorbell alone, ever and until the guard looked last; under rx

	retirement
}

const (
	lazyFor   = 256              // departures
	guardTime = time.Millisecond // the longest that a message may wait in a ring that nobody watches
	// hoggedGuardTime is that where a hog is believed in, beside whose slices it is little: each time the guard wakes three threads.
	hoggedGuardTime = 8 * time.Millisecond
)

func newHub(r rings, yield time.Duration) *hub {
	h := &hub{rings: r, patience: newPatience(yield), retirement: retirement{duty: make(chan struct{}, 1)}}
	h.guard = time.AfterFunc(time.Hour, h.guardFired)
	h.guard.Stop()
	return h
}

// Waiter is the place where one goroutine at a time waits for something to happen on a channel, and may be a part of what it waits for:
// see Channel.Begin. It must not be copied.
type Waiter struct {
	hub    *hub
	tokens bool // wake also when send tokens come back
	drains bool // its goroutine receives, and so empties the rings itself
	holds  bool // the role; of its goroutine alone, like looked
	looked bool // Look found nothing, so that the next Wait sleeps at once
	state  atomic.Uint32
	note   chan struct{} // holds one; sent by whoever finds the state asleep; made for the first sleep
}

// Kind says what a Waiter waits for.
type Kind uint8

const (
	// ForEvent waits for an event that the Handler hears of.
	ForEvent Kind = iota
	// ForData waits to receive on a connection.
	ForData
	// ForTokens waits to send on a connection.
	ForTokens
)

const (
	awake     = iota
	woken     // something happened; the next wait returns at once
	asleep    // in <-note
	listening // to the doorbell, with the role
)

func (h *hub) newWaiter(k Kind) *Waiter {
	w := new(Waiter)
	h.begin(w, k)
	return w
}

// begin makes a zero Waiter one of this hub's.
func (h *hub) begin(w *Waiter, k Kind) {
	w.hub, w.tokens, w.drains = h, k == ForTokens, k == ForData
}

// Wake makes the current wait return, or the next one. Anybody may call it, also with locks held.
func (w *Waiter) Wake() {
	switch w.state.Swap(woken) {
	case asleep:
		w.hub.sleepers.Add(-1)
		if w.drains {
			w.hub.readers.Add(1)
		}
		runnable.Add(1)
		w.note <- struct{}{}
	case listening:
		runnable.Add(1)
		w.hub.rings.interrupt()
	}
}

// Look looks at the rings for a Waiter ForData, for as long as patience allows. It is for the goroutine that has taken
// everything there was: until something comes, another receive would find nothing, and would keep the core from the engine. Where another
// goroutine has the role, or readers listen, this one sleeps until it is woken, for the same reason. The goroutine must call Channel.Recv or
// Leave next.
func (w *Waiter) Look() {
	h := w.hub
	if w.state.CompareAndSwap(woken, awake) {
		return
	}
	if h.crowded.Load() || !h.takeRole() {
		w.sleep()
		return
	}
	w.holds = true
	if h.patience.look(w, time.Duration(h.slept.Swap(0))) {
		w.state.CompareAndSwap(woken, awake)
		return
	}
	if began := now(); h.listen(w) {
		h.slept.Store(int64(now() - began))
		return
	}
	w.looked = true
}

// Wait returns after a Wake, and when there may be something for this waiter in the rings. It may return for nothing. The
// goroutine of a Waiter ForData must call Channel.Recv or Leave next.
func (w *Waiter) Wait() {
	h := w.hub
	looked := w.looked
	w.looked = false
	if w.state.CompareAndSwap(woken, awake) {
		return
	}
	if w.tokens {
		h.tokens.Add(1)
		defer h.tokens.Add(-1)
	}
	if !looked {
		if h.crowded.Load() || !h.takeRole() {
			w.sleep()
			return
		}
		if h.patience.look(w, time.Duration(h.slept.Swap(0))) {
			w.state.CompareAndSwap(woken, awake)
			if w.drains {
				w.holds = true
				return
			}
			h.rx.Lock()
			h.pollRings()
			h.leave()
			h.rx.Unlock()
			return
		}
	}
	began := now()
	has := !looked || w.drains && h.retired.Load() && h.takeRole()
	if has && w.drains && h.listen(w) {
		w.holds = true
	} else {
		if has {
			h.role.Store(false)
		}
		w.sleep()
	}
	h.slept.Store(int64(now() - began))
}

// takeRole makes the caller's goroutine the one that watches the rings, unless there is one.
func (h *hub) takeRole() bool {
	if !h.role.CompareAndSwap(false, true) {
		return false
	}
	if h.armed.Load() {
		h.rx.Lock()
		if h.armed.Load() {
			h.rings.disarm()
			h.armed.Store(false)
		}
		h.rx.Unlock()
	}
	return true
}

// found is what a look looks for.
func (w *Waiter) found() bool {
	return w.state.Load() == woken || w.hub.rings.ready(w.hub.tokens.Load() > 0)
}

// sleep returns after a Wake.
func (w *Waiter) sleep() {
	h := w.hub
	if w.note == nil {
		w.note = make(chan struct{}, 1)
	}
	if !w.state.CompareAndSwap(awake, asleep) {
		w.state.Store(awake)
		// It may have had the role until now, and those who fell asleep meanwhile left the rings to it.
		if h.sleepers.Load() > 0 && !h.role.Load() && !h.armed.Load() {
			h.rx.Lock()
			h.handOn()
			h.rx.Unlock()
		}
		return
	}
	h.sleepers.Add(1)
	if h.dead.Load() {
		w.Wake()
	} else if w.tokens {
		h.sleeps.Add(1)
		if !h.role.Load() || h.listener.Load() != nil {
			h.rx.Lock()
			h.armed.Store(false) // perhaps it is armed, but for deliveries alone, from before this waiter's send ran out of tokens
			h.recall()
			h.handOn()
			h.rx.Unlock()
		}
	} else if !h.role.Load() && !h.armed.Load() || h.listener.Load() != nil {
		h.rx.Lock()
		h.recall()
		h.handOn()
		h.rx.Unlock()
	}
	<-w.note
	runnable.Add(-1)
	w.state.Store(awake)
}

// Leave gives back the role if a Wait had left it with its goroutine.
func (w *Waiter) Leave() {
	if w.holds {
		w.hub.rx.Lock()
		w.leaveLocked()
		w.hub.rx.Unlock()
	}
}

func (w *Waiter) leaveLocked() {
	if w.holds {
		w.holds = false
		w.hub.leave()
	}
}

// leave gives back the role. rx is held.
func (h *hub) leave() {
	d := guardTime
	if h.retired.Load() && h.patience.guard.hogged(now()) {
		d = hoggedGuardTime
	}
	h.role.Store(false)
	if h.sleepers.Load() <= 0 || h.armed.Load() {
		return
	}
	if h.lazy > 0 || h.retired.Load() {
		h.lazy = max(h.lazy-1, 0)
		h.left++
		h.guardRings(d)
		return
	}
	h.handOn()
}

// guardRings has the role handed on should it stay free.
func (h *hub) guardRings(d time.Duration) {
	if h.guarded.CompareAndSwap(false, true) {
		h.guard.Reset(d)
	}
}

func (h *hub) guardFired() {
	h.guarded.Store(false)
	h.rx.Lock()
	defer h.rx.Unlock()
	if !h.role.Load() && h.retired.Load() && h.left != h.leftAtGuard && !h.dead.Load() {
		// The reader comes and goes: it has just gone. Nothing waits longer, and the watcher need not be called.
		h.pollRings()
		h.leftAtGuard = h.left
		h.guardRings(guardTime)
		return
	}
	h.handOn()
}

// expectAnswer counts one event that must be taken from the rings though no goroutine waits for it, until answerCame. rx is held.
func (h *hub) expectAnswer() {
	h.sleepers.Add(1)
	h.armed.Store(false) // perhaps it is armed, but not for what the event needs before it comes
	h.recall()
	h.handOn()
}

func (h *hub) answerCame() { h.sleepers.Add(-1) }

// handOn gives a free role to the watcher if anybody sleeps. rx is held, but a goroutine takes the role without it, and so does a
// waiter for tokens fall asleep. Either sees that the doorbell is armed, or is seen here when it is.
func (h *hub) handOn() {
	for !h.role.Load() && h.sleepers.Load() > 0 && !h.armed.Load() && !h.dead.Load() {
		h.recall()
		sleeps := h.sleeps.Load()
		if !h.rings.arm(h.tokens.Load() > 0) {
			h.rings.poll()
			continue
		}
		h.armed.Store(true)
		if h.role.Load() || h.sleeps.Load() != sleeps { // meanwhile a goroutine took the role, or needs tokens, for which it is not armed
			h.rings.disarm()
			h.armed.Store(false)
		}
	}
}

// watch is the watcher, until there is no more doorbell.
func (h *hub) watch() {
	h.bell.Lock()
	defer h.bell.Unlock()
	for {
		if _, err := h.rings.await(); err != nil {
			return
		}
		h.rx.Lock()
		h.armed.Store(false) // whoever rang has disarmed it
		before := h.sleepers.Load()
		h.readers.Store(0)
		h.pollRings()
		awoken := before - h.sleepers.Load()
		if awoken <= 0 {
			h.lazy = lazyFor
		}
		if h.crowded.Load() {
			h.rx.Unlock()
			h.attend()
			h.rx.Lock()
		}
		if h.mayRetire(awoken) {
			h.bell.Unlock()
			h.retired.Store(true)
			h.guardRings(guardTime) // others may sleep
			h.rx.Unlock()
			<-h.duty
			h.bell.Lock()
			h.rx.Lock()
		}
		h.handOn()
		h.rx.Unlock()
	}
}
