package setup

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// dies puts a shell before the machine's own that kills whoever runs its n-th command, before it does it or right behind.
func (s *space) dies(n int, behind bool) {
	s.t.Helper()
	shell, err := exec.LookPath("sh")
	if err != nil {
		s.t.Fatal(err)
	}
	folder := s.t.TempDir()
	first, last := "kill -9 $PPID; exit", ""
	if behind {
		first, last = "", "kill -9 $PPID"
	}
	script := fmt.Sprintf("#!%[1]s\necho >> %[2]s/count\nif [ $(wc -l < %[2]s/count) -eq %[3]d ]; then %[4]s\n%[1]s \"$@\"; code=$?; %[5]s\nexit $code; fi\nexec %[1]s \"$@\"\n",
		shell, folder, n, first, last)
	if err := os.WriteFile(folder+"/sh", []byte(script), 0o755); err != nil {
		s.t.Fatal(err)
	}
	s.env = []string{"PATH=" + folder + ":" + os.Getenv("PATH")}
}

// killed runs a command whose shells are such ones, and says whether it was killed.
func (s *space) killed(command string) bool {
	s.t.Helper()
	out, err := s.run("exec " + command)
	s.env = nil
	if err != nil && !strings.Contains(err.Error(), "killed") {
		s.t.Fatalf("%s: %v: %s", command, err, out)
	}
	return err != nil
}

func TestWhateverItWasDoingWhenItWasKilledIsUndone(t *testing.T) {
	for _, flags := range []string{"--nic eth1 --af-packet", "--nic eth1 --xdp --ip 10.1.2.4/24"} {
		for _, there := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, settings there %v", flags, there), func(t *testing.T) {
				t.Parallel()
				s := newSpace(t)
				if there {
					s.given(before)
				}
				state, kept := network(t, s), files(t, s.folder)
				setups, undos := 0, 0
				for _, behind := range []bool{false, true} {
					for n := 1; ; n++ {
						s.dies(n, behind)
						died := s.killed(s.setup(flags))
						if died {
							setups++
							s.Do(s.setup("--undo"))
						}
						for m := 1; !died; m++ {
							s.dies(m, behind)
							if !s.killed(s.setup("--undo")) {
								break
							}
							undos++
							s.Do(s.setup("--undo"))
							same(t, fmt.Sprintf("killed at command %d of --undo, the network", m), state, func() string { return network(t, s) })
							same(t, fmt.Sprintf("killed at command %d of --undo, the files", m), kept, func() string { return files(t, s.folder) })
							s.Do(s.setup(flags))
						}
						same(t, fmt.Sprintf("killed at command %d, the network", n), state, func() string { return network(t, s) })
						same(t, fmt.Sprintf("killed at command %d, the files", n), kept, func() string { return files(t, s.folder) })
						if !died || t.Failed() {
							break
						}
					}
				}
				if !t.Failed() && (setups < 8 || undos < 4) {
					t.Errorf("it was killed %d times, and its undo %d times", setups, undos)
				}
			})
		}
	}
}

func TestWhatOthersWroteSinceIsTheirs(t *testing.T) {
	for _, there := range []bool{false, true} {
		t.Run(fmt.Sprintf("settings there %v", there), func(t *testing.T) {
			t.Parallel()
			s := newSpace(t)
			if there {
				s.given(before)
			}
			s.Do(s.setup("--nic eth1 --af-packet"))
			s.Do("echo '# mine' >> " + s.folder + "/etc/machnetd.toml")
			edited := s.settings()
			// Such as the service does at each start.
			if said := s.Do(s.setup("--nic eth1 --af-packet")); !strings.Contains(said, "nothing to do") || s.settings() != edited {
				t.Errorf("the second time it says %q, and the settings are\n%s", said, s.settings())
			}
			copied := s.folder + "/etc/machnetd.toml.before-undo"
			if said := s.Do(s.setup("--undo")); !strings.Contains(said, "what it said is kept as "+copied) {
				t.Errorf("--undo says %q", said)
			}
			if got, err := os.ReadFile(copied); err != nil || string(got) != edited {
				t.Errorf("kept is %q (%v), not\n%s", got, err, edited)
			}
			if there && s.settings() != before {
				t.Errorf("the settings are\n%s", s.settings())
			}
		})
	}
}

