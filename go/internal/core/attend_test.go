package core

import (
	"sync"
	"testing"
	"time"
)

// entered is a channel in memory that an attendant may look at.
func entered(t *testing.T, yield time.Duration) *fakeRings {
	f := newFake(yield)
	f.hub.enter()
	t.Cleanup(f.hub.exit)
	f.start(t)
	return f
}

func TestACrowdIsServedInAllItsChannelsAndEnds(t *testing.T) {
	const channels, waiters, rounds = 3, 8, 100
	var all []*fakeRings
	type reader struct {
		f     *fakeRings
		w     *Waiter
		taken chan struct{}
	}
	var readers []reader
	var ended sync.WaitGroup
	for range channels {
		f := entered(t, YieldFor)
		all = append(all, f)
		for range waiters {
			readers = append(readers, reader{f, f.hub.newWaiter(ForData), make(chan struct{}, 1)})
		}
	}
	for _, r := range readers {
		ended.Add(1)
		go func() {
			defer ended.Done()
			for range rounds {
				for r.w.Look(); r.f.take(r.w) == 0; {
					r.w.Wait()
				}
				r.taken <- struct{}{}
			}
		}()
	}
	for range rounds { // the sidecar: something for everybody who waits, and then nothing until all have it
		for i, f := range all {
			eventually(t, "all sleep but one that may look", func() bool { return f.hub.sleepers.Load() >= waiters-1 })
			f.mu.Lock()
			for _, r := range readers[i*waiters : (i+1)*waiters] {
				f.ring = append(f.ring, r.w)
			}
			f.rings.Add(waiters)
			f.ringLocked(deliveries)
			f.mu.Unlock()
		}
		for _, r := range readers {
			select {
			case <-r.taken:
			case <-time.After(20 * time.Second):
				t.Fatal("a waiter was forgotten")
			}
		}
	}
	for i, f := range all {
		if !f.hub.crowded.Load() {
			t.Errorf("channel %d: %d waiters that all are sent to are no crowd", i, waiters)
		}
	}
	ended.Wait()
	// One waiter alone is no crowd any more.
	r := readers[0]
	eventually(t, "the crowd has ended", func() bool {
		r.f.send(r.w)
		for r.f.take(r.w) == 0 {
			r.w.Wait()
		}
		return !r.f.hub.crowded.Load()
	})
}

func TestTheAttendantLeavesAChannelThatHasEnded(t *testing.T) {
	crowded := func() *hub {
		h := newFake(time.Minute).hub
		h.enter()
		t.Cleanup(h.exit)
		h.crowd = 2 * crowdAfter
		h.crowded.Store(true)
		return h
	}
	goesOn, ended := crowded(), crowded()
	a := attendant{held: []*hub{goesOn, ended}}
	for _, h := range a.held {
		if !h.takeRole() {
			t.Fatal("somebody else watches a channel of this test")
		}
	}
	if a.found() {
		t.Error("it finds something in empty rings")
	}
	ended.dead.Store(true)
	if !a.found() {
		t.Error("it goes on looking though a channel has ended")
	}
	a.serve()
	if ended.role.Load() {
		t.Error("it has kept the one that has ended")
	}
	if !goesOn.role.Load() || len(a.held) != 1 {
		t.Errorf("it has left the other one, too; it has %d", len(a.held))
	}
	goesOn.leave()

	// The watcher of a channel that has ended is no attendant for the others.
	done := make(chan struct{})
	go func() {
		defer close(done)
		ended.attend()
	}()
	within(t, "the attendant of a channel that has ended", done)
	if goesOn.role.Load() || ended.role.Load() {
		t.Error("it has kept a role")
	}
}
