package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/machnet/machnet/cmd/internal/setup"
)

// runNICSetup gives a NIC to machnetd, or back to the kernel.
func runNICSetup(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var o setup.Options
	fs := flag.NewFlagSet("setup", flag.ContinueOnError)
	fs.StringVar(&o.NIC, "nic", "", "the NIC: an interface such as eth1, a PCI address or a MAC address")
	xdp := fs.Bool("xdp", false, "AF_XDP: the kernel keeps the NIC and its own traffic (on a machine with one NIC the only way that leaves\nSSH alive); the sidecar needs an address of its own: --ip")
	packet := fs.Bool("af-packet", false, "packet sockets: the kernel keeps the NIC and loses its IPv4 addresses; for NICs that DPDK does not drive")
	fs.StringVar(&o.Driver, "driver", "vfio-pci", "the driver that hands a PCI device to machnetd: vfio-pci, uio_pci_generic or igb_uio")
	ip := fs.String("ip", "", "the sidecar's `ADDRESS/PREFIX`; by default what the kernel has on the NIC")
	gateway := fs.String("gateway", "", "the sidecar's gateway; by default the kernel's by the NIC")
	fs.IntVar(&o.Engines, "engines", 0, "engines of machnetd; by default as the configuration has it, with --xdp one for each receive queue")
	fs.StringVar(&o.Config, "config", "/etc/machnet/machnetd.toml", "machnetd's settings: what it says otherwise than the setup is replaced, and a copy kept")
	fs.StringVar(&o.State, "state", "/var/lib/machnet/setup.json", "where what was done is written down")
	atBoot := fs.Bool("at-boot", false, "have machnetd.service (systemd) do it at each start: a reboot gives everything back to the kernel")
	dryRun := fs.Bool("dry-run", false, "print the shell commands, and do nothing")
	undo := fs.Bool("undo", false, "take it back: driver, addresses, routes, huge pages, files")
	fs.StringVar(&o.CutOff, "cut-off", "", "take this `INTERFACE` though it carries the default route or an SSH session; only with --yes-cut-me-off")
	fs.BoolVar(&o.Sure, "yes-cut-me-off", false, "that is meant; there is another way into this machine")
	if err := parse(fs, args, stdout, ""); err != nil {
		return err
	}
	for _, path := range []*string{&o.Config, &o.State} {
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		*path = absolute
	}
	if os.Geteuid() != 0 && !*dryRun {
		return fmt.Errorf("it changes what only root may change; run it as root, or see by --dry-run what it would do")
	}
	if *undo {
		return undoSetup(o, *dryRun, stdout)
	}
	if *atBoot {
		program, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find this program for --at-boot: %w", err)
		}
		o.AtBoot = program
	}
	switch {
	case o.NIC == "":
		return usagef("name the NIC: --nic eth1, or its PCI or MAC address")
	case *xdp && *packet:
		return usagef("--xdp and --af-packet are two ways to drive a NIC; use one")
	case (*xdp || *packet) && o.Driver != "vfio-pci":
		return usagef("--driver %s is for DPDK, and with --xdp and --af-packet the kernel keeps the NIC; leave it out", o.Driver)
	case o.Engines < 0 || o.Engines > mostEngines:
		return usagef("--engines %d: use 1 to %d", o.Engines, mostEngines)
	case o.Sure != (o.CutOff != ""):
		return usagef("--cut-off INTERFACE and --yes-cut-me-off count together only")
	}
	o.Backend = setup.DPDK
	if *xdp {
		o.Backend = setup.XDP
	}
	if *packet {
		o.Backend = setup.AFPacket
	}
	var err error
	if *ip != "" {
		if o.IP, err = netip.ParsePrefix(*ip); err != nil || !o.IP.Addr().Is4() || o.IP.Bits() == 0 {
			return usagef("--ip %q: an IPv4 address with the length of its prefix, such as 10.0.0.5/24", *ip)
		}
	}
	if *gateway != "" {
		if o.Gateway, err = netip.ParseAddr(*gateway); err != nil || !o.Gateway.Is4() {
			return usagef("--gateway %q: an IPv4 address, such as 10.0.0.1", *gateway)
		}
	}
	return doSetup(ctx, o, *dryRun, stdout)
}

func doSetup(ctx context.Context, o setup.Options, dryRun bool, stdout io.Writer) error {
	plan, err := setup.New(o)
	if err != nil {
		return err
	}
	pending := plan.Pending(ctx)
	if dryRun {
		title := fmt.Sprintf("What `machnet setup %s` does.", plan.Options)
		if len(pending) == 0 {
			title += " All of it is in force already."
		}
		for _, note := range plan.Notes {
			title += "\n# Note: " + note
		}
		_, err := io.WriteString(stdout, setup.Script(title, pending, func(s setup.Step) string { return s.Do }))
		return err
	}
	for _, note := range plan.Notes {
		fmt.Fprintf(stdout, "note: %s\n", note)
	}
	if err := plan.Apply(ctx, stdout); err != nil {
		return err
	}
	if len(pending) == 0 {
		_, err = fmt.Fprintf(stdout, "%s is set up already; nothing to do\n", plan.NIC())
		return err
	}
	_, err = fmt.Fprintf(stdout, "%s is set up; next: machnetd --config %s --check, then start it\n`machnet setup --undo` takes it back\n", plan.NIC(), o.Config)
	return err
}

func undoSetup(o setup.Options, dryRun bool, stdout io.Writer) error {
	plan, err := setup.Earlier(o)
	switch {
	case err != nil:
		return err
	case plan == nil:
		_, err := fmt.Fprintf(stdout, "nothing is set up (%s is not there); nothing to do\n", o.State)
		return err
	case o.NIC != "" && !plan.Is(o.NIC):
		return fmt.Errorf("take back the setup of %s: %s is of %s", o.NIC, o.State, plan.NIC())
	case dryRun:
		title := fmt.Sprintf("What takes back `machnet setup %s`, but for its record %s.", plan.Options, o.State)
		_, err := io.WriteString(stdout, setup.Script(title, plan.Undone(), func(s setup.Step) string { return s.Undo }))
		return err
	}
	if err := plan.Undo(stdout); err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "all is as it was before %s was set up\n", plan.NIC())
	return err
}
