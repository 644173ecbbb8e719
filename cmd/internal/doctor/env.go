package doctor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/machnet/machnet/cmd/internal/machine"
	"github.com/machnet/machnet/go/control"
)

// Env is what is examined.
type Env struct {
	Root machine.Root // "" is this machine
	// Socket is the control socket; "" is the usual one.
	Socket string
	// Machnetd is the program, as exec.LookPath finds it.
	Machnetd string
	// Flags are machnetd's, as it is or would be started; nil where nobody said.
	Flags []string
	// NIC names one by interface, PCI or MAC address; "" is the one that the settings choose.
	NIC string
	// Peer is the other host's echo, IP:port; "" is none.
	Peer string

	// What is known of the sidecar.
	about    *control.About    // nil: none answers
	aboutErr error             // why
	settings *control.Settings // of the running sidecar, or those that Flags mean; nil: nobody knows
	checked  *checked          // what machnetd says of Flags; nil: nobody gave any, or there is no machnetd
	noCheck  string            // why it is nil
	nic      *machine.NIC      // nil: none is chosen, or it is no device of this machine
	noNIC    string            // why
	usual    bool              // nobody named settings: Flags are those of the usual file
	stolen   sample            // processor time at the beginning
	path     *peerPath         // to the peer
}

// checked is the document of `machnetd --check --json`.
type checked struct {
	Version  int               `json:"version"`
	Machnetd string            `json:"machnetd"`
	DPDK     string            `json:"dpdk"`
	Drivers  []string          `json:"drivers"` // nil: linked in
	Channel  int               `json:"channel"`
	Settings *control.Settings `json:"settings"`
	Mistakes []mistake         `json:"mistakes"`
	Warnings []string          `json:"warnings"`
}

type mistake struct {
	Code int    `json:"code"`
	Text string `json:"text"`
}

// What a mistake of machnetd's concerns: the exit codes of docs/configuration.md.
const (
	ofNIC     = 3
	ofEngines = 5
)

// mistakes are the sentences that concern one part.
func (e *Env) mistakes(code int) []string {
	var all []string
	if e.checked != nil {
		for _, m := range e.checked.Mistakes {
			if m.Code == code {
				all = append(all, m.Text)
			}
		}
	}
	return all
}

// begin learns what all checks need. What is not there is no error; it is for a check to say.
func (e *Env) begin(ctx context.Context) (err error) {
	e.stolen = e.sample()
	if e.Flags == nil && e.NIC == "" {
		e.ask(ctx)
	}
	if e.about != nil {
		e.settings = &e.about.Settings
	}
	if e.Flags == nil && e.about == nil && e.NIC == "" && e.exists(DefaultConfig) {
		e.Flags, e.usual = []string{"--config", DefaultConfig}, true
	}
	if e.Flags == nil && e.NIC != "" {
		if err := e.imagine(); err != nil {
			return err
		}
	}
	if e.Flags != nil {
		if err := e.check(ctx); err != nil {
			return err
		}
	} else {
		e.noCheck = "no settings to check: name --config FILE, --nic, or machnetd's flags behind --"
	}
	// The usual settings may name another socket than the usual one, at which nobody answered.
	elsewhere := e.usual && e.Socket == "" && e.settings != nil && e.settings.Socket != e.socket()
	if e.about == nil && (e.aboutErr == nil || elsewhere) {
		if e.Socket == "" && e.settings != nil {
			e.Socket = e.settings.Socket
		}
		e.ask(ctx)
	}
	return e.choose()
}

func (e *Env) end() {
	if e.path != nil {
		e.path.close()
	}
}

func (e *Env) ask(ctx context.Context) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("it has not answered within %v; is it stopped?", patience))
	defer cancel()
	e.about, e.aboutErr = control.Describe(ctx, e.Socket)
}

