package procs

import (
	"io"
	"strings"
	"testing"
	"time"
)

func TestStopEndsAProcessThatIgnoresSIGTERM(t *testing.T) {
	p, _, out, err := Start(Spec{Name: "stubborn", Path: "/bin/sh", Args: []string{"-c", "trap '' TERM; echo ready; while :; do sleep 1; done"}, Core: -1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	p.Stop(50 * time.Millisecond)
	select {
	case <-p.Done():
	default:
		t.Fatal("Stop returned before the process had ended")
	}
}

func TestExitQuotesTheLastWords(t *testing.T) {
	p, _, _, err := Start(Spec{Name: "failing", Path: "/bin/sh", Args: []string{"-c", "echo no such device >&2; exit 3"}, Core: -1})
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Exit().Error(); !strings.Contains(got, "failing ended (exit status 3): no such device") {
		t.Fatalf("Exit = %q", got)
	}
}

func TestCPUCountsWhatAProcessBurns(t *testing.T) {
	cores, err := Cores()
	if err != nil {
		t.Fatal(err)
	}
	p, _, _, err := Start(Spec{Name: "burner", Path: "/bin/sh", Args: []string{"-c", "while :; do :; done"}, Core: cores[0]})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop(0)
	for began := time.Now(); time.Since(began) < 20*time.Second; time.Sleep(10 * time.Millisecond) {
		if spent, err := p.CPU(); err != nil {
			t.Fatal(err)
		} else if spent > 20*time.Millisecond {
			return
		}
	}
	t.Fatal("a process that burns a core shows no CPU time after 20 s")
}
