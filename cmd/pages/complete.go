package main

import (
	"fmt"
	"strings"
)

// walk calls each for a command and all below it, with the words that lead there.
func walk(c command, path string, each func(path string, c command)) {
	path = strings.TrimSpace(path + " " + c.Name)
	each(path, c)
	for _, sub := range c.Commands {
		walk(sub, path, each)
	}
}

// quoted is a word of a POSIX shell.
func quoted(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// paths are the patterns of a shell's case for all commands below c.
func paths(c command) []string {
	var all []string
	walk(c, "", func(path string, _ command) {
		if path != c.Name {
			all = append(all, quoted(path))
		}
	})
	return all
}

// bash completes commands and flags; what is neither is a file, as sockets and configurations are.
func bash(c command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# bash completion of %s, made from its own table of flags\n_%s() {\n", c.Name, c.Name)
	fmt.Fprintf(&b, "    local current=${COMP_WORDS[COMP_CWORD]} path=%s words= word\n", c.Name)
	if all := paths(c); len(all) > 0 {
		b.WriteString("    for word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n        case \"$path $word\" in\n")
		fmt.Fprintf(&b, "            %s) path=\"$path $word\" ;;\n        esac\n    done\n", strings.Join(all, "|"))
	}
	b.WriteString("    case $path in\n")
	walk(c, "", func(path string, c command) {
		var words []string
		for _, sub := range c.Commands {
			words = append(words, sub.Name)
		}
		for _, f := range c.Flags {
			words = append(words, f.spelled())
		}
		fmt.Fprintf(&b, "        %s) words=%s ;;\n", quoted(path), quoted(strings.Join(words, " ")))
	})
	b.WriteString("    esac\n    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$current\")\n}\n")
	fmt.Fprintf(&b, "complete -o default -F _%s %s\n", c.Name, c.Name)
	return b.String()
}

// zsh does the same, with what each means beside it.
func zsh(c command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "#compdef %s\n# made from the program's own table of flags\n_%s() {\n", c.Name, c.Name)
	fmt.Fprintf(&b, "    local at=%s i\n    local -a commands flags\n", c.Name)
	if all := paths(c); len(all) > 0 {
		b.WriteString("    for ((i = 2; i < CURRENT; i++)); do\n        case \"$at ${words[i]}\" in\n")
		fmt.Fprintf(&b, "            (%s) at=\"$at ${words[i]}\" ;;\n        esac\n    done\n", strings.Join(all, "|"))
	}
	b.WriteString("    case $at in\n")
	entry := func(name, help string) string {
		help, _, _ = strings.Cut(help, "\n")
		return quoted(strings.ReplaceAll(name, ":", `\:`) + ":" + help)
	}
	walk(c, "", func(path string, c command) {
		fmt.Fprintf(&b, "        (%s)\n", quoted(path))
		for _, sub := range c.Commands {
			fmt.Fprintf(&b, "            commands+=(%s)\n", entry(sub.Name, sub.Summary))
		}
		for _, f := range c.Flags {
			fmt.Fprintf(&b, "            flags+=(%s)\n", entry(f.spelled(), f.Help))
		}
		b.WriteString("            ;;\n")
	})
	b.WriteString("    esac\n    _describe command commands\n    _describe -o flag flags\n    _files\n}\n")
	fmt.Fprintf(&b, "_%s \"$@\"\n", c.Name)
	return b.String()
}

// fish wants a condition for each word: which commands were given, and which were not.
func fish(c command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# fish completion of %s, made from its own table of flags\n", c.Name)
	walk(c, "", func(path string, here command) {
		given := strings.Fields(path)[1:]
		conditions := make([]string, 0, len(given)+1)
		for _, word := range given {
			conditions = append(conditions, "__fish_seen_subcommand_from "+word)
		}
		var below []string
		for _, sub := range here.Commands {
			below = append(below, sub.Name)
		}
		if len(below) > 0 {
			conditions = append(conditions, "not __fish_seen_subcommand_from "+strings.Join(below, " "))
		}
		condition := ""
		if len(conditions) > 0 {
			condition = " -n " + quoted(strings.Join(conditions, "; and "))
		}
		for _, sub := range here.Commands {
			fmt.Fprintf(&b, "complete -c %s%s -f -a %s -d %s\n", c.Name, condition, sub.Name, fishWord(sub.Summary))
		}
		for _, f := range here.Flags {
			kind, value := "-l", ""
			if len(f.Name) == 1 {
				kind = "-s"
			}
			if f.Value != "" {
				value = " -r"
			}
			fmt.Fprintf(&b, "complete -c %s%s %s %s%s -d %s\n", c.Name, condition, kind, f.Name, value, fishWord(f.Help))
		}
	})
	return b.String()
}

// fishWord is the first line of a text as a word of fish, where a quote is escaped within quotes.
func fishWord(text string) string {
	text, _, _ = strings.Cut(text, "\n")
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(text) + "'"
}
