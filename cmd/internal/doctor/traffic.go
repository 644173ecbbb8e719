package doctor

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/machnet/machnet/cmd/internal/load"
	"github.com/machnet/machnet/go/control"
)

// ports are a range of which no port was seen to pass.
type ports struct{ first, last int }

// gap is the widest range within the whole in which none of the ports lies; whole is first to last.
func gap(seen []int, whole ports) ports {
	seen = append([]int{whole.first - 1}, seen...)
	seen = append(seen, whole.last+1)
	slices.Sort(seen)
	var widest ports
	for i := 1; i < len(seen); i++ {
		if seen[i]-seen[i-1] > widest.last-widest.first+2 {
			widest = ports{seen[i-1] + 1, seen[i] - 1}
		}
	}
	return widest
}

// tells says whether a gap between n ports that are drawn evenly from the whole is no chance: one as wide comes by it once in a million times.
func (p ports) tells(g ports, n int) bool {
	least := 1 - math.Pow(1e-6/float64(n+1), 1/float64(n))
	return float64(g.width()) > least*float64(p.width())
}

func (p ports) width() int { return p.last - p.first + 1 }

// beside is the wider of what a gap leaves of the whole.
func (p ports) beside(g ports) ports {
	below, above := ports{p.first, g.first - 1}, ports{g.last + 1, p.last}
	if below.width() > above.width() {
		return below
	}
	return above
}

// checkPorts looks at which UDP ports the packets of many connections go and come by. A connection that finds no way by some ports tries
// others, so those that do not pass are those that none ended up with.
func checkPorts(ctx context.Context, e *Env) Result {
	if r := e.needsPath(ctx); r != nil {
		return *r
	}
	var ours, theirs [2][]int // source and destination
	for _, c := range e.path.conns {
		asking, stop := context.WithTimeout(ctx, time.Second)
		s, err := c.Stats(asking)
		stop()
		if err != nil || s.UDP.Source == 0 {
			continue
		}
		ours[0], ours[1] = append(ours[0], int(s.UDP.Source)), append(ours[1], int(s.UDP.Destination))
		if s.PeerUDP.Source != 0 {
			theirs[0], theirs[1] = append(theirs[0], int(s.PeerUDP.Source)), append(theirs[1], int(s.PeerUDP.Destination))
		}
	}
	whole := ports{e.settings.UDPPorts[0], e.settings.UDPPorts[1]}
	expected := fmt.Sprintf("%d-%d both ways", whole.first, whole.last)
	if n := distinct(ours[0]); n < manyConnections/2 {
		return skip("connections go by %d different ports, those that are known to lead to the right queue: too few to tell", n)
	}
	for i, end := range []string{"source", "destination"} {
		way := gap(ours[i], whole)
		if !whole.tells(way, len(ours[i])) {
			continue
		}
		rest := whole.beside(way)
		r := Result{Status: Fail, Found: fmt.Sprintf("no packet passes on the way there whose %s port is %d-%d", end, way.first, way.last), Expected: expected,
			Advice: "or let them in at the peer: in the cloud's security group or firewall"}
		if rest.width() >= 16 {
			r.Command, _ = e.change(setPorts, fmt.Sprintf("%d-%d", rest.first, rest.last))
		}
		return r
	}
	// The peer's settings are not known; that it uses the same range is, where it uses no port outside.
	all := slices.Concat(theirs[0], theirs[1], []int{whole.first})
	back := ports{slices.Min(all), slices.Max(all)}
	if back.first >= whole.first && back.last <= whole.last {
		back = whole
	}
	for i, end := range []string{"source", "destination"} {
		if way := gap(theirs[i], back); distinct(theirs[i]) >= manyConnections/2 && back.tells(way, len(theirs[i])) {
			rest := back.beside(way)
			return Result{Status: Fail, Found: fmt.Sprintf("no packet passes on the way back whose %s port is %d-%d", end, way.first, way.last), Expected: expected,
				Advice: fmt.Sprintf("let them in here: in the cloud's security group or firewall; or set rss.udp_ports = \"%d-%d\" at %s: `machnet doctor --peer` there prints how", rest.first, rest.last, e.path.host)}
		}
	}
	if e.path.tried > len(e.path.conns)+manyConnections/16 {
		return Result{Status: Warn, Found: fmt.Sprintf("%d of %d connections could not be made in %v", e.path.tried-len(e.path.conns), e.path.tried, dialPatience), Expected: expected,
			Advice: "some of what lies between lets only some packets pass; look at loss"}
	}
	return ok("%d-%d both ways, by %d connections", whole.first, whole.last, len(e.path.conns))
}

func distinct(numbers []int) int {
	numbers = slices.Clone(numbers)
	slices.Sort(numbers)
	return len(slices.Compact(numbers))
}

