package setup

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
)

const before = `# ours
[host]
ip = "10.9.9.9/24" # an old one
[nic]
memif = "server:/run/link.sock"
memif_id = 3
descriptors = 128

[control]
socket = "/tmp/s.sock"
`

// ways are the setups that a namespace can show.
var ways = map[string]string{
	"af_packet":                   "--nic eth1 --af-packet",
	"xdp":                         "--nic eth1 --xdp --ip 10.1.2.99/24",
	"xdp with a secondary":        "--nic 02:00:00:00:00:01 --xdp --ip 10.1.2.4/24",
	"af_packet, cut off":          "--nic eth0 --af-packet --cut-off eth0 --yes-cut-me-off",
	"af_packet of what is down":   "--nic eth2 --af-packet --ip 10.3.0.1/24",
	"af_packet with another IP":   "--nic eth1 --af-packet --ip 10.3.0.1/32 --gateway 10.3.0.2 --engines 2",
	"af_packet, whenever it runs": "--nic eth1 --af-packet --engines 1",
}

func TestUndoBringsBackEverything(t *testing.T) {
	for name, flags := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSpace(t)
			if !strings.Contains(flags, "eth0") {
				s.given(before)
			}
			state, kept := network(t, s), files(t, s.folder)
			s.Do(s.setup(flags))
			if network(t, s) == state && !strings.Contains(flags, "10.1.2.99") {
				t.Error("nothing was changed")
			}
			if files(t, s.folder) == kept {
				t.Error("no file was changed")
			}
			done := files(t, s.folder+"/etc")
			if again := s.Do(s.setup(flags)); !strings.Contains(again, "is set up already; nothing to do") {
				t.Errorf("the second time it says %q", again)
			}
			if files(t, s.folder+"/etc") != done {
				t.Error("the second time it wrote the settings again")
			}
			if said := s.Do(s.setup("--undo")); !strings.Contains(said, "all is as it was") {
				t.Errorf("--undo says %q", said)
			}
			same(t, "the network", state, func() string { return network(t, s) })
			same(t, "the files", kept, func() string { return files(t, s.folder) })
			if said := s.Do(s.setup("--undo")); !strings.Contains(said, "nothing is set up") {
				t.Errorf("--undo says the second time %q", said)
			}
		})
	}
}

func TestThePrintedCommandsDoWhatTheSetupDoes(t *testing.T) {
	for name, flags := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			itself, printed := newSpace(t), newSpace(t)
			for _, s := range []*space{itself, printed} {
				s.given(before)
			}
			state, kept := network(t, printed), files(t, printed.folder)
			script := printed.Do(printed.setup("--dry-run " + flags))
			same(t, "the network after --dry-run", state, func() string { return network(t, printed) })
			same(t, "the files after --dry-run", kept, func() string { return files(t, printed.folder) })

			itself.Do(itself.setup(flags))
			runScript(t, printed, script)
			same(t, "the network", network(t, itself), func() string { return network(t, printed) })
			if want, got := itself.settings(), printed.settings(); got != want {
				t.Errorf("the settings are\n%s\nthe setup itself wrote\n%s", got, want)
			}

			runScript(t, itself, itself.Do(itself.setup("--undo --dry-run")))
			same(t, "the network after the printed undo", state, func() string { return network(t, itself) })
			if got := itself.settings(); got != before {
				t.Errorf("the settings after the printed undo are\n%s", got)
			}
		})
	}
}

func runScript(t *testing.T, s *space, script string) {
	t.Helper()
	path := s.folder + "/script"
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	s.Do(path)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

// breaks puts an `ip` before the machine's own that does something else when it is to flush for the first time.
func (s *space) breaks(instead string) {
	s.t.Helper()
	folder := s.t.TempDir()
	script := "#!/bin/sh\ncase \"$*\" in *flush*) if mkdir " + folder + "/once 2>/dev/null; then\n" + instead + "\nexit 1; fi;;\nesac\nexec " + strings.TrimSpace(s.Do("command -v ip")) + " \"$@\"\n"
	if err := os.WriteFile(folder+"/ip", []byte(script), 0o755); err != nil {
		s.t.Fatal(err)
	}
	s.env = []string{"PATH=" + folder + ":" + os.Getenv("PATH")}
}

func TestAFailureInTheMiddleIsTakenBack(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.given(before)
	state, kept := network(t, s), files(t, s.folder)
	// It fails when half of it is done.
	s.breaks("ip address del 10.1.2.3/24 dev eth1; echo no flushing today >&2")
	said := s.refused(s.setup("--nic eth1 --af-packet"))
	if want := "machnet setup: take the IPv4 addresses of eth1 from the kernel, which would answer for the sidecar: no flushing today; what was done before is taken back"; !strings.Contains(said, want) {
		t.Errorf("it said %q, not %q", said, want)
	}
	same(t, "the network", state, func() string { return network(t, s) })
	same(t, "the files", kept, func() string { return files(t, s.folder) })
}

func TestASetupThatDiedIsUndoneOrDoneToItsEnd(t *testing.T) {
	const die = `read -r _ _ _ parent _ < /proc/$PPID/stat; kill -9 "$parent"`
	for name, end := range map[string]string{"undone": "--undo", "done to its end": "--nic eth1 --af-packet"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSpace(t)
			s.given(before)
			state, kept := network(t, s), files(t, s.folder)
			s.breaks(die)
			if said := s.refused(s.setup("--nic eth1 --af-packet")); !strings.Contains(said, "Killed") {
				t.Fatalf("it was not killed, and said %q", said)
			}
			s.env = nil
			// What was under way had been written down before it began.
			var written struct {
				Begun int
				Steps []struct{ Do string }
			}
			text, err := os.ReadFile(s.folder + "/lib/setup.json")
			if err = errors.Join(err, json.Unmarshal(text, &written)); err != nil {
				t.Fatal(err)
			}
			if i := written.Begun - 1; i < 0 || i >= len(written.Steps) || !strings.Contains(written.Steps[i].Do, "flush") {
				t.Errorf("it died in the step that flushes addresses, and has written down %s", text)
			}
			s.Do(s.setup(end))
			if end != "--undo" {
				if left := s.Do("ip -4 -o address show dev eth1"); left != "" {
					t.Errorf("the kernel still has %s", left)
				}
				s.Do(s.setup("--undo"))
			}
			same(t, "the network", state, func() string { return network(t, s) })
			same(t, "the files", kept, func() string { return files(t, s.folder) })
		})
	}
}

func TestAnUndoThatFailsGoesOnWhereItFailed(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	state := network(t, s)
	s.Do(s.setup("--nic eth1 --af-packet"))
	// A folder is nothing that it would remove.
	settings := s.folder + "/etc/machnetd.toml"
	if err := errors.Join(os.Remove(settings), os.Mkdir(settings, 0o755)); err != nil {
		t.Fatal(err)
	}
	if said := s.refused(s.setup("--undo")); !strings.Contains(said, "mend that and run `machnet setup --undo`, which goes on there") {
		t.Errorf("it said %q", said)
	}
	same(t, "the network", state, func() string { return network(t, s) })
	if err := os.Remove(settings); err != nil {
		t.Fatal(err)
	}
	s.Do(s.setup("--undo"))
	if left := files(t, s.folder); strings.Contains(left, "toml") || strings.Contains(left, "json") {
		t.Errorf("left are %s", left)
	}
}
