package main

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestRatiosOfPathsAreThoseOfEachRound(t *testing.T) {
	rates := func(each ...float64) (all []pathSample) {
		for _, rate := range each {
			all = append(all, pathSample{rate: rate, echo50: rate, echo99: 2 * rate, retransmitted: 3 * rate, lost: rate})
		}
		return all
	}
	row := namedPath{name: "p", asked: 0.8, echo: true, least: 3 * time.Second}
	got := makePathRow(pathsConfig{rounds: 3, duration: usualDuration}, row, map[string][]pathSample{
		// The machine was half as fast in the second round, for all.
		armOurs: rates(80, 40, 60), armYield: rates(40, 20, 60), armTCP: rates(100, 50, 100), armDirect: rates(1000, 500, 10),
	})
	for name, tc := range map[string]struct{ got, want float64 }{
		"ours":          {got.Ours, 60},
		"tcp":           {got.TCP, 100},
		"ratio to tcp":  {got.VsTCP, 0.8},
		"ratio asked":   {got.Asked, 1}, // the rounds': 1, 1, and 60 of 9 asked
		"ratio yield":   {got.VsYield, 0.5},
		"least of ours": {got.OursSpread[0], 40},
		"most of ours":  {got.OursSpread[1], 80},
		"echo":          {*got.OursEcho99, 120},
		"TCP's echo":    {*got.TCPEcho50, 100},
		"sent again":    {got.Retransmitted, 180},
		"lost":          {got.Lost, 60},
		"duration":      {got.Duration, 3},
	} {
		if math.Abs(tc.got-tc.want) > 1e-9 {
			t.Errorf("%s is %v, want %v", name, tc.got, tc.want)
		}
	}
	if even := middle([]float64{1, 2, 4, 9}); even != 3 {
		t.Errorf("the median of 1, 2, 4 and 9 is %v", even)
	}
}

func TestAPathIsMeasuredForAsLongAsItNeedsAndNotInAHurry(t *testing.T) {
	row := namedPath{least: 2 * usualDuration}
	for asked, want := range map[time.Duration]time.Duration{
		usualDuration: 2 * usualDuration, 3 * usualDuration: 3 * usualDuration, usualDuration / 20: usualDuration / 10,
	} {
		if got := row.lasts(asked); got != want {
			t.Errorf("of %v asked it takes %v, want %v", asked, got, want)
		}
	}
	if got := (namedPath{}).lasts(usualDuration / 2); got != usualDuration/2 {
		t.Errorf("what needs no long one takes %v", got)
	}
}

func TestEveryPathHasANameAndCanBe(t *testing.T) {
	all, err := choosePaths("")
	if err != nil || len(all) < 10 {
		t.Fatalf("%d paths, %v", len(all), err)
	}
	seen := map[pathShape]bool{}
	for i, p := range all {
		if err := p.path.Check(); err != nil {
			t.Errorf("%s: %v", p.name, err)
		}
		one, err := choosePaths(p.name)
		if err != nil || len(one) != 1 || one[0] != p {
			t.Errorf("%s names %v, %v", p.name, one, err)
		}
		// Each change of processes takes seconds.
		if shape := p.shape(); i > 0 && shape != all[i-1].shape() && seen[shape] {
			t.Errorf("%s is apart from the paths that could share its processes", p.name)
		}
		seen[p.shape()] = true
	}
	two, err := choosePaths("delay-1ms,relay")
	if err != nil || len(two) != 2 || two[0].name != "relay" {
		t.Errorf("two paths are %v, %v; want them in the table's order", two, err)
	}
	if _, err := choosePaths("relay,"); err == nil || !strings.Contains(err.Error(), `"": use kernel, relay`) {
		t.Errorf("a path without a name: %v", err)
	}
	if !slices.ContainsFunc(all, func(p namedPath) bool { return p.kernel }) || !slices.ContainsFunc(all, func(p namedPath) bool { return p.shared }) {
		t.Error("no path leads via the kernel, or none has its hosts on one core")
	}
}

func TestTheSimulatorIsAskedForTheSamePath(t *testing.T) {
	for name, want := range map[string]string{
		"kernel":            "path --delay 0 --jitter 0 --tick 0 --loss 0 --copies 0 --mtu 1500 --units 1024 --ring 256 --bytes 99 --seed 1 --relay 0",
		"loss-0.1":          "path --delay 100 --jitter 200 --tick 0 --loss 0.1 --copies 0 --mtu 1500 --units 1024 --ring 256 --bytes 99 --seed 1 --relay 5.5 --echo",
		"shared-tick-500us": "path --delay 0 --jitter 0 --tick 500 --loss 0 --copies 0 --mtu 1500 --units 1024 --ring 256 --bytes 99 --seed 1 --relay 5.5 --host-cores shared",
		"delay-1ms":         "path --delay 1000 --jitter 0 --tick 0 --loss 0 --copies 0 --mtu 1500 --units 4096 --ring 1024 --bytes 99 --seed 1 --relay 5.5",
		"rate-400mbit":      "path --delay 200 --jitter 0 --tick 0 --loss 0 --copies 0 --mtu 1500 --units 1024 --ring 256 --bytes 99 --seed 1 --relay 5.5 --rate 400",
		"loss-3-messages":   "",
	} {
		one, err := choosePaths(name)
		if err != nil {
			t.Fatal(err)
		}
		args, can := one[0].simArgs(99, 5.5)
		if got := strings.Join(args, " "); got != want || can != (want != "") {
			t.Errorf("%s: %q, %v; want %q", name, got, can, want)
		}
	}
}
