package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strconv"
	"testing"
	"time"

	"github.com/machnet/machnet/go/machnet"
)

// Each side's sidecar draws a key for the hash of the other's NIC, and nobody tells it: the engines find out which pairs of UDP ports lead
// where. Whatever engines two applications are on, their data comes in on their engines' queues once that is known.
func TestEnginesOfBothSidesFindEachOthersQueues(t *testing.T) {
	onAnyLink(t)
	for _, engines := range [][2]int{{1, 1}, {1, 4}, {2, 2}, {3, 2}, {4, 4}} {
		t.Run(fmt.Sprintf("%dx%d", engines[0], engines[1]), func(t *testing.T) {
			folder := shortTempDir(t)
			p := newPairOn(t, folder, memifMatrix(folder, engines[0], engines[1]))
			conns := everyEngineToEveryEngine(t, p, engines[0], engines[1])
			settle(t, p, conns)
			for side, s := range []*sidecar{p.a, p.b} {
				counters, many := s.counters(t), engines[1-side] > 1
				if many && counters["pairs_verified"] == 0 || counters["searches_given_up"] > 0 {
					t.Errorf("sidecar %s: %d pairs verified, %d searches given up, and its peer has %d queues",
						s.ip, counters["pairs_verified"], counters["searches_given_up"], engines[1-side])
				}
			}
		})
	}
}

// settle uses the connections until nothing comes in on a wrong queue any more.
func settle(t *testing.T, p *pair, conns []*machnet.Conn) {
	t.Helper()
	// Searches may be under way at first, and a machine that is short of cores has connections take another path for want of
	// answers; apart from that nothing comes in on a wrong queue.
	deadline := time.Now().Add(patience)
	last := onWrongQueues(t, p)
	for still, settled := 0, false; still < 3; {
		echoOnAll(t, conns, 20)
		now := onWrongQueues(t, p)
		switch {
		case now == last:
			still, settled = still+1, true
		case now.repathed == last.repathed && settled:
			t.Fatalf("on a wrong queue, handed over, and moved for want of answers were %v, are %v", last, now)
		default:
			still, settled = 0, false
		}
		if last = now; time.Now().After(deadline) {
			t.Fatalf("packets still come in on wrong queues: %v", now)
		}
	}
}

// memifMatrix is a memif between sidecars of a and b engines.
func memifMatrix(folder string, a, b int) *wire {
	w := memifWire(folder)
	w.a.device = append(w.a.device, "--engines", strconv.Itoa(a), "--memif-peer-queues", strconv.Itoa(b))
	w.b.device = append(w.b.device, "--engines", strconv.Itoa(b), "--memif-peer-queues", strconv.Itoa(a))
	return w
}

// everyEngineToEveryEngine gives connections from each engine of a's to each of b's, which echo, and some the other way round.
func everyEngineToEveryEngine(t *testing.T, p *pair, a, b int) []*machnet.Conn {
	t.Helper()
	var here, there []*machnet.Stack
	for i := range a {
		here = append(here, p.a.attachTo(t, i))
	}
	for i := range b {
		there = append(there, p.b.attachTo(t, i))
	}
	var conns []*machnet.Conn
	join := func(from, to []*machnet.Stack) {
		for _, server := range to {
			l := listen(t, server)
			go echoEach(l)
			for _, client := range from {
				conns = append(conns, dial(t, client, l.Addr()))
			}
		}
	}
	join(here, there)
	join(there, here[:1])
	return conns
}

// attachTo attaches to one engine.
func (s *sidecar) attachTo(t testing.TB, engine int) *machnet.Stack {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	stack, err := machnet.Attach(ctx, machnet.Config{Socket: s.socket, Engine: machnet.OnEngine(engine)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stack.Close() })
	return stack
}

// echoOnAll has each connection bring back that many messages of several sizes, byte for byte.
func echoOnAll(t *testing.T, conns []*machnet.Conn, messages int) {
	t.Helper()
	for i, c := range conns {
		_ = c.SetDeadline(time.Now().Add(patience))
		for n := range messages {
			sent := bytes.Repeat([]byte{byte(i), byte(n), 7}, 1+(n*n*7)%1500)
			if _, err := c.Write(sent); err != nil {
				t.Fatalf("connection %d: %v", i, err)
			}
			got := make([]byte, len(sent))
			if _, err := io.ReadFull(c, got); err != nil {
				t.Fatalf("connection %d: %v", i, err)
			}
			if !bytes.Equal(got, sent) {
				t.Fatalf("connection %d brought back something else", i)
			}
		}
	}
}

// taken is what both sidecars together count of packets on wrong queues.
type taken struct{ misdirected, handed, repathed int }

func onWrongQueues(t *testing.T, p *pair) (sum taken) {
	t.Helper()
	for _, s := range []*sidecar{p.a, p.b} {
		counters := s.counters(t)
		sum.misdirected += counters["misdirected"]
		sum.handed += counters["handover_in"]
		sum.repathed += counters["repathed"]
	}
	return sum
}
