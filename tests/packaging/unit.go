package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/machnet/machnet/tests/internal/checks"
)

// mostExposure is what a unit may be exposed at most, of systemd's 10.
const mostExposure = 4.0

// verify has systemd read the unit as it is installed, beside those of this machine that it refers to.
func verify(b *bench) (string, error) {
	if err := need("systemd-analyze"); err != nil {
		return "", err
	}
	root := filepath.Join(b.folder, "verify")
	steps := [][]string{
		{"cp", "-a", b.tree, root},
		{"cp", "-a", "/usr/lib/systemd/system/.", filepath.Join(root, "usr/lib/systemd/system")},
		{"mkdir", "-p", filepath.Join(root, "bin")},
		{"cp", "-L", "/bin/kill", filepath.Join(root, "bin/kill")},
	}
	for _, step := range steps {
		if out, err := b.run(step[0], step[1:]...); err != nil {
			return out, err
		}
	}
	out, err := b.run("systemd-analyze", "verify", "--man=no", "--root="+root, "machnetd.service")
	if err != nil {
		return "", err
	}
	// What it says of units that are this machine's is not ours.
	for line := range strings.Lines(out) {
		if strings.Contains(line, "machnet") {
			return "", fmt.Errorf("it warns: %s", line)
		}
	}
	return "", nil
}

// exposure asks what a process of the unit could do if it were taken over, for each kind of NIC.
func exposure(b *bench) (string, error) {
	if err := need("systemd-analyze"); err != nil {
		return "", err
	}
	dropins, err := filepath.Glob(filepath.Join(b.tree, "usr/share/machnet/systemd/*.conf"))
	if err != nil || len(dropins) < 6 {
		return "", fmt.Errorf("%d drop-ins (%v)", len(dropins), err)
	}
	page, err := os.ReadFile(filepath.Join(b.root, "docs/service.md"))
	if err != nil {
		return "", err
	}
	var said []string
	for _, dropin := range append([]string{""}, dropins...) {
		name := strings.TrimSuffix(filepath.Base(dropin), ".conf")
		root := filepath.Join(b.folder, "exposure", "of-"+name)
		at := filepath.Join(root, "etc/systemd/system/machnetd.service.d")
		if err := os.MkdirAll(at, 0o755); err != nil {
			return "", err
		}
		if out, err := b.run("cp", "-a", filepath.Join(b.tree, "usr"), root); err != nil {
			return out, err
		}
		if dropin != "" {
			if out, err := b.run("cp", dropin, at); err != nil {
				return out, err
			}
		}
		out, err := b.run("systemd-analyze", "security", "--offline=true", "--no-pager", "--root="+root, "--threshold="+strconv.Itoa(mostExposure*10), "machnetd.service")
		if err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
		found := overall.FindStringSubmatch(out)
		if found == nil {
			return "", fmt.Errorf("%s: no overall exposure in %q", name, out)
		}
		// The page has a row for each, with this figure.
		row := "`" + name + ".conf`"
		if dropin == "" {
			name, row = "alone", "| memif | none |"
		}
		if !hasRow(string(page), row, "| "+found[1]+" |") {
			return "", fmt.Errorf("docs/service.md has no row with %s and %s", row, found[1])
		}
		said = append(said, name+" "+found[1])
	}
	return strings.Join(said, ", "), nil
}

// underSystemd has a systemd run the unit, on a copy of this machine that is thrown away.
func underSystemd(b *bench) (string, error) {
	if os.Geteuid() != 0 {
		return "", checks.Skipped("not root")
	}
	if err := need("/lib/systemd/systemd", "dpkg", "ip", "nsenter", "pgrep", "setpriv", "unshare"); err != nil {
		return "", err
	}
	out, err := b.run("bash", filepath.Join(b.root, "tests/packaging/systemd.sh"), b.debs["machnet"])
	if err != nil {
		return "", err
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	last := lines[len(lines)-1]
	if why, skipped := strings.CutPrefix(last, "skipped: "); skipped {
		return "", checks.Skipped(why)
	}
	if last != "it does" {
		return "", errors.New(out)
	}
	return "", nil
}

var overall = regexp.MustCompile(`Overall exposure level for machnetd.service: ([0-9.]+)`)

// hasRow tells whether a line has both texts.
func hasRow(page, one, other string) bool {
	for line := range strings.Lines(page) {
		if strings.Contains(line, one) && strings.Contains(line, other) {
			return true
		}
	}
	return false
}
