package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// setupRows runs a short measurement of set-ups.
func setupRows(t *testing.T, args ...string) []benchRow {
	t.Helper()
	c := startCommand(t, append([]string{"bench", "setup", "--json", "-"}, args...)...)
	if code := c.exit(t, 2*time.Minute); code != 0 {
		t.Fatalf("exit code %d: %s", code, c.errs)
	}
	if c.errs.String() != "" {
		t.Errorf("no terminal, but on standard error: %q", c.errs)
	}
	var rows []benchRow
	if err := json.Unmarshal([]byte(c.out.String()), &rows); err != nil {
		t.Fatalf("standard output is not JSON alone: %v", err)
	}
	c.leavesNothing(t)
	for _, r := range rows {
		const long = 100e6 // us, far more than any of these takes
		p50, p99 := r.number(t, "p50_us", 0.1, long), r.number(t, "p99_us", 0.1, long)
		if p999 := r.number(t, "p999_us", 0.1, long); p50 > p99 || p99 > p999 {
			t.Errorf("percentiles fall: %v", r)
		}
		for _, name := range []string{"first_batch", "packets", "packets_settled"} {
			if value, there := r[name]; !there || (value == nil) != (r["phase"] == "tcp") {
				t.Errorf("%s is %v: %v", name, value, r)
			}
		}
		if r["phase"] != "tcp" {
			r.number(t, "first_batch", 0, 1)
			r.number(t, "packets", 1, 100) // 2 and more, but sums may lack what was counted just now
		}
	}
	return rows
}

func phases(rows []benchRow) []string {
	var all []string
	for _, r := range rows {
		all = append(all, fmt.Sprintf("%v %v %v", r["link"], r["engines"], r["phase"]))
	}
	return all
}

func TestBenchSetupOverMemif(t *testing.T) {
	onAnyLink(t)
	rows := setupRows(t, "--first", "1", "--connections", "40", "--rounds", "2", "--engines", "1x1,2x2")
	all := slices.DeleteFunc(phases(rows), func(row string) bool { return strings.HasSuffix(row, "tcp") }) // those are root's
	if want := []string{"memif 1x1 first", "memif 1x1 pooled", "memif 2x2 first", "memif 2x2 pooled"}; !slices.Equal(all, want) {
		t.Errorf("rows %q, want %q", all, want)
	}
	// One engine needs no search, so a SYN and a SYN-ACK are all.
	rows[0].number(t, "first_batch", 1, 1)
	rows[1].number(t, "first_batch", 1, 1)
}

func TestBenchSetupOverVethBesideTCP(t *testing.T) {
	onAnyLink(t)
	needNamespaces(t)
	all := phases(setupRows(t, "--link", "veth", "--first", "0", "--connections", "20", "--rounds", "1", "--engines", "1x1", "--pause", "1ms"))
	if want := []string{"veth 1x1 pooled", "veth 1x1 tcp"}; !slices.Equal(all, want) {
		t.Errorf("rows %q, want %q", all, want)
	}
}

func TestBenchSetupInVirtualTime(t *testing.T) {
	onAnyLink(t)
	rows := setupRows(t, "--link", "sim", "--connections", "50", "--engines", "1x1,2x2")
	if all, want := phases(rows), []string{"sim 1x1 first", "sim 1x1 pooled", "sim 2x2 first", "sim 2x2 pooled"}; !slices.Equal(all, want) {
		t.Errorf("rows %q, want %q", all, want)
	}
}

func TestBenchSetupShowsATable(t *testing.T) {
	onAnyLink(t)
	c := startCommand(t, "bench", "setup", "--first", "0", "--connections", "10", "--rounds", "1", "--engines", "1x1")
	if code := c.exit(t, time.Minute); code != 0 {
		t.Fatalf("exit code %d: %s", code, c.errs)
	}
	for _, want := range []string{"in the first batch", "p50 / TCP", "pooled", "1x1", "10 connections each"} {
		if !strings.Contains(c.out.String(), want) {
			t.Errorf("no %q in %s", want, c.out)
		}
	}
}
