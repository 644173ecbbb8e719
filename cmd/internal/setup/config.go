package setup

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// configuration makes the step that writes machnetd's settings. What else the file says stays as it is, comments included; what it says
// otherwise is told, and a copy of the file is kept. It returns all settings, as they will be.
func (b *builder) configuration(settings []setting) (map[string]any, error) {
	path := b.o.Root.Path(b.o.Config)
	// A link stays one: what it leads to is what is written.
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	before, err := os.ReadFile(path)
	there := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read machnetd's settings: %w", err)
	}
	after, changes, err := edit(string(before), settings)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.o.Config, err)
	}
	for _, change := range changes {
		b.note("%s: %s", b.o.Config, change)
	}
	all := map[string]any{}
	if _, err := toml.Decode(after, &all); err != nil {
		return nil, fmt.Errorf("%s: %w", b.o.Config, err)
	}
	word, copied, new := quote(path), quote(path+".before-setup"), quote(path+".setup-writes")
	s := Step{
		Why:  fmt.Sprintf("write machnetd's settings to %s", b.o.Config),
		Done: document("cmp -s "+word+" -", after),
		Kept: "[ -e " + word + " ]",
		// Never half a file, whenever this ends and however full the disk is. What is there keeps its owner and its permissions.
		Do:    lines(fmt.Sprintf("[ ! -e %[1]s ] || cp -p %[1]s %[2]s", word, new), document("cat > "+new, after), fmt.Sprintf("mv -f %s %s", new, word)),
		Lasts: true,
	}
	// What others wrote since is not thrown away.
	keep := lines(document("ours() { cmp -s "+word+" -", after), "}", fmt.Sprintf("if [ -e %[1]s ] && ! ours && ! cmp -s %[1]s %[2]s; then\n"+
		"kept=%[3]s\nwhile [ -e \"$kept\" ]; do kept=$kept~; done\ncp -p %[1]s \"$kept\"\necho \"it was changed since; what it said is kept as $kept\"\nfi",
		word, copied, quote(path+".before-undo")))
	if there {
		if exists(path + ".before-setup") {
			return nil, fmt.Errorf("%s.before-setup is there, where the file as it is would be kept; move it away", b.o.Config)
		}
		s.Do = lines(fmt.Sprintf("[ -e %[2]s ] || { cp -p %[1]s %[3]s; mv -f %[3]s %[2]s; }", word, copied, new), s.Do)
		s.Undo = lines("rm -f "+new, fmt.Sprintf("if [ -e %s ]; then", copied), keep, fmt.Sprintf("mv -f %s %s\nfi", copied, word))
	} else {
		s.Undo = lines(keep, fmt.Sprintf("rm -f %s %s", new, word))
		var made []string
		for dir := filepath.Dir(path); !exists(dir); dir = filepath.Dir(dir) {
			made = append(made, quote(dir))
		}
		if len(made) > 0 {
			s.Do = lines("mkdir -p "+made[0], s.Do)
			s.Undo = lines(s.Undo, fmt.Sprintf("rmdir %s 2>/dev/null || :", strings.Join(made, " ")))
		}
	}
	b.step(s)
	return all, nil
}

// document is a command that gets a text on its standard input.
func document(command, text string) string {
	end := "END"
	for strings.Contains("\n"+text, "\n"+end+"\n") {
		end += "-"
	}
	return fmt.Sprintf("%s <<'%s'\n%s%s", command, end, text, end)
}

