// Package setup gives a NIC to machnetd: it reads of the kernel what the NIC's address, gateway and MTU are, writes the sidecar's
// configuration, reserves huge pages, and takes the NIC from the kernel where its back end wants that; and it takes all of it back.
//
// A setup is a list of steps, each a shell command that does it and one that undoes it, both made before anything is changed. What
// --dry-run prints is what is run. Before each step the list is written to a file with how far it has come, so that a setup that died
// on the way can be undone, and one that a reboot undid in part can be done again.
package setup

import (
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/machnet/machnet/cmd/internal/machine"
)

// Backend is the way in which machnetd drives a NIC.
type Backend string

const (
	DPDK     Backend = "dpdk"      // DPDK's driver for the device; the kernel gives it up, or shares it where that driver does
	XDP      Backend = "xdp"       // AF_XDP sockets: the kernel keeps the device and its own traffic
	AFPacket Backend = "af_packet" // packet sockets: the kernel keeps the device, without an IPv4 address
)

// Options say what is wanted.
type Options struct {
	NIC     string  // an interface, a PCI address or a MAC address
	Backend Backend //
	Driver  string  // that hands a PCI device to processes; "" is vfio-pci
	Engines int     // of machnetd; 0: as the configuration has it, or for XDP one for each receive queue

	IP      netip.Prefix // the sidecar's address, where it is not the kernel's on this NIC; invalid: the kernel's
	Gateway netip.Addr   // likewise

	Config string // the file of machnetd's settings
	State  string // the file that says what was done

	AtBoot string // a program: the service runs it with these options whenever machnetd starts; "": none

	CutOff string // the interface that may be taken though it carries the default route or an SSH session
	Sure   bool   // and that this is meant

	Root machine.Root // before /sys and /proc, for tests
}

// Plan is a setup: what to do, in order, and what is worth telling.
type Plan struct {
	journal
	Notes []string // what whoever asked should know
	state string
	boot  string // the boot of the kernel that we are in
}

// New looks at the machine, and makes the plan. Where the state file says that the same was set up before, the plan is what the file
// has, so that what it restores is what was there before the first time.
func New(o Options) (*Plan, error) {
	if o.Driver == "" {
		o.Driver = "vfio-pci"
	}
	earlier, err := load(o.State)
	if err != nil {
		return nil, err
	}
	if earlier != nil {
		if !earlier.same(o) {
			return nil, fmt.Errorf("set up %s: %s says that %s is set up already by `machnet setup %s`; take that back first (machnet setup --undo), or name another file (--state FILE)",
				o.NIC, o.State, earlier.Words[0], earlier.Options)
		}
		p := &Plan{journal: *earlier, state: o.State, boot: o.Root.Boot()}
		if err := p.again(o); err != nil {
			return nil, fmt.Errorf("set up %s again: %w", o.NIC, err)
		}
		return p, p.atBoot(o)
	}
	nic, err := o.Root.Find(o.NIC)
	if err != nil {
		return nil, fmt.Errorf("set up %s: %w", o.NIC, err)
	}
	p := &Plan{state: o.State, boot: o.Root.Boot(), journal: journal{Version: version, Options: o.words(), Words: words(nic)}}
	b := &builder{o: o, nic: nic, plan: p}
	if err := b.build(); err != nil {
		return nil, fmt.Errorf("set up %s: %w", nic, err)
	}
	return p, p.atBoot(o)
}

// builder makes the steps of a plan.
type builder struct {
	o    Options
	nic  machine.NIC
	plan *Plan
}

func (b *builder) step(s Step) { b.plan.Steps = append(b.plan.Steps, s) }

func (b *builder) note(format string, args ...any) {
	b.plan.Notes = append(b.plan.Notes, fmt.Sprintf(format, args...))
}

