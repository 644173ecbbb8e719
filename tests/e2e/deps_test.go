package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What a machine with other tools than ours is told by `make deps`, before anything is built.
func TestDepsSayWhichToolIsMissingOrTooOld(t *testing.T) {
	onAnyLink(t)
	needRust, needGo := needed(t, "Cargo.toml", `(?m)^rust-version = "(.*)"`), needed(t, "go.work", `(?m)^go (.*)$`)
	rust, golang := "rustc "+needRust+".0 (59807616e 2026-04-14)", "go"+needGo
	for name, tc := range map[string]struct {
		rustc, golang string // what they answer; "": fails
		want          string // in the one line that is said; "": all is well
	}{
		"as needed":   {rust, golang, ""},
		"newer":       {"rustc 1.103.1 (59807616e 2027-04-14)", "go1.30.2", ""},
		"old Rust":    {"rustc 1.9.1 (59807616e 2016-02-14)", golang, "Rust " + needRust + " or newer is needed, and rustc is 1.9.1; run: rustup update stable"},
		"old Go":      {rust, "go1.19.8", "Go " + needGo + " or newer is needed, and go is 1.19.8; get it from https://go.dev/dl"},
		"broken Rust": {"", golang, "rustc does not run here"},
		"broken Go":   {rust, "", "go does not run here"},
	} {
		t.Run(name, func(t *testing.T) {
			tools := t.TempDir()
			for tool, answer := range map[string]string{"rustc": tc.rustc, "go": tc.golang, "cargo": "cargo"} {
				script := "#!/bin/sh\necho '" + answer + "'\n"
				if answer == "" {
					script = "#!/bin/sh\nexit 1\n"
				}
				if err := os.WriteFile(filepath.Join(tools, tool), []byte(script), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			deps := exec.Command("../../scripts/deps.sh")
			deps.Env = append(os.Environ(), "PATH="+tools+":"+os.Getenv("PATH"))
			out, err := deps.CombinedOutput()
			said := string(out)
			if exit := (*exec.ExitError)(nil); tc.want == "" && (err != nil || said != "") ||
				tc.want != "" && (!errors.As(err, &exit) || strings.Count(said, "\n") != 1 || !strings.Contains(said, "make deps: "+tc.want)) {
				t.Errorf("%v, %q; want %q", err, said, tc.want)
			}
		})
	}
}

// needed is the version that a file of the repository asks for.
func needed(t *testing.T, file, pattern string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../..", file))
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(pattern).FindSubmatch(text)
	if found == nil {
		t.Fatalf("%s has no %s", file, pattern)
	}
	return string(found[1])
}