const (
	// headers is what a packet is longer than its payload.
	headers = 76
	// mtuPatience is several times what two ends take to find out what passes between them.
	mtuPatience = 2 * time.Second
)

// checkPathMTU has a message there and back that takes one packet of the largest size. Where such packets do not pass the sidecars find out
// what does, and say so.
func checkPathMTU(ctx context.Context, e *Env) Result {
	if r := e.needsPath(ctx); r != nil {
		return *r
	}
	p := e.path
	if p.state == nil || p.noEcho != nil && p.echoes.TotalCount() == 0 {
		return skip("the connection said nothing of itself")
	}
	_ = p.conns[0].SetDeadline(time.Now().Add(mtuPatience))
	_, err := load.NewPinger(p.conns[0], p.state.UnitSize).Ping()
	state := p.look(ctx, e.socket())
	if err != nil || state == nil {
		return Result{Status: Fail, Found: fmt.Sprintf("a message of %d bytes did not come back in %v: %v", p.state.UnitSize, mtuPatience, err),
			Expected: fmt.Sprintf("packets of %d bytes (nic.mtu)", e.about.NIC.MTU), Advice: "look at peer and at loss; then try again"}
	}
	passing := state.UnitSize + headers
	inParts, _ := state.Counters.Get("parts_received")
	r := Result{Status: Fail, Expected: fmt.Sprintf("packets of %d bytes (nic.mtu)", e.about.NIC.MTU),
		Advice: "or raise the MTU of what lies between; the smaller nic.mtu of both ends counts"}
	switch {
	case state.UnitSize < p.state.UnitSize:
		r.Found = fmt.Sprintf("packets of %d bytes pass, and none that is larger", passing)
	case inParts > 0:
		r.Found = fmt.Sprintf("packets of %d bytes pass on the way there, and only shorter ones on the way back", passing)
		r.Advice = "raise the MTU of what lies between, or set a smaller nic.mtu; the smaller one of both ends counts"
		return r
	case passing < e.about.NIC.MTU:
		r.Status = Warn
		r.Found = fmt.Sprintf("packets of %d bytes pass: the peer takes no larger ones, or it is known that the path does not", passing)
	default:
		return ok("packets of %d bytes pass, both ways", e.about.NIC.MTU)
	}
	command, advice := e.change(setMTU, strconv.Itoa(passing))
	r.Command = command
	if command == "" {
		r.Advice = advice + "; " + r.Advice
	}
	return r
}

// What a zone of a cloud does: some 50 to 200 us, and the tail of a vCPU that was away.
const (
	usualRTT = time.Millisecond
	usualP99 = 10 * time.Millisecond
)

func checkRTT(ctx context.Context, e *Env) Result {
	if r := e.needsPath(ctx); r != nil {
		return *r
	}
	echoes := e.path.echoes
	if echoes.TotalCount() == 0 {
		return Result{Status: Fail, Found: fmt.Sprintf("connected, and no echo came: %v", e.path.noEcho), Expected: "echoes", Advice: "is it `machnet echo` that listens there?"}
	}
	p50, p99 := time.Duration(echoes.ValueAtQuantile(50)), time.Duration(echoes.ValueAtQuantile(99))
	r := Result{Status: OK, Found: fmt.Sprintf("p50 %.1f us, p99 %.1f us, of %d echoes of %d bytes", float64(p50)/1e3, float64(p99)/1e3, echoes.TotalCount(), echoSize),
		Expected: fmt.Sprintf("p50 at most %v, p99 at most %v: one zone of a cloud", usualRTT, usualP99)}
	if p50 > usualRTT || p99 > usualP99 {
		r.Status = Warn
		r.Advice = "put both hosts into one zone (AWS: a cluster placement group; Azure: a proximity placement group; GCP: a compact placement policy); if the median is low and the tail long, look at steal and core-isolation at both"
	}
	return r
}

func checkLoss(ctx context.Context, e *Env) Result {
	if r := e.needsPath(ctx); r != nil {
		return *r
	}
	s := e.path.state
	if s == nil {
		return skip("the connection said nothing of itself")
	}
	sent, _ := s.Counters.Get("units_sent")
	again, _ := s.Counters.Get("retransmitted")
	needless, _ := s.Counters.Get("needless") // had arrived: an acknowledgement was late, or lost
	lost := again - min(again, needless)
	percent := 100 * float64(lost) / float64(max(1, sent))
	r := Result{Status: OK, Found: fmt.Sprintf("%d of %d packets were lost on the way there (%.2f %%)", lost, sent, percent), Expected: "at most 0.1 %"}
	if percent <= 0.1 {
		return r
	}
	if r.Status = Warn; percent > 1 {
		r.Status = Fail
	}
	r.Advice = "the network loses them, or an end that gets no processor: look at steal, cores, and `ip -s link` of what lies between"
	if missed := e.grown(ctx, func(s *control.Statistics) control.Counters { return s.Port.Counters }, "rx_missed"); missed > 0 {
		r.Found += fmt.Sprintf("; our receive ring had no room for %d", missed)
		r.Command, r.Advice = e.change(setRing, strconv.Itoa(min(4096, 2*e.settings.Descriptors)))
	}
	return r
}

