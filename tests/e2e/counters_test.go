package e2e

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/machnet/machnet/go/control"
)

// counters asks a sidecar for its counters: sums over the engines, and the NIC's with nic_ before their names. What this NIC's driver does
// not count is left out.
func (s *sidecar) counters(t *testing.T) map[string]int {
	t.Helper()
	sums := map[string]int{}
	for of, values := range s.countersOf(t) {
		for name, n := range values {
			if of == "nic" {
				name = "nic_" + name
			}
			sums[name] += n
		}
	}
	return sums
}

// countersOf asks for the counters of "engine 0" and so on, and of "nic".
func (s *sidecar) countersOf(t *testing.T) map[string]map[string]int {
	t.Helper()
	stats := s.stats(t)
	all := map[string]map[string]int{"nic": counted(stats.Port.Counters)}
	for _, e := range stats.Engines {
		all[fmt.Sprint("engine ", e.Engine)] = counted(e.Counters)
	}
	return all
}

func (s *sidecar) stats(t *testing.T) *control.Statistics {
	t.Helper()
	stats, err := control.Stats(within(t), s.socket)
	if err != nil {
		t.Fatal(err)
	}
	return stats
}

// within is a context that ends when a test has waited for too long.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func counted(counters control.Counters) map[string]int {
	values := map[string]int{}
	for name := range counters {
		if n, ok := counters.Get(name); ok {
			values[name] = int(n)
		}
	}
	return values
}

func TestASignalHasTheCountersWrittenToTheLog(t *testing.T) {
	onAnyLink(t)
	p := newPair(t, "--log", "info")
	a, b := connect(t, p.a.attach(t), p.b.attach(t))
	if err := a.Send([]byte("one unit")); err != nil {
		t.Fatal(err)
	}
	if _, err := b.ReadMessage(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	before := p.a.countersOf(t)
	// The sums over the connections are made once a second.
	for deadline := time.Now().Add(patience); before["engine 0"]["flow_units_sent"] == 0; before = p.a.countersOf(t) {
		if time.Now().After(deadline) {
			t.Fatalf("no unit was sent: %v", before)
		}
		time.Sleep(10 * time.Millisecond)
	}
	logged := p.a.loggedCounters(t)
	for of, counters := range before {
		for name, n := range counters {
			// In the log those that are zero are left out, and meanwhile all may have grown.
			if n > logged[of][name] && name != "flows" {
				t.Errorf("%s: %s is %d in the log, and was %d before", of, name, logged[of][name], n)
			}
		}
	}
	for _, name := range []string{"connects", "tx_units", "flow_units_sent"} {
		if logged["engine 0"][name] != 1 {
			t.Errorf("the log says %s=%d, want 1: %v", name, logged["engine 0"][name], logged)
		}
	}
}

// loggedCounters has a sidecar, which must log at level info, write its counters to the log, and reads them there.
func (s *sidecar) loggedCounters(t *testing.T) map[string]map[string]int {
	t.Helper()
	before := len(s.out.String())
	if err := s.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		text := s.out.String()[before:]
		if at := strings.Index(text, "stats: nic:"); at >= 0 && strings.Contains(text[at:], "\n") {
			return parseCounters(t, text)
		}
		if time.Now().After(deadline) {
			t.Fatalf("machnetd %s logs no counters in %v", s.ip, patience)
		}
	}
}

// parseCounters reads lines like "... stats: engine 0: rounds=7 sleeps=2".
func parseCounters(t *testing.T, text string) map[string]map[string]int {
	t.Helper()
	all := map[string]map[string]int{}
	for line := range strings.Lines(text) {
		_, line, _ = strings.Cut(line, "stats: ")
		of, values, found := strings.Cut(line, ":")
		if !found {
			continue
		}
		all[of] = map[string]int{}
		for _, pair := range strings.Fields(values) {
			name, value, found := strings.Cut(pair, "=")
			if !found {
				continue // "nothing yet"
			}
			n, err := strconv.Atoi(value)
			if err != nil {
				t.Fatalf("counter %q: %v", pair, err)
			}
			all[of][name] = n
		}
	}
	return all
}
