// Package doctor breaks what `machnet doctor` checks, on purpose and one thing at a time: it sees the check fail, executes the command that
// doctor prints, in the environment that is broken, and sees the check pass (`make test-doctor`; docs/doctor.md).
package doctor

import (
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/machnet/machnet/cmd/netns"
)

// breakage is one way to break what a check looks at.
type breakage struct {
	check string // its name
	how   string
	// broken makes the environment.
	broken func(t *testing.T) *world
	status string // that the check then has: "fail" or "warn"
	// outside says why no command of this machine mends it; then mend does what the advice says, or ends what the outside does. "": a command
	// does.
	outside string
	// alone is a figure that other tests would spoil; it is taken again where something else of the machine did.
	alone bool
	// mend is nil where the printed command is executed and nothing else.
	mend func(w *world)
}

func breakages() []breakage {
	return slices.Concat(machineBreakages(), deviceBreakages(), sidecarBreakages(), pathBreakages())
}

func TestEveryBreakageIsFoundAndMended(t *testing.T) {
	chosen(t)
	for _, b := range breakages() {
		t.Run(b.check+"/"+b.how, func(t *testing.T) {
			if !b.alone {
				t.Parallel()
			}
			w := b.broken(t)
			w.t = t
			row := w.row(b.check)
			found := row
			if row.Status != b.status {
				t.Fatalf("%s is %q while it is broken, want %q: %+v", b.check, row.Status, b.status, row)
			}
			t.Logf("found: %s; command: %s; advice: %s", row.Found, row.Command, row.Advice)
			switch {
			case b.outside == "" && row.Command == "":
				t.Fatalf("%s prints no command: %+v", b.check, row)
			case b.outside != "" && row.Advice == "":
				t.Fatalf("%s has neither command nor advice: %+v", b.check, row)
			case b.mend != nil:
				b.mend(w)
			default:
				w.execute(row)
			}
			for tries := 1; ; tries++ {
				if row = w.row(b.check); row.Status == "ok" {
					break
				}
				// Where the machine has more to do than processors, packets come too late for ever: then the share has to be that of the machine alone.
				if was, is := share(found), share(row); b.alone && tries == 10 && 0 < is && is < was/3 {
					t.Logf("the machine has no time for this: %.2f %% while it was broken, %.2f %% after: %+v", was, is, row)
					break
				}
				if !b.alone || tries == 10 {
					t.Fatalf("%s is %q after it was mended: %+v", b.check, row.Status, row)
				}
			}
		})
	}
}

// share is what a finding says of packets, in per cent; 0 where it says nothing of the kind.
func share(r row) float64 {
	words := strings.Fields(strings.NewReplacer("(", "", ")", "").Replace(r.Found))
	i := slices.Index(words, "%")
	if i < 1 {
		return 0
	}
	percent, _ := strconv.ParseFloat(words[i-1], 64)
	return percent
}

func TestEveryCheckHasABreakage(t *testing.T) {
	chosen(t)
	w := &world{t: t}
	broken := map[string]bool{}
	for _, b := range breakages() {
		broken[b.check] = true
	}
	for _, row := range w.doctor() {
		if !broken[row.Check] {
			t.Errorf("nothing breaks the check %s: add a breakage", row.Check)
		}
		delete(broken, row.Check)
	}
	if len(broken) > 0 {
		t.Errorf("there are no checks %q", slices.Sorted(maps.Keys(broken)))
	}
}

// chosen keeps these tests to a command of their own: they take a minute, and say the same whatever link and race detector others run with.
func chosen(t *testing.T) {
	if os.Getenv("MACHNET_DOCTOR") == "" {
		t.Skip("not chosen: `make test-doctor` sets MACHNET_DOCTOR")
	}
}

// What is asked for before the start is no failure for want of a sidecar.
func TestANICIsLookedAtBeforeTheStart(t *testing.T) {
	chosen(t)
	needRoot(t)
	n, err := netns.New()
	must(t, err)
	t.Cleanup(func() { n.Close() })
	must(t, n.Run("ip", words("link add ap0 type veth peer name ap1")...))
	must(t, n.Run("ip", words("link set ap0 up")...))
	w := &world{t: t, namespace: n, flags: []string{"--nic", "ap0"}}
	for _, r := range w.doctor() {
		if r.Status == "fail" {
			t.Errorf("nothing is wrong, and doctor says %+v", r)
		}
	}
}

func TestBreakagesThatNoCommandMends(t *testing.T) {
	n := 0
	for _, b := range breakages() {
		if b.outside != "" {
			t.Logf("%s/%s: %s", b.check, b.how, b.outside)
			n++
		}
	}
	if all := len(breakages()); 3*n > 2*all {
		t.Errorf("%d of %d breakages are mended by no command: doctor should know more of them", n, all)
	}
}