// grown is how much a counter has grown since before the first connection.
func (e *Env) grown(ctx context.Context, of func(*control.Statistics) control.Counters, name string) uint64 {
	now, err := control.Stats(ctx, e.socket())
	if err != nil || e.path == nil || e.path.before == nil {
		return 0
	}
	after, _ := of(now).Get(name)
	before, _ := of(e.path.before).Get(name)
	return after - min(before, after)
}

func checkOrder(ctx context.Context, e *Env) Result {
	if r := e.needsPath(ctx); r != nil {
		return *r
	}
	s := e.path.state
	if s == nil {
		return skip("the connection said nothing of itself")
	}
	received, _ := s.Counters.Get("units_delivered")
	early, _ := s.Counters.Get("out_of_order")
	percent := 100 * float64(early) / float64(max(1, received))
	r := Result{Status: OK, Found: fmt.Sprintf("%d of %d packets came ahead of their turn (%.2f %%)", early, received, percent), Expected: "at most 1 %; loss shows here, too"}
	if percent > 1 {
		r.Status = Warn
		r.Advice = "where the loss is low, what lies between sends packets of one flow by several ways: have it choose by addresses and ports (ECMP per flow, no per-packet balancing)"
	}
	return r
}

// queueStats is what a sidecar of several queues has counted, or, where there is none, the result instead of it.
func queueStats(ctx context.Context, e *Env) (*control.Statistics, Result) {
	switch {
	case e.about == nil:
		return nil, skip("no sidecar to ask")
	case e.about.NIC.Queues == 1:
		return nil, ok("not needed: one queue")
	}
	stats, err := control.Stats(ctx, e.socket())
	if err != nil {
		return nil, skip("%v", err)
	}
	return stats, Result{}
}

// checkHashed asks whether every queue gets packets, since the sidecar began.
func checkHashed(ctx context.Context, e *Env) Result {
	stats, instead := queueStats(ctx, e)
	if stats == nil {
		return instead
	}
	var silent []int
	var frames, searches, given uint64
	for i, engine := range stats.Engines {
		n, _ := engine.Counters.Get("rx_frames")
		if frames += n; n == 0 {
			silent = append(silent, i)
		}
		begun, _ := engine.Counters.Get("searches")
		up, _ := engine.Counters.Get("searches_given_up")
		searches, given = searches+begun, given+up
	}
	const few = 1000
	found := fmt.Sprintf("of %d frames, %d queues got some; %d of %d searches for ports that lead to a queue were given up", frames, len(stats.Engines)-len(silent), given, searches)
	switch {
	case frames < few:
		return skip("%d frames so far, and %d tell something: name a peer", frames, few)
	case len(silent) == 0 && given*20 <= searches:
		return ok("%s", found)
	}
	r := Result{Status: Fail, Found: found, Expected: "UDP ports that lead to every queue, at both ends: the NIC hashes them (RSS)"}
	r.Command, r.Advice = e.change(setEngines, "1")
	if r.Command != "" {
		r.Advice = "at both ends, if it was the other's NIC; connections work as they are, but their packets are handed over between engines (docs/rss.md)"
	}
	return r
}

// checkUniform compares with what an even hash does: a batch of probes misses with a chance of at most 1 in 20 (docs/rss.md).
func checkUniform(ctx context.Context, e *Env) Result {
	stats, instead := queueStats(ctx, e)
	if stats == nil {
		return instead
	}
	var searches, again uint64
	for _, engine := range stats.Engines {
		n, _ := engine.Counters.Get("searches")
		m, _ := engine.Counters.Get("searches_retried")
		searches, again = searches+n, again+m
	}
	const few = 20
	if searches < few {
		return skip("%d searches so far, and %d tell something", searches, few)
	}
	r := Result{Status: OK, Found: fmt.Sprintf("%d of %d searches needed more than a batch of probes", again, searches), Expected: "at most one of five"}
	if again*5 > searches {
		r.Status = Warn
		r.Command, r.Advice = e.change(setEngines, "1")
		r.Advice += "; where the NIC lets its hash be set: `ethtool -X` with equal weights, and `ethtool -N ... rx-flow-hash udp4 sdfn` before the sidecar takes it"
	}
	return r
}
