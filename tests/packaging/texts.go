package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// share is a file below /usr/share of the package.
func (b *bench) share(path ...string) string {
	return filepath.Join(append([]string{b.tree, "usr/share"}, path...)...)
}

func pages(b *bench) (string, error) {
	if err := need("mandoc", "man"); err != nil {
		return "", err
	}
	for _, page := range []string{"man1/machnet.1", "man5/machnetd.toml.5", "man8/machnetd.8"} {
		path := b.share("man", page+".gz")
		if _, err := b.run("mandoc", "-Tlint", "-W", "warning", path); err != nil {
			return "", err
		}
		if out, err := b.run("sh", "-c", "man -l --warnings=w -E UTF-8 "+path+" 2>&1 >/dev/null"); err != nil || strings.TrimSpace(out) != "" {
			return "", fmt.Errorf("man warns of %s (%v): %s", page, err, out)
		}
	}
	return "", nil
}

// flags compares the pages and completions with what the programs themselves list.
func flags(b *bench) (string, error) {
	var daemon struct {
		Settings []struct{ Section, Name, Flag string }
	}
	if err := b.described(&daemon, "bin/machnetd", "--describe"); err != nil {
		return "", err
	}
	if len(daemon.Settings) < 30 {
		return "", fmt.Errorf("machnetd describes %d settings", len(daemon.Settings))
	}
	var tools command
	if err := b.described(&tools, "bin/machnet", "describe"); err != nil {
		return "", err
	}
	texts := map[string]string{}
	for _, page := range []string{"man1/machnet.1", "man5/machnetd.toml.5", "man8/machnetd.8"} {
		out, err := b.run("sh", "-c", "zcat "+b.share("man", page+".gz")+` | sed 's/\\-/-/g'`)
		if err != nil {
			return "", err
		}
		texts[page] = out
	}
	for _, path := range []string{"bash-completion/completions/machnet", "bash-completion/completions/machnetd", "zsh/vendor-completions/_machnet", "zsh/vendor-completions/_machnetd"} {
		text, err := os.ReadFile(b.share(path))
		if err != nil {
			return "", err
		}
		texts[path] = string(text)
	}
	missing := func(word string, in ...string) error {
		for _, name := range in {
			if !strings.Contains(texts[name], word) {
				return fmt.Errorf("%s does not have %s", name, word)
			}
		}
		return nil
	}
	for _, s := range daemon.Settings {
		if err := missing(s.Flag, "man8/machnetd.8", "man5/machnetd.toml.5", "bash-completion/completions/machnetd", "zsh/vendor-completions/_machnetd"); err != nil {
			return "", err
		}
		if err := missing(`\fB`+s.Name+`\fR`, "man5/machnetd.toml.5"); err != nil {
			return "", err
		}
	}
	count := 0
	err := tools.each("machnet", func(path string, c command) error {
		count += len(c.Flags)
		for _, f := range c.Flags {
			spelled := "--" + f.Name
			if len(f.Name) == 1 {
				spelled = "-" + f.Name
			}
			if err := missing(spelled, "man1/machnet.1", "bash-completion/completions/machnet", "zsh/vendor-completions/_machnet"); err != nil {
				return err
			}
		}
		return missing("'"+path+"'", "bash-completion/completions/machnet", "zsh/vendor-completions/_machnet")
	})
	return fmt.Sprintf("%d settings, %d flags of machnet", len(daemon.Settings), count), err
}

type command struct {
	Name     string
	Flags    []struct{ Name string }
	Commands []command
}

func (c command) each(path string, do func(path string, c command) error) error {
	if err := do(path, c); err != nil {
		return err
	}
	for _, sub := range c.Commands {
		if err := sub.each(path+" "+sub.Name, do); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) described(into any, program, how string) error {
	out, err := b.run(program, how)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(out), into)
}

// completed compares what a shell offers for what was typed.
func completed(got, want string) error {
	if got = strings.Join(strings.Fields(got), " "); got != want {
		return fmt.Errorf("offers %q, want %q", got, want)
	}
	return nil
}

func bashCompletes(b *bench) (string, error) {
	if err := need("bash"); err != nil {
		return "", err
	}
	for typed, want := range map[string]string{
		"machnet ctl he":                    "health",
		"machnet ctl health --re":           "--ready",
		"machnet be":                        "bench",
		"machnet bench go --rou":            "--rounds",
		"machnet bench --throu":             "--throughput",
		"machnet ctl health --socket x --r": "--ready",
		"machnetd --descri":                 "--describe --descriptors",
	} {
		program, _, _ := strings.Cut(typed, " ")
		script := fmt.Sprintf("set -eu; source %s; COMP_WORDS=(%s); COMP_CWORD=$((${#COMP_WORDS[@]}-1)); _%s; echo \"${COMPREPLY[@]}\"",
			b.share("bash-completion/completions", program), typed, program)
		out, err := b.run("bash", "-c", script)
		if err != nil {
			return "", err
		}
		if err := completed(out, want); err != nil {
			return "", fmt.Errorf("%q: %w", typed, err)
		}
	}
	return "", nil
}

func fishCompletes(b *bench) (string, error) {
	if err := need("fish"); err != nil {
		return "", err
	}
	for typed, want := range map[string]string{
		"machnet ctl he":          "health",
		"machnet ctl health --re": "--ready",
		"machnet bench --throu":   "--throughput",
		"machnetd --descri":       "--describe --descriptors",
	} {
		program, _, _ := strings.Cut(typed, " ")
		out, err := b.run("fish", "-c", fmt.Sprintf("source %s; complete -C '%s' | cut -f1", b.share("fish/vendor_completions.d", program+".fish"), typed))
		if err != nil {
			return "", err
		}
		if err := completed(out, want); err != nil {
			return "", fmt.Errorf("%q: %w", typed, err)
		}
	}
	return "", nil
}

// zshReads has zsh read the files: what it would offer is seen at a terminal only.
func zshReads(b *bench) (string, error) {
	if err := need("zsh"); err != nil {
		return "", err
	}
	for _, name := range []string{"_machnet", "_machnetd"} {
		if out, err := b.run("zsh", "-n", b.share("zsh/vendor-completions", name)); err != nil {
			return out, err
		}
	}
	return "syntax alone", nil
}
