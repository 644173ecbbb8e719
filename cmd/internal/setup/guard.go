package setup

import (
	"bufio"
	"fmt"
	"os"
	"strings"
)

// guard refuses to cut off whoever is asking.
func (b *builder) guard(w way) error {
	if w == sockets {
		return nil
	}
	var reasons []string
	name, _, err := b.o.Root.DefaultRoute()
	if err != nil {
		return err
	}
	if name == b.nic.Name {
		reasons = append(reasons, "the default route is by it")
	}
	sessions, err := b.o.Root.SSHInterfaces()
	if err != nil {
		return err
	}
	if why, carries := sessions[b.nic.Name]; carries {
		reasons = append(reasons, "it carries an SSH session ("+why+")")
	}
	if len(reasons) == 0 || b.o.Sure && b.o.CutOff == b.nic.Name {
		return nil
	}
	return fmt.Errorf("%s: the kernel would lose it, and who comes by it is cut off; --xdp leaves it with the kernel; to take it none the less, from a console, say it twice: --cut-off %s --yes-cut-me-off",
		strings.Join(reasons, ", and "), b.nic.Name)
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