// imagine makes the flags of a sidecar that would have this NIC, so that machnetd can be asked about it.
func (e *Env) imagine() error {
	nic, err := e.Root.Find(e.NIC)
	if err != nil {
		return fmt.Errorf("--nic %s: %w", e.NIC, err)
	}
	address := "192.0.2.1/24" // of no meaning: nothing is started
	if a, has := nic.IPv4(); has {
		address = a.Prefix.String()
	}
	e.Flags = []string{"--ip", address}
	if nic.Gateway.IsValid() {
		e.Flags = append(e.Flags, "--gateway", nic.Gateway.String())
	}
	switch {
	case nic.Vmbus != "":
		e.Flags = append(e.Flags, "--mac", nic.MAC.String())
	case nic.PCI != "":
		e.Flags = append(e.Flags, "--pci", nic.PCI)
	default:
		e.Flags = append(e.Flags, "--vdev", "net_af_packet0,iface="+nic.Name)
	}
	return nil
}

// check asks machnetd about the flags. That there is no machnetd is for a check to say.
func (e *Env) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("it has not answered within %v", patience))
	defer cancel()
	cmd := exec.CommandContext(ctx, e.Machnetd, append(append([]string{}, e.Flags...), "--check", "--json")...)
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && ctx.Err() == nil && len(out) > 0 {
		err = nil // the document says why
	}
	switch {
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		e.noCheck = fmt.Sprintf("%s is not on this machine; name it by --machnetd", e.Machnetd)
		return nil
	case err != nil:
		return fmt.Errorf("%s --check: %w", e.Machnetd, err)
	}
	e.checked = new(checked)
	if err := json.Unmarshal(bytes.TrimSpace(out), e.checked); err != nil || e.checked.Version != 1 {
		return fmt.Errorf("%s --check --json: %q is not what this program knows; use both of one release", e.Machnetd, out)
	}
	e.settings = e.checked.Settings
	return nil
}

// choose finds the NIC that --nic or the settings mean.
func (e *Env) choose() error {
	word := e.NIC
	if word == "" {
		if e.settings == nil {
			e.noNIC = "no NIC to look at: name --nic, --config FILE, or machnetd's flags behind --"
			return nil
		}
		word = interfaceOf(e.settings.NIC)
		if word == "" {
			e.noNIC = fmt.Sprintf("%s %s is no device of this machine", e.settings.NIC[0], e.settings.NIC[1])
			return nil
		}
	}
	nic, err := e.Root.Find(word)
	switch {
	case err == nil:
		e.nic = &nic
	case e.NIC != "":
		return fmt.Errorf("--nic %s: %w", e.NIC, err)
	default:
		e.noNIC = err.Error()
	}
	return nil
}

// interfaceOf is what the NIC of the settings is called by the kernel; "" for shared memory.
func interfaceOf(nic [2]string) string {
	switch nic[0] {
	case "pci", "mac", "xdp":
		return nic[1]
	case "vdev":
		for _, arg := range strings.Split(nic[1], ",")[1:] {
			if name, is := strings.CutPrefix(arg, "iface="); is {
				return name
			}
		}
	}
	return ""
}

// physical says whether the settings give a device to the process, rather than a device of the kernel's or shared memory.
func (e *Env) physical() bool {
	return e.settings != nil && (e.settings.NIC[0] == "pci" || e.settings.NIC[0] == "mac")
}

// text is what a file of the machine holds, without the space around it; "" where it cannot be read.
func (e *Env) text(path string) string {
	text, err := os.ReadFile(e.Root.Path(path))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

func (e *Env) exists(path string) bool {
	_, err := os.Stat(e.Root.Path(path))
	return err == nil
}

func (e *Env) socket() string { return control.Socket(e.Socket) }

// patience is how long a program of ours may take to answer; on a quiet machine it is milliseconds.
const patience = 3 * time.Second

// DefaultConfig is where `machnet setup` and the packages keep the settings.
const DefaultConfig = "/etc/machnet/machnetd.toml"

// program is what a shell calls a program: its name where that leads to it, else its whole path.
func program(path string) string {
	if found, err := exec.LookPath(filepath.Base(path)); err == nil && found == path {
		return filepath.Base(path)
	}
	return path
}