// edit sets settings in the text of a file, and takes away what chooses another NIC. It says in sentences which values were others, and
// refuses a file that it would damage.
func edit(before string, settings []setting) (after string, changes []string, err error) {
	was := map[string]any{}
	if _, err := toml.Decode(before, &was); err != nil {
		return "", nil, fmt.Errorf("is no TOML as it is: %w; mend it first", err)
	}
	want := clone(was)
	remove := slices.Clone(choosers)
	text := strings.Split(strings.TrimSuffix(before, "\n"), "\n")
	if before == "" {
		text = []string{"# Settings of machnetd; docs/configuration.md has all of them. Those of the NIC are by `machnet setup`."}
	}
	for _, s := range settings {
		remove = slices.DeleteFunc(remove, func(key string) bool { return s.section == "nic" && s.key == key })
		if old, had := value(was, s.section, s.key); had && old != s.value {
			changes = append(changes, fmt.Sprintf("%s.%s was %s and is %s now", s.section, s.key, written(old), written(s.value)))
		}
		text = put(text, s)
		section, _ := want[s.section].(map[string]any)
		if section == nil {
			section = map[string]any{}
			want[s.section] = section
		}
		section[s.key] = s.value
	}
	for _, key := range remove {
		if old, had := value(was, "nic", key); had {
			changes = append(changes, fmt.Sprintf("nic.%s = %s is taken out: it is for another NIC", key, written(old)))
			text = drop(text, "nic", key)
			delete(want["nic"].(map[string]any), key)
		}
	}
	after = strings.Join(text, "\n") + "\n"
	is := map[string]any{}
	if _, err := toml.Decode(after, &is); err != nil || !reflect.DeepEqual(is, want) {
		var list []string
		for _, s := range settings {
			list = append(list, fmt.Sprintf("[%s] %s = %s", s.section, s.key, written(s.value)))
		}
		return "", nil, fmt.Errorf("is written in a way that machnet setup cannot edit; write each key on a line of its own below its [section], or set these yourself: %s", strings.Join(list, ", "))
	}
	return after, changes, nil
}

// choosers are the keys of [nic] that choose a NIC, or are of use to one kind of them only.
var choosers = []string{"memif", "pci", "mac", "vdev", "xdp", "xdp_mode", "memif_id", "memif_peer_queues", "set_mac"}

// put sets a key: where it stands, else at the end of its section, else in a new section at the end.
func put(text []string, s setting) []string {
	line := s.key + " = " + written(s.value)
	if at := find(text, s.section, s.key); at >= 0 {
		text[at] = line
		return text
	}
	first, end := span(text, s.section)
	if first < 0 {
		return append(text, "", "["+s.section+"]", line)
	}
	for end > first+1 && strings.TrimSpace(text[end-1]) == "" {
		end--
	}
	return slices.Insert(text, end, line)
}

// drop takes a key out.
func drop(text []string, section, key string) []string {
	if at := find(text, section, key); at >= 0 {
		return slices.Delete(text, at, at+1)
	}
	return text
}

// find is the number of the line that sets a key; -1 where none does.
func find(text []string, section, key string) int {
	first, end := span(text, section)
	for i := max(first, 0); i < end; i++ {
		if name, _, is := strings.Cut(text[i], "="); is && strings.TrimSpace(name) == key {
			return i
		}
	}
	return -1
}

// span is where a section stands: the line that names it, and that behind its last; -1 and 0 where there is none.
func span(text []string, section string) (first, end int) {
	first = -1
	for i, line := range text {
		switch name := heading.FindStringSubmatch(line); {
		case name == nil:
		case first >= 0:
			return first, i
		case name[1] == section:
			first = i
		}
	}
	if first < 0 {
		return -1, 0
	}
	return first, len(text)
}

var heading = regexp.MustCompile(`^\s*\[\s*([A-Za-z0-9_-]+)\s*\]\s*(?:#.*)?$`)

func value(all map[string]any, section, key string) (any, bool) {
	of, _ := all[section].(map[string]any)
	v, has := of[key]
	return v, has
}

// written is a value as TOML has it, for those kinds that settings have. None of the setup's texts has quotation marks or backslashes: an
// interface's name could, and is refused.
func written(v any) string {
	if s, is := v.(string); is {
		return `"` + s + `"`
	}
	return fmt.Sprint(v)
}

func clone(all map[string]any) map[string]any {
	copied := map[string]any{}
	for name, v := range all {
		if of, is := v.(map[string]any); is {
			v = maps.Clone(of)
		}
		copied[name] = v
	}
	return copied
}
