package core

import (
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// fakeRings is a channel in memory: what is sent to a waiter stands in the ring until somebody polls.
type fakeRings struct {
	hub  *hub
	mu   sync.Mutex
	ring []*Waiter

	rings  atomic.Uint32          // entries in ring
	asked  int                    // what the doorbell was asked for; under mu
	arming func()                 // called by arm, once, when it has made up its mind
	asking atomic.Pointer[func()] // called by ready, once
	bell   chan struct{}
	calls  chan struct{} // interrupts
	stop   chan struct{}
	tokens atomic.Bool // something is in the ring of tokens
	owed   []*Waiter   // waiters that get a token by poll
	got    map[*Waiter]int
}

// take is a receive: it empties the ring, gives back the role, and tells how much has come for w.
func (f *fakeRings) take(w *Waiter) int {
	f.hub.rx.Lock()
	defer f.hub.rx.Unlock()
	if f.ready(true) {
		f.hub.pollRings()
	}
	w.leaveLocked()
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.got[w]
	f.got[w] = 0
	return n
}

func newFake(yield time.Duration) *fakeRings {
	f := new(fakeRings)
	f.make()
	f.hub = newHub(f, yield)
	return f
}

func (f *fakeRings) make() {
	f.bell, f.calls, f.stop, f.got = make(chan struct{}, 1), make(chan struct{}, 1), make(chan struct{}), make(map[*Waiter]int)
}

// send is the sidecar: it puts something in the ring, and rings if it was asked to.
func (f *fakeRings) send(w *Waiter) {
	f.mu.Lock()
	f.ring = append(f.ring, w)
	f.rings.Add(1)
	f.ringLocked(deliveries)
	f.mu.Unlock()
}

func (f *fakeRings) giveTokens(w *Waiter) {
	f.mu.Lock()
	f.owed = append(f.owed, w)
	f.tokens.Store(true)
	f.ringLocked(deliveriesAndTokens)
	f.mu.Unlock()
}

// What the doorbell was asked for.
const (
	nothing = iota
	deliveries
	deliveriesAndTokens
)

func (f *fakeRings) ringLocked(what int) {
	if f.asked >= what {
		f.asked = nothing
		select {
		case f.bell <- struct{}{}:
		default: // it has rung, and nobody has come yet
		}
	}
}

func (f *fakeRings) ready(tokens bool) bool {
	if f.asking.Load() != nil {
		if asking := f.asking.Swap(nil); asking != nil {
			(*asking)()
		}
	}
	return f.rings.Load() > 0 || tokens && f.tokens.Load()
}

func (f *fakeRings) arm(tokens bool) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ready(tokens) {
		return false
	}
	f.asked = deliveries
	if tokens {
		f.asked = deliveriesAndTokens
	}
	if arming := f.arming; arming != nil {
		f.arming = nil
		arming()
	}
	return true
}

func (f *fakeRings) disarm() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = nothing
	select {
	case <-f.bell:
	default:
	}
}

func (f *fakeRings) poll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, w := range append(f.ring, f.owed...) {
		f.got[w]++
		w.Wake()
	}
	f.ring, f.owed = nil, nil
	f.rings.Store(0)
	f.tokens.Store(false)
}

func (f *fakeRings) start(t *testing.T) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.hub.watch()
	}()
	t.Cleanup(func() {
		f.hub.dead.Store(true)
		close(f.stop)
		f.hub.callWatcher()
		<-done
	})
}

func (f *fakeRings) await() (rung bool, err error) {
	select {
	case <-f.bell:
		return true, nil
	case <-f.calls:
		return false, nil
	case <-f.stop:
		return false, Closed
	}
}

func (f *fakeRings) interrupt() {
	select {
	case f.calls <- struct{}{}:
	default:
	}
}

// leader is a reader that has the role, until Leave. One that waits might have it for a moment only, where there is but one core.
func (f *fakeRings) leader(t *testing.T) *Waiter {
	t.Helper()
	w := f.hub.newWaiter(ForData)
	if w.holds = f.hub.takeRole(); !w.holds {
		t.Fatal("somebody else has the role")
	}
	return w
}

