package e2e

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// Machnet and TCP are measured beside each number of hogs, over each link, and no hog stays.
func TestBenchHogs(t *testing.T) {
	c := startCommand(t, "bench", "hogs", "--hogs", "0,1", "--link", "memif,local", "--size", "64", "--rounds", "1", "--duration", "50ms", "--gap", "10us", "--json", "-")
	if code := c.exit(t, time.Minute); code != 0 {
		t.Fatalf("exit code %d: %s", code, c.errs)
	}
	var rows []benchRow
	if err := json.Unmarshal([]byte(c.out.String()), &rows); err != nil || len(rows) != 4 {
		t.Fatalf("%d rows, %v: %s", len(rows), err, c.out)
	}
	for i, r := range rows {
		if link, hogs := []string{"memif", "local"}[i/2], float64(i%2); r["link"] != link || r["hogs"] != hogs || r["size"] != 64.0 || r["gap_us"] != 10.0 {
			t.Errorf("row %d is %v, want %s beside %g hogs", i, r, link, hogs)
		}
		for _, name := range []string{"p50_us", "p99_us", "msgs_per_s", "tcp_p50_us", "tcp_p99_us", "tcp_msgs_per_s", "ratio_p50_vs_tcp", "ratio_p99_vs_tcp", "asked_p99", "tcp_sleeps_per_msg"} {
			r.number(t, name, 1e-6, 1e9)
		}
		for _, name := range []string{"sleeps_per_msg_app", "sleeps_per_msg_sidecar"} {
			r.number(t, name, 0, 1e3)
		}
		for _, p := range []string{"p50", "p99"} {
			want := r.number(t, p+"_us", 1e-6, 1e9) / r.number(t, "tcp_"+p+"_us", 1e-6, 1e9)
			r.number(t, "ratio_"+p+"_vs_tcp", want*0.999, want*1.001)
		}
		for _, of := range []string{"", "tcp_"} {
			if p50, p99 := r.number(t, of+"p50_us", 1e-6, 1e9), r.number(t, of+"p99_us", 1e-6, 1e9); p99 <= p50 {
				t.Errorf("row %d: %sp99 of %g beside a p50 of %g", i, of, p99, p50)
			}
		}
	}
	c.leavesNothing(t)
}

// Every path has rates of all arms and ratios of these; a path that loses frames has lost some.
func TestBenchPaths(t *testing.T) {
	onAnyLink(t)
	needNamespaces(t)
	for name, list := range map[string]string{"streams": "kernel,loss-5,shared-tick-500us", "messages": "loss-3-messages"} {
		t.Run(name, func(t *testing.T) { benchPaths(t, list) })
	}
	c := startCommand(t, "bench", "paths", "--paths", "relay,moon")
	if code := c.exit(t, patience); code != 2 || !strings.Contains(c.errs.String(), `"moon": use kernel, relay, tick-100us`) {
		t.Fatalf("exit code %d: %s", code, c.errs)
	}
}

// benchPaths measures some paths, and checks that the rows are whole and agree with themselves.
func benchPaths(t *testing.T, list string) {
	t.Helper()
	c := startCommand(t, "bench", "paths", "--paths", list, "--rounds", "1", "--duration", "100ms", "--json", "-")
	if code := c.exit(t, 3*time.Minute); code != 0 {
		t.Fatalf("exit code %d: %s", code, c.errs)
	}
	var rows []benchRow
	if err := json.Unmarshal([]byte(c.out.String()), &rows); err != nil {
		t.Fatalf("%v: %s", err, c.out)
	}
	documented := fieldsOf(t, "Real paths: `machnet bench paths`")
	var names []string
	for _, r := range rows {
		explained(t, documented, r)
		name, _ := r["path"].(string)
		names = append(names, name)
		rates := map[string]float64{}
		for _, arm := range []string{"ours", "yield", "tcp", "direct"} {
			rates[arm] = r.number(t, arm+"_mb_s", 1e-3, 1e6)
		}
		near := func(field string, want float64) {
			t.Helper()
			r.number(t, field, want*0.999, want*1.001)
		}
		near("ratio_vs_tcp", rates["ours"]/rates["tcp"])
		near("ratio_yield", rates["yield"]/rates["ours"])
		near("ratio_asked", rates["ours"]/min(r.number(t, "asked_of_tcp", 0.8, 1)*rates["tcp"], 0.9*rates["direct"]))
		if name == "loss-3-messages" {
			if r["sim_mb_s"] != nil || r["ratio_sim"] != nil {
				t.Errorf("%s: the simulator sends one way, and says %v", name, r["sim_mb_s"])
			}
		} else {
			near("ratio_sim", r.number(t, "sim_mb_s", 1e-3, 1e6)/rates["ours"])
		}
		lossy := strings.HasPrefix(name, "loss-")
		if lost := r.number(t, "lost", 0, 1e9); (lost > 0) != lossy {
			t.Errorf("%s: %g frames were lost", name, lost)
		}
		// Of a short stream every frame may come through; of 16 MiB both ways some hundred are lost.
		if again := r.number(t, "retransmitted", 0, 1e9); name == "loss-3-messages" && again == 0 {
			t.Errorf("%s: nothing was sent again", name)
		}
		for _, field := range []string{"ours_echo_p50_us", "ours_echo_p99_us", "tcp_echo_p50_us", "tcp_echo_p99_us"} {
			if _, measured := r[field].(float64); measured != lossy {
				t.Errorf("%s: %s is %v", name, field, r[field])
			}
		}
		// Who asks for short measurements gets no long ones.
		r.number(t, "duration_s", 0.1, 0.2)
		if via := map[bool]string{true: "kernel", false: "relay"}[name == "kernel"]; r["via"] != via {
			t.Errorf("%s leads via the %v", name, r["via"])
		}
	}
	if got := strings.Join(names, ","); got != list {
		t.Errorf("paths %q, want %q", got, list)
	}
	c.leavesNothing(t)
}
