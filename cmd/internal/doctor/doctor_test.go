package doctor

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/machnet/machnet/cmd/internal/machine"
	"github.com/machnet/machnet/go/control"
)

func TestTheDocumentationHasARowForEveryCheck(t *testing.T) {
	text, err := os.ReadFile("../../../docs/doctor.md")
	if err != nil {
		t.Fatal(err)
	}
	page, checks := string(text), 0
	for _, check := range Checks() {
		row := fmt.Sprintf("| `%s` | %s | %s | ", check.Name, check.Reads, check.Fails)
		if !strings.Contains(page, row) {
			t.Errorf("docs/doctor.md lacks the row %s", row)
		}
		checks++
	}
	if rows := strings.Count(page, "\n| `"); rows != checks {
		t.Errorf("docs/doctor.md has %d rows of checks, and there are %d", rows, checks)
	}
}

func TestASettingIsWrittenIntoItsSection(t *testing.T) {
	for name, tc := range map[string]struct {
		file  string
		s     setting
		value string
		want  string
	}{
		"instead of another": {"[host]\nip = \"10.0.0.1/24\"\n[nic]\npci = \"00:05.0\"\nmtu = 9001\n", setMTU, "1400", "[host]\nip = \"10.0.0.1/24\"\n[nic]\nmtu = 1400\npci = \"00:05.0\"\n"},
		"without another":    {"[nic]\npci = \"00:05.0\"\n", setMTU, "1400", "[nic]\nmtu = 1400\npci = \"00:05.0\"\n"},
		"without a section":  {"[nic]\npci = \"00:05.0\"\n", setPorts, "40000-41000", "[nic]\npci = \"00:05.0\"\n[rss]\nudp_ports = \"40000-41000\"\n"},
		"a switch":           {"[nic]\nchecksum_offload=false\n", setChecksum, "true", "[nic]\nchecksum_offload = true\n"},
		"a list":             {"[engines]\n", setCores, "1,2", "[engines]\ncores = [1,2]\n"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "it's.toml")
			if err := errors.Join(os.WriteFile(file+"-real", []byte(tc.file), 0o600), os.Symlink("it's.toml-real", file)); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command("sh", "-c", edit(file, tc.s, tc.value)).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if got, err := os.ReadFile(file); err != nil || string(got) != tc.want {
				t.Errorf("the file is %q, %v; want %q", got, err, tc.want)
			}
			if _, err := os.Readlink(file); err != nil {
				t.Errorf("a link to the settings is none any more: %v", err)
			}
		})
	}
}