// waits starts a goroutine that waits once, as a reader does.
func (f *fakeRings) waits(w *Waiter) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.Wait()
		w.Leave()
	}()
	return done
}

func within(t *testing.T, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatalf("%s: still waiting", what)
	}
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !cond(); time.Sleep(100 * time.Microsecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestEveryWaiterIsWokenWhoeverWatches(t *testing.T) {
	for name, yield := range map[string]time.Duration{"yielding": YieldFor, "sleeping at once": 0, "always yielding": time.Minute} {
		t.Run(name, func(t *testing.T) {
			f := newFake(yield)
			f.start(t)
			const waiters, rounds = 8, 300
			var all sync.WaitGroup
			all.Add(2 * waiters)
			for i := range waiters {
				w := f.hub.newWaiter([]Kind{ForEvent, ForData, ForTokens}[i%3])
				taken := make(chan struct{})
				go func() { // the sidecar: one thing at a time, so that each needs a wake of its own
					defer all.Done()
					for range rounds {
						if w.tokens {
							f.giveTokens(w)
						} else {
							f.send(w)
						}
						<-taken
					}
				}()
				go func() {
					defer all.Done()
					for range rounds {
						for f.take(w) == 0 {
							w.Wait()
						}
						taken <- struct{}{}
					}
				}()
			}
			done := make(chan struct{})
			go func() { all.Wait(); close(done) }()
			select {
			case <-done:
			case <-time.After(20 * time.Second):
				t.Fatal("a waiter was forgotten")
			}
		})
	}
}

func TestASleeperIsWokenByTheDoorbell(t *testing.T) {
	f := newFake(0)
	f.start(t)
	w := f.hub.newWaiter(ForData)
	done := f.waits(w)
	eventually(t, "the doorbell is armed for the sleeper", f.hub.armed.Load)
	f.send(w)
	within(t, "the sleeper", done)
}

// Whoever comes while the doorbell is being armed finds it not yet armed, and then armed for less than it needs.
func TestAWriterThatComesWhileTheDoorbellIsBeingArmedIsRungFor(t *testing.T) {
	for name, tc := range map[string]struct{ role bool }{"and finds the role free": {false}, "and finds the role taken": {true}} {
		t.Run(name, func(t *testing.T) {
			f := newFake(0)
			f.start(t)
			reader, writer := f.hub.newWaiter(ForData), f.hub.newWaiter(ForTokens)
			var writes <-chan struct{}
			f.arming = func() { // for the reader alone
				f.hub.role.Store(tc.role)
				writes = f.waits(writer)
				eventually(t, "the writer sleeps", func() bool { return writer.state.Load() == asleep })
				if tc.role {
					time.Sleep(10 * time.Millisecond) // so that it has looked for the role
					f.hub.role.Store(false)           // by one who sleeps next, and sees an armed doorbell
				}
			}
			reads := f.waits(reader)
			eventually(t, "the doorbell is armed", f.hub.armed.Load)
			f.giveTokens(writer)
			within(t, "the writer", writes)
			f.send(reader)
			within(t, "the reader", reads)
		})
	}
}

func TestAWriterThatFallsAsleepArmsTheDoorbellAnew(t *testing.T) {
	f := newFake(0)
	f.start(t)
	writer := f.hub.newWaiter(ForTokens)
	// It had the role for so short a time, while the doorbell was being armed, that neither saw the other.
	f.asked = deliveries
	f.hub.armed.Store(true)
	f.hub.tokens.Add(1)
	done := make(chan struct{})
	go func() { defer close(done); writer.sleep() }()
	eventually(t, "the writer sleeps", func() bool { return f.hub.sleepers.Load() == 1 })
	f.giveTokens(writer)
	within(t, "the writer", done)
}

func TestNobodyIsRungForWhileTheRoleIsHeld(t *testing.T) {
	f := newFake(0)
	w := f.hub.newWaiter(ForData)
	f.arming = func() { f.hub.role.Store(true) }
	f.waits(w)
	eventually(t, "the sleeper sleeps", func() bool { return w.state.Load() == asleep && f.hub.rx.TryLock() })
	defer f.hub.rx.Unlock()
	if f.hub.armed.Load() || f.asked != nothing {
		t.Error("the doorbell is armed though a goroutine looks at the rings")
	}
	w.Wake()
}

func TestTheRoleIsHandedOnToTheWatcher(t *testing.T) {
	f := newFake(time.Minute)
	f.start(t)
	first, second := f.leader(t), f.hub.newWaiter(ForData)
	follows := f.waits(second)
	eventually(t, "the second sleeps", func() bool { return f.hub.sleepers.Load() == 1 })
	first.Leave()
	eventually(t, "the doorbell is armed for the second", f.hub.armed.Load)
	f.send(second)
	within(t, "the second", follows)
}

// Whoever has looked in vain gives the role up to sleep. Woken just then, it does not sleep, and does not come back either where its work is done.
func TestTheRoleIsHandedOnByOneThatIsWokenBeforeItSleeps(t *testing.T) {
	f := newFake(0)
	f.start(t)
	first, second := f.hub.newWaiter(ForData), f.hub.newWaiter(ForData)
	var follows <-chan struct{}
	asking := func() {
		follows = f.waits(second)
		eventually(t, "the second sleeps", func() bool { return f.hub.sleepers.Load() == 1 })
		time.Sleep(10 * time.Millisecond) // so that it has seen that the role is taken
		first.Wake()
	}
	f.asking.Store(&asking)
	within(t, "the first", f.waits(first))
	f.send(second)
	within(t, "the second", follows)
}

func TestTheGuardFindsWhatALazyDepartureLeft(t *testing.T) {
	f := newFake(time.Minute)
	f.start(t)
	f.hub.lazy = 1
	first, second := f.leader(t), f.hub.newWaiter(ForData)
	follows := f.waits(second)
	eventually(t, "the second sleeps", func() bool { return f.hub.sleepers.Load() == 1 })
	first.Leave()
	f.send(second) // perhaps nobody watches now
	within(t, "the second", follows)
}

func TestALookSeesTokensOnlyWhileSomebodyWantsThem(t *testing.T) {
	f := newFake(time.Minute)
	reader, writer := f.hub.newWaiter(ForData), f.hub.newWaiter(ForTokens)
	f.giveTokens(writer)
	if reader.found() {
		t.Fatal("a reader's look stops at tokens that nobody waits for")
	}
	within(t, "a writer that looks, with nobody to ring for it", f.waits(writer))
}

func TestALookInVainIsFollowedByASleep(t *testing.T) {
	f := newFake(YieldFor)
	f.start(t)
	w := f.hub.newWaiter(ForData)
	w.Look()
	if !w.looked || f.take(w) != 0 || f.hub.role.Load() {
		t.Fatalf("after a look in vain and a receive: looked %v, the role taken %v", w.looked, f.hub.role.Load())
	}
	done := f.waits(w)
	eventually(t, "the doorbell is armed", f.hub.armed.Load)
	f.send(w)
	within(t, "the sleeper", done)
}

func TestALookThatFindsSomethingKeepsTheRoleUntilTheReceive(t *testing.T) {
	f := newFake(time.Minute)
	w := f.hub.newWaiter(ForData)
	f.send(w)
	w.Look()
	if w.looked || !f.hub.role.Load() {
		t.Fatalf("looked %v in vain, the role taken %v; want false, true", w.looked, f.hub.role.Load())
	}
	if f.take(w) != 1 || f.hub.role.Load() {
		t.Fatal("the receive found nothing, or kept the role")
	}
}

func TestWakeBeforeWaitIsNotLost(t *testing.T) {
	f := newFake(0)
	w := f.hub.newWaiter(ForEvent)
	w.Wake()
	w.Wake()
	within(t, "a waiter woken before", f.waits(w))
}

func TestNobodySleepsOnADeadChannel(t *testing.T) {
	f := newFake(0)
	f.hub.dead.Store(true)
	within(t, "a waiter on a dead channel", f.waits(f.hub.newWaiter(ForEvent)))
}

// looker finds something at its n-th look; each look takes some time.
type looker struct {
	n    int
	took time.Duration
}

func (l *looker) found() bool {
	time.Sleep(l.took)
	l.n--
	return l.n <= 0
}

func TestPatienceIsTwiceAsLongAsWaitsAreAndHalvesWhereTheyAreLong(t *testing.T) {
	const us, longest = time.Microsecond, longestLooks * 50 * time.Microsecond
	p := newPatience(50 * us)
	for _, step := range []struct {
		look  time.Duration // in vain, if a sleep follows
		sleep time.Duration
		want  time.Duration
	}{
		{10 * us, 0, 50 * us},
		{50 * us, 60 * us, 220 * us}, // a wait of 110 us
		{110 * us, 0, 220 * us},      // such waits end while it looks
		{220 * us, 70 * us, longest},
		{200 * us, 0, longest},
		{300 * us, us, 50 * us / 2}, // looking is of no use
		{25 * us, time.Second, 50 * us / 4},
		{12 * us, time.Second, 50 * us / 8},
		{6 * us, time.Second, 50 * us / 16},
		{3 * us, time.Second, leastYield},
		{2 * us, time.Second, leastYield},
		{2 * us, 20 * us, 50 * us},
	} {
		p.looked(step.look, step.sleep == 0)
		p.slept(step.sleep)
		if p.budget != step.want {
			t.Fatalf("a budget of %v after %+v", p.budget, step)
		}
	}
	p.budget = longest
	for range 40 {
		p.looked(10*us, true)
	}
	if p.budget != 50*us {
		t.Fatalf("a budget of %v after many short waits, want the usual", p.budget)
	}
	p.guard.until = 5 * us
	if p.allowed(2, 5*us-1) != 0 || p.allowed(2, 5*us) == 0 {
		t.Fatal("looking beside a hog, or not looking when it is forgotten")
	}
}

func TestALongestYieldOverflowsNothing(t *testing.T) {
	p := newPatience(math.MaxInt64)
	before := p.budget
	p.looked(time.Millisecond, false)
	if p.slept(time.Second); p.budget != before || before < 1<<60 {
		t.Fatalf("a budget of %v, and of %v after a wait of a second", before, p.budget)
	}
}

// withProcs has looks believe in so many processors, until they are counted anew or what it returns is called.
func withProcs(n int32) (counted func()) {
	procs.Store(n)
	procsAge.Store(1)
	return func() { procsAge.Store(0) }
}

func TestASuccessfulStreakEndsInASleep(t *testing.T) {
	defer withProcs(2)() // on one processor, too, where looks end sooner
	p := newPatience(time.Second)
	looks := 0
	for p.allowed(2, 0) > 0 {
		if looks++; looks > 200 { // before the processors are counted anew
			t.Fatal("never told to sleep")
		}
		p.look(&looker{n: 2, took: 100 * time.Microsecond}, 0)
		p.guard = guard{} // on a busy machine looks are late
	}
	if p.streak <= streakLimit {
		t.Fatalf("told to sleep after %v of looking, want more than %v", p.streak, streakLimit)
	}
	p.look(&looker{n: 1}, time.Nanosecond)
	p.guard = guard{}
	if p.allowed(2, 0) == 0 {
		t.Fatal("no looking after a sleep")
	}
}

func TestAtMostAllButOneProcessorLook(t *testing.T) {
	most := int32(max(gomaxprocs()-1, 1))
	yielders.Add(most)
	defer yielders.Add(-most)
	p := newPatience(time.Hour)
	began := time.Now()
	if p.look(&looker{n: 1 << 30}, 0) {
		t.Fatal("found what is not there")
	}
	if took := time.Since(began); took > time.Minute {
		t.Fatalf("looked for %v although all other processors look", took)
	}
}

func BenchmarkWaitThatSucceedsAtOnce(b *testing.B) {
	f := newFake(YieldFor)
	w := f.hub.newWaiter(ForData)
	for b.Loop() {
		f.rings.Store(1)
		w.Wait()
		f.rings.Store(0)
		w.Leave()
	}
}
