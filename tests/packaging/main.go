// Command packaging looks at what users are given beside the programs: the systemd unit and what it may do, manual pages, completions,
// Debian packages, which it installs and purges, and the manifests for Kubernetes. `make test-packaging` runs it.
//
// It prints a line for each check, and last how many of them passed.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/machnet/machnet/tests/internal/checks"
)

// bench is the folder in which all happens.
type bench struct {
	root    string // of the repository
	folder  string
	version string
	abi     string
	archive string            // the static library
	debs    map[string]string // by the package's name
	tree    string            // the package machnet, unpacked
}

type check = checks.Check[*bench]

// first are the steps without which there is nothing to check.
var first = []check{
	{Name: "the packages are made", Do: build},
	{Name: "they can be unpacked", Do: unpack},
}

var all = []check{
	{Name: "unit: systemd-analyze verify", Do: verify},
	{Name: "unit: exposure, alone and with each drop-in", Do: exposure},
	{Name: "unit: does as it says, run by a systemd", Do: underSystemd},
	{Name: "manual pages: mandoc, and man's own warnings", Do: pages},
	{Name: "every flag is in the manual pages and completions", Do: flags},
	{Name: "completions: bash", Do: bashCompletes},
	{Name: "completions: fish", Do: fishCompletes},
	{Name: "completions: zsh", Do: zshReads},
	{Name: "manifests: strictly decoded", Do: decoded},
	{Name: "manifests: Guaranteed, whole CPUs", Do: guaranteed},
	{Name: "manifests: nobody is privileged, and capabilities are these", Do: unprivileged},
	{Name: "manifests: applications share the socket's folder alone", Do: folderAlone},
	{Name: "manifests: probes ask machnet ctl health", Do: probes},
	{Name: "packages: what is in them", Do: contents},
	{Name: "packages: lintian", Do: lintian},
	{Name: "packages: the same bytes again", Do: again},
	{Name: "packages: installed, used, purged", Do: installed},
}

func main() {
	only := flag.String("run", "", "run the checks whose names match this regular expression")
	abi := flag.String("abi", "", "number of the client library")
	version := flag.String("version", "", "version of the packages")
	archive := flag.String("archive", "", "the static library, from the repository's root")
	flag.Parse()
	matching, err := regexp.Compile(*only)
	if err != nil || *abi == "" || *version == "" || *archive == "" {
		fmt.Fprintln(os.Stderr, "packaging: give -abi, -version and -archive, as the Makefile does")
		os.Exit(2)
	}
	folder, err := os.MkdirTemp("", "machnet-packaging")
	if err != nil {
		fmt.Fprintln(os.Stderr, "packaging:", err)
		os.Exit(1)
	}
	root, _ := filepath.Abs("..")
	b := &bench{root: root, folder: folder, version: *version, abi: *abi, archive: *archive, debs: map[string]string{}}
	passed, tried := checks.Run(b, first, all, matching)
	_ = os.RemoveAll(folder)
	checks.Score("test-packaging", passed, tried)
}

// run runs a command to its end and gives what it printed.
func (b *bench) run(name string, args ...string) (string, error) {
	return checks.Command(2*time.Minute, b.root, nil, name, args...)
}

// need skips the check where a tool is missing.
func need(tools ...string) error {
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			return checks.Skipped("there is no " + tool + " on this machine")
		}
	}
	return nil
}

// make runs scripts/deb.sh into a folder.
func (b *bench) make(into string) ([]string, error) {
	out, err := b.run("scripts/deb.sh", b.version, b.abi, b.archive, into)
	if err != nil {
		return nil, err
	}
	var debs []string
	for line := range strings.Lines(out) {
		if line = strings.TrimSpace(line); strings.HasSuffix(line, ".deb") {
			debs = append(debs, line)
		}
	}
	return debs, nil
}

func build(b *bench) (string, error) {
	if err := need("dpkg-deb", "dpkg-shlibdeps"); err != nil {
		return "", err
	}
	debs, err := b.make(filepath.Join(b.folder, "debs"))
	if err != nil {
		return "", err
	}
	said := make([]string, len(debs))
	for i, deb := range debs {
		name, _, _ := strings.Cut(filepath.Base(deb), "_")
		b.debs[name] = deb
		info, err := os.Stat(deb)
		if err != nil {
			return "", err
		}
		said[i] = fmt.Sprintf("%s %.1f MB", name, float64(info.Size())/1e6)
	}
	if len(debs) != 3 {
		return "", fmt.Errorf("%d packages, want 3: %q", len(debs), debs)
	}
	return strings.Join(said, ", "), nil
}

func unpack(b *bench) (string, error) {
	b.tree = filepath.Join(b.folder, "tree")
	return b.run("dpkg-deb", "-x", b.debs["machnet"], b.tree)
}