func TestAFlagIsReplacedWhereverItStands(t *testing.T) {
	got := replaced([]string{"--mtu", "9001", "--ip", "10.0.0.1/24", "--mtu=1500"}, "--mtu", "1400")
	if want := []string{"--ip", "10.0.0.1/24", "--mtu", "1400"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := flagValue([]string{"--config=a", "--config", "b"}, "--config"); got != "b" {
		t.Errorf("the last --config is %q, want b", got)
	}
}

func TestAWidestGapIsFoundAlsoAtTheEnds(t *testing.T) {
	whole := ports{100, 199}
	for _, tc := range []struct {
		seen []int
		want ports
		rest ports
	}{
		{[]int{150, 160, 199}, ports{100, 149}, ports{150, 199}},
		{[]int{100, 110, 120}, ports{121, 199}, ports{100, 120}},
		{[]int{100, 120, 190, 199}, ports{121, 189}, ports{100, 120}},
		{nil, whole, ports{200, 199}},
	} {
		if got := gap(tc.seen, whole); got != tc.want {
			t.Errorf("of %d the widest gap is %v, want %v", tc.seen, got, tc.want)
		} else if rest := whole.beside(got); rest != tc.rest {
			t.Errorf("beside %v there is %v, want %v", got, rest, tc.rest)
		}
	}
}

func TestAGapTellsWhereChanceIsNoExplanation(t *testing.T) {
	whole := ports{0, 999}
	for _, tc := range []struct {
		n, width int
		want     bool
	}{{64, 250, true}, {64, 200, false}, {32, 500, true}, {32, 300, false}, {4, 900, false}} {
		if got := whole.tells(ports{0, tc.width - 1}, tc.n); got != tc.want {
			t.Errorf("a gap of %d of 1000 between %d ports tells: %v, want %v", tc.width, tc.n, got, tc.want)
		}
	}
}

func TestACgroupIsFoundInBothVersions(t *testing.T) {
	for text, want := range map[string]string{
		"0::/a.slice/b.service\n":               "/sys/fs/cgroup/a.slice/b.service true",
		"3:cpuset:/x\n2:cpu,cpuacct:/y\n0::/\n": "/sys/fs/cgroup/cpuset/x false",
		"":                                      " true",
	} {
		folder, second := hierarchy(text, "cpuset")
		if got := fmt.Sprint(folder, " ", second); got != want {
			t.Errorf("of %q the cpuset is %q, want %q", text, got, want)
		}
	}
	if got := numbers("0-2,7\n"); !slices.Equal(got, []int{0, 1, 2, 7}) {
		t.Errorf("0-2,7 is %d", got)
	}
}

func TestTheSettingsNICIsTheKernelsInterface(t *testing.T) {
	for _, tc := range []struct {
		nic  [2]string
		want string
	}{
		{[2]string{"pci", "0000:00:05.0"}, "0000:00:05.0"},
		{[2]string{"xdp", "eth0"}, "eth0"},
		{[2]string{"vdev", "net_af_packet0,iface=v0,qpairs=2"}, "v0"},
		{[2]string{"vdev", "net_null0"}, ""},
		{[2]string{"memif", "/run/iface=x"}, ""},
	} {
		if got := interfaceOf(tc.nic); got != tc.want {
			t.Errorf("%q is %q, want %q", tc.nic, got, tc.want)
		}
	}
}

// A sidecar whose process cannot be seen, as in a container beside its own, is changed by its settings: the advice says which.
func TestASidecarThatCannotBeSeenIsChangedByWords(t *testing.T) {
	e := &Env{about: &control.About{PID: 1 << 22}} // beyond the largest
	command, advice := e.change(setMTU, "1400")
	if command != "" || !strings.Contains(advice, "nic.mtu = 1400 (--mtu 1400)") {
		t.Errorf("%q, %q", command, advice)
	}
	if got := quoted("it's"); got != `'it'\''s'` {
		t.Errorf("quoted: %s", got)
	}
}

func TestAUnitIsStartedAgainOnlyIfTheSidecarIsItsProcess(t *testing.T) {
	root, bin := t.TempDir(), t.TempDir()
	for path, text := range map[string]string{
		root + "/proc/77/cmdline": "/usr/bin/machnetd\x00--config\x00/etc/m.toml\x00",
		root + "/proc/77/cgroup":  "0::/user.slice/user-0.slice/user@0.service/app.slice/ours.service\n",
		bin + "/systemctl":        "#!/bin/sh\n[ \"$*\" = 'show --property=MainPID --value user@0.service' ] && cat " + root + "/main\n",
	} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	e := &Env{Root: machine.Root(root), about: &control.About{PID: 77}}
	for main, want := range map[string]string{
		"77\n": "systemctl restart user@0.service",
		// Somebody started it by hand, in his session.
		"12\n": "kill 77 && tail --pid=77 -f /dev/null && (/usr/bin/machnetd --config /etc/m.toml &)",
		"":     "kill 77 && tail --pid=77 -f /dev/null && (/usr/bin/machnetd --config /etc/m.toml &)",
	} {
		if err := os.WriteFile(root+"/main", []byte(main), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := e.restart(); got != want {
			t.Errorf("with main process %q it is %q, want %q", main, got, want)
		}
	}
}
