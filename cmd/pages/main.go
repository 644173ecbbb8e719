// Command pages writes the manual pages of machnetd and machnet, and their completions for bash, zsh and fish, from what the two programs
// say of themselves, so that no flag is written down twice.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// command is what `machnet describe` says of one command.
type command struct {
	Name       string    `json:"name"`
	Positional string    `json:"positional"`
	Summary    string    `json:"summary"`
	Flags      []option  `json:"flags"`
	Commands   []command `json:"commands"`
}

type option struct {
	Name    string `json:"name"`
	Value   string `json:"value"`
	Default string `json:"default"`
	Help    string `json:"help"`
}

// spelled is the flag as one writes it.
func (o option) spelled() string {
	if len(o.Name) == 1 {
		return "-" + o.Name
	}
	return "--" + o.Name
}

// sidecar is what `machnetd --describe` says.
type sidecar struct {
	Version  string    `json:"version"`
	Flags    []plain   `json:"flags"`
	Settings []setting `json:"settings"`
}

// plain is a flag that is no setting.
type plain struct {
	Flag string `json:"flag"`
	Form string `json:"form"`
	Help string `json:"help"`
}

type setting struct {
	Section string `json:"section"`
	Name    string `json:"name"`
	Flag    string `json:"flag"`
	Kind    string `json:"kind"`
	Form    string `json:"form"`
	Default string `json:"default"`
	Help    string `json:"help"`
}

func main() {
	machnetd := flag.String("machnetd", "bin/machnetd", "the program")
	machnet := flag.String("machnet", "bin/machnet", "the program")
	date := flag.String("date", time.Now().UTC().Format(time.DateOnly), "the date that the pages bear")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "pages: say into which folder: pages [flags] DIR")
		os.Exit(2)
	}
	if err := write(flag.Arg(0), *machnetd, *machnet, *date); err != nil {
		fmt.Fprintln(os.Stderr, "pages:", err)
		os.Exit(1)
	}
}

func write(dir, machnetd, machnet, date string) error {
	var d sidecar
	var c command
	if err := ask(&d, machnetd, "--describe"); err != nil {
		return err
	}
	if err := ask(&c, machnet, "describe"); err != nil {
		return err
	}
	for name, text := range map[string]string{
		"man/machnetd.8":      daemonPage(d, date),
		"man/machnetd.toml.5": settingsPage(d, date),
		"man/machnet.1":       commandsPage(c, d.Version, date),
		"bash/machnet":        bash(c),
		"bash/machnetd":       bash(asCommand(d)),
		"zsh/_machnet":        zsh(c),
		"zsh/_machnetd":       zsh(asCommand(d)),
		"fish/machnet.fish":   fish(c),
		"fish/machnetd.fish":  fish(asCommand(d)),
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// ask runs a program that describes itself.
func ask(into any, program, how string) error {
	out, err := exec.Command(program, how).Output()
	if err != nil {
		return fmt.Errorf("%s %s: %w", program, how, err)
	}
	if err := json.Unmarshal(out, into); err != nil {
		return fmt.Errorf("%s %s: %w", program, how, err)
	}
	return nil
}

// asCommand is machnetd as a command, which for completions it is.
func asCommand(d sidecar) command {
	c := command{Name: "machnetd"}
	for _, f := range d.Flags {
		c.Flags = append(c.Flags, option{Name: f.Flag[len("--"):], Value: f.Form, Help: f.Help})
	}
	for _, s := range d.Settings {
		c.Flags = append(c.Flags, option{Name: s.Flag[len("--"):], Value: s.Form, Default: s.Default, Help: s.Help})
	}
	return c
}
