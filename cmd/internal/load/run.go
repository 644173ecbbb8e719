package load

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// run is what the connections of one measurement share: its time, and what has come back.
type run struct {
	p      Params
	window int64 // frames outstanding on all connections together

	begin time.Time
	from  time.Duration // after begin: what comes back earlier is not measured
	until atomic.Int64  // when the measurement ends, nanoseconds after begin; 0: it has not begun

	all   atomic.Int64
	lost  atomic.Int64
	parts []part
}

// part is what some of the connections have measured: with one lock for all they would wait for each other.
type part struct {
	mu       sync.Mutex
	messages int64
	latency  *hdrhistogram.Histogram
}

const mostParts = 8

func newRun(p Params, conns int) *run {
	r := &run{p: p, window: int64(p.Inflight) * int64(conns), parts: make([]part, min(conns, mostParts))}
	for i := range r.parts {
		r.parts[i].latency = NewHistogram()
	}
	return r
}

// longestFill bounds the wait for a window to fill, beyond the warm-up.
const longestFill = 10 * time.Second

// measuring says whether what comes back now is measured. In a closed loop the measurement begins when the warm-up is over and
// as many echoes have come back as are in flight: 64 MiB in flight take longer than any warm-up, and until then nothing comes.
func (r *run) measuring(now time.Time) bool {
	since := now.Sub(r.begin)
	if until := r.until.Load(); until != 0 {
		return since >= r.from && since.Nanoseconds() <= until
	}
	filled := r.all.Load() >= r.window || since >= r.p.Warmup+longestFill
	if since >= r.p.Warmup && filled {
		r.until.CompareAndSwap(0, (since + r.p.Duration).Nanoseconds())
	}
	return false // the echo that begins it belongs to the time before
}

// over says whether the measurement has ended.
func (r *run) over(now time.Time) bool {
	until := r.until.Load()
	return until != 0 && now.Sub(r.begin).Nanoseconds() >= until
}

// record counts one echo that was sent (or due) at sent and has come back at now.
func (r *run) record(p *part, sent, now time.Time) {
	r.all.Add(1)
	if !r.measuring(now) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.messages++
	// Out of range cannot be: the histogram ends above any deadline of ours.
	_ = p.latency.RecordValue(max(1, now.Sub(sent).Nanoseconds()))
}

// result adds up the parts, when every connection has ended.
func (r *run) result() *Result {
	sum := &Result{All: r.all.Load(), Seconds: r.p.Duration.Seconds(), Lost: r.lost.Load(), Latency: r.parts[0].latency}
	for i := range r.parts {
		sum.Messages += r.parts[i].messages
		if i > 0 {
			sum.Latency.Merge(r.parts[i].latency)
		}
	}
	return sum
}
