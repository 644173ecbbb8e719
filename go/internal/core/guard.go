package core

import (
	"sync/atomic"
	"time"
)

// A hog is a thread that computes without giving its core away. Whoever yields the core beside one comes back a time slice later, some 4 ms, while
// who sleeps and is woken goes before it at once. So beside a hog nobody looks: who finds nothing sleeps. On a quiet core sleeping is several
// times as slow as looking, and long yields happen there, too (some five a second of 2 to 5 ms), so one of them is no evidence.
const (
	// hogYield is more than a yield takes on a core without a hog; two such yields, no further apart than this, met one.
	hogYield = 2 * time.Millisecond
	// hogMemory is how long a hog is believed in when it is met, twice as long each time that it is still there afterwards, and at most
	// longestHogMemory. A neighbour that computes for 3 ms of every 20 is forgotten between its turns, one that stays costs a slice a second.
	hogMemory        = 8 * time.Millisecond
	longestHogMemory = 1024 * time.Millisecond
	// hogTrial is how many yields after that decide: a long one among them, and the hog is still there; none, and it is forgotten.
	hogTrial = 16
)

// guard tells by how long yields take whether a hog has the core. It belongs to who looks, as patience does.
type guard struct {
	until   time.Duration // a hog is believed in until then, on the clock of now
	memory  time.Duration // for how long that was; 0: none was met lately
	trial   int           // yields left that decide whether it is still there
	suspect time.Duration // when the last long yield ended; 0: there was none
}

// hogged says whether a hog is believed in.
func (g *guard) hogged(now time.Duration) bool { return now < g.until }

// yielded accounts for a yield from before until at.
func (g *guard) yielded(before, at time.Duration) {
	if at-before <= hogYield {
		if g.trial > 0 {
			if g.trial--; g.trial == 0 {
				g.memory = 0
			}
		}
		return
	}
	waits.core.Add(int64(at - before - hogYield))
	switch {
	case g.trial > 0:
		g.memory = min(2*g.memory, longestHogMemory)
	case g.suspect > 0 && before <= g.suspect+hogYield:
		g.memory = hogMemory
	default:
		g.suspect = at
		return
	}
	g.suspect, g.until, g.trial = 0, at+g.memory, hogTrial
	waits.alarms.Add(1)
	waits.hogged.Add(int64(g.memory))
}

// waits are the sums of all guards of the process.
var waits struct {
	alarms       atomic.Uint64
	hogged, core atomic.Int64 // nanoseconds
}

// CoreWaits tells how long the threads of this process waited for a core while they gave it away, as far as that is known.
type CoreWaits struct {
	Alarms uint64        // how often a hog was met
	Hogged time.Duration // for how long hogs were believed in, of all channels together; counted when they are met
	Core   time.Duration // what yields took beyond hogYield
}

// ReadCoreWaits reads the sums.
func ReadCoreWaits() CoreWaits {
	return CoreWaits{Alarms: waits.alarms.Load(), Hogged: time.Duration(waits.hogged.Load()), Core: time.Duration(waits.core.Load())}
}
