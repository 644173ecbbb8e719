package main

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/machnet/machnet/cmd/internal/load"
	"github.com/machnet/machnet/cmd/internal/procs"
)

// TestMain is a worker's stand-in when it is started as one: it answers each command with the next of the results it was given,
// and burns burnt of processor time before the first.
func TestMain(m *testing.M) {
	results, isWorker := os.LookupEnv("MACHNET_TEST_RESULTS")
	if !isWorker {
		os.Exit(m.Run())
	}
	commands, lines := bufio.NewScanner(os.Stdin), strings.Split(results, "\n")
	for i := 0; commands.Scan(); i++ {
		if i == 0 {
			for began := ownCPU(); ownCPU() < began+burnt; {
			}
		}
		os.Stdout.WriteString(lines[min(i, len(lines)-1)] + "\n")
	}
}

const burnt = 300 * time.Millisecond

func ownCPU() time.Duration {
	spent, err := procs.CPU(os.Getpid())
	if err != nil {
		panic(err)
	}
	return spent
}

// fakeArm is an arm whose client measures these results, one after the other.
func fakeArm(t *testing.T, results ...workResult) (*rig, *arm) {
	t.Helper()
	var lines []string
	for _, result := range results {
		latency := load.NewHistogram()
		_ = latency.RecordValue(1000)
		var err error
		if result.Latency, err = latency.Encode(hdrhistogram.V2CompressedEncodingCookieBase); err != nil {
			t.Fatal(err)
		}
		line, err := json.Marshal(workerLine{Result: &result})
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, string(line))
	}
	t.Setenv("MACHNET_TEST_RESULTS", strings.Join(lines, "\n"))
	r, _, err := newRig(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.close)
	a := &arm{transport: "udp", placement: placementAsIs, connections: 1}
	if a.client, err = r.startWorker("drive", "udp client", endpoint{transport: "udp"}, "", -1); err != nil {
		t.Fatal(err)
	}
	return r, a
}

func TestARunThatWasTooShortCountsOnlyByItsLosses(t *testing.T) {
	r, a := fakeArm(t, workResult{Messages: 1, All: 1, Lost: 3, Seconds: 1}, workResult{Messages: 10, All: 10, Lost: 4, Seconds: 1})
	s, err := r.measure(t.Context(), a, driveOrder{Params: load.Params{Size: 64, Inflight: 2, Duration: time.Second}, Connections: 1})
	if err != nil {
		t.Fatal(err)
	}
	if spent := time.Duration(s.cpuApp * 10 * 1e3); spent > burnt/2 {
		t.Errorf("ten echoes took %v of processor time, of which %v belong to the run before", spent, burnt)
	}
	if s.lost != 7 || s.rate != 10 {
		t.Errorf("%d lost, %g echoes/s; want 3 + 4 and the second run's 10", s.lost, s.rate)
	}
}

func TestTheLongestRunWithoutAnEchoIsTheOneTold(t *testing.T) {
	r, a := fakeArm(t, workResult{Seconds: 1})
	_, err := r.measure(t.Context(), a, driveOrder{Params: load.Params{Size: 64, Inflight: 2, Duration: time.Second}, Connections: 1})
	if err == nil || !strings.Contains(err.Error(), "no echo of 64 bytes came back in 32s") {
		t.Errorf("measure = %v, want 32 s named", err)
	}
}

func TestPaperSetupsThatWereTriedAgainAreNoSuccess(t *testing.T) {
	h := load.NewHistogram()
	for _, took := range []time.Duration{50 * time.Microsecond, 90 * time.Millisecond, 300100 * time.Microsecond, 600 * time.Millisecond} {
		if err := h.RecordValue(took.Nanoseconds()); err != nil {
			t.Fatal(err)
		}
	}
	for paper, want := range map[bool]uint64{true: 2, false: 0} {
		if c := (setupConfig{paper: paper}); c.triedAgain(h) != want {
			t.Errorf("paper %v: %d were tried again, want %d", paper, c.triedAgain(h), want)
		}
	}
}