func TestALinkToTheSettingsStaysOne(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.given(before)
	s.Do("cd " + s.folder + "/etc && mkdir real && mv machnetd.toml real/ours.toml && ln -s real/ours.toml machnetd.toml")
	kept := files(t, s.folder)
	s.Do(s.setup("--nic eth1 --af-packet"))
	if to, err := os.Readlink(s.folder + "/etc/machnetd.toml"); err != nil || to != "real/ours.toml" || !strings.Contains(s.settings(), "net_af_packet0") {
		t.Errorf("it leads to %q (%v), where there is\n%s", to, err, s.settings())
	}
	s.Do(s.setup("--undo"))
	same(t, "the files", kept, func() string { return files(t, s.folder) })
}

func TestADiskWithoutRoomLosesNothing(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.given(before)
	s.Do("mkdir " + s.folder + "/lib && mount -t tmpfs -o size=64k none " + s.folder + "/lib")
	t.Cleanup(func() {
		if out, err := exec.Command("umount", s.folder+"/lib").CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	full := "head -c 1M /dev/zero > " + s.folder + "/lib/fill 2>/dev/null || :"
	state, kept := network(t, s), files(t, s.folder)
	check := func() {
		t.Helper()
		s.env = nil
		s.Do("rm -f " + s.folder + "/lib/fill")
		same(t, "the network", state, func() string { return network(t, s) })
		same(t, "the files", kept, func() string { return files(t, s.folder) })
	}
	// It is full before the record is written, and in the middle of a step, after which all is taken back.
	s.Do(full)
	if said := s.refused(s.setup("--nic eth1 --af-packet")); !strings.Contains(said, "write down what is set up: ") || !strings.Contains(said, "no space left on device") {
		t.Errorf("it said %q", said)
	}
	check()
	s.breaks("ip address del 10.1.2.3/24 dev eth1; " + full)
	s.refused(s.setup("--nic eth1 --af-packet"))
	check()
	// And where the settings are.
	s.Do("mkdir " + s.folder + "/lib/etc && cp -p " + s.folder + "/etc/machnetd.toml " + s.folder + "/lib/etc/")
	kept = files(t, s.folder)
	s.Do(full)
	s.refused(strings.Replace(strings.Replace(s.setup("--nic eth1 --af-packet"), "/etc/machnetd", "/lib/etc/machnetd", 1), "/lib/setup.json", "/setup.json", 1))
	check()
}

// rebooted has the record tell of another boot.
func (s *space) rebooted() {
	s.t.Helper()
	path := s.folder + "/lib/setup.json"
	text, err := os.ReadFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	text = regexp.MustCompile(`"boot": "[^"]+"`).ReplaceAll(text, []byte(`"boot": "another"`))
	if err := os.WriteFile(path, text, 0o644); err != nil {
		s.t.Fatal(err)
	}
}

func TestAfterARebootTheNetworkIsNothingOfOurs(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.given(before)
	kept := files(t, s.folder)
	s.Do(s.setup("--nic eth1 --af-packet"))
	s.rebooted()
	s.Do("ip address add 10.77.0.3/24 dev eth1")
	state := network(t, s)

	// Somebody has come by it: the same command again would cut him off.
	s.env = []string{"SSH_CONNECTION=10.77.0.9 50000 10.77.0.3 22"}
	if said := s.refused(s.setup("--nic eth1 --af-packet")); !strings.Contains(said, "set up eth1 again: it carries an SSH session (SSH_CONNECTION is from 10.77.0.9 to 10.77.0.3), which is cut off when it goes") {
		t.Errorf("it said %q", said)
	}
	s.env = nil
	s.Do(s.setup("--undo"))
	same(t, "the network", state, func() string { return network(t, s) })
	same(t, "the files", kept, func() string { return files(t, s.folder) })
}

func TestANICThatGotTheNameOfAnotherIsLeftAlone(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.Do(s.setup("--nic eth1 --af-packet"))
	s.Do("ip link set eth1 name eth9; ip link set eth2 name eth1")
	state := network(t, s)
	const want = "the interface of this name is another NIC by now, with MAC address 02:00:00:00:00:12"
	if said := s.refused(s.setup("--undo")); !strings.Contains(said, want) {
		t.Errorf("--undo says %q", said)
	}
	s.rebooted()
	if said := s.refused(s.setup("--nic eth1 --af-packet")); !strings.Contains(said, want) {
		t.Errorf("the same again says %q", said)
	}
	same(t, "the network", state, func() string { return network(t, s) })
}
