package setup

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/machnet/machnet/cmd/internal/machine"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// network makes the step in which the kernel gives up what it has of the interface.
func (b *builder) network(w way) error {
	dev := quote(b.nic.Name)
	switch {
	case w == sockets:
		return b.beside(dev)
	case w == taken || w == netvsc:
		back, err := b.addressesAndRoutes(b.nic.Addresses, []int{netlink.FAMILY_V4, netlink.FAMILY_V6})
		if err != nil {
			return err
		}
		up := ""
		if b.nic.Up {
			up = fmt.Sprintf("ip link set dev %s up", dev)
		}
		if b.nic.VF != "" {
			if err := b.down(b.nic.VF); err != nil {
				return err
			}
		}
		b.step(Step{
			Why:  fmt.Sprintf("take the addresses of %s from the kernel, and set it down", b.nic.Name),
			Done: fmt.Sprintf(`[ -z "$(ip -o link show dev %s up 2>/dev/null)$(ip -o -4 address show dev %s 2>/dev/null)" ]`, dev, dev),
			Do:   lines(fmt.Sprintf("ip address flush dev %s", dev), fmt.Sprintf("ip link set dev %s down", dev)),
			Undo: lines(up, fmt.Sprintf("ip -4 address flush dev %s", dev), back),
		})
		return nil
	}
	var addresses []machine.Address
	for _, a := range b.nic.Addresses {
		if a.Prefix.Addr().Is4() {
			addresses = append(addresses, a)
		}
	}
	back, err := b.addressesAndRoutes(addresses, []int{netlink.FAMILY_V4})
	if err != nil {
		return err
	}
	if len(addresses) > 0 {
		b.step(Step{
			Why:  fmt.Sprintf("take the IPv4 addresses of %s from the kernel, which would answer for the sidecar", b.nic.Name),
			Done: fmt.Sprintf(`left=$(ip -o -4 address show dev %s) && [ -z "$left" ]`, dev),
			Do:   fmt.Sprintf("ip -4 address flush dev %s", dev),
			// Halfway some would stand behind others that they stood before.
			Undo: lines(fmt.Sprintf("ip -4 address flush dev %s", dev), back),
		})
	}
	b.up(dev)
	if who := b.managed(); who != "" {
		b.note("%s", who)
	}
	return nil
}

// beside leaves the kernel its traffic: it gives up no more than the sidecar's address, where it has that.
func (b *builder) beside(dev string) error {
	b.up(dev)
	for _, a := range b.nic.Addresses {
		if a.Prefix.Addr() != b.o.IP.Addr() {
			continue
		}
		for _, other := range b.nic.Addresses {
			if other.Flags&unix.IFA_F_SECONDARY != 0 && a.Flags&unix.IFA_F_SECONDARY == 0 && other.Prefix.Masked() == a.Prefix.Masked() {
				return fmt.Errorf("--ip %s: it is the first of its subnet, and %s and others of that would go or change with it; name one of those, or an address that the kernel does not have", b.o.IP, other.Prefix.Addr())
			}
		}
		back, err := b.addressesAndRoutes([]machine.Address{a}, []int{netlink.FAMILY_V4})
		if err != nil {
			return err
		}
		word := a.Prefix.String()
		if a.Peer.IsValid() {
			word = a.Prefix.Addr().String() + " peer " + a.Peer.String()
		}
		b.step(Step{
			Why:  fmt.Sprintf("take the address %s of %s from the kernel: it is the sidecar's", a.Prefix.Addr(), b.nic.Name),
			Done: fmt.Sprintf(`! ip -o -4 address show dev %s | grep -qwF %s`, dev, a.Prefix.Addr()),
			Do:   fmt.Sprintf("ip address del %s dev %s", word, dev),
			Undo: back,
		})
		if who := b.managed(); who != "" {
			b.note("%s", who)
		}
	}
	return nil
}

// up sets the interface up that is to carry frames of the kernel.
func (b *builder) up(dev string) {
	if !b.nic.Up {
		b.step(Step{
			Why:  fmt.Sprintf("set %s up", b.nic.Name),
			Done: fmt.Sprintf(`[ -n "$(ip -o link show dev %s up)" ]`, dev),
			Do:   fmt.Sprintf("ip link set dev %s up", dev),
			Undo: fmt.Sprintf("ip link set dev %s down", dev),
		})
	}
}

// down sets the fast path of a Hyper-V device down: DPDK's driver for that takes it up when it uses it.
func (b *builder) down(vf string) error {
	n, err := b.o.Root.ByName(vf)
	if err != nil {
		return err
	}
	if n.Up {
		b.step(Step{
			Why:  fmt.Sprintf("set %s down, by which packets of %s go", vf, b.nic.Name),
			Done: fmt.Sprintf(`[ -z "$(ip -o link show dev %s up)" ]`, quote(vf)),
			Do:   fmt.Sprintf("ip link set dev %s down", quote(vf)),
			Undo: fmt.Sprintf("ip link set dev %s up", quote(vf)),
		})
	}
	return nil
}

// again is the end of the command that gives a device back to its driver: it waits for the interface, which is a new one then, and gives it
// its name and what else an interface has before it is up. device is where /sys has the device.
func (b *builder) again(device string) (string, error) {
	link, err := netlink.LinkByIndex(b.nic.Index)
	if err != nil {
		return "", fmt.Errorf("look at %s: %w", b.nic.Name, err)
	}
	dev, a := quote(b.nic.Name), link.Attrs()
	commands := []string{
		// Virtio's interface is a step below the device. udev may rename it at once.
		fmt.Sprintf("interface() { ls -d %[1]s/net/* %[1]s/*/net/* 2>/dev/null | head -n 1 | grep .; }", device),
		"retry interface > /dev/null",
		"if command -v udevadm > /dev/null; then udevadm settle --timeout=10 || :; fi",
		"name=$(basename \"$(interface)\")",
		fmt.Sprintf("if [ \"$name\" != %s ]; then ip link set dev \"$name\" down; ip link set dev \"$name\" name %s; fi", dev, dev),
		fmt.Sprintf("ip link set dev %s mtu %d", dev, a.MTU),
		fmt.Sprintf("ip link set dev %s txqueuelen %d", dev, a.TxQLen),
	}
	if len(a.PermHWAddr) > 0 && a.PermHWAddr.String() != a.HardwareAddr.String() {
		commands = append(commands, fmt.Sprintf("ip link set dev %s address %s", dev, a.HardwareAddr))
	}
	if a.Alias != "" {
		commands = append(commands, fmt.Sprintf("ip link set dev %s alias %s", dev, quote(a.Alias)))
	}
	return lines(append(commands, b.sysctls()...)...), nil
}

// sysctls are the commands for the settings of the interface that are not what every new one gets.
func (b *builder) sysctls() []string {
	var commands []string
	for _, family := range []string{"ipv4", "ipv6"} {
		folder := "/proc/sys/net/" + family + "/conf/"
		paths, _ := filepath.Glob(b.o.Root.Path(folder + b.nic.Name + "/*")) // the pattern is right, if the name is
		for _, path := range paths {
			key := filepath.Base(path)
			own, usual := b.read(folder+b.nic.Name+"/"+key), b.read(folder+"default/"+key)
			if own != usual && own != "" && !strings.Contains(own, "\n") {
				commands = append(commands, fmt.Sprintf("echo %s > %s", quote(own), quote(path)))
			}
		}
	}
	return commands
}

// read is what a file of the machine holds; "" where it cannot be read.
func (b *builder) read(path string) string {
	text, err := os.ReadFile(b.o.Root.Path(path))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}
