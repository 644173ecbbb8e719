package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/machnet/machnet/cmd/internal/procs"
)

func TestHogsRefusesWhatCannotBeMeasured(t *testing.T) {
	for flags, want := range map[string]string{
		"--hogs -1":               `--hogs "-1": a list of numbers from 0 to 16`,
		"--hogs 17":               "from 0 to 16",
		"--hogs ,":                "from 0 to 16",
		"--size 7":                "from 8 to 65536",
		"--size 65537":            "from 8 to 65536",
		"--link tcp":              `--link "tcp": use memif, veth, local`,
		"--link memif,memif":      "use memif, veth, local",
		"--rounds 0":              "at least one round",
		"--duration 1ms":          "a round lasts at least 10ms",
		"--gap -1us":              "--gap -1µs: 0s to the --duration",
		"--gap 3s --duration 1s":  "--gap 3s: 0s to the --duration",
		"--link local surplus":    `"surplus": this command takes flags only`,
		"--json /nonexistent/row": "--json: open /nonexistent/row",
	} {
		err := runHogs(t.Context(), strings.Fields(flags), io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("bench hogs %s: %v, want %q", flags, err, want)
		}
	}
}

func TestHogsRowsAreMediansAndTheirRatios(t *testing.T) {
	of := func(p50s ...float64) (all []sample) {
		for _, p50 := range p50s {
			all = append(all, sample{p50: p50, p99: 10 * p50, rate: 100 / p50, sleepsApp: p50 / 4, sleepsSidecar: p50 / 8})
		}
		return all
	}
	for hogs, asked := range map[int]float64{0: 0, 1: 1.5, 3: 1.5, 4: 1, 16: 1} {
		r := newHogsRow(hogsConfig{rounds: 3, gap: 100 * time.Microsecond}, linkVeth, placementOwn, 64, hogs, of(30, 900, 20), of(40, 10, 60))
		if r.P50 != 30 || r.P99 != 300 || r.TCPP50 != 40 || r.TCPP99 != 400 || r.RatioP50 != 0.75 || r.RatioP99 != 0.75 {
			t.Errorf("%+v: want medians of 30 and 300 us, of TCP 40 and 400, and their ratios", r)
		}
		if r.Gap != 100 || r.SleepsApp != 7.5 || r.SleepsSidecar != 3.75 || r.SleepsTCP != 10 {
			t.Errorf("%+v: want a gap of 100 us, and 7.5, 3.75 and TCP's 10 sleeps", r)
		}
		if (r.AskedP50 == nil) != (asked == 0) || r.AskedP50 != nil && *r.AskedP50 != asked || r.AskedP99 != 1.2 {
			t.Errorf("beside %d hogs p50 %s and p99 %.1f of TCP are asked, want %.1f (0: none) and 1.2", hogs, times(r.AskedP50), r.AskedP99, asked)
		}
	}
}

// Scripts that judge the figures look for these.
func TestHogsRowsHaveTheirNames(t *testing.T) {
	text, err := json.Marshal(newHogsRow(hogsConfig{rounds: 1}, linkMemif, placementOwn, 64, 0, []sample{{p50: 1, p99: 2}}, []sample{{p50: 1, p99: 2}}))
	if err != nil {
		t.Fatal(err)
	}
	var row map[string]any
	if err := json.Unmarshal(text, &row); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"link", "size", "hogs", "p50_us", "p99_us", "tcp_p50_us", "tcp_p99_us", "ratio_p50_vs_tcp", "ratio_p99_vs_tcp", "asked_p50", "asked_p99"} {
		if _, there := row[name]; !there {
			t.Errorf("no %q in %s", name, text)
		}
	}
	if row["asked_p50"] != nil {
		t.Errorf("without hogs asked_p50 is %v, want null", row["asked_p50"])
	}
}

func TestAHogKeepsItsCoreBusyUntilItsInputEnds(t *testing.T) {
	in, end := io.Pipe()
	ended := make(chan error)
	out := new(bytes.Buffer)
	before := ownCPU()
	go func() { ended <- workerHog(context.Background(), in, json.NewEncoder(out)) }()
	for deadline := time.Now().Add(20 * time.Second); ownCPU() < before+50*time.Millisecond; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("in 20 s a hog has not computed for 50 ms")
		}
	}
	_ = end.Close()
	select {
	case err := <-ended:
		if err != nil || !strings.Contains(out.String(), `"ready":true`) {
			t.Errorf("the hog ended with %v and said %q", err, out)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the hog goes on though its input has ended")
	}
}

// Only those that are let loose take a core.
func TestThePenLetsAsManyHogsLooseAsAreAsked(t *testing.T) {
	here := func() (p *procs.Process) {
		p, _, _, err := procs.Start(procs.Spec{Name: "hog", Path: "/bin/sh", Args: []string{"-c", "while :; do :; done"}, Core: -1})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Stop(0) })
		return p
	}
	herd := pen{{{Process: here()}, {Process: here()}}}
	spent := func(i int) time.Duration {
		d, err := herd[0][i].CPU()
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	for _, loose := range []int{1, 2, 0} {
		herd.let(loose)
		time.Sleep(20 * time.Millisecond) // signals arrive when the hogs run
		for i := range herd[0] {
			before := spent(i)
			if i >= loose {
				time.Sleep(50 * time.Millisecond)
				if took := spent(i) - before; took > 5*time.Millisecond {
					t.Errorf("hog %d has computed for %v with %d let loose", i, took, loose)
				}
				continue
			}
			for deadline := time.Now().Add(20 * time.Second); spent(i) == before; time.Sleep(5 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("hog %d stands still with %d let loose", i, loose)
				}
			}
		}
	}
}