func (b *builder) build() error {
	way, err := b.way()
	if err != nil {
		return err
	}
	if err := b.guard(way); err != nil {
		return err
	}
	if way == taken || way == netvsc {
		if err := b.alone(); err != nil {
			return err
		}
	}
	settings, err := b.settings(way)
	if err != nil {
		return err
	}
	// What can fail without harm comes first, and the kernel loses the NIC last.
	file, err := b.configuration(settings)
	if err != nil {
		return err
	}
	if way.physical() {
		if err := b.hugepages(file); err != nil {
			return err
		}
	}
	if err := b.drivers(way); err != nil {
		return err
	}
	if err := b.network(way); err != nil {
		return err
	}
	return b.bind(way)
}

// way is what becomes of the device.
type way int

const (
	sockets way = iota // the kernel keeps it, and its own traffic
	frames             // the kernel keeps it, without an IPv4 address
	shared             // so, and DPDK's driver uses it beside the kernel's
	taken              // a driver hands the PCI device to the sidecar
	netvsc             // a driver hands Hyper-V's device to the sidecar; the PCI device behind it stays with the kernel
)

// physical says whether DPDK drives a real device, which needs huge pages.
func (w way) physical() bool { return w >= shared }

// way chooses it by the back end and the device's driver in the kernel.
func (b *builder) way() (way, error) {
	n := b.nic
	if !plain.MatchString(n.Name + n.PCI) {
		return 0, fmt.Errorf("its name has characters that are none of letters, digits and _.:@-; rename it first (ip link set dev NAME name eth9)")
	}
	if master, err := b.o.Root.ByName(n.Master); n.Master != "" && err == nil && master.Vmbus != "" && master.VF == n.Name {
		return 0, fmt.Errorf("it is the fast path of %s, and goes where that goes; name %s", n.Master, n.Master)
	}
	if b.o.Backend != DPDK && n.Name == "" {
		return 0, fmt.Errorf("the kernel has no interface for it while %s drives it, and --%s needs one; give it back to the kernel first",
			or(n.Driver, "no driver"), flagOf(b.o.Backend))
	}
	switch {
	case b.o.Backend == XDP:
		return sockets, nil
	case b.o.Backend == AFPacket:
		return frames, nil
	case n.Vmbus != "":
		return netvsc, nil
	case n.PCI == "":
		return 0, fmt.Errorf("it is no PCI device but %s, and DPDK drives PCI devices; use --xdp or --af-packet, with which the kernel keeps it",
			or(n.Kind, "one of another bus"))
	case n.Name == "":
		return 0, fmt.Errorf("its driver is %s and the kernel has no interface for it, so there is no address to be read; give it back to the kernel first (machnet setup --undo, if it was machnet setup that took it)", or(n.Driver, "missing"))
	case n.Driver == "mlx5_core" || n.Driver == "mlx4_core" || n.Driver == "mana":
		return shared, nil
	}
	return taken, nil
}

// words are what a NIC may be called by.
func words(n machine.NIC) []string {
	var all []string
	for _, word := range []string{n.Name, n.PCI, n.MAC.String(), strings.TrimPrefix(n.PCI, "0000:")} {
		if word != "" {
			all = append(all, word)
		}
	}
	return all
}

// words are the flags that ask for these options; they tell one setup from another.
func (o Options) words() string {
	flags := []string{"--nic", o.NIC}
	add := func(name, value string) { flags = append(flags, "--"+name, value) }
	switch o.Backend {
	case XDP, AFPacket:
		flags = append(flags, "--"+flagOf(o.Backend))
	default:
		add("driver", o.Driver)
	}
	if o.Engines > 0 {
		add("engines", fmt.Sprint(o.Engines))
	}
	if o.IP.IsValid() {
		add("ip", o.IP.String())
	}
	if o.Gateway.IsValid() {
		add("gateway", o.Gateway.String())
	}
	add("config", o.Config)
	return strings.Join(flags, " ")
}

func flagOf(b Backend) string { return strings.ReplaceAll(string(b), "_", "-") }

func or(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

// exists says whether there is such a file.
func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
