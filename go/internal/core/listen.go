package core

import (
	"sync"
	"sync/atomic"
)

// Beside a hog every wait is a sleep, and the watcher makes a bad one of it: the thread that the doorbell has woken wakes the reader, and then the runtime
// wakes another thread to look for work, which finds that the first has run the reader. A reader that parks in Go's poller on the doorbell itself is
// run by the thread that has been woken, and no other. But moving the doorbell from one goroutine to another costs as much as it saves, so it is moved
// only where the watcher has woken one reader and nobody else for a while, and back when anybody else is woken.

// loneAfter is how many times in a row the watcher has to wake one reader alone before it retires.
const loneAfter = 16

type retirement struct {
	bell     sync.Mutex             // held by who waits for the doorbell: the watcher, or a reader while the watcher is retired
	retired  atomic.Bool            // the watcher is; written under rx
	duty     chan struct{}          // holds one: the watcher's call
	listener atomic.Pointer[Waiter] // the reader that listens, or is about to
	lone     int                    // how often in a row the watcher has woken one reader; under rx
	readers  atomic.Int32           // how many readers have been woken since the watcher was
}

// mayRetire says whether what the watcher has just woken is one reader again, for the last time that it takes. rx is held.
func (h *hub) mayRetire(awoken int32) bool {
	if awoken != 1 || h.readers.Load() != 1 || h.tokens.Load() > 0 || h.crowd > 0 || h.dead.Load() {
		h.lone = 0
		return false
	}
	if h.lone++; h.lone < loneAfter {
		return false
	}
	h.lone = 0
	return true
}

// recall has the watcher wait for the doorbell again. Who listens looks at the rings once more, and leaves the doorbell to it. rx is held.
func (h *hub) recall() {
	if h.retired.Load() {
		h.retired.Store(false)
		h.callWatcher()
	}
	if w := h.listener.Load(); w != nil {
		w.Wake()
	}
}

func (h *hub) callWatcher() {
	select {
	case h.duty <- struct{}{}:
	default: // it has been called
	}
}

// listen has a reader that holds the role wait for the doorbell itself: true when it may have rung. Where the watcher does that it is false at once.
// Either way the reader still holds the role.
func (h *hub) listen(w *Waiter) bool {
	if !h.retired.Load() || !h.bell.TryLock() {
		return false
	}
	defer h.bell.Unlock()
	h.rx.Lock()
	if !h.retired.Load() || h.dead.Load() || !w.state.CompareAndSwap(awake, listening) {
		h.rx.Unlock()
		return false
	}
	h.listener.Store(w) // before it is read who else waits: whoever comes later finds this one
	armed := h.rings.arm(h.tokens.Load() > 0)
	h.armed.Store(armed)
	h.rx.Unlock()
	rung := false
	if armed {
		rung, _ = h.rings.await() // an error is the end of the channel, of which the reader hears
	}
	h.listener.Store(nil)
	if w.state.Swap(awake) == woken {
		runnable.Add(-1)
	}
	h.rx.Lock()
	if armed && !rung {
		h.rings.disarm()
	}
	h.armed.Store(false)
	h.rx.Unlock()
	return true
}
