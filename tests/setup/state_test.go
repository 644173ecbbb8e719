package setup

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// chosen skips a test unless it is `make test-setup` that runs it: `go test ./...` would run all of them a second time.
func chosen(t *testing.T) {
	t.Helper()
	if os.Getenv("MACHNET_SETUP") == "" {
		t.Skip("not chosen: machines that setup may change take a minute; run `make test-setup`")
	}
}

// host is a machine, or a part of one, that commands run on.
type host interface {
	// Do runs a shell command that must succeed, and gives what it printed.
	Do(command string) string
}

// network is all that a kernel says of interfaces, addresses, routes, rules and neighbours, and its settings for each. What counts down is left
// out, and so is what a new interface cannot have again: its number, and that of its twin.
func network(t *testing.T, h host) string {
	t.Helper()
	var all []string
	for _, command := range []string{
		"ip -d -j link", "ip -j address", "ip -j -4 rule", "ip -j -6 rule",
		"ip -j -4 route show table all", "ip -j -6 route show table all", "ip -j neighbour show nud permanent",
	} {
		var list []map[string]any
		text := h.Do(command)
		if strings.TrimSpace(text) == "" {
			text = "[]"
		}
		if err := json.Unmarshal([]byte(text), &list); err != nil {
			t.Fatalf("%s: %v: %s", command, err, text)
		}
		var entries []string
		for _, entry := range list {
			ages(entry)
			text, err := json.Marshal(entry)
			if err != nil {
				t.Fatal(err)
			}
			entries = append(entries, command+": "+string(text))
		}
		if !strings.Contains(command, "rule") {
			slices.Sort(entries) // which of two equal routes was first, nobody can tell, and a new interface is the last
		}
		all = append(all, entries...)
	}
	return strings.Join(all, "\n") + "\n" + h.Do("grep -r . /proc/sys/net/ipv4/conf /proc/sys/net/ipv6/conf 2>/dev/null | sort || true")
}

// ages takes out what counts down, except that an address lasts for ever or does not.
func ages(v any) {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			if n, is := value.(float64); is && strings.HasSuffix(key, "_life_time") && n < 1<<32-1 {
				v[key] = "some time"
			}
			ages(value)
		}
		for _, key := range []string{"ifindex", "link_index", "stats", "stats64", "expires", "cacheinfo"} {
			delete(v, key)
		}
	case []any:
		for _, value := range v {
			ages(value)
		}
	}
}

// files are the files below a folder, with what they hold, their permissions and times.
func files(t *testing.T, folder string) string {
	t.Helper()
	all := new(strings.Builder)
	err := filepath.Walk(folder, func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		fmt.Fprintf(all, "%s %v", path, info.Mode())
		if info.Mode().IsRegular() {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(all, " %v %q", info.ModTime().UnixNano(), text)
		}
		fmt.Fprintln(all)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// same compares two states, line by line. What the kernel does a moment later, as finding an address of IPv6 to be free, is waited for.
func same(t *testing.T, what, want string, now func() string) {
	t.Helper()
	var got string
	for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		if got = now(); got == want {
			return
		}
		if time.Since(began) > 10*time.Second {
			break
		}
	}
	before, after := strings.Split(want, "\n"), strings.Split(got, "\n")
	for _, line := range before {
		if !slices.Contains(after, line) {
			t.Errorf("%s: missing: %s", what, line)
		}
	}
	for _, line := range after {
		if !slices.Contains(before, line) {
			t.Errorf("%s: new: %s", what, line)
		}
	}
	if !t.Failed() {
		t.Errorf("%s: in another order, before\n%s\nafter\n%s", what, want, got)
	}
}

// program is the path of what `make build` makes.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs("../../bin/" + name)
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		t.Fatalf("%v; run `make build` first", err)
	}
	return path
}

var spaces = regexp.MustCompile(`\s+`)

// line is a command's output as one line.
func line(out []byte) string { return strings.TrimSpace(spaces.ReplaceAllString(string(out), " ")) }
