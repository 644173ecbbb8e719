package procs

import (
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/machnet/machnet/cmd/netns"
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

func TestAProcessRunsInItsNamespace(t *testing.T) {
	if err := netns.Available(); err != nil {
		t.Skip(err)
	}
	n, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	here, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	networkOf := func(n *netns.Namespace) string {
		p, _, out, err := Start(Spec{Name: "reader", Path: "/bin/readlink", Args: []string{"/proc/self/ns/net"}, Core: -1, Namespace: n})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Stop(time.Second)
		text, err := io.ReadAll(out)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(text))
	}
	if there := networkOf(n); there == here || there == "" {
		t.Errorf("a process with a namespace is in %q, and this one in %q", there, here)
	}
	if there := networkOf(nil); there != here {
		t.Errorf("a process without a namespace is in %q, and this one in %q", there, here)
	}
}
