package core

import (
	"runtime"
	"testing"
)

// retire has the watcher retire, as where it wakes one reader again and again, and tells that reader.
func (f *fakeRings) retire(t *testing.T) *Waiter {
	t.Helper()
	w := f.hub.newWaiter(ForData)
	for range loneAfter {
		if f.hub.retired.Load() {
			t.Fatal("the watcher has retired too early")
		}
		f.sleepAndSend(t, w)
	}
	eventually(t, "the watcher retires", f.hub.retired.Load)
	return w
}

// sleepAndSend has w wait, and sends it something when it is rung for.
func (f *fakeRings) sleepAndSend(t *testing.T, w *Waiter) {
	t.Helper()
	done := f.waits(w)
	eventually(t, "somebody waits for the doorbell", func() bool { return w.state.Load() >= asleep && f.isRungFor() })
	f.send(w)
	within(t, "who waits", done)
	f.takeAll(w)
}

// takeAll is a take after which w knows that nothing is there.
func (f *fakeRings) takeAll(w *Waiter) int {
	n := f.take(w)
	w.state.CompareAndSwap(woken, awake)
	return n
}

func (f *fakeRings) isRungFor() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked >= deliveries
}

func (f *fakeRings) listens(w *Waiter) func() bool {
	return func() bool { return f.hub.listener.Load() == w && w.state.Load() == listening && f.isRungFor() }
}

func TestALoneReaderListensToTheDoorbellItself(t *testing.T) {
	f := newFake(0)
	f.start(t)
	w := f.retire(t)
	for range 3 {
		done := f.waits(w)
		eventually(t, "the reader listens", f.listens(w))
		if !f.hub.role.Load() || f.hub.sleepers.Load() != 0 {
			t.Fatal("who listens has no role, or sleeps")
		}
		f.send(w)
		within(t, "the reader", done)
		if f.takeAll(w) != 1 || !f.hub.retired.Load() || f.hub.listener.Load() != nil || f.hub.armed.Load() {
			t.Fatal("nothing was received, or the watcher was called for it, or the doorbell is still armed")
		}
	}
}

func TestALookInVainEndsInListening(t *testing.T) {
	f := newFake(0)
	f.start(t)
	w := f.retire(t)
	done := make(chan struct{})
	go func() { defer close(done); w.Look() }()
	eventually(t, "the reader listens", f.listens(w))
	f.send(w)
	within(t, "the reader", done)
	if w.looked || !w.holds || f.take(w) != 1 {
		t.Fatalf("looked %v in vain, holds the role %v; want false, true, and something received", w.looked, w.holds)
	}
}

// A deadline or a Close wakes it, though nothing rings.
func TestWhoListensIsWoken(t *testing.T) {
	f := newFake(0)
	f.start(t)
	w := f.retire(t)
	for range 3 {
		done := f.waits(w)
		eventually(t, "the reader listens", f.listens(w))
		w.Wake()
		within(t, "the reader", done)
		if f.isRungFor() || runnable.Load() != 0 {
			t.Fatalf("nobody listens, and the doorbell is armed, or %d goroutines are said to be runnable", runnable.Load())
		}
	}
	w.Wake() // before it listens
	within(t, "a reader woken before", f.waits(w))
}

// An interrupt that comes too late finds somebody else at the doorbell, or nobody.
func TestALateInterruptLosesNothing(t *testing.T) {
	f := newFake(0)
	f.start(t)
	w := f.retire(t)
	f.interrupt()
	done := f.waits(w)
	within(t, "the reader, for nothing", done)
	f.sleepAndSend(t, w)
	f.interrupt()
	other := f.hub.newWaiter(ForEvent)
	waits := f.waits(other) // calls the watcher, which is interrupted
	eventually(t, "the doorbell is armed", f.isRungFor)
	f.send(other)
	within(t, "the other", waits)
}

