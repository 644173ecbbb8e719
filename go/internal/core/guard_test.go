package core

import (
	"testing"
	"time"
)

// yields has a guard see yields of these lengths, the given time apart, from a time on; when the last has ended.
func (g *guard) yields(at, apart time.Duration, lengths ...time.Duration) time.Duration {
	for _, length := range lengths {
		at += apart
		g.yielded(at, at+length)
		at += length
	}
	return at
}

const slice = 4 * time.Millisecond // what a hog takes

func TestOneLongYieldIsNoHogAndTwoAre(t *testing.T) {
	const us = time.Microsecond
	for name, tc := range map[string]struct {
		apart   time.Duration
		lengths []time.Duration
		hog     bool
	}{
		"none long":            {us, []time.Duration{hogYield, hogYield, hogYield}, false},
		"one":                  {us, []time.Duration{slice}, false},
		"one behind the other": {us, []time.Duration{slice, slice}, true},
		"short ones between":   {us, []time.Duration{slice, us, us, slice}, true},
		"too far apart":        {hogYield + us, []time.Duration{slice, slice}, false},
		"a third is near":      {hogYield / 2, []time.Duration{slice, hogYield, slice, slice}, true},
	} {
		t.Run(name, func(t *testing.T) {
			var g guard
			at := g.yields(time.Second, tc.apart, tc.lengths...)
			if g.hogged(at) != tc.hog || tc.hog && g.until != at+hogMemory {
				t.Errorf("hogged %v, until %v at %v; want %v, for %v", g.hogged(at), g.until, at, tc.hog, hogMemory)
			}
		})
	}
}

func TestAHogThatStaysIsRememberedTwiceAsLongEachTime(t *testing.T) {
	var g guard
	at := g.yields(time.Second, 0, slice, slice)
	for _, memory := range []time.Duration{8, 16, 32, 64, 128, 256, 512, 1024, 1024} {
		if g.until != at+memory*time.Millisecond {
			t.Fatalf("believed in for %v, want %d ms", g.until-at, memory)
		}
		at = g.yields(g.until, 0, slice) // one is enough now
	}
}

// One who is away for some yields has gone: the next one is met as the first was.
func TestAHogThatLeavesIsForgotten(t *testing.T) {
	for name, tc := range map[string]struct {
		short int // yields after the memory ran out
		there bool
	}{"at the last yield that counts it is there": {hogTrial - 1, true}, "after it no more": {hogTrial, false}} {
		t.Run(name, func(t *testing.T) {
			var g guard
			at := g.yields(g.yields(time.Second, 0, slice, slice)+hogMemory, 0, make([]time.Duration, tc.short)...)
			if at = g.yields(at, 0, slice); g.hogged(at) != tc.there {
				t.Errorf("hogged %v, want %v", g.hogged(at), tc.there)
			}
			if tc.there {
				return
			}
			if at = g.yields(at, 0, slice); g.until != at+hogMemory {
				t.Errorf("met again it is believed in for %v, want %v", g.until-at, hogMemory)
			}
		})
	}
}

// A neighbour that computes for 3 ms of every 20, as seen by who yields all the time.
func TestANeighbourThatComesAndGoesIsNotBelievedInForLong(t *testing.T) {
	var g guard
	const us = time.Microsecond
	believed, at := time.Duration(0), time.Second
	for end := at + 10*time.Second; at < end; {
		busy := at%(20*time.Millisecond) < 3*time.Millisecond
		if g.hogged(at) {
			believed += us
			at += us
			continue
		}
		took := us
		if busy {
			took = 3*time.Millisecond - at%(20*time.Millisecond)
		}
		at = g.yields(at, 0, took)
	}
	if believed > time.Second {
		t.Errorf("believed in for %v of 10 s", believed)
	}
}

func TestWhatHogsCostIsCounted(t *testing.T) {
	before := ReadCoreWaits()
	var g guard
	g.yields(time.Second, 0, time.Microsecond, slice, slice)
	g.yields(g.until, 0, slice)
	now := ReadCoreWaits()
	if alarms, hogged, core := now.Alarms-before.Alarms, now.Hogged-before.Hogged, now.Core-before.Core; alarms != 2 || hogged != 3*hogMemory || core != 3*(slice-hogYield) {
		t.Errorf("%d alarms, hogs for %v, %v in yields; want 2, %v, %v", alarms, hogged, core, 3*hogMemory, 3*(slice-hogYield))
	}
}

// Who meets a hog stops looking, and does not look again while it is believed in.
func TestNobodyLooksBesideAHog(t *testing.T) {
	defer withProcs(2)()
	p := newPatience(time.Minute)
	p.guard.until = now() + time.Minute
	l := looker{n: 1 << 30}
	began := now()
	if p.look(&l, 0) || l.n != 1<<30-1 || now()-began > 30*time.Second {
		t.Errorf("beside a hog a look takes %v and looks %d times, want one", now()-began, 1<<30-l.n)
	}
}

func TestALookStopsWhereItMeetsAHog(t *testing.T) {
	defer withProcs(2)()
	p := newPatience(time.Minute)
	l := looker{n: 100, took: 2 * hogYield} // as if each yield took so long
	if p.look(&l, 0) || l.n < 90 || p.guard.until == 0 {
		t.Errorf("the look went on, until %d looks were left of 100, and believes in a hog until %v", l.n, p.guard.until)
	}
}
