package procs

import (
	"testing"
	"time"
)

func TestTheMachinesTimeIsThatOfProcessesAndWhatWasStolen(t *testing.T) {
	got, err := parseMachineCPU([]byte("cpu  100 20 3 99999 5000 600 7000 40 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n"))
	if want := 1630 * time.Millisecond; err != nil || got != want {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	for _, bad := range []string{"", "cpu0 1 2 3 4 5 6 7 8", "cpu 1 2 3", "cpu a 2 3 4 5 6 7 8 9"} {
		if _, err := parseMachineCPU([]byte(bad)); err == nil {
			t.Errorf("%q was understood", bad)
		}
	}
}

func TestTheMachinesTimeGrowsWithOurs(t *testing.T) {
	before, err := MachineCPU()
	if err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); ; {
		if now, err := MachineCPU(); err != nil || now > before {
			return
		}
		if time.Since(began) > 20*time.Second {
			t.Fatalf("still %v after 20 s of looking", before)
		}
	}
}
