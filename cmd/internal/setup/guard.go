package setup

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
)

// guard refuses to cut off whoever is asking.
func (b *builder) guard(w way) error {
	sessions, err := b.o.Root.SSHSessions()
	if err != nil {
		return err
	}
	if w == sockets {
		for _, s := range sessions {
			if s.Local == b.o.IP.Addr() {
				return fmt.Errorf("--ip %s: an SSH session is by this address (%s), and the kernel would lose it; name another address of the NIC", b.o.IP, s.Why)
			}
		}
		return nil
	}
	var reasons []string
	names, err := b.o.Root.DefaultInterfaces(w == taken || w == netvsc)
	if err != nil {
		return err
	}
	if slices.Contains(names, b.nic.Name) {
		reasons = append(reasons, "the default route is by it")
	}
	for _, s := range sessions {
		if slices.Contains(s.Interfaces, b.nic.Name) {
			reasons = append(reasons, "it carries an SSH session ("+s.Why+")")
			break
		}
	}
	if len(reasons) == 0 || b.o.Sure && b.o.CutOff == b.nic.Name {
		return nil
	}
	return fmt.Errorf("%s: the kernel would lose it, and who comes by it is cut off; --xdp leaves it with the kernel; to take it none the less, from a console, say it twice: --cut-off %s --yes-cut-me-off",
		strings.Join(reasons, ", and "), b.nic.Name)
}

// again looks at a setup that there was before: a reboot gave the NIC back to the kernel, and who comes by it now is cut off as the first time.
func (p *Plan) again(o Options) error {
	if p.Whole && !slices.ContainsFunc(p.Steps, func(s Step) bool { return s.Undo != "" && !s.Lasts && s.Boot != p.boot }) {
		return nil
	}
	if err := p.recognize(o.Root); err != nil {
		return err
	}
	if _, err := o.Root.ByName(p.NIC()); err != nil && o.Backend != DPDK {
		return err
	}
	sessions, err := o.Root.SSHSessions()
	if err != nil {
		return err
	}
	for _, s := range sessions {
		by := o.Backend == XDP && s.Local == o.IP.Addr() || o.Backend != XDP && slices.Contains(s.Interfaces, p.NIC())
		if by && !(o.Sure && o.CutOff == p.NIC()) {
			return fmt.Errorf("it carries an SSH session (%s), which is cut off when it goes; to do it none the less, from a console, say it twice: --cut-off %s --yes-cut-me-off", s.Why, p.NIC())
		}
	}
	return nil
}

// alone refuses an interface that others hang on: they end with it, and nothing brings them back.
func (b *builder) alone() error {
	if b.nic.Master != "" {
		return fmt.Errorf("it is a port of %s, which would lose it; take it out first (ip link set dev %s nomaster), or use another NIC", b.nic.Master, b.nic.Name)
	}
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list the interfaces of the kernel: %w", err)
	}
	var above []string
	for _, link := range links {
		// What a veth names is its other end.
		a := link.Attrs()
		if (a.ParentIndex == b.nic.Index && link.Type() != "veth" || a.MasterIndex == b.nic.Index && a.Name != b.nic.VF) && a.Index != b.nic.Index {
			above = append(above, fmt.Sprintf("%s (%s)", a.Name, link.Type()))
		}
	}
	if len(above) > 0 {
		return fmt.Errorf("%s would end with it, and could not be brought back; remove that first, or use another NIC, or --xdp, which leaves it", strings.Join(above, ", "))
	}
	return nil
}

// managed tells of whoever would give the interface its address again.
func (b *builder) managed() string {
	for _, m := range []struct{ file, name, remedy string }{
		{"/run/systemd/netif/links/" + fmt.Sprint(b.nic.Index), "systemd-networkd", "a file in /etc/systemd/network with [Match] Name=%s and [Link] Unmanaged=yes"},
		{"/run/NetworkManager/devices/" + fmt.Sprint(b.nic.Index), "NetworkManager", "nmcli device set %s managed no"},
	} {
		file, err := os.Open(b.o.Root.Path(m.file))
		if err != nil {
			continue
		}
		defer file.Close()
		for lines := bufio.NewScanner(file); lines.Scan(); {
			switch lines.Text() {
			case "ADMIN_STATE=unmanaged", "managed=unmanaged", "managed=0":
				return ""
			}
		}
		return fmt.Sprintf("%s manages %s and gives it its address again sooner or later; keep it off: %s", m.name, b.nic.Name, fmt.Sprintf(m.remedy, b.nic.Name))
	}
	return ""
}
