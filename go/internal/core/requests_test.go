//go:build linux && cgo && (amd64 || arm64)

package core

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"
)

// requestRing is a ring of requests that takes as many as it is told to.
type requestRing struct {
	fakeRings
	c    *Channel
	room int      // for so many more; under rx
	sent []uint32 // in their order; under rx
	asks bool     // armed for room, too; under rx
}

func newRequestRing(t *testing.T) *requestRing {
	r := new(requestRing)
	r.make()
	r.c = &Channel{api: capi{eventsTx: new(uint32)}}
	r.c.ended, r.c.end = context.WithCancel(context.Background())
	r.hub = newHub(r, 0)
	r.c.hub = r.hub
	r.start(t)
	return r
}

func (r *requestRing) poll() {
	r.fakeRings.poll()
	r.c.sendRequests()
}

// arm refuses while a request could be sent, as the C library does.
func (r *requestRing) arm(tokens bool) bool {
	r.asks = len(r.c.requests) > 0
	return (r.room == 0 || !r.asks) && r.fakeRings.arm(tokens)
}

// ask has a goroutine ask, and gives what comes of it.
func (r *requestRing) ask(ctx context.Context, id uint32) <-chan Code {
	done := make(chan Code, 1)
	asks := func() (uint32, Code) {
		if r.room == 0 {
			return 0, Again
		}
		r.room--
		return id, OK
	}
	go func() {
		done <- r.c.ask(ctx, &request{send: asks, sent: func(id uint32) { r.sent = append(r.sent, id) }, code: Again})
	}()
	return done
}

// waiting is how many requests wait for room.
func (r *requestRing) waiting() int {
	r.hub.rx.Lock()
	defer r.hub.rx.Unlock()
	return len(r.c.requests)
}

// take makes room for so many, and rings if that was asked for.
func (r *requestRing) take(count int) {
	r.hub.rx.Lock()
	defer r.hub.rx.Unlock()
	r.room += count
	if r.asks {
		r.mu.Lock()
		r.ringLocked(deliveries)
		r.mu.Unlock()
	}
}

func codeWithin(t *testing.T, what string, done <-chan Code) Code {
	t.Helper()
	select {
	case code := <-done:
		return code
	case <-time.After(10 * time.Second):
		t.Fatalf("%s: still waiting", what)
		return 0
	}
}

func TestRequestsWithoutRoomGoInTheirTurnAndAreWokenByRoomAlone(t *testing.T) {
	r := newRequestRing(t)
	// Somebody sleeps before, and has the doorbell armed for something else.
	sleeper := r.hub.newWaiter(ForEvent)
	slept := r.waits(sleeper)
	defer within(t, "the sleeper", slept)
	defer sleeper.Wake()
	eventually(t, "the doorbell is armed", r.hub.armed.Load)
	var done []<-chan Code
	for id := range uint32(40) {
		done = append(done, r.ask(context.Background(), id))
		eventually(t, "the request waits", func() bool { return r.waiting() == int(id)+1 })
	}
	for next := 0; next < len(done); next += 4 {
		eventually(t, "the doorbell is armed", r.hub.armed.Load)
		r.take(4)
		for _, done := range done[next : next+4] {
			if code := codeWithin(t, "a request that has room", done); code != OK {
				t.Fatalf("request %d: %v", next, code)
			}
		}
		if left := r.waiting(); left != len(done)-next-4 {
			t.Fatalf("%d requests wait, want %d", left, len(done)-next-4)
		}
	}
	if !slices.IsSorted(r.sent) || len(r.sent) != len(done) {
		t.Errorf("sent in the order %v", r.sent)
	}
	r.take(1)
	if code := codeWithin(t, "a request that finds room at once", r.ask(context.Background(), 99)); code != OK {
		t.Error(code)
	}
}

// Somebody's last word has nobody who waits, and so nobody who takes the role and arms the doorbell anew for it.
func TestWhoExpectsAnAnswerIsRungForThoughSomebodySleepsForSomethingElse(t *testing.T) {
	r := newRequestRing(t)
	sleeper := r.hub.newWaiter(ForEvent)
	slept := r.waits(sleeper)
	defer within(t, "the sleeper", slept)
	defer sleeper.Wake()
	eventually(t, "the doorbell is armed", r.hub.armed.Load)
	r.hub.rx.Lock()
	send := func() (uint32, Code) {
		if r.room == 0 {
			return 0, Again
		}
		return 7, OK
	}
	r.c.requests = append(r.c.requests, &request{send: send, sent: func(uint32) {}})
	r.hub.expectAnswer()
	r.hub.rx.Unlock()
	r.take(1)
	eventually(t, "it is sent", func() bool { return r.waiting() == 0 })
}

func TestARequestWithoutRoomEndsWithItsContextOrItsSidecarAndIsNotSentLater(t *testing.T) {
	r := newRequestRing(t)
	ctx, cancel := context.WithCancel(context.Background())
	first, second, third := r.ask(context.Background(), 1), r.ask(ctx, 2), r.ask(ctx, 3)
	eventually(t, "all wait", func() bool { return r.waiting() == 3 })
	cancel()
	for _, done := range []<-chan Code{second, third} {
		if code := codeWithin(t, "a request whose context has ended", done); code != Canceled {
			t.Errorf("got %v, want Canceled", code)
		}
	}
	r.take(3)
	if code := codeWithin(t, "the request that is left", first); code != OK {
		t.Error(code)
	}
	if !slices.Equal(r.sent, []uint32{1}) {
		t.Errorf("sent %v, want that of whom still waited", r.sent)
	}
	r.hub.rx.Lock()
	r.room = 0
	r.hub.rx.Unlock()
	last := r.ask(context.Background(), 4)
	eventually(t, "it waits", func() bool { return r.waiting() == 1 })
	r.c.end()
	if code := codeWithin(t, "a request whose sidecar has ended", last); code != NetDown {
		t.Errorf("got %v, want NetDown", code)
	}
}

func TestNoRequestIsForgottenWhereManyAskAndRoomComesOneByOne(t *testing.T) {
	r := newRequestRing(t)
	const askers, rounds = 16, 40
	var all sync.WaitGroup
	for id := range uint32(askers) {
		all.Add(1)
		go func() {
			defer all.Done()
			for range rounds {
				if code := <-r.ask(context.Background(), id); code != OK {
					t.Errorf("got %v", code)
				}
			}
		}()
	}
	over := make(chan struct{})
	go func() {
		all.Wait()
		close(over)
	}()
	for given := 0; given < askers*rounds; given++ {
		eventually(t, "the room that there was is taken", func() bool {
			r.hub.rx.Lock()
			defer r.hub.rx.Unlock()
			return r.room == 0
		})
		r.take(1)
	}
	within(t, "all requests", over)
}
