package e2e

import (
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// counters asks a sidecar, which must log at level info, for its counters: sums over the engines, and the NIC's with nic_
// before their names. Those that are zero are left out.
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
			t.Fatalf("machnetd %s tells no counters in %v", s.ip, patience)
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