func TestTheWatcherIsCalledWhenSomebodyElseSleeps(t *testing.T) {
	for name, kind := range map[string]Kind{"for an event": ForEvent, "for data": ForData, "for tokens": ForTokens} {
		t.Run(name, func(t *testing.T) {
			f := newFake(0)
			f.start(t)
			w, other := f.retire(t), f.hub.newWaiter(kind)
			reads := f.waits(w)
			eventually(t, "the reader listens", f.listens(w))
			waits := f.waits(other)
			within(t, "the reader, for nothing", reads) // it leaves the rings to the watcher
			eventually(t, "the watcher is called", func() bool { return !f.hub.retired.Load() })
			if kind == ForTokens {
				f.giveTokens(other)
			} else {
				f.send(other)
			}
			within(t, "the other", waits)
			f.sleepAndSend(t, w)
		})
	}
}

// What comes for others while the reader is away is found by the guard, and by the reader when it is back.
func TestWhoSleepsIsNotForgottenWhileALoneReaderIsAway(t *testing.T) {
	for name, back := range map[string]bool{"and does not come back": false, "and comes and goes": true} {
		t.Run(name, func(t *testing.T) {
			f := newFake(0)
			f.start(t)
			other := f.hub.newWaiter(ForEvent)
			waits := f.waits(other)
			w := f.retire(t)
			f.sleepAndSend(t, w)
			if !f.hub.retired.Load() {
				t.Fatal("the watcher was called for one that sleeps and is sent nothing")
			}
			stop, stopped := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(stopped)
				for back {
					select {
					case <-stop:
						return
					default:
						f.hub.rx.Lock()
						if w.holds = f.hub.takeRole(); w.holds {
							w.leaveLocked()
						}
						f.hub.rx.Unlock()
						runtime.Gosched()
					}
				}
			}()
			for looks := 0; back && looks < 3; looks++ {
				last := f.hub.leftAt()
				eventually(t, "the guard looks, and finds that the reader has been there", func() bool { return f.hub.leftAt() != last })
				if !f.hub.retired.Load() {
					t.Fatal("the watcher was called though the reader comes and goes")
				}
			}
			f.send(other)
			within(t, "the other", waits)
			close(stop)
			<-stopped
		})
	}
}

func TestTheGuardTakesWhatHasComeSinceTheReaderLeft(t *testing.T) {
	f := newFake(0)
	other := f.hub.newWaiter(ForEvent)
	waits := f.waits(other)
	eventually(t, "the other sleeps", func() bool { return other.state.Load() == asleep && f.isRungFor() })
	f.hub.rx.Lock()
	f.disarm()
	f.hub.armed.Store(false)
	f.hub.retired.Store(true)
	f.hub.left++
	f.hub.rx.Unlock()
	f.send(other)
	f.hub.guardFired()
	if other.state.Load() == asleep {
		t.Error("the guard looked, and left in the ring what has come for one that sleeps")
		other.Wake()
	}
	within(t, "the other", waits)
}

// leftAt is how many departures the guard has seen.
func (h *hub) leftAt() uint {
	h.rx.Lock()
	defer h.rx.Unlock()
	return h.leftAtGuard
}

func TestTheWatcherDoesNotRetireWhereOthersAreWoken(t *testing.T) {
	f := newFake(0)
	f.start(t)
	w, other := f.hub.newWaiter(ForData), f.hub.newWaiter(ForEvent)
	for i := range 4 * loneAfter {
		turn := w
		if i%8 == 7 {
			turn = other
		}
		f.sleepAndSend(t, turn)
		if f.hub.retired.Load() {
			t.Fatal("the watcher has retired though every eighth message is for another")
		}
	}
}

func TestTheEndOfAChannelWakesWhoListens(t *testing.T) {
	f := newFake(0)
	f.start(t)
	w := f.retire(t)
	done := f.waits(w)
	eventually(t, "the reader listens", f.listens(w))
	f.hub.dead.Store(true)
	w.Wake()
	within(t, "the reader", done)
	within(t, "a reader after the end", f.waits(w))
}
