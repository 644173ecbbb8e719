package main

import (
	"strings"
	"testing"
	"time"

	"github.com/machnet/machnet/cmd/internal/load"
)

func TestRatiosAreToTCPInTheirPlacementAndToItsBestWhereItWasMeasured(t *testing.T) {
	for name, tc := range map[string]struct {
		arms     []*arm // p50 of the first is 1 us, of the next 2, and so on
		of, best float64
	}{
		"two hosts": {[]*arm{{transport: "machnet", placement: placementOwn}, {transport: "tcp", placement: placementOwn}, {transport: "tcp", placement: placementSame}}, 1. / 2, 1. / 3},
		"one host":  {[]*arm{{transport: "machnet", placement: placementEngine}, {transport: "tcp", placement: placementSame}}, 1. / 2, 1. / 2},
		"unbound":   {[]*arm{{transport: "machnet", placement: placementAsIs}, {transport: "tcp", placement: placementAsIs}}, 1. / 2, 0},
		"no TCP":    {[]*arm{{transport: "machnet", placement: placementOwn}, {transport: "udp", placement: placementOwn}}, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var samples [][]sample
			for i := range tc.arms {
				samples = append(samples, []sample{{p50: float64(i + 1)}})
			}
			r := makeRows(benchConfig{rounds: 1}, tc.arms, driveOrder{Params: load.Params{Size: 64, Inflight: 1}, Connections: 1}, samples)[0]
			for which, ratio := range map[string]struct {
				got  *float64
				want float64 // 0: none
			}{"in its placement": {r.P50VsTCP, tc.of}, "at its best": {r.P50VsTCPBest, tc.best}} {
				if (ratio.got == nil) != (ratio.want == 0) || ratio.got != nil && *ratio.got != ratio.want {
					t.Errorf("a ratio of %s to TCP %s, want %.2f (0: none)", times(ratio.got), which, ratio.want)
				}
			}
		})
	}
}

func TestTheTableTellsWhatTCPWentOver(t *testing.T) {
	for name, tc := range map[string]struct {
		link, kernel, want string
	}{
		"as the sidecars":     {linkVeth, kernelVeth, ""},
		"loopback":            {linkMemif, kernelLoopback, ""},
		"frames":              {linkVeth, kernelFrames, "TCP and UDP: over veth without segmentation offload.\n"},
		"veth beside memif":   {linkMemif, kernelVeth, "TCP and UDP: over veth.\n"},
		"frames beside memif": {linkMemif, kernelFrames, "TCP and UDP: over veth without segmentation offload.\n"},
	} {
		t.Run(name, func(t *testing.T) {
			out := new(strings.Builder)
			writeTable(out, benchConfig{link: tc.link, kernel: tc.kernel, conns: []int{1}, rounds: 1, duration: time.Second}, nil)
			if said := strings.Contains(out.String(), "TCP and UDP:"); said != (tc.want != "") || !strings.Contains(out.String(), tc.want) {
				t.Errorf("the table says %q, want %q in it", out, tc.want)
			}
		})
	}
}

func TestTheTableSaysWhenTheMachineWasTooBusy(t *testing.T) {
	for percent, want := range map[float64]string{
		0: "", 14: "", 70: "THE MACHINE WAS BUSY: what has nothing to do with this measurement used 70 % of a core.",
	} {
		out := new(strings.Builder)
		writeTable(out, benchConfig{conns: []int{1}, rounds: 1, duration: time.Second}, []row{{Strangers: percent}})
		if said := strings.Contains(out.String(), "BUSY"); said != (want != "") || !strings.Contains(out.String(), want) {
			t.Errorf("with %v %% the table says %q, want %q in it", percent, out, want)
		}
	}
}
