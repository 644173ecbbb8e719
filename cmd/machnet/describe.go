package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
)

// described is one command as tools see it: manual pages and completions are made of it.
type described struct {
	Name       string          `json:"name"`
	Positional string          `json:"positional,omitempty"` // names of the arguments beside flags
	Summary    string          `json:"summary"`
	Flags      []describedFlag `json:"flags"`
	Commands   []described     `json:"commands,omitempty"`
}

type describedFlag struct {
	Name    string `json:"name"`
	Value   string `json:"value,omitempty"` // what stands for the value; "" where it has none
	Default string `json:"default,omitempty"`
	Help    string `json:"help"`
}

// describeFlag is the one argument by which a command describes itself and does nothing else.
const describeFlag = "--describe"

// describeCommand prints all commands as JSON. It is for the build of packages, and so not among those that help lists.
const describeCommand = "describe"

func runDescribe(ctx context.Context, args []string, stdout, _ io.Writer) error {
	if len(args) > 0 {
		return usagef("%q: this command takes no arguments", args[0])
	}
	all := described{Name: "machnet", Summary: summary, Flags: []describedFlag{}}
	for _, c := range commands() {
		one := described{Name: c.name, Summary: c.summary, Flags: []describedFlag{}}
		switch c.name {
		case "ctl":
			for _, q := range questions() {
				asks, err := describe(ctx, q.name, q.summary, func(ctx context.Context, args []string, stdout, _ io.Writer) error {
					return q.run(ctx, args, stdout)
				})
				if err != nil {
					return err
				}
				one.Commands = append(one.Commands, asks)
			}
		case "version": // it reads no flags
		default:
			var err error
			if one, err = describe(ctx, c.name, c.summary, c.run); err != nil {
				return err
			}
		}
		if c.name == "bench" {
			for _, b := range benches() {
				measures, err := describe(ctx, b.name, b.summary, b.run)
				if err != nil {
					return err
				}
				one.Commands = append(one.Commands, measures)
			}
		}
		all.Commands = append(all.Commands, one)
	}
	encoder := json.NewEncoder(stdout)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(all)
}

// describe has a command describe itself.
func describe(ctx context.Context, name, summary string, run func(ctx context.Context, args []string, stdout, stderr io.Writer) error) (described, error) {
	var out bytes.Buffer
	_ = run(ctx, []string{describeFlag}, &out, io.Discard) // what it returns is flag.ErrHelp
	one := described{}
	if err := json.Unmarshal(out.Bytes(), &one); err != nil {
		return one, fmt.Errorf("command %s does not describe itself: %w", name, err)
	}
	one.Name, one.Summary = name, summary
	return one, nil
}

// describeFlags is what parse does with describeFlag.
func describeFlags(fs *flag.FlagSet, positional string, stdout io.Writer) error {
	one := described{Positional: positional, Flags: []describedFlag{}}
	fs.VisitAll(func(f *flag.Flag) {
		value, help := flag.UnquoteUsage(f)
		shown := describedFlag{Name: f.Name, Value: value, Help: help}
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0" && f.DefValue != "0s" {
			shown.Default = f.DefValue
		}
		one.Flags = append(one.Flags, shown)
	})
	if err := json.NewEncoder(stdout).Encode(one); err != nil {
		return err
	}
	return flag.ErrHelp
}
