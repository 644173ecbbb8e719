package doctor

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// setting is one of machnetd's: its section and key in the file, and its flag.
type setting struct{ section, key, flag string }

var (
	setGateway  = setting{"host", "gateway", "--gateway"}
	setMTU      = setting{"nic", "mtu", "--mtu"}
	setRing     = setting{"nic", "descriptors", "--descriptors"}
	setChecksum = setting{"nic", "checksum_offload", "--checksum-offload"}
	setEngines  = setting{"engines", "count", "--engines"}
	setCores    = setting{"engines", "cores", "--cores"}
	setReverse  = setting{"rss", "reverse", "--reverse"}
	setPorts    = setting{"rss", "udp_ports", "--udp-ports"}
)

// change is the command that gives a setting another value: in the file where there is one, by the flag where there is none; and that
// starts the sidecar again where one runs. The command is "" where the process cannot be seen, as in a container beside its own; the advice
// then says the same in words.
func (e *Env) change(s setting, value string) (command, advice string) {
	advice = fmt.Sprintf("set %s.%s = %s (%s %s) in the sidecar's settings, and start it again", s.section, s.key, value, s.flag, value)
	if e.about == nil {
		if e.Flags == nil {
			return "", advice
		}
		if file := flagValue(e.Flags, "--config"); file != "" {
			return edit(file, s, value), ""
		}
		return quote(program(e.Machnetd), replaced(e.Flags, s.flag, value)...) + " &", ""
	}
	p := e.process()
	switch {
	case p == nil:
		return "", advice
	case p.unit != "":
		file := flagValue(p.args, "--config")
		if file == "" {
			return "", advice
		}
		return edit(file, s, value) + " && systemctl restart " + p.unit, ""
	}
	return p.again(replaced(p.args, s.flag, value)), ""
}

// restart is the command that starts the running sidecar again as it is; "" where its process cannot be seen.
func (e *Env) restart() string {
	switch p := e.process(); {
	case p == nil:
		return ""
	case p.unit != "":
		return "systemctl restart " + p.unit
	default:
		return p.again(p.args)
	}
}

// start is the command that starts a sidecar where none runs; "" where nobody knows with which settings.
func (e *Env) start() string {
	for _, folder := range []string{"/etc/systemd/system", "/lib/systemd/system", "/usr/lib/systemd/system"} {
		if (e.Flags == nil || e.usual) && e.exists(filepath.Join(folder, "machnetd.service")) && e.exists("/run/systemd/system") {
			return "systemctl start machnetd"
		}
	}
	if e.Flags == nil || e.NIC != "" {
		return ""
	}
	return quote(program(e.Machnetd), e.Flags...) + " &"
}

// process is the running sidecar as the kernel shows it.
type process struct {
	pid     int
	folder  string
	program string
	args    []string
	unit    string // of systemd; "" where it is none
}

// process is nil where the sidecar's number names no machnetd here: it may count in another PID namespace.
func (e *Env) process() *process {
	if e.about == nil || e.about.PID <= 0 {
		return nil
	}
	at := fmt.Sprintf("/proc/%d/", e.about.PID)
	words := strings.Split(strings.TrimSuffix(e.text(at+"cmdline"), "\x00"), "\x00")
	if filepath.Base(words[0]) != "machnetd" {
		return nil
	}
	p := &process{pid: e.about.PID, program: words[0], args: words[1:]}
	p.folder, _ = os.Readlink(e.Root.Path(at + "cwd"))
	if unit := unitForm.FindStringSubmatch(e.text(at + "cgroup")); unit != nil && mainProcess(unit[1]) == p.pid {
		p.unit = unit[1]
	}
	return p
}

// mainProcess is a unit's; 0 where there is none. What somebody starts by hand may be in the unit of his session, or of sshd, which is not to be
// started again.
func mainProcess(unit string) int {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, "systemctl", "show", "--property=MainPID", "--value", unit).Output()
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		return 0
	}
	return pid
}

var unitForm = regexp.MustCompile(`/([^/\s]+\.service)(?:/|\s|$)`)

// again ends the process, waits until it is gone, and starts it with these arguments in its folder.
func (p *process) again(args []string) string {
	folder := ""
	if p.folder != "" && p.folder != "/" {
		folder = "cd " + quoted(p.folder) + " && "
	}
	return fmt.Sprintf("%skill %d && tail --pid=%d -f /dev/null && (%s &)", folder, p.pid, p.pid, quote(p.program, args...))
}

// edit writes a key into a section of a TOML file, instead of the key that is there; the section is made if it is missing. No two
// sections of machnetd's have a key of the same name.
func edit(file string, s setting, value string) string {
	switch _, err := strconv.Atoi(value); {
	case s == setCores:
		value = "[" + value + "]"
	case err != nil && value != "true" && value != "false":
		value = strconv.Quote(value)
	}
	return fmt.Sprintf(`sed -i --follow-symlinks '/^ *%s *=/d' %s && { grep -q '^\[%s\]' %[2]s || echo '[%[3]s]' >> %[2]s; } && sed -i --follow-symlinks 's|^\[%[3]s\]|&\n%[1]s = %[4]s|' %[2]s`,
		s.key, quoted(file), s.section, value)
}

// replaced are flags of machnetd's with one of them set to a value.
func replaced(flags []string, flag, value string) []string {
	var all []string
	for i := 0; i < len(flags); i++ {
		switch {
		case flags[i] == flag:
			i++ // and its value
		case strings.HasPrefix(flags[i], flag+"="):
		default:
			all = append(all, flags[i])
		}
	}
	return append(all, flag, value)
}

// flagValue is the last value of a flag; "" where it is not there.
func flagValue(flags []string, flag string) (value string) {
	for i, word := range flags {
		if given, is := strings.CutPrefix(word, flag+"="); is {
			value = given
		} else if word == flag && i+1 < len(flags) {
			value = flags[i+1]
		}
	}
	return value
}

func quote(program string, args ...string) string {
	words := slices.Concat([]string{program}, args)
	for i, word := range words {
		words[i] = quoted(word)
	}
	return strings.Join(words, " ")
}

// quoted is a word as a shell takes it.
func quoted(word string) string {
	if plainForm.MatchString(word) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

var plainForm = regexp.MustCompile(`^[A-Za-z0-9_./:,=@%+-]+$`)
