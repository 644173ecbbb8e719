package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/machnet/machnet/cmd/internal/doctor"
)

// errUnhealthy is what `machnet doctor` ends with where a check failed; the rows say which.
var errUnhealthy = errors.New("something is wrong")

func runDoctor(ctx context.Context, args []string, stdout, _ io.Writer) error {
	env := &doctor.Env{}
	fs := flag.NewFlagSet("doctor", flag.ContinueOnError)
	fs.StringVar(&env.Socket, "socket", "", socketHelp)
	config := fs.String("config", "", "the sidecar's settings, a file; by default those of the sidecar that runs, else "+doctor.DefaultConfig)
	fs.StringVar(&env.NIC, "nic", "", "look at this NIC, named by interface, PCI or MAC address; by default the one of the settings")
	fs.StringVar(&env.Peer, "peer", "", "measure the path to this `HOST`, an IP or IP:port, which runs machnet echo")
	fs.StringVar(&env.Machnetd, "machnetd", "", "the sidecar's program, which judges its settings; by default the one beside this program, else in $PATH")
	asJSON := fs.Bool("json", false, "print a JSON document")
	// What follows -- is for machnetd, and stays as it is.
	if i := slices.Index(args, "--"); i >= 0 {
		env.Flags, args = slices.Clone(args[i+1:]), args[:i]
	}
	if err := parse(fs, args, stdout, "[-- machnetd's flags]"); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return usagef("%q: flags of machnetd go behind --; `machnet doctor -h` lists those of doctor", fs.Arg(0))
	}
	if *config != "" {
		env.Flags = append([]string{"--config", *config}, env.Flags...)
	}
	if env.Peer != "" {
		host, port, err := net.SplitHostPort(env.Peer)
		if err != nil {
			host, port = env.Peer, defaultEchoPort
		}
		if net.ParseIP(host).To4() == nil {
			return usagef("--peer %s: an IPv4 address of a sidecar, like 10.0.0.2 or 10.0.0.2:%s", env.Peer, defaultEchoPort)
		}
		env.Peer = net.JoinHostPort(host, port)
	}
	if env.Machnetd == "" {
		env.Machnetd = besideUs("machnetd")
	}
	rows, err := doctor.Run(ctx, env)
	if err != nil {
		return err
	}
	write := writeRows
	if *asJSON {
		write = writeRowsJSON
	}
	if err := write(stdout, rows); err != nil {
		return err
	}
	if !doctor.Healthy(rows) {
		return errUnhealthy
	}
	return nil
}

// besideUs is a program in the folder of this one, where it is there; else its name, to be found in $PATH.
func besideUs(name string) string {
	if self, err := os.Executable(); err == nil {
		if beside := filepath.Join(filepath.Dir(self), name); isFile(beside) {
			return beside
		}
	}
	return name
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// writeRows shows what was found, and below each that is not ok what mends it.
func writeRows(out io.Writer, rows []doctor.Row) error {
	text := new(strings.Builder)
	counts := map[doctor.Status]int{}
	for _, row := range rows {
		counts[row.Status]++
		status := string(row.Status)
		if row.Status == doctor.Fail {
			status = "FAIL"
		}
		fmt.Fprintf(text, "%-11s  %-18s  %s\n", status, row.Check, row.Found)
		if row.Status == doctor.OK || row.Status == doctor.Skipped {
			continue
		}
		for _, line := range []struct{ name, text string }{
			{"expected", row.Expected}, {on("mend", row.On), row.Command}, {"advice", row.Advice},
		} {
			if line.text != "" {
				fmt.Fprintf(text, "%-11s  %-18s  %s: %s\n", "", "", line.name, line.text)
			}
		}
	}
	fmt.Fprintf(text, "\n%d ok, %d warnings, %d failed, %d not checked\n", counts[doctor.OK], counts[doctor.Warn], counts[doctor.Fail], counts[doctor.Skipped])
	_, err := io.WriteString(out, text.String())
	return err
}

func on(what, host string) string {
	if host == "" {
		return what
	}
	return what + " (on " + host + ")"
}

// finding is a row of the JSON document; fields that say nothing are left out.
type finding struct {
	Check    string        `json:"check"`
	Status   doctor.Status `json:"status"`
	Found    string        `json:"found"`
	Expected string        `json:"expected,omitempty"`
	Command  string        `json:"command,omitempty"`
	On       string        `json:"on,omitempty"`
	Advice   string        `json:"advice,omitempty"`
}

func writeRowsJSON(out io.Writer, rows []doctor.Row) error {
	document := struct {
		Version int       `json:"version"`
		Healthy bool      `json:"healthy"`
		Checks  []finding `json:"checks"`
	}{1, doctor.Healthy(rows), make([]finding, len(rows))}
	for i, row := range rows {
		r := row.Result
		document.Checks[i] = finding{row.Check, r.Status, r.Found, r.Expected, r.Command, r.On, r.Advice}
	}
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false) // commands have && and >
	return encoder.Encode(document)
}
